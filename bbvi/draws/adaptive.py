"""Importance draws of q, of its wider version, and of kernels where these two miss mass far along an axis.

Kernels do not follow the weights here, as they do those of a few hyper-parameters (`proposal.py`): they would make the
weights of a bent posterior even before they reach its tails.
"""

from typing import NamedTuple

import numpy as np

from bbvi.distributions import Distribution
from bbvi.distributions.affine import Affine
from bbvi.distributions.scales import Triangular
from bbvi.draws.importance import Draws, draw, is_costly, log_densities, log_densities_at, log_densities_of
from bbvi.draws.proposal import Places, follow
from bbvi.draws.random import RandomStream
from bbvi.outcome import Evaluations
from bbvi.runtime.compiling import program
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

MOST_LOOKED_ALONG = 80  # coordinates: eight points are looked at for each
NUGGET = 1e-9  # share of a variance that keeps a covariance of draws from being singular


class AdaptiveDraws(NamedTuple):
    """Draws of q and of its wider version, with further ones."""

    draws: Draws
    plain: Draws  # those without further ones
    evaluations: Evaluations

    @property
    def further(self) -> int:
        """The number of draws from kernels, which come last."""
        return len(self.draws) - len(self.plain)


def draw_adaptively(problem: Problem, q: Distribution, seed: tuple[int, ...], num: int = 1) -> AdaptiveDraws:
    """At least `num` draws of q, a quarter as many of its wider version, and further ones where these miss mass."""
    made, looked_at = draw(problem, q, seed, num), 0
    plain = AdaptiveDraws(made, made, Evaluations(log_densities=len(made)))
    is_dear = problem.is_long or problem.is_irregular or problem.weight is not None or is_costly(problem)
    if q.dim > MOST_LOOKED_ALONG or is_dear:
        return plain
    given = np.stack([made.log_q, made.log_r])
    places = Places(made.x, made.log_p, (lambda x: np.stack(_densities(q, x)),), given, np.array([0, len(made)]))
    around = _gaussian(made.x[made.from_q])
    if around is None or not places.have_weights:
        return plain

    def values(x: np.ndarray) -> np.ndarray:
        nonlocal looked_at
        looked_at += len(x)
        return _finite(log_densities_at(problem, x))

    def visit(x: np.ndarray) -> np.ndarray:
        return _finite(log_densities(problem, x))

    rng = np.random.default_rng((*seed, RandomStream.KERNELS))
    places = follow(places, around, values, visit, rng, adapted=False)
    if len(places.phi) == len(made):
        return plain._replace(evaluations=Evaluations(log_densities=len(made) + looked_at))
    log_q, log_r = (each.astype(made.x.dtype) for each in (places.log_q, places.log_r))
    from_q = np.pad(made.from_q, (0, len(places.phi) - len(made)))
    draws = Draws(places.phi, places.log_p, log_q, log_r, from_q)
    return AdaptiveDraws(draws, made, Evaluations(log_densities=len(draws) + looked_at))


def _gaussian(x: np.ndarray) -> Affine | None:
    """That with the moments of draws `(n, dim)`, None where they are not finite."""
    with np.errstate(over="ignore", invalid="ignore"):
        loc, sd = x.mean(axis=0), x.std(axis=0)
        correlation = np.atleast_2d(np.cov((x - loc) / sd, rowvar=False)) + NUGGET * np.eye(len(sd))
    if not (np.isfinite(correlation).all() and np.isfinite(sd).all()):
        return None
    return Affine(loc, Triangular.of_factor(sd[:, None] * np.linalg.cholesky(correlation)))


def _finite(log_p: Array) -> np.ndarray:
    log_p = np.asarray(log_p)
    return np.where(np.isfinite(log_p), log_p, -np.inf)


@program
def _densities(q: Distribution, x: Array) -> tuple[Array, Array]:
    """log q and log r `(n,)` at x `(n, dim)`."""
    return log_densities_of(q, x)
