"""Pareto-smoothed importance sampling.

The largest importance weights are replaced by quantiles of a generalised Pareto distribution fitted to them; its shape
k says how many moments the weights have, and with it how far importance sampling can be trusted: below 0.5 the
variance is finite, above 0.7 no practical number of draws helps.

Weights are a row `(n,)`, or several rows `(..., n)`, each smoothed by itself.

References: Vehtari, Simpson, Gelman, Yao and Gabry 2024 (arXiv:1507.02646); Zhang and Stephens 2009.
"""

from typing import Any, NamedTuple

import numpy as np

EVEN = 1e-6  # differences of weights in the tail, over the largest one, that are rounding


class Smoothed(NamedTuple):
    """Smoothed weights and the shape of their tail."""

    log_weights: np.ndarray  # (..., n) normalised: the exponentials of a row sum to 1
    k_hat: Any  # (...) -inf when the tail is constant, as it is when q = p; inf when too few weights are finite


@np.errstate(divide="ignore")
def log_sum_exp(x: np.ndarray) -> Any:
    """log sum exp(x) of each row `(..., n)`, which may hold -inf; a float where there is but one."""
    x = np.asarray(x, float)
    top = np.max(x, axis=-1, initial=-np.inf)
    shift = np.where(np.isfinite(top), top, 0)
    return (shift + np.log(np.sum(np.exp(x - shift[..., None]), axis=-1)))[()]


def effective_sample_size(log_weights: np.ndarray) -> Any:
    """(sum w)^2 / sum w^2 for rows of log weights `(..., n)`, normalised or not."""
    return np.exp(2 * log_sum_exp(log_weights) - log_sum_exp(2 * log_weights))


@np.errstate(all="ignore")  # rows without a tail
def smooth(log_weights: np.ndarray) -> Smoothed:
    """Smooth log importance weights `(..., n)`; -inf stands for a draw of weight zero."""
    raw = np.asarray(log_weights, float)
    top = raw.max(axis=-1, keepdims=True)
    scaled = raw - np.where(np.isfinite(top), top, 0)
    n = raw.shape[-1]
    tail_size = int(min(0.2 * n, 3 * n**0.5))
    if tail_size < 5:
        return Smoothed(_normalised(scaled), np.full(top.shape[:-1], np.inf)[()])

    order = np.argsort(scaled, axis=-1)[..., -tail_size - 1 :]
    ranked = np.take_along_axis(scaled, order, axis=-1)
    cutoff = np.exp(np.maximum(ranked[..., :1], np.log(np.finfo(float).tiny)))
    excess = np.exp(ranked[..., 1:]) - cutoff
    k, sigma = fit_generalised_pareto(excess)
    k = np.where(excess[..., -1] - excess[..., 0] <= EVEN, -np.inf, k)
    k = np.where(np.isfinite(raw).sum(axis=-1) > tail_size, k, np.inf)[..., None]
    heights = -np.log1p(-(np.arange(tail_size) + 0.5) / tail_size)
    quantiles = np.asarray(sigma)[..., None] * np.where(abs(k) < 1e-12, heights, np.expm1(k * heights) / k)
    tail = np.where(np.isfinite(k), np.minimum(np.log(cutoff + quantiles), 0), ranked[..., 1:])
    np.put_along_axis(scaled, order[..., 1:], tail, axis=-1)
    return Smoothed(_normalised(scaled), k[..., 0][()])


def _normalised(log_weights: np.ndarray) -> np.ndarray:
    total = np.asarray(log_sum_exp(log_weights))[..., None]
    return log_weights - np.where(np.isfinite(total), total, 0)


def k_hat_of_square(log_weights: np.ndarray, column: np.ndarray) -> float:
    """Shape of the tail on which the variance of a scalar `(n,)` rests: of weights times squared deviations.

    What the weights themselves rest on is another k-hat, theirs. Of normalised log weights `(n,)`, as smoothed.
    """
    kept = log_weights > -np.inf
    log_weights, column = log_weights[kept], column[kept]
    with np.errstate(all="ignore"):  # a draw that overflows counts as a heavy tail
        squares = (column - np.exp(log_weights) @ column) ** 2
        k_hat = smooth(np.nan_to_num(log_weights + np.log(squares), nan=np.inf, neginf=-np.inf)).k_hat
    return np.inf if np.isnan(k_hat) else float(k_hat)


def fit_generalised_pareto(excess: np.ndarray) -> tuple[Any, Any]:
    """Shape and scale of generalised Pareto distributions `(...)` from sorted exceedances `(..., m)`.

    An average over the profile posterior of Zhang and Stephens (2009), with the shape drawn towards 0.5 by a prior
    worth 10 observations. Not a number when a quarter of the exceedances are equal.
    """
    m = excess.shape[-1]
    grid = 30 + int(m**0.5)
    quartile = excess[..., int(m / 4 + 0.5) - 1, None]
    quartile = np.where(quartile > excess[..., :1], quartile, np.nan)
    theta = 1 / excess[..., -1:] + (1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3 * quartile)
    shapes = np.log1p(-theta[..., None] * excess[..., None, :]).mean(axis=-1)
    weights = np.exp(_normalised(m * (np.log(-theta / shapes) - shapes - 1)))
    weights = np.where(weights >= 10 * np.finfo(float).eps, weights, 0)
    mean_theta = np.sum(theta * weights, axis=-1, keepdims=True) / weights.sum(axis=-1, keepdims=True)
    shape = np.log1p(-mean_theta * excess).mean(axis=-1)
    return ((m * shape + 10 * 0.5) / (m + 10))[()], (-shape / mean_theta[..., 0])[()]


def resample(rng: np.random.Generator, log_weights: np.ndarray, num: int) -> np.ndarray:
    """Indices `(num,)` drawn in proportion to normalised weights, in random order.

    Systematic resampling: a draw is repeated only when its weight exceeds `1 / num`.
    """
    cumulative = np.cumsum(np.exp(log_weights))
    positions = (np.arange(num) + rng.random()) / num * cumulative[-1]
    indices = np.minimum(np.searchsorted(cumulative, positions, side="right"), len(log_weights) - 1)
    return rng.permutation(indices)
