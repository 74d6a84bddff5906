"""Draws of a hierarchy in which all latent coordinates are drawn together, from the Gaussian at their mode.

Hyper-parameters come from q(phi), by a scrambled Sobol sequence, and from a wider version, and weights are those of all
coordinates. They are even where the latent coordinates are few, or nearly Gaussian, as those of a Gaussian process are;
each draw of the hyper-parameters is used for several draws of the others.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.distributions.arrow import ArrowFactor
from bbvi.distributions.hierarchical import Hierarchical
from bbvi.draws.importance import WIDE_SHARE, Draws
from bbvi.draws.pareto import effective_sample_size, smooth
from bbvi.nested.conditional import Mode, find_mode
from bbvi.nested.kernel import log_of_noise, wide_noise
from bbvi.nested.sampling import copies_that_fit, enough, even_normal, moving
from bbvi.outcome import Evaluations
from bbvi.policy import hyper_draws
from bbvi.runtime.compiling import program
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

HYPER_TOGETHER, FEW_TOGETHER = 64, 16  # hyper-parameters until weights are looked at; of a large hierarchy
LATENT_COPIES = 4  # draws of the latent coordinates for each draw of the hyper-parameters
MORE, CHEAP_COLOURS = 4, 2**14  # times as many where they take few products with the Hessian: draws times colours
ENOUGH_EFFECTIVE = 0.5  # share of the draws that has to be effective, if weights are to be enough


class JointDraws(NamedTuple):
    """Draws of all coordinates from q(phi) and its wider version, and the Gaussian at the mode given phi."""

    draws: Draws  # one for each phi
    pool: Draws  # several for each
    enough: bool  # whether their weights are even
    evaluations: Evaluations


class _Found(NamedTuple):
    """What is found at n hyper-parameters."""

    x: Array  # (n, copies, dim)
    log_p: Array  # (n, copies) -inf without a mode
    log_q: Array  # (n, copies)
    log_wide: Array  # (n, copies) if noise of the hyper-parameters had wide tails
    rounds: Array  # (n,) Newton steps


def draw_jointly(problem: Problem, q: Hierarchical, seed: tuple[int, ...], num: int = 1) -> JointDraws:
    """At least `num` draws of q in the pool, and a quarter as many of its wider version.

    There are fewer where weights have turned out uneven before all were made.
    """
    rng, fewest = np.random.default_rng(seed), hyper_draws(q.dim)
    if MORE * fewest * q.split.num_colours <= CHEAP_COLOURS:
        fewest *= MORE
    narrow = enough(fewest, num, _copies(q))
    n, k, dtype = narrow + narrow // WIDE_SHARE, q.split.num_hyper, q.centre.dtype
    order = rng.permutation(n)
    u = np.concatenate([even_normal(rng, narrow, k), wide_noise(rng, (n - narrow, k), dtype)])[order]
    made: list[_Found] = []
    together = _at_once(q)
    for begin in range(0, n, together):
        e = _noise_of_latents(rng, q, together)
        made.append(_found(problem, q, u[begin : begin + together], e[: n - begin])[0])
        if not _are_even(_as_draws(made, order[: begin + together] < narrow, 0)):
            break
    copies = _copies(q)
    from_q = order[: sum(len(found.rounds) for found in made)] < narrow
    each = [_as_draws(made, from_q, copy) for copy in range(copies)]
    pool = Draws(*(np.concatenate(columns) for columns in zip(*each, strict=True)))
    spent = _evaluations(q, np.concatenate([found.rounds for found in made]), len(pool))
    return JointDraws(each[0], pool, _are_even(each[0]), spent)


def is_found_together(problem: Problem, q: Hierarchical) -> tuple[bool, Evaluations]:
    """Whether the latent coordinates have a mode at the mean of the hyper-parameters."""
    mode = _modes(problem, q, np.zeros((1, q.split.num_hyper), q.centre.dtype))
    return bool(mode.found[0]), _evaluations(q, mode.rounds, 0)


def settled(problem: Problem, q: Hierarchical) -> tuple[Hierarchical, Evaluations]:
    """q with the latent coordinates as they are at the mean of the hyper-parameters, and how they change with these."""
    root = np.asarray(q.hyper.scale.matrix())
    k = len(root)
    u = np.concatenate([np.zeros((1, k), root.dtype), np.eye(k, dtype=root.dtype), -np.eye(k, dtype=root.dtype)])
    mode = _modes(problem, q, u)
    spent = _evaluations(q, mode.rounds, 0)
    if mode.found.all():
        log_sd = np.zeros_like(mode.z) if q.split.is_dear else np.asarray(_log_sds(mode.factor))
        return moving(q, mode.z, log_sd, mode.factor), spent
    if mode.found[0]:
        q = replace(q, centre=mode.z[0], factor=jax.tree.map(lambda each: each[0], mode.factor))
    return q, spent


def _modes(problem: Problem, q: Hierarchical, u: np.ndarray) -> Mode:
    """Modes of the latent coordinates at noise `(n, k)` of the hyper-parameters."""
    parts = np.array_split(u, -(-len(u) // _at_once(q)))
    still = lambda n: np.zeros((n, _copies(q), q.split.num_places), u.dtype)
    modes = [_found(problem, q, part, still(len(part)))[1] for part in parts]
    return jax.tree.map(lambda *column: np.concatenate(column), *modes)


def _at_once(q: Hierarchical) -> int:
    """Hyper-parameters in one call of `_find`."""
    return FEW_TOGETHER if q.split.is_large else HYPER_TOGETHER


def _found(problem: Problem, q: Hierarchical, u: np.ndarray, e: np.ndarray) -> tuple[_Found, Mode]:
    """What is found at noise `(n, k)` and `(n, copies, places)`, and the modes there, from a call that is filled up."""
    n = _at_once(q)
    made = _find(problem, q, np.resize(u, (n, u.shape[1])), np.resize(e, (n, *e.shape[1:])))
    return jax.tree.map(lambda each: np.asarray(each)[: len(u)], made)


def _evaluations(q: Hierarchical, rounds: Array, draws: int) -> Evaluations:
    """What so many Newton steps and draws have cost."""
    newton = int(rounds.sum())
    return Evaluations(draws, newton, q.split.num_colours * newton)


def _as_draws(made: list[_Found], from_q: np.ndarray, copy: int) -> Draws:
    columns = ("x", "log_p", "log_q", "log_wide")
    x, log_p, log_q, log_wide = (np.concatenate([getattr(each, name)[:, copy] for each in made]) for name in columns)
    share = 1 / (1 + WIDE_SHARE)
    return Draws(x, log_p, log_q, np.logaddexp(np.log1p(-share) + log_q, np.log(share) + log_wide), from_q)


def _are_even(draws: Draws) -> bool:
    """Whether weights are enough to make draws of the posterior of these."""
    if not np.isfinite(draws.log_p).any():
        return False
    effective = effective_sample_size(smooth(draws.log_p - draws.log_r).log_weights)
    return effective > ENOUGH_EFFECTIVE * len(draws)


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
def _find(problem: Problem, q: Hierarchical, u: Array, e: Array) -> tuple[_Found, Mode]:
    """What is found at noise `(n, k)` of the hyper-parameters and `(n, copies, places)` of the others; the modes."""

    def one(u: Array, e: Array) -> tuple[_Found, Mode]:
        phi = q.hyper(u)
        mode = find_mode(problem, q.split, phi, q.mode(phi))

        def drawn(e: Array) -> tuple[Array, Array, Array, Array]:
            x = q.split.join(phi, mode.z + mode.factor.solve_transposed(e))
            return x, problem.log_density(x), *log_of_noise(q, mode.factor, u, e)

        x, log_p, log_q, log_wide = jax.vmap(drawn)(e)
        usable = mode.found & jnp.isfinite(log_p)
        return _Found(x, jnp.where(usable, log_p, -jnp.inf), log_q, log_wide, mode.rounds), mode

    return jax.lax.map(lambda each: one(*each), (u, e)) if q.split.is_large else jax.vmap(one)(u, e)
