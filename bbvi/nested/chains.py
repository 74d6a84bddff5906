"""Draws of a hierarchy whose blocks touch each other: many short chains that begin at draws of q and end by agreeing.

Weights of all latent coordinates together would fail with their number, so draws are made by moves that leave the
posterior as it is (`kernel.py`). The evidence comes from a bridge between the draws of q and those of the chains.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.distributions.hierarchical import Hierarchical
from bbvi.distributions.split import Split
from bbvi.draws.agreement import Agreement, agreement
from bbvi.draws.bridge import bridge
from bbvi.draws.importance import Draws
from bbvi.nested.clusters import Clusters, clusters_of
from bbvi.nested.conditional import Mode, find_mode
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
MOST_CHAIN_STEPS = 512
SETTLE = 1 / 3  # of the steps are left out
AGREED, SMALL_ERROR = 1.01, 0.03  # nested R-hat, and Monte Carlo error in standard deviations, at which chains end


class ChainDraws(NamedTuple):
    """What chains have shown."""

    pool: Draws  # all draws after the chains have settled, of equal weight
    agreement: Agreement
    log_evidence: Value
    accepted: np.ndarray  # (3,) shares of the moves: of hyper-parameters, of all latent coordinates, of clusters
    missed: float  # nats by which line integrals miss the log density, on average
    lost: float  # share of the draws of q at which the precision or the log density is of no use
    evaluations: Evaluations


def run_chains(problem: Problem, q: Hierarchical, seed: tuple[int, ...], num: int = 1) -> ChainDraws:
    """Chains from draws of q until they agree and have made at least `num` draws, or have taken too many steps."""
    rng, split = np.random.default_rng(seed), q.split
    clusters = clusters_of(split)
    begun, log_ratio_of_q, lost = _begun(problem, q, rng)
    if lost == 1:
        return _nowhere(q, begun)
    places = jax.tree.map(lambda each: np.repeat(each, CHAINS // SUPERCHAINS, axis=0), begun)
    made: list[Step] = []
    agreed, most = None, max(MOST_CHAIN_STEPS, int(num / (CHAINS * (1 - SETTLE))) + 2 * STEPS_AT_ONCE)
    while STEPS_AT_ONCE * len(made) < most:
        given = random_numbers(rng, q, clusters, (STEPS_AT_ONCE, CHAINS))
        try:
            places, steps = _advance(problem, q, clusters, places, given)
        except OutOfTimeError:
            if agreed is None:
                raise
            break
        made.append(jax.device_get(steps))
        kept = made[int(SETTLE * len(made)) :]
        agreed = agreement(np.concatenate([each.x for each in kept]), SUPERCHAINS)
        enough = num <= CHAINS * STEPS_AT_ONCE * len(kept)
        if len(made) < FEWEST_PARTS:
            continue
        if enough and is_within(agreed, split, AGREED, SMALL_ERROR):
            break
        if 2 * len(made) * STEPS_AT_ONCE * CHAINS * q.dim > 3 * KEPT_NUMBERS and enough:
            break
    assert agreed is not None
    kept = made[int(SETTLE * len(made)) :]
    x, log_p, log_q = (np.concatenate([getattr(each, name) for each in kept]) for name in ("x", "log_p", "log_q"))
    log_evidence = _evidence(np.ravel(log_p - log_q), log_ratio_of_q, agreed.effective)
    log_p, elbo = np.ravel(log_p), float(log_ratio_of_q[np.isfinite(log_ratio_of_q)].mean())
    log_r = log_p - (log_evidence.value if np.isfinite(log_evidence.value) else elbo)  # so that weights are constant
    pool = Draws(x.reshape(-1, q.dim), log_p, log_p - elbo, log_r, np.ones(log_r.shape, bool))
    missed = float(np.mean([each.missed.mean() for each in kept]))
    accepted = np.mean([each.accepted.mean(axis=(0, 1)) for each in kept], axis=0)
    return ChainDraws(pool, agreed, log_evidence, accepted, missed, lost, _evaluations(split, clusters, len(made)))


def is_within(agreed: Agreement, split: Split, r_hat: float, error: float) -> bool:
    """Whether chains agree so well: hyper-parameters by themselves, and latent coordinates."""
    hyper = np.asarray(split.hyper)
    latent = np.setdiff1d(np.arange(split.dim), hyper)
    return agreed.within(r_hat, hyper) and agreed.within(r_hat, latent) and bool(agreed.error.max() < error)


def settled(problem: Problem, q: Hierarchical) -> tuple[Hierarchical, Evaluations]:
    """q with the latent coordinates as they are at the mean of the hyper-parameters, and how their mode moves there."""
    root = np.asarray(q.hyper.scale.matrix())
    k = len(root)
    u = np.concatenate([np.zeros((1, k), root.dtype), np.eye(k, dtype=root.dtype), -np.eye(k, dtype=root.dtype)])
    modes = jax.device_get(_find_modes(problem, q, u))
    rounds, z = int(modes.rounds.sum()), modes.z
    spent = Evaluations(gradients=rounds, hessian_vector_products=q.split.num_colours * rounds)
    if not modes.found[0]:
        return q, spent
    slope = q.slope if not modes.found.all() else ((z[1 : k + 1] - z[k + 1 :]) / 2).T @ np.linalg.inv(root)
    factor = jax.tree.map(lambda each: each[0], modes.factor)
    return replace(q, centre=z[0], slope=slope, factor=factor), spent


def _begun(problem: Problem, q: Hierarchical, rng: np.random.Generator) -> tuple[Place, np.ndarray, float]:
    """Places of some draws of q, one for each superchain; log p - log q of all that were made; what was lost."""
    dtype = q.centre.dtype
    u = wide_noise(rng, (CHAINS, q.split.num_hyper), dtype)
    e = rng.standard_normal((CHAINS, q.split.num_places)).astype(dtype) * np.asarray(q.split.used)
    places, log_q, found = jax.device_get(_arrive(problem, q, u, e))
    chosen = np.resize(np.flatnonzero(found) if found.any() else np.arange(CHAINS), SUPERCHAINS)
    first = jax.tree.map(lambda each: each[chosen], places)
    return first, np.where(found, places.log_p - log_q, -np.inf), float(1 - found.mean())


def _nowhere(q: Hierarchical, begun: Place) -> ChainDraws:
    """What there is where no draw of q has a density."""
    x = np.concatenate([begun.phi, begun.z], axis=1)[:, np.asarray(q.split.place)]
    without = np.full(len(x), -np.inf)
    pool = Draws(x, without, np.zeros(len(x)), np.zeros(len(x)), np.ones(len(x), bool))
    unknown = Agreement(np.full(q.dim, np.inf), np.full(q.dim, np.inf), SUPERCHAINS)
    return ChainDraws(pool, unknown, Value(-np.inf, np.nan), np.zeros(3), 0.0, 1.0, _evaluations(q.split, None, 0))


def _evidence(of_p: np.ndarray, of_q: np.ndarray, effective: float) -> Value:
    """Log evidence from log p - log q at draws of both, not a number where they hardly overlap."""
    try:
        return bridge(of_p, of_q, min(effective, len(of_p)))
    except FloatingPointError:
        return Value(np.nan, np.nan)


def _evaluations(split: Split, clusters: Clusters | None, blocks: int) -> Evaluations:
    steps = blocks * STEPS_AT_ONCE * CHAINS
    lines = 0 if clusters is None else LINE_POINTS * clusters.num_classes
    arrivals = steps + CHAINS
    return Evaluations((2 + joint_moves(clusters)) * steps, arrivals + lines * steps, split.num_colours * arrivals)


@program
def _find_modes(problem: Problem, q: Hierarchical, u: Array) -> Mode:
    """Modes of the latent coordinates, given noise `(n, k)` of the hyper-parameters."""
    return jax.vmap(lambda u: find_mode(problem, q.split, q.hyper(u), q.centre))(u)


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
