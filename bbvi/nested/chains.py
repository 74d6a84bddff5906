"""Draws of a hierarchy whose blocks touch each other: many short chains that begin at draws of q and end by agreeing.

Weights of very many latent coordinates together fail, so draws are made by moves that leave the posterior as it is
(`kernel.py`). The evidence comes from a bridge between the draws of q and those of the chains.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import solve_triangular

from bbvi.chains.draws import ChainDraws, draws_of_chains
from bbvi.chains.verdict import AGREED, SMALL_ERROR
from bbvi.distributions.hierarchical import Hierarchical
from bbvi.distributions.split import Split
from bbvi.draws.agreement import Agreement, agree, agreement, mean_error
from bbvi.draws.importance import Draws
from bbvi.nested.clusters import Clusters, clusters_of
from bbvi.nested.kernel import (
    LINE_POINTS,
    Place,
    RandomNumbers,
    Step,
    arrive,
    joint_moves,
    log_nested,
    random_numbers,
    step,
    wide_noise,
)
from bbvi.outcome import Evaluations, Value
from bbvi.policy import KEPT_NUMBERS
from bbvi.runtime.compiling import program
from bbvi.runtime.deadline import OutOfTimeError
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

CHAINS = 64
SUPERCHAINS = 16  # that begin at one draw of q each
STEPS_AT_ONCE = 16
FEWEST_PARTS = 3  # of so many steps
MOST_CHAIN_STEPS, MOST_NEARLY = 512, 2048  # of chains that do not agree by then, or nearly do
NEARLY_ERROR = 0.1  # Monte Carlo error in standard deviations, of chains that nearly agree
SETTLE = 1 / 3  # of the steps are left out


class NestedChains(NamedTuple):
    """What chains have shown."""

    draws: ChainDraws
    accepted: np.ndarray  # (3,) shares of the moves: of hyper-parameters, of all latent coordinates, of clusters
    missed: float  # nats by which line integrals miss the log density, on average
    lost: float  # share of the draws of q at which the precision or the log density is of no use
    evaluations: Evaluations


def run_chains(problem: Problem, q: Hierarchical, seed: tuple[int, ...]) -> NestedChains:
    """Chains from draws of q until they agree, or have taken too many steps."""
    rng, clusters = np.random.default_rng(seed), clusters_of(q.split)
    begun, log_ratio_of_q, lost = _begun(problem, q, rng)
    if lost == 1:
        return _nowhere(q, begun)
    places = jax.tree.map(lambda each: np.repeat(each, CHAINS // SUPERCHAINS, axis=0), begun)
    made: list[Step] = []
    while not _is_enough(made, q.split):
        given = random_numbers(rng, q, clusters, (STEPS_AT_ONCE, CHAINS), _past(q, made, rng))
        try:
            places, steps = _advance(problem, q, clusters, places, given)
        except OutOfTimeError:
            if not made:
                raise
            break
        made.append(jax.device_get(steps))
    kept = _settled(made)
    x, log_p, log_q = (np.concatenate([getattr(each, name) for each in kept]) for name in ("x", "log_p", "log_q"))
    draws = draws_of_chains(x, log_p, log_q, log_ratio_of_q, agreement(x, SUPERCHAINS, _groups(q.split)))
    missed = float(np.mean([each.missed.mean() for each in kept]))
    accepted = np.mean([each.accepted.mean(axis=(0, 1)) for each in kept], axis=0)
    return NestedChains(draws, accepted, missed, lost, _evaluations(q.split, clusters, len(made)))


def _past(q: Hierarchical, made: list[Step], rng: np.random.Generator) -> np.ndarray:
    """Where chains have been before, `(n, k)`, in the noise of the hyper-parameters; at first, where q is."""
    if not made:
        return rng.standard_normal((STEPS_AT_ONCE * CHAINS, q.split.num_hyper))
    hyper = np.asarray(q.split.hyper)
    phi = np.concatenate([each.x[..., hyper].reshape(-1, len(hyper)) for each in _settled(made)])
    return solve_triangular(q.hyper.scale.matrix(), (phi - q.hyper.loc).T, lower=True).T


def _is_enough(made: list[Step], split: Split) -> bool:
    """Whether chains may end after these parts."""
    if len(made) < FEWEST_PARTS:
        return False
    steps = len(made) * STEPS_AT_ONCE
    if steps >= MOST_NEARLY or 2 * steps * CHAINS * split.dim > 3 * KEPT_NUMBERS:
        return True
    x = np.concatenate([each.x for each in _settled(made)])
    if steps >= MOST_CHAIN_STEPS and mean_error(x).max() > NEARLY_ERROR:
        return True
    return agree(x, SUPERCHAINS, AGREED, SMALL_ERROR, _groups(split))


def _settled(made: list[Step]) -> list[Step]:
    return made[int(SETTLE * len(made)) :]


def _groups(split: Split) -> np.ndarray:
    """Hyper-parameters are judged by themselves."""
    group = np.zeros(split.dim, int)
    group[np.asarray(split.hyper)] = 1
    return group


def _begun(problem: Problem, q: Hierarchical, rng: np.random.Generator) -> tuple[Place, np.ndarray, float]:
    """Places of some draws of q, one for each superchain; log p - log q of all that were made; what was lost."""
    dtype = q.centre.dtype
    u = wide_noise(rng, (CHAINS, q.split.num_hyper), dtype)
    e = rng.standard_normal((CHAINS, q.split.num_places)).astype(dtype) * np.asarray(q.split.used)
    places, log_q, found = jax.device_get(_arrive(problem, q, u, e))
    chosen = np.resize(np.flatnonzero(found) if found.any() else np.arange(CHAINS), SUPERCHAINS)
    first = jax.tree.map(lambda each: each[chosen], places)
    return first, np.where(found, places.log_p - log_q, -np.inf), float(1 - found.mean())


def _nowhere(q: Hierarchical, begun: Place) -> NestedChains:
    """What there is where no draw of q has a density."""
    x = np.concatenate([begun.phi, begun.z], axis=1)[:, np.asarray(q.split.place)]
    without = np.full(len(x), -np.inf)
    pool = Draws(x, without, np.zeros(len(x)), np.zeros(len(x)), np.ones(len(x), bool))
    unknown = np.full(q.dim, np.inf)
    disagree = Agreement(unknown, unknown, unknown, SUPERCHAINS, _groups(q.split))
    draws = ChainDraws(pool, len(x), disagree, Value(-np.inf, np.nan), without)
    return NestedChains(draws, np.zeros(3), 0.0, 1.0, _evaluations(q.split, None, 0))


def _evaluations(split: Split, clusters: Clusters | None, blocks: int) -> Evaluations:
    steps = blocks * STEPS_AT_ONCE * CHAINS
    lines = 0 if clusters is None else LINE_POINTS * clusters.num_classes
    arrivals = steps + CHAINS
    return Evaluations((2 + joint_moves(clusters)) * steps, arrivals + lines * steps, split.num_colours * arrivals)


@program
def _arrive(problem: Problem, q: Hierarchical, u: Array, e: Array) -> tuple[Place, Array, Array]:
    """Places of noise `(n, k)` and `(n, places)`, log_q and whether there are places."""

    def one(u: Array, e: Array) -> tuple[Place, Array, Array]:
        place, found = arrive(problem, q, q.hyper(u), e)
        return place, log_nested(q, place), found

    return jax.vmap(one)(u, e)


@program
def _advance(
    problem: Problem, q: Hierarchical, clusters: Clusters | None, places: Place, given: RandomNumbers
) -> tuple[Place, Step]:
    """All chains after some steps, and what these have shown, `(steps, chains, ...)`."""

    def body(places: Place, now: tuple[Array, RandomNumbers]) -> tuple[Place, Step]:
        some = None if clusters is None else clusters.of_set(now[0])
        return jax.vmap(lambda place, each: step(problem, q, some, place, each))(places, now[1])

    return jax.lax.scan(body, places, (jnp.arange(len(given.u)), given))
