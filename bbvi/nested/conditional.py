"""The latent coordinates given the hyper-parameters: their mode, and the curvature there, block by block.

Since no block sees another, the columns of all blocks come from as many Hessian-vector products as the largest block
has coordinates, and Newton's steps are damped for each block by itself: a step of a block is kept unless it ends where
the log density falls along it more steeply than it rose at its beginning.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from bbvi.distributions.split import Split
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

SMALL_SQUARE = 1e-10  # squared length of a Newton step of a block, in its standard deviations, at which it has its mode
MOST_ROUNDS = 60


class Mode(NamedTuple):
    """The mode of all blocks, and how they curve there."""

    z: Array  # (blocks, size)
    factor: Array  # (blocks, size, size) lower triangular, of minus the Hessian of each block
    found: Array  # () bool, whether every block has arrived at a maximum
    rounds: Array  # () Newton steps


def gradient_in_blocks(problem: Problem, split: Split, phi: Array) -> Callable[[Array], Array]:
    """The gradient `(blocks, size)` of the log density in the blocks, as a function of these."""
    return jax.grad(lambda z: problem.log_density(split.join(phi, z)))


def curvature(problem: Problem, split: Split, phi: Array, z: Array) -> tuple[Array, Array]:
    """The gradient `(blocks, size)` of the log density in the blocks, and minus their Hessians `(blocks, size, size)`.

    A place without a coordinate has gradient 0 and curvature 1.
    """
    of_z, size = gradient_in_blocks(problem, split, phi), z.shape[1]
    if size == 1:
        gradient, column = jax.jvp(of_z, (z,), (jnp.ones_like(z),))
        return gradient, -column[:, :, None]
    gradient, product = jax.linearize(of_z, z)
    eye = jnp.eye(size, dtype=z.dtype)
    columns = jax.vmap(lambda unit: product(jnp.broadcast_to(unit, z.shape)))(eye)
    return gradient, jnp.where(split.used[:, :, None], -jnp.moveaxis(columns, 0, -1), eye)


def factorise(matrices: Array) -> Array:
    """Lower triangular factors of positive definite matrices `(blocks, size, size)`, NaN where one is not."""
    return jnp.sqrt(matrices) if matrices.shape[-1] == 1 else jnp.linalg.cholesky(matrices)


def solve(factor: Array, vectors: Array, *, transposed: bool = False) -> Array:
    """L^-1 v, or L^-T v, for factors `(blocks, size, size)` and vectors `(blocks, size)`."""
    if factor.shape[-1] == 1:
        return vectors / factor[:, :, 0]
    return solve_triangular(factor, vectors[..., None], lower=True, trans=int(transposed))[..., 0]


def solve_both(factor: Array, vectors: Array) -> Array:
    """(L L^T)^-1 v for each block."""
    return solve(factor, solve(factor, vectors), transposed=True)


class _Search(NamedTuple):
    """Where a search is."""

    z: Array  # (blocks, size)
    step: Array  # (blocks, size) to be taken from there
    share: Array  # (blocks,) of that step
    slope: Array  # (blocks,) of the log density along the step, at z
    factor: Array  # (blocks, size, size) at z
    rounds: Array  # ()


def find_mode(problem: Problem, split: Split, phi: Array, z: Array) -> Mode:
    """The mode of the blocks for these hyper-parameters `(k,)`, from z `(blocks, size)`."""

    def going(now: _Search) -> Array:
        return (now.slope.max() > SMALL_SQUARE) & (now.rounds < MOST_ROUNDS)

    def body(now: _Search) -> _Search:
        there = now.z + now.share[:, None] * now.step
        gradient, matrices = curvature(problem, split, phi, there)
        slope = jnp.sum(gradient * now.step, axis=1)
        is_finite = jnp.isfinite(gradient).all(axis=1) & jnp.isfinite(matrices).all(axis=(1, 2))
        kept = is_finite & (slope >= -now.slope)
        factor = factorise(matrices)
        newton = solve_both(factor, gradient)
        steepest = gradient / jnp.abs(matrices).sum(axis=-1)  # where the curvature is not positive
        step = jnp.where(jnp.isfinite(newton).all(axis=1, keepdims=True), newton, steepest)
        shorter = jnp.where(is_finite, jnp.clip(now.slope / (now.slope - slope), 0.1, 0.5), 0.25)
        return _Search(
            z=jnp.where(kept[:, None], there, now.z),
            step=jnp.where(kept[:, None], step, now.step),
            share=jnp.where(kept, 1.0, now.share * shorter),
            slope=jnp.where(kept, jnp.sum(gradient * step, axis=1), now.slope),
            factor=jnp.where(kept[:, None, None], factor, now.factor),
            rounds=now.rounds + 1,
        )

    blocks, size = split.shape
    first = _Search(
        z=z,
        step=jnp.zeros_like(z),
        share=jnp.ones(blocks, z.dtype),
        slope=jnp.full(blocks, jnp.inf, z.dtype),
        factor=jnp.full((blocks, size, size), jnp.nan, z.dtype),
        rounds=jnp.zeros((), int),
    )
    end = jax.lax.while_loop(going, body, first)
    found = (end.slope.max() <= SMALL_SQUARE) & jnp.isfinite(end.factor).all()
    return Mode(end.z, end.factor, found, end.rounds)
