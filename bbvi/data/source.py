"""The protocol of a source of rows.

What a minibatch consists of differs between sources: indices where arrays lie in memory, since a compiled program can
take the rows itself; the rows where they have to be read by the host. So `sample` and `batches` hand out either, as a
pytree with a leading axis of rows, and `take` makes data of it.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from bbvi.data.epochs import EpochShuffle, Reader
from bbvi.data.prefetch import Prefetch
from bbvi.data.sampling import num_sampled, sample_rows


@dataclass(frozen=True)
class Batches:
    """Minibatches for steps.

    Fields:
        reader: gives what they consist of, epoch after epoch.
        size: rows in each.
        row_size: numbers that the reader gives for a row.
    """

    reader: Reader
    size: int
    row_size: int

    @property
    def num_numbers(self) -> int:
        """Numbers that a step needs."""
        return self.size * self.row_size

    def pages(self, length: int) -> Prefetch:
        """The minibatches of `length` steps by the number of their page, arrays `(length, size, ...)`, read ahead."""

        def page(number: int) -> Any:
            rows = self.reader.read(number * length * self.size, length * self.size)
            return jax.tree.map(lambda leaf: leaf.reshape(length, self.size, *leaf.shape[1:]), rows)

        return Prefetch(page)


class Source(ABC):
    """Rows of data, wherever they are."""

    @property
    @abstractmethod
    def num_rows(self) -> int:
        """How many there are."""

    @property
    @abstractmethod
    def num_numbers(self) -> int:
        """Numbers in all of them."""

    @property
    @abstractmethod
    def num_chunks(self) -> int:
        """In how many chunks the log density adds them up."""

    @property
    @abstractmethod
    def is_in_memory(self) -> bool:
        """Whether arrays hold all rows, so that they can be placed on devices."""

    @abstractmethod
    def take(self, batch: Any) -> Any:
        """The data of a minibatch, from what `sample` returned or a step of `batches` consists of."""

    @abstractmethod
    def sample(self) -> Any:
        """The minibatch of `num_sampled` rows that stands for all rows, always the same one."""

    @abstractmethod
    def batches(self, size: int, seed: int) -> Batches:
        """Minibatches of `size` rows in an order that the seed fixes."""

    @property
    def row_size(self) -> int:
        """Numbers in a row."""
        return self.num_numbers // self.num_rows

    @property
    def num_sampled(self) -> int:
        """Rows in the sample."""
        return num_sampled(self.num_rows, self.row_size)


class IndexedSource(Source):
    """Rows in memory, whose minibatches are named by indices `(n,)`."""

    @property
    def is_in_memory(self) -> bool:
        return True

    def sample(self) -> np.ndarray:
        return sample_rows(self.num_rows, self.row_size)

    def batches(self, size: int, seed: int) -> Batches:
        return Batches(EpochShuffle(self.num_rows, seed, lambda rows: rows), size, 1)
