"""Whether many short chains agree: the nested R-hat, and the Monte Carlo error of their means.

Chains that begin at one point make a superchain. Where they have forgotten their beginning, superchains differ no more
than their number of draws lets expect.

References: Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari and Gelman 2024 (arXiv:2110.13017).
"""

from typing import NamedTuple

import numpy as np
from scipy.special import chdtri

SURE = 0.95  # of the time a single coordinate of chains that agree just so is below a limit


class Agreement(NamedTuple):
    """How far chains agree, in each coordinate."""

    r_hat: np.ndarray  # (dim,) nested R-hat, the larger one of x and of its squared distance from the mean
    error: np.ndarray  # (dim,) Monte Carlo error of the mean, in standard deviations
    superchains: int

    def within(self, r_hat: float, some: np.ndarray) -> bool:
        """Whether none of some coordinates `(n,)` is above a limit for one of them.

        The largest of many is larger by chance, as the variance between few superchains is hardly known: the limit is
        widened by quantiles of a chi-squared distribution.
        """
        freedom = self.superchains - 1
        wider = chdtri(freedom, (1 - SURE) / len(some)) / chdtri(freedom, 1 - SURE)
        return bool(self.r_hat[some].max() < np.sqrt(1 + wider * (r_hat**2 - 1)))

    @property
    def effective(self) -> float:
        """Independent draws of equal worth, for the coordinate that mixes least."""
        return float(1 / np.maximum(self.error.max() ** 2, np.finfo(float).tiny))


def agreement(x: np.ndarray, superchains: int) -> Agreement:
    """Of draws `(n, chains, dim)`, whose chains are in order of their superchains."""
    n, chains, dim = x.shape
    x = x - x.mean(axis=(0, 1))
    r_hat, error = np.empty((2, dim)), np.empty((2, dim))
    for row, values in enumerate((x, x**2)):
        means = values.mean(axis=0).reshape(superchains, chains // superchains, dim)
        of_superchains = means.mean(axis=1)
        between = of_superchains.var(axis=0, ddof=1)
        within = means.var(axis=1, ddof=1).mean(axis=0) + values.var(axis=0, ddof=min(1, n - 1)).mean(axis=0)
        within = np.maximum(within, np.finfo(float).tiny)
        r_hat[row] = np.sqrt(1 + between / within)
        variance = np.maximum(values.var(axis=(0, 1)), np.finfo(float).tiny)
        error[row] = np.sqrt(values.mean(axis=0).var(axis=0, ddof=1) / chains / variance)
    return Agreement(r_hat.max(axis=0), error[0], superchains)
