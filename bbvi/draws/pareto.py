"""Pareto-smoothed importance sampling.

The largest importance weights are replaced by quantiles of a generalised Pareto distribution fitted to them; its shape
k says how many moments the weights have, and with it how far importance sampling can be trusted: below 0.5 the
variance is finite, above 0.7 no practical number of draws helps.

References: Vehtari, Simpson, Gelman, Yao and Gabry 2024 (arXiv:1507.02646); Zhang and Stephens 2009.
"""

from typing import NamedTuple

import numpy as np

EVEN = 1e-6  # differences of weights in the tail, over the largest one, that are rounding


class Smoothed(NamedTuple):
    """Smoothed weights and the shape of their tail."""

    log_weights: np.ndarray  # (n,) normalised: their exponentials sum to 1
    k_hat: float  # -inf when the tail is constant, as it is when q = p; inf when too few weights are finite


def log_sum_exp(x: np.ndarray) -> float:
    """log sum exp(x), of an array that may hold -inf."""
    top = np.max(x, initial=-np.inf)
    return float(top + np.log(np.sum(np.exp(x - top)))) if np.isfinite(top) else float(top)


def effective_sample_size(log_weights: np.ndarray) -> float:
    """(sum w)^2 / sum w^2 for log weights `(n,)`, normalised or not."""
    return float(np.exp(2 * log_sum_exp(log_weights) - log_sum_exp(2 * log_weights)))


def smooth(log_weights: np.ndarray) -> Smoothed:
    """Smooth log importance weights `(n,)`; -inf stands for a draw of weight zero."""
    raw = np.asarray(log_weights, float)
    n = len(raw)
    normalised = raw - log_sum_exp(raw) if np.isfinite(raw).any() else raw
    tail_size = int(min(0.2 * n, 3 * n**0.5))
    if np.isfinite(raw).sum() <= tail_size or tail_size < 5:
        return Smoothed(normalised, np.inf)

    scaled = raw - raw.max()
    order = np.argsort(scaled)
    tail = order[-tail_size:]
    log_cutoff = max(scaled[order[-tail_size - 1]], np.log(np.finfo(float).tiny))
    cutoff = np.exp(log_cutoff)
    excess = np.exp(scaled[tail]) - cutoff
    if excess[-1] - excess[0] <= EVEN:
        return Smoothed(normalised, -np.inf)
    k, sigma = fit_generalised_pareto(excess)
    if np.isfinite(k):
        p = (np.arange(tail_size) + 0.5) / tail_size
        quantiles = -sigma * np.log1p(-p) if abs(k) < 1e-12 else sigma * np.expm1(-k * np.log1p(-p)) / k
        scaled = scaled.copy()
        scaled[tail] = np.minimum(np.log(cutoff + quantiles), 0)
    return Smoothed(scaled - log_sum_exp(scaled), k)


def k_hat_of_square(log_weights: np.ndarray, column: np.ndarray) -> float:
    """Shape of the tail on which the variance of a scalar `(n,)` rests: of weights times squared deviations.

    What the weights themselves rest on is another k-hat, theirs. Of normalised log weights `(n,)`, as smoothed.
    """
    kept = log_weights > -np.inf
    log_weights, column = log_weights[kept], column[kept]
    with np.errstate(all="ignore"):  # a draw that overflows counts as a heavy tail
        squares = (column - np.exp(log_weights) @ column) ** 2
        k_hat = smooth(np.nan_to_num(log_weights + np.log(squares), nan=np.inf, neginf=-np.inf)).k_hat
    return np.inf if np.isnan(k_hat) else k_hat


def fit_generalised_pareto(excess: np.ndarray) -> tuple[float, float]:
    """Shape and scale of a generalised Pareto distribution from sorted exceedances `(m,)`.

    An average over the profile posterior of Zhang and Stephens (2009), with the shape drawn towards 0.5 by a prior
    worth 10 observations. Not a number when a quarter of the exceedances are equal.
    """
    m = len(excess)
    quartile = excess[int(m / 4 + 0.5) - 1]
    if quartile <= excess[0]:
        return np.nan, np.nan
    grid = 30 + int(m**0.5)
    theta = 1 / excess[-1] + (1 - np.sqrt(grid / (np.arange(1, grid + 1) - 0.5))) / (3 * quartile)
    shapes = np.log1p(-theta[:, None] * excess).mean(axis=1)
    profile = m * (np.log(-theta / shapes) - shapes - 1)
    weights = np.exp(profile - log_sum_exp(profile))
    weights = np.where(weights >= 10 * np.finfo(float).eps, weights, 0)
    mean_theta = np.sum(theta * weights) / weights.sum()
    shape = np.log1p(-mean_theta * excess).mean()
    return float((m * shape + 10 * 0.5) / (m + 10)), float(-shape / mean_theta)


def resample(rng: np.random.Generator, log_weights: np.ndarray, num: int) -> np.ndarray:
    """Indices `(num,)` drawn in proportion to normalised weights, in random order.

    Systematic resampling: a draw is repeated only when its weight exceeds `1 / num`.
    """
    cumulative = np.cumsum(np.exp(log_weights))
    positions = (np.arange(num) + rng.random()) / num * cumulative[-1]
    indices = np.minimum(np.searchsorted(cumulative, positions, side="right"), len(log_weights) - 1)
    return rng.permutation(indices)
