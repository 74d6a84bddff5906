"""Whether many short chains agree: the nested R-hat, and the Monte Carlo error of their means.

Chains that begin at one point make a superchain. Where they have forgotten their beginning, superchains differ no more
than their number of draws lets expect. R-hat is that of normal scores of ranks, so that it has a meaning without
moments, too.

References: Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari and Gelman 2024 (arXiv:2110.13017) for nested R-hat;
Vehtari, Gelman, Simpson, Carpenter and Bürkner 2021 (arXiv:1903.08008) for ranks.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import chdtri, ndtri

SURE = 0.95  # of the time a single coordinate of chains that agree just so is below a limit


class Agreement(NamedTuple):
    """How far chains agree, in each coordinate."""

    r_hat: np.ndarray  # (dim,) nested R-hat, the larger one of x and of its distance from the median, by ranks
    error: np.ndarray  # (dim,) Monte Carlo error of the mean, in standard deviations
    sd_error: np.ndarray  # (dim,) of the standard deviation, relative
    superchains: int
    group: np.ndarray  # (dim,) integers: coordinates of one group are judged together

    def within(self, r_hat: float) -> bool:
        """Whether no coordinate is above a limit for one of them.

        The largest of many is larger by chance, as the variance between few superchains is hardly known: the limit is
        widened by quantiles of a chi-squared distribution, for the number of coordinates of a group.
        """
        freedom, (_, at, counts) = self.superchains - 1, np.unique(self.group, return_inverse=True, return_counts=True)
        wider = chdtri(freedom, (1 - SURE) / counts[at]) / chdtri(freedom, 1 - SURE)
        return bool((self.r_hat < np.sqrt(1 + wider * (r_hat**2 - 1))).all())

    @property
    def effective(self) -> float:
        """Independent draws of equal worth, for the coordinate that mixes least."""
        return float(1 / np.maximum(self.error.max() ** 2, np.finfo(float).tiny))


def agreement(x: np.ndarray, superchains: int, group: np.ndarray | None = None) -> Agreement:
    """Of draws `(n, chains, dim)`, whose chains are in order of their superchains.

    Arguments:
        group: of each coordinate, an integer; None puts all into one.
    """
    distance = np.abs(x - np.median(x, axis=(0, 1)))
    r_hat = np.maximum(*(_nested_r_hat(_scores(values), superchains) for values in (x, distance)))
    return Agreement(
        r_hat, mean_error(x), sd_error(x), superchains, np.zeros(x.shape[-1], int) if group is None else group
    )


def agree(x: np.ndarray, superchains: int, r_hat: float, error: float, group: np.ndarray | None = None) -> bool:
    """Whether nested R-hat and Monte Carlo errors are below these limits; R-hat, which takes longer, last."""
    return bool(mean_error(x).max() < error) and agreement(x, superchains, group).within(r_hat)


def mean_error(x: np.ndarray) -> np.ndarray:
    """Monte Carlo errors of means `(dim,)`, in standard deviations, from draws `(n, chains, dim)`."""
    return _error(x) / np.maximum(x.std(axis=(0, 1)), np.finfo(float).tiny)


def sd_error(x: np.ndarray) -> np.ndarray:
    """Relative Monte Carlo errors of standard deviations `(dim,)`, from draws `(n, chains, dim)`."""
    squares = (x - x.mean(axis=(0, 1))) ** 2
    return _error(squares) / np.maximum(2 * squares.mean(axis=(0, 1)), np.finfo(float).tiny)


def _error(values: np.ndarray) -> np.ndarray:
    """Standard errors of means, by how far those of chains are from one another."""
    return np.sqrt(values.mean(axis=0).var(axis=0, ddof=1) / values.shape[1])


def _scores(values: np.ndarray) -> np.ndarray:
    """Normal scores of the ranks of draws `(n, chains, dim)`, among all those of a coordinate."""
    flat = values.reshape(-1, values.shape[-1])
    scores = ndtri((np.arange(len(flat)) + 0.625) / (len(flat) + 0.25)).astype(flat.dtype)
    made = np.empty_like(flat)
    for i, column in enumerate(flat.T):
        made[np.argsort(column), i] = scores
    return made.reshape(values.shape)


def _nested_r_hat(values: np.ndarray, superchains: int) -> np.ndarray:
    n, chains, dim = values.shape
    means = values.mean(axis=0).reshape(superchains, chains // superchains, dim)
    between = means.mean(axis=1).var(axis=0, ddof=1)
    within = means.var(axis=1, ddof=1).mean(axis=0) + values.var(axis=0, ddof=min(1, n - 1)).mean(axis=0)
    return np.sqrt(1 + between / np.maximum(within, np.finfo(float).tiny))
