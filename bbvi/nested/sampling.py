"""Blocks of a hierarchy at given hyper-parameters: their modes, exact draws of them, and how they move.

Given hyper-parameters phi, each block is drawn from its exact conditional density along lines (`lines.py`), which also
gives log p^(phi), the marginal density without the error of Laplace's method.
"""

from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from threading import Thread
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import ndtri

from bbvi.distributions.affine import Affine
from bbvi.distributions.arrow import ArrowFactor
from bbvi.distributions.base import LOG_2PI
from bbvi.distributions.hierarchical import Hierarchical
from bbvi.distributions.scales import Triangular
from bbvi.nested.conditional import find_mode
from bbvi.nested.lines import LINES, NODES, along_lines
from bbvi.outcome import NOTHING, Evaluations
from bbvi.policy import KEPT_NUMBERS, hyper_draws
from bbvi.runtime.compiling import program
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

COPIES = 8  # draws of the blocks for each draw of the hyper-parameters
HYPER_AT_ONCE = 32  # hyper-parameters worked on side by side, at most
COORDINATES_AT_ONCE = 2**19  # coordinates in those, at most
CORRECTED = 0.05  # standard deviations, within which q(phi) is left as it is


class Visits(NamedTuple):
    """What is found at n hyper-parameters."""

    x: Array  # (n, copies, dim)
    log_p: Array  # (n,)
    laplace: Array  # (n,) the same by Laplace's method, -inf without a mode
    found: Array  # (n,)
    log_ratio: Array  # (n,) log of the exact integral over the blocks, in units of Laplace's estimate
    error: Array  # (n,)
    rounds: Array  # (n,) Newton steps
    z: Array  # (n, places) modes
    factor: ArrowFactor  # of the curvatures there
    log_sd: Array  # (n, places) logarithms of standard deviations that go with them
    at_end: Array  # (n, blocks)
    effective: Array  # (n, blocks)


def is_found(problem: Problem, q: Hierarchical) -> tuple[bool, Evaluations]:
    """Whether the blocks have a mode at the mean of the hyper-parameters."""
    phi = np.asarray(q.hyper.loc)[None]
    _, visits = next(visits_of(problem, q, phi, np.random.default_rng(0), common=True))
    return bool(visits.found[0]), cost_of(q, visits.rounds)


def finished(problem: Problem, q: Hierarchical, rounds: int = 4) -> tuple[Hierarchical, Evaluations]:
    """q as it is with exact blocks: its hyper-parameters corrected, and the blocks as they are at their mean.

    Along each axis of q(phi), at its mean and one standard deviation to both sides, the error of Laplace's method is
    seen. Its gradient b and curvature c, in standard deviations, move the mean to u = (b - c u') / (1 - c), where u' is
    the place at which they were found, and divide the standard deviation by sqrt(1 - c). Modes of the blocks at the
    same points say how these move with phi.
    """
    root, spent = np.asarray(q.hyper.scale.matrix()), NOTHING
    u, there, c = np.zeros_like(root[0]), q, np.zeros_like(root[0])
    for _ in range(rounds):
        there, visits = _star(problem, replace(q, hyper=Affine(q.hyper.loc + root @ u, q.hyper.scale)))
        spent += cost_of(q, visits.rounds)
        if not visits.found.all():
            return (there if visits.found[0] else q), spent
        centre, up, down = visits.log_ratio[0], *np.split(visits.log_ratio[1:], 2)
        b, c = (up - down) / 2, np.clip(up + down - 2 * centre, -1.0, 0.3)
        before, u = u, (b - c * u) / (1 - c)
        if np.abs(u - before).max() < CORRECTED:
            break
    return replace(there, hyper=Affine(there.hyper.loc, Triangular.of(root / np.sqrt(1 - c)))), spent


def _star(problem: Problem, q: Hierarchical) -> tuple[Hierarchical, Visits]:
    """q with the blocks as they are at the mean of the hyper-parameters, and visits there and along its axes."""
    root = np.asarray(q.hyper.scale.matrix())
    phi = np.asarray(q.hyper.loc) + np.concatenate([np.zeros((1, len(root)), root.dtype), root.T, -root.T])
    parts = [part for _, part in visits_of(problem, q, phi, np.random.default_rng(0), common=True)]
    visits = jax.tree.map(lambda *column: np.concatenate(column), *parts)
    return moving(q, visits.z, visits.log_sd, visits.factor), visits


def moving(q: Hierarchical, z: Array, log_sd: Array, factors: ArrowFactor) -> Hierarchical:
    """q with the latent coordinates as they are at the mean of phi, and moving and widening with it.

    How they do are central differences over a standard deviation of the hyper-parameters.

    Arguments:
        z, log_sd, factors: modes `(1 + 2 k, places)`, logarithms of standard deviations and factors of the precision at
            the mean, and one standard deviation from there along each axis of q(phi), up and then down.
    """
    root = np.asarray(q.hyper.scale.matrix())
    up, down = slice(1, len(root) + 1), slice(len(root) + 1, None)
    slope, widening = (((each[up] - each[down]) / 2).T @ np.linalg.inv(root) for each in (z, log_sd))
    return replace(q, centre=z[0], slope=slope, widening=widening, factor=jax.tree.map(lambda each: each[0], factors))


def cost_of(q: Hierarchical, rounds: Array) -> Evaluations:
    """What visits with so many Newton steps have cost."""
    n, newton, size = len(rounds), int(rounds.sum()), q.split.shape[1]
    return Evaluations((3 * _num_lines(q) + 1) * n, newton + _num_lines(q) * NODES * n, size * newton)


def copies_of(q: Hierarchical) -> int:
    """Draws of the blocks for each draw of the hyper-parameters."""
    return copies_that_fit(q, COPIES)


def copies_that_fit(q: Hierarchical, most: int) -> int:
    """Draws for each draw of the hyper-parameters that memory has room for, at most so many."""
    return int(np.clip(KEPT_NUMBERS // (hyper_draws(q.dim) * q.dim), 1, most))


def enough(fewest: int, num: int, copies: int) -> int:
    """Draws of the hyper-parameters, `fewest` or that times a power of two, for `num` draws with so many copies."""
    return fewest << (-(-num // (copies * fewest)) - 1).bit_length()


def _num_lines(q: Hierarchical) -> int:
    """Lines through each block."""
    return 1 if q.split.shape[1] == 1 else LINES


def visits_of(
    problem: Problem, q: Hierarchical, phi: np.ndarray, rng: np.random.Generator, common: bool = False
) -> Iterator[tuple[int, Visits]]:
    """`_visit` of some hyper-parameters at a time, with the number of the first.

    All calls have as many, the last ones are filled up. Lines have the same directions for all where they are `common`.
    """
    (blocks, size), dtype = q.split.shape, phi.dtype
    at_once = int(np.clip(COORDINATES_AT_ONCE // q.dim, 1, HYPER_AT_ONCE))
    for begin in range(0, len(phi), at_once):
        some = phi[begin : begin + at_once]
        uniform = rng.random((at_once, copies_of(q), blocks, 2), dtype)
        shape = (1 if common else at_once, _num_lines(q), blocks, size)
        directions = np.ones(shape, dtype)
        if size > 1:
            directions = (np.random.default_rng(0) if common else rng).standard_normal(shape, dtype)
            directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
        directions = np.broadcast_to(directions, (at_once, *shape[1:]))
        made = _visit(problem, q, np.resize(some, (at_once, phi.shape[1])), directions, uniform)
        count = len(some)
        yield begin, jax.tree.map(lambda each, count=count: each[:count], jax.device_get(made))


def import_ahead() -> None:
    """Begin to import SciPy's sequences, which takes most of a second, while others compile."""
    Thread(target=import_module, args=("scipy.stats.qmc",), daemon=True).start()


def even_normal(rng: np.random.Generator, num: int, dim: int) -> np.ndarray:
    """Standard normal numbers `(num, dim)` that fill space evenly."""
    from scipy.stats import qmc

    uniform = qmc.Sobol(dim, rng=rng).random(num)
    return ndtri(np.clip(uniform, 1e-12, 1 - 1e-12)).astype(jax.dtypes.canonicalize_dtype(float))


@program
def _visit(problem: Problem, q: Hierarchical, phis: Array, directions: Array, uniforms: Array) -> Visits:
    """What is found at n hyper-parameters."""
    split = q.split

    def one(phi: Array, directions: Array, uniforms: Array) -> Visits:
        mode = find_mode(problem, split, phi, q.mode(phi))
        exact = along_lines(problem, split, phi, mode, directions, uniforms)
        laplace = exact.centre - mode.factor.log_det() + 0.5 * split.num_latent * LOG_2PI
        return Visits(
            x=jax.vmap(lambda z: split.join(phi, z))(exact.z),
            log_p=jnp.where(mode.found, laplace + exact.log_ratio, -jnp.inf),
            laplace=jnp.where(mode.found, laplace, -jnp.inf),
            found=mode.found,
            log_ratio=exact.log_ratio,
            error=exact.error,
            rounds=mode.rounds,
            z=mode.z,
            factor=mode.factor,
            log_sd=mode.factor.log_sd(),
            at_end=exact.at_end,
            effective=exact.effective / len(directions),
        )

    return jax.vmap(one)(phis, directions, uniforms)
