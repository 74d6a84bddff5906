"""Draws of a hierarchy in which all latent coordinates are drawn together, from the Gaussian at their mode.

Each draw of the hyper-parameters is used for several draws of the others, z ~ g(z | phi), and the average of
p(phi, z) / g(z | phi) over these estimates p(phi). That is good where the latent coordinates are few, or nearly
Gaussian, as those of a Gaussian process are. Hyper-parameters come from q(phi), by a scrambled Sobol sequence, from a
wider version, and where they are few, from kernels that follow the weights (`draws/proposal.py`).
"""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.distributions.arrow import ArrowFactor
from bbvi.distributions.hierarchical import Hierarchical
from bbvi.draws.importance import Draws
from bbvi.draws.pareto import effective_sample_size, smooth
from bbvi.draws.proposal import ENOUGH_PLACES, LogDensity, Places, follow
from bbvi.nested.conditional import Mode, find_mode
from bbvi.nested.drawing import as_draws, densities_of_hyper, draw_hyper, is_to_follow
from bbvi.nested.kernel import log_of_latents
from bbvi.nested.sampling import copies_that_fit, enough, moving
from bbvi.outcome import Evaluations
from bbvi.policy import hyper_draws
from bbvi.runtime.compiling import program
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

HYPER_TOGETHER, FEW_TOGETHER = 64, 16  # hyper-parameters until weights are looked at; of a large hierarchy
LATENT_COPIES = 4  # draws of the latent coordinates for each draw of the hyper-parameters
MORE, CHEAP_COLOURS = 4, 2**14  # times as many where they take few products with the Hessian: draws times colours
EVEN_COPIES = 0.6  # share of the copies that is effective given phi, at least
ENOUGH_EFFECTIVE = 0.5  # share of all draws that has to be effective, or else hyper-parameters have to follow weights


class JointDraws(NamedTuple):
    """Draws of all coordinates from q(phi) and its wider version, and the Gaussian at the mode given phi."""

    draws: Draws  # one for each phi
    pool: Draws  # several for each
    enough: bool  # whether their weights are even, as they are or by following them
    evaluations: Evaluations


class _Found(NamedTuple):
    """What is found at n hyper-parameters."""

    x: Any  # (n, copies, dim)
    log_p: Any  # (n, copies) of phi, as each copy estimates it; -inf without a mode
    rounds: Any  # (n,) Newton steps


def draw_jointly(problem: Problem, q: Hierarchical, seed: tuple[int, ...], num: int = 1) -> JointDraws:
    """At least `num` draws of q in the pool, a quarter as many of its wider version, and more where both miss mass.

    There are fewer where weights have turned out uneven before all were made.
    """
    rng, fewest = np.random.default_rng(seed), hyper_draws(q.dim)
    if MORE * fewest * q.split.num_colours <= CHEAP_COLOURS:
        fewest *= MORE
    narrow = enough(fewest, num, _copies(q))
    phi = draw_hyper(q, rng, narrow)
    order, made, at_once = rng.permutation(len(phi)), [], _at_once(q)
    for begin in range(0, len(phi), at_once):
        made.append(_see(problem, q, phi[order[begin : begin + at_once]], rng))
        if not _are_even(_joined(made)):
            break
    base = _joined(made)
    order = order[: len(base.rounds)]
    places = Places.of(phi[order], _log_mean(base.log_p), densities_of_hyper(q))
    spent, further = _evaluations(q, base), []
    follows = is_to_follow(q, places) and _are_even(base)
    if follows:
        places, further, of_further = _follow(problem, q, places, rng)
        spent += of_further
    found = _joined([base, *further])
    draws, pool = as_draws(found.x, found.log_p, places, np.pad(order < narrow, (0, len(found.rounds) - len(order))))
    is_enough = _share(draws) > ENOUGH_EFFECTIVE or (follows and places.are_even(ENOUGH_PLACES))
    return JointDraws(draws, pool, is_enough, spent)


def _follow(
    problem: Problem, q: Hierarchical, places: Places, rng: np.random.Generator
) -> tuple[Places, list[_Found], Evaluations]:
    """These places and further ones, where mass lies far along an axis or weights are uneven; what is found there."""
    looked_at: list[_Found] = []
    drawn: list[_Found] = []

    def into(found: list[_Found]) -> LogDensity:
        def log_p(phi: np.ndarray) -> np.ndarray:
            parts = np.array_split(phi, -(-len(phi) // _at_once(q)))
            found.append(_joined([_see(problem, q, part, rng) for part in parts]))
            return _log_mean(found[-1].log_p)

        return log_p

    places = follow(places, q.hyper, into(looked_at), into(drawn), rng, adapted=True)
    return places, drawn, sum((_evaluations(q, each) for each in looked_at + drawn), Evaluations())


def is_found_together(problem: Problem, q: Hierarchical) -> tuple[bool, Evaluations]:
    """Whether the latent coordinates have a mode at the mean of the hyper-parameters."""
    mode, spent = _modes(problem, q, np.asarray(q.hyper.loc)[None])
    return bool(mode.found[0]), spent


def settled(problem: Problem, q: Hierarchical) -> tuple[Hierarchical, Evaluations]:
    """q with the latent coordinates as they are at the mean of the hyper-parameters, and how they change with these."""
    root = np.asarray(q.hyper.scale.matrix())
    around = np.concatenate([np.zeros((1, len(root)), root.dtype), root.T, -root.T])
    mode, spent = _modes(problem, q, np.asarray(q.hyper.loc) + around)
    if mode.found.all():
        log_sd = np.zeros_like(mode.z) if q.split.is_dear else np.asarray(_log_sds(mode.factor))
        return moving(q, mode.z, log_sd, mode.factor), spent
    if mode.found[0]:
        q = replace(q, centre=mode.z[0], factor=jax.tree.map(lambda each: each[0], mode.factor))
    return q, spent


def _modes(problem: Problem, q: Hierarchical, phi: np.ndarray) -> tuple[Mode, Evaluations]:
    """Modes of the latent coordinates at hyper-parameters `(n, k)`, and what they cost."""
    parts = np.array_split(phi, -(-len(phi) // _at_once(q)))
    still = lambda n: np.zeros((n, _copies(q), q.split.num_places), phi.dtype)
    modes = [_found(problem, q, part, still(len(part)))[1] for part in parts]
    mode = jax.tree.map(lambda *column: np.concatenate(column), *modes)
    return mode, _cost(q, mode.rounds, 0)


def _at_once(q: Hierarchical) -> int:
    """Hyper-parameters in one call of `_find`."""
    return FEW_TOGETHER if q.split.is_large else HYPER_TOGETHER


def _found(problem: Problem, q: Hierarchical, phi: np.ndarray, e: np.ndarray) -> tuple[_Found, Mode]:
    """What is found at `(n, k)` with noise `(n, copies, places)`, and the modes, from a call that is filled up."""
    n = _at_once(q)
    made = _find(problem, q, np.resize(phi, (n, phi.shape[1])), np.resize(e, (n, *e.shape[1:])))
    return jax.tree.map(lambda each: np.asarray(each)[: len(phi)], made)


def _see(problem: Problem, q: Hierarchical, phi: np.ndarray, rng: np.random.Generator) -> _Found:
    """What is found at hyper-parameters `(n, k)`, as many as go into a call at most."""
    return _found(problem, q, phi, _noise_of_latents(rng, q, _at_once(q))[: len(phi)])[0]


def _joined(made: list[_Found]) -> _Found:
    return _Found(*(np.concatenate(column) for column in zip(*made, strict=True)))


def _evaluations(q: Hierarchical, found: _Found) -> Evaluations:
    """What draws of all coordinates have cost."""
    return _cost(q, found.rounds, found.log_p.size)


def _cost(q: Hierarchical, rounds: Array, draws: int) -> Evaluations:
    """What so many Newton steps and draws have cost."""
    newton = int(rounds.sum())
    return Evaluations(draws, newton, q.split.num_colours * newton)


def _log_mean(log_p: np.ndarray) -> np.ndarray:
    """The logarithm of the mean over the copies `(n, copies)`."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.logaddexp.reduce(log_p, axis=1) - np.log(log_p.shape[1])


def _are_even(found: _Found) -> bool:
    """Whether the copies have even weights given phi, so that their average is near p(phi)."""
    some = found.log_p[np.isfinite(found.log_p).any(axis=1)]
    if not len(some):
        return False
    weights = np.exp(some - some.max(axis=1, keepdims=True))
    shares = weights.sum(axis=1) ** 2 / (weights**2).sum(axis=1) / some.shape[1]
    return bool(shares.mean() > EVEN_COPIES)


def _share(draws: Draws) -> float:
    """The share of the draws that is effective."""
    if not np.isfinite(draws.log_p).any():
        return 0.0
    return effective_sample_size(smooth(draws.log_p - draws.log_r).log_weights) / len(draws)


def _noise_of_latents(rng: np.random.Generator, q: Hierarchical, n: int) -> np.ndarray:
    """Standard normal numbers `(n, copies, places)`."""
    e = rng.standard_normal((n, _copies(q), q.split.num_places)).astype(q.centre.dtype)
    return e * np.asarray(q.split.used)


def _copies(q: Hierarchical) -> int:
    """Draws of the latent coordinates for each draw of the hyper-parameters."""
    return copies_that_fit(q, LATENT_COPIES)


@program
def _log_sds(factors: ArrowFactor) -> Array:
    """Logarithms of standard deviations `(n, places)`."""
    return jax.lax.map(lambda factor: factor.log_sd(), factors)


@program
def _find(problem: Problem, q: Hierarchical, phi: Array, e: Array) -> tuple[_Found, Mode]:
    """What is found at hyper-parameters `(n, k)` with noise `(n, copies, places)` of the others, and the modes."""

    def one(phi: Array, e: Array) -> tuple[_Found, Mode]:
        mode = find_mode(problem, q.split, phi, q.mode(phi))

        def drawn(e: Array) -> tuple[Array, Array]:
            x = q.split.join(phi, mode.z + mode.factor.solve_transposed(e))
            return x, problem.log_density(x) - log_of_latents(q, mode.factor, e)

        x, log_p = jax.vmap(drawn)(e)
        usable = mode.found & jnp.isfinite(log_p)
        return _Found(x, jnp.where(usable, log_p, -jnp.inf), mode.rounds), mode

    return jax.lax.map(lambda each: one(*each), (phi, e)) if q.split.is_large else jax.vmap(one)(phi, e)
