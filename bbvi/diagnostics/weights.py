"""Statistics of the draws behind a verdict, weighted as it allows."""

import numpy as np

from bbvi.diagnostics.verdict import Diagnosis
from bbvi.draws.importance import Draws
from bbvi.draws.pareto import smooth


def weigh(pool: Draws, diagnosis: Diagnosis, log_weights: np.ndarray | None = None) -> np.ndarray:
    """Weights of the draws `(n,)`: importance weights where the verdict trusts them, else those of plain draws of q.

    Arguments:
        log_weights: the smoothed importance weights, where these are known.
    """
    if not diagnosis.trusted:
        return pool.from_q / pool.from_q.sum()
    return np.exp(smooth(pool.log_p - pool.log_r).log_weights if log_weights is None else log_weights)


def mean(draws: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean over the first axis."""
    return np.average(draws, axis=0, weights=weights)


def sd(draws: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted standard deviation over the first axis."""
    with np.errstate(over="ignore", invalid="ignore"):  # a posterior that has run off prints nonsense, and says so
        return np.sqrt(np.average((draws - mean(draws, weights)) ** 2, axis=0, weights=weights))


def quantile(draws: np.ndarray, weights: np.ndarray, q: float | np.ndarray) -> np.ndarray:
    """Weighted quantile over the first axis; several add a leading axis."""
    return np.quantile(draws, q, axis=0, weights=weights, method="inverted_cdf")
