"""The protocol of a log density that is a sum over rows of data."""

from abc import ABC, abstractmethod
from typing import Any

from bbvi.data.source import Source
from bbvi.runtime.types import Array


class SumOverRows(ABC):
    """A log density `density(values, data)` that can be estimated from some of the rows of its data."""

    @abstractmethod
    def source(self, data: Any) -> Source | None:
        """The rows that it sums over; None where there are none after all."""

    @abstractmethod
    def estimate(self, values: Any, data: Any, weight: Array | float, at_once: bool) -> Array:
        """Log density with each row of the data counted `weight` times, a scalar.

        Arguments:
            data: all data, or a minibatch as `Source.take` returns it.
            at_once: whether all rows are added up at once, as they must be where several devices hold them.
        """


def source_of(logprob: Any, data: Any) -> Source | None:
    """The rows that a log density sums over; None where it is no sum over rows of these data."""
    return logprob.source(data) if isinstance(logprob, SumOverRows) and data is not None else None
