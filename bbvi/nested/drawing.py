"""Draws behind a verdict of nested Laplace: hyper-parameters from q, a wider version and kernels; blocks exactly.

Weights are those of the hyper-parameters phi alone, p^(phi) / r(phi), where p^ is the marginal density without the
error of Laplace's method (`sampling.py`): those of the blocks never multiply into one, which is why it works for any
number of blocks. Where they are uneven, or mass lies far along an axis, further phi come from kernels.

Hyper-parameters come from a scrambled Sobol sequence, so that few of them are enough; each is used for several draws of
the blocks.

References: pseudo-marginal importance sampling (Beaumont 2003; Tran et al. 2013); randomised quasi-Monte Carlo (Owen).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from bbvi.distributions import LocationScale
from bbvi.distributions.hierarchical import Hierarchical
from bbvi.draws.importance import WIDE_SHARE, Draws, log_densities_of
from bbvi.draws.lazy import push
from bbvi.draws.pareto import smooth
from bbvi.draws.proposal import MOST_ADAPTED, LogDensities, LogDensity, Places, follow
from bbvi.nested.sampling import copies_of, cost_of, enough, even_normal, visits_of
from bbvi.outcome import Evaluations
from bbvi.policy import hyper_draws
from bbvi.runtime.compiling import program
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

MOST_AMISS = 1.0  # nats by which line integrals may miss the log density at places far away


class Seen(NamedTuple):
    """What was seen of the blocks at the draws of the hyper-parameters."""

    found: np.ndarray  # (n,) bool, whether all blocks had a mode
    error: np.ndarray  # (n,) nats by which line integrals miss the log density
    at_end: np.ndarray  # (blocks,) share of the mass at the ends of lines, on average
    effective: np.ndarray  # (blocks,) share of the lines that contribute, on average


class NestedDraws(NamedTuple):
    """Draws of q(phi) and of its wider version, with exact blocks."""

    draws: Draws  # one for each phi
    pool: Draws  # several for each
    seen: Seen
    evaluations: Evaluations


class _Sight(NamedTuple):
    """What is kept of visits at n hyper-parameters."""

    x: np.ndarray  # (n, copies, dim)
    log_p: np.ndarray  # (n,) -inf where it is not finite
    laplace: np.ndarray  # (n,) the same by Laplace's method
    found: np.ndarray  # (n,) bool
    error: np.ndarray  # (n,)
    rounds: np.ndarray  # (n,)
    at_end: np.ndarray  # (n, blocks); of the first draws their average `(1, blocks)`
    effective: np.ndarray  # (n, blocks) likewise

    @property
    def of_far_away(self) -> "_Sight":
        """The same where numbers may overflow: log_p is that of Laplace's method if blocks do not make it up."""
        amiss = ~(self.error < MOST_AMISS)
        log_p, error = np.where(amiss, self.laplace, self.log_p), np.where(amiss, MOST_AMISS, self.error)
        return self._replace(log_p=np.where(np.isfinite(log_p), log_p, -np.inf), error=error)


def draw_nested(problem: Problem, q: Hierarchical, seed: tuple[int, ...], num: int = 1) -> NestedDraws:
    """At least `num` draws of q in the pool, a quarter as many of its wider version, and more where both miss mass."""
    rng = np.random.default_rng(seed)
    narrow = enough(hyper_draws(q.dim), num, copies_of(q))
    phi = draw_hyper(q, rng, narrow)
    sights = [_see(problem, q, phi, rng, narrow)]
    places = Places.of(phi, sights[0].log_p, densities_of_hyper(q))
    spent = cost_of(q, sights[0].rounds)
    if is_to_follow(q, places):
        places, further, of_further = _follow(problem, q, places, rng)
        sights, spent = sights + further, spent + of_further
    seen = _together(sights)
    copies = np.broadcast_to(seen.log_p[:, None], seen.x.shape[:2])
    draws, pool = as_draws(seen.x, copies, places, np.arange(len(seen.x)) < narrow)
    with np.errstate(all="ignore"):  # of a q that has run off
        weights = np.exp(smooth(places.log_p - places.log_r).log_weights)[len(phi) :]
    told = Seen(seen.found, seen.error, _average(seen.at_end, weights, 1.0), _average(seen.effective, weights, 0.0))
    return NestedDraws(draws, pool, told, spent)


def draw_hyper(q: Hierarchical, rng: np.random.Generator, narrow: int) -> np.ndarray:
    """Hyper-parameters `(n, k)`: so many draws of q(phi), and a quarter as many of its wider version."""
    hyper, wide = _of_hyper(q), narrow // WIDE_SHARE
    noise = even_normal(rng, narrow, hyper.dim), even_normal(rng, wide, jax.eval_shape(hyper.widened).noise_dim)
    return np.asarray(push(hyper, *noise))


def densities_of_hyper(q: Hierarchical) -> LogDensities:
    """Log densities of q(phi) and of the mixture with its wider version, as a function of phi."""
    return lambda phi: np.stack(_densities(_of_hyper(q), phi))


def is_to_follow(q: Hierarchical, places: Places) -> bool:
    """Whether further hyper-parameters are to follow the weights: they are few, and not dear."""
    return q.split.num_hyper <= MOST_ADAPTED and not q.split.is_large and places.have_weights


def as_draws(x: np.ndarray, log_p: np.ndarray, places: Places, from_q: np.ndarray) -> tuple[Draws, Draws]:
    """Draws of all coordinates `(n, copies, dim)`, several for each phi: the first of each, and all.

    Arguments:
        log_p: of phi, as it is estimated by each copy, `(n, copies)`.
    """
    log_q, log_r = (each.astype(x.dtype) for each in (places.log_q, places.log_r))
    each = [Draws(x[:, i], log_p[:, i], log_q, log_r, from_q) for i in range(x.shape[1])]
    return each[0], Draws(*(np.concatenate(column) for column in zip(*each, strict=True)))


def _of_hyper(q: Hierarchical) -> LocationScale:
    return LocationScale(q.hyper.loc, q.hyper.scale)


def _follow(
    problem: Problem, q: Hierarchical, places: Places, rng: np.random.Generator
) -> tuple[Places, list[_Sight], Evaluations]:
    """These places and further ones, where mass lies far along an axis or weights are uneven; what is seen at those."""
    looked_at: list[_Sight] = []
    drawn: list[_Sight] = []

    def into(sights: list[_Sight]) -> LogDensity:
        def log_p(phi: np.ndarray) -> np.ndarray:
            sights.append(_see(problem, q, phi, rng).of_far_away)
            return sights[-1].log_p

        return log_p

    places = follow(places, q.hyper, into(looked_at), into(drawn), rng, adapted=True)
    return places, drawn, sum((cost_of(q, each.rounds) for each in looked_at + drawn), Evaluations())


def _see(problem: Problem, q: Hierarchical, phi: np.ndarray, rng: np.random.Generator, narrow: int = 0) -> _Sight:
    """What is seen at hyper-parameters `(n, k)`; the first `narrow` of them are of q, if there are any."""
    parts = []
    for begin, found in visits_of(problem, q, phi, rng):
        log_p = np.where(np.isfinite(found.log_p), found.log_p, -np.inf)
        of_blocks = [found.at_end, found.effective]
        if narrow:  # there may be many blocks
            counts = found.found & (np.arange(begin, begin + len(found.found)) < narrow)
            of_blocks = [each[counts].sum(axis=0)[None] for each in of_blocks]
        columns: list[Any] = [found.x, log_p, found.laplace, found.found, found.error, found.rounds, *of_blocks]
        parts.append(_Sight(*columns))
    seen = _together(parts)
    if not narrow:
        return seen
    count = max(1, seen.found[:narrow].sum())
    ends, lines = (each.sum(axis=0)[None] / count for each in (seen.at_end, seen.effective))
    return seen._replace(at_end=ends, effective=lines)


def _average(rows: np.ndarray, weights: np.ndarray, worst: float) -> np.ndarray:
    """Of the blocks: the first row, which is an average, and the others, which count by their weights."""
    return (1 - weights.sum()) * rows[0] + weights @ np.nan_to_num(rows[1:], nan=worst)


def _together(sights: Sequence[_Sight]) -> _Sight:
    return _Sight(*(np.concatenate(column) for column in zip(*sights, strict=True)))


@program
def _densities(hyper: LocationScale, phi: Array) -> tuple[Array, Array]:
    """log q and log r `(n,)`, of q and the mixture with its wider version, at `(n, k)`."""
    return log_densities_of(hyper, phi)
