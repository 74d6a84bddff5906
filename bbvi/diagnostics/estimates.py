"""Means, standard deviations and quantiles of weighted draws, each with its Monte Carlo standard error.

With weights w_i that sum to 1, an estimate T has an influence psi_i of each draw, with sum_i w_i psi_i = 0, and

    se(T)^2 = sum_u ( sum_(i in u) w_i psi_i )^2 * U / (U - 1)

over U units u, which are independent of one another: a draw, all draws of a chain, or all that share hyper-parameters.

    mean m                  psi = x - m
    standard deviation s    psi = ((x - m)^2 - s^2) / (2 s)
    quantile at p           that of the distribution function F there, psi = 1[x <= q] - F(q), has the error e;
                            a quarter of the distance between the quantiles at p - 2 e and p + 2 e

References: Owen 2013, Monte Carlo theory, methods and examples, chapter 9, for weights that are normalised; Vehtari,
Gelman, Simpson, Carpenter and Bürkner 2021 (arXiv:1903.08008) for quantiles.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bbvi.diagnostics.weights import mean, quantile, sd

NUMBERS_AT_ONCE = 2**22  # numbers in the columns that are worked on together


class Estimates(NamedTuple):
    """Of k columns; errors are standard errors, in the units of the columns."""

    mean: np.ndarray  # (k,)
    sd: np.ndarray  # (k,)
    quantiles: np.ndarray  # (probabilities, k)
    mean_error: np.ndarray  # (k,)
    sd_error: np.ndarray  # (k,)
    quantile_errors: np.ndarray  # (probabilities, k)

    @property
    def effective_sample_size(self) -> np.ndarray:
        """Independent draws of equal weight that the means are worth, `(k,)`; 0 where that is not known."""
        with np.errstate(all="ignore"):
            return np.nan_to_num((self.sd / self.mean_error) ** 2, nan=0.0, posinf=0.0)

    @property
    def without_errors(self) -> "Estimates":
        """The same with errors that are not known."""
        unknown = np.full_like(self.mean, np.nan)
        errors = {"mean_error": unknown, "sd_error": unknown, "quantile_errors": np.full_like(self.quantiles, np.nan)}
        return self._replace(**errors)


def estimate(
    columns: np.ndarray, weights: np.ndarray, units: np.ndarray, probabilities: Sequence[float] = ()
) -> Estimates:
    """From draws `(n, k)`; those of weight zero do not count, and may be infinite.

    Arguments:
        weights: `(n,)`, which sum to 1.
        units: to which each draw belongs, integers from 0 on, `(n,)`.
        probabilities: of the quantiles.

    Returns:
        Errors that are not numbers where there are less than two units, and nothing but these without any draw.
    """
    kept = weights > 0
    columns, weights, units = np.asarray(columns[kept], float), weights[kept], units[kept]
    if not kept.any():
        nothing = np.full(columns.shape[1], np.nan)
        several = np.full((len(probabilities), columns.shape[1]), np.nan)
        return Estimates(nothing, nothing, several, nothing, nothing, several)
    at_once = max(1, NUMBERS_AT_ONCE // max(1, len(weights)))
    parts = [columns[:, i : i + at_once] for i in range(0, max(1, columns.shape[1]), at_once)]
    with np.errstate(all="ignore"):  # draws of a q that has run off
        made = [_estimate(part, weights, units, np.asarray(probabilities, float)) for part in parts]
    return Estimates(*(np.concatenate(each, axis=-1) for each in zip(*made, strict=True)))


def _estimate(x: np.ndarray, weights: np.ndarray, units: np.ndarray, probabilities: np.ndarray) -> Estimates:
    """The same for columns that fit into memory several times."""
    center, spread = mean(x, weights), sd(x, weights)
    quantiles = quantile(x, weights, probabilities)
    order = np.argsort(units, kind="stable")
    begins = np.flatnonzero(np.diff(units[order], prepend=-1))
    alone, count = len(begins) == len(units), len(begins)
    correction = count / (count - 1) if count > 1 else np.nan

    def error(influence: np.ndarray) -> np.ndarray:
        weighted = weights[:, None] * influence
        sums = weighted if alone else np.add.reduceat(weighted[order], begins)
        return np.sqrt(np.einsum("uk,uk->k", sums, sums) * correction)

    ranks, heights = np.argsort(x, axis=0, kind="stable"), np.arange(x.shape[1])
    in_order, cumulative = np.take_along_axis(x, ranks, axis=0), np.cumsum(weights[ranks], axis=0)

    def of_height(p: np.ndarray) -> np.ndarray:
        """The smallest draws at which the distribution functions reach p `(k,)`."""
        return in_order[np.minimum((cumulative < p).sum(axis=0), len(x) - 1), heights]

    below = ((x <= q).astype(float) for q in quantiles)
    errors = [error(each - weights @ each) for each in below]
    between = [of_height(p + 2 * e) - of_height(p - 2 * e) for e, p in zip(errors, probabilities, strict=True)]
    unknown = 0 * correction  # not a number where there is one unit only
    return Estimates(
        mean=center,
        sd=spread,
        quantiles=quantiles,
        mean_error=error(x - center),
        sd_error=error(((x - center) ** 2 - spread**2) / (2 * spread)),
        quantile_errors=np.reshape(between, quantiles.shape) / 4 + unknown,
    )
