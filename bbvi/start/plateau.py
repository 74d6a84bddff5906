"""Ways off a plateau.

Where a curve has decayed, or has not begun to rise, its parameters change nothing. A path that comes there stays, and
an approximation is as wide along them as the prior. So where one is wide, points all over its widest principal axes are
looked at, and paths begin at the highest of them. They lie near and far alike, for what is sought may be small.
"""

from typing import NamedTuple

import numpy as np

from bbvi.draws.importance import log_densities_at
from bbvi.outcome import Evaluations
from bbvi.start.paths import Ends, climb
from bbvi.start.record import Hints
from bbvi.start.search import NUM_PATHS
from bbvi.target.problem import Problem

WIDE_AXIS = 2.0  # standard deviation from which an axis may lie on a plateau
WIDE_AXES = 6  # at most, the widest
POINTS_ALONG_AXES = 1024
NEAREST, FARTHEST = 0.3, 2.0  # of the points along an axis; the latter in standard deviations
HIGHER = 1.0  # nats by which a point lies above the mean, and an ELBO above that of the approximation


class HigherGround(NamedTuple):
    """Where the density is higher."""

    ends: Ends | None  # of paths to there, None where there is no such place
    evaluations: Evaluations


def find_higher_ground(problem: Problem, x: np.ndarray, elbo: float, rng: np.random.Generator) -> HigherGround:
    """Paths to a Gaussian with a larger ELBO than an approximation has that is wide along some axes.

    Arguments:
        x: draws of the approximation `(n, dim)`.
        elbo: its ELBO in nats.
    """
    mean = np.mean(x, axis=0, dtype=float)
    variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(x, rowvar=False, dtype=float)))
    wide = min(int(np.sum(variances > WIDE_AXIS**2)), WIDE_AXES)
    if not wide:
        return HigherGround(None, Evaluations())
    xs = _points(mean, axes[:, -wide:], variances[-wide:] ** 0.5, rng).astype(x.dtype)
    values = np.nan_to_num(log_densities_at(problem, xs), nan=-np.inf)
    spent = Evaluations(log_densities=len(xs))
    best = np.argsort(-values, kind="stable")[:NUM_PATHS]
    above = xs[best[values[best] > values[0] + HIGHER]]
    if not len(above):
        return HigherGround(None, spent)
    ends = climb(problem, above[np.arange(NUM_PATHS) % len(above)], Hints(rng=rng), judged=True)
    is_higher = ends.elbo[0] > elbo + HIGHER
    return HigherGround(ends if is_higher else None, spent + ends.evaluations)


def _points(mean: np.ndarray, axes: np.ndarray, sds: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mean `(dim,)`, and points along some axes `(dim, k)` at distances of all orders, `(n, dim)`."""
    shape = (POINTS_ALONG_AXES, len(sds))
    distance = np.exp(rng.uniform(np.log(NEAREST), np.log(FARTHEST * sds), shape))
    along = rng.choice([-1.0, 0.0, 1.0], shape) * distance
    along[1::2] -= mean @ axes  # half of them lie around zero, for the mean says little about a plateau
    along[0] = 0
    return mean + along @ axes.T
