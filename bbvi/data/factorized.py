"""A log density in two parts, one of which is a sum over rows of data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from bbvi.data.density import SumOverRows
from bbvi.data.out_of_core import Rows, rows_of
from bbvi.data.sums import sum_over_rows
from bbvi.runtime.types import Array


@dataclass(frozen=True)
class Factorized(SumOverRows):
    """A log density as prior plus likelihood of independent rows of data, so that it can be estimated from a few rows.

    Arguments:
        log_prior: `log_prior(values)`, a scalar.
        log_likelihood: `log_likelihood(values, rows)`, one number per row `(n,)`; `rows` has the structure of the data,
            each leaf with the same leading axis n.

    Example:
        >>> density = bbvi.Factorized(lambda mu: -0.5 * mu**2, lambda mu, rows: -0.5 * (rows["y"] - mu) ** 2)
        >>> print(density(1.0, {"y": jnp.array([1.0, 3.0])}))
        -2.5
    """

    log_prior: Callable[[Any], Array]
    log_likelihood: Callable[[Any, Any], Array]

    def __call__(self, values: Any, rows: Any) -> Array:
        """Log density, a scalar."""
        return self.estimate(values, rows, 1.0, at_once=False)

    def source(self, data: Any) -> Rows:
        return rows_of(data)

    def estimate(self, values: Any, data: Any, weight: Array | float, at_once: bool) -> Array:
        if at_once:
            return self.log_prior(values) + weight * jnp.sum(self.log_likelihood(values, data))
        return self.log_prior(values) + weight * sum_over_rows(self.log_likelihood, values, data)


def likelihood_of_rows(logprob: Any) -> Callable[[Any, Any], Array] | None:
    """The log likelihood of each row, where it is a part of the log density by itself; else None."""
    return logprob.log_likelihood if isinstance(logprob, Factorized) else None
