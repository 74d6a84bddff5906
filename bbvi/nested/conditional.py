"""The latent coordinates given the hyper-parameters: their mode, and the curvature there.

Places that do not see each other share a Hessian-vector product. Without separators no block sees another, and Newton's
steps are damped for each block by itself; with separators, for all at once. A step is kept unless it ends where the log
density falls along it more steeply than it rose at its beginning.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bbvi.distributions.arrow import ArrowFactor
from bbvi.distributions.split import Split
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

SMALL_SQUARE = 1e-10  # squared length of a Newton step, in standard deviations, at which the mode is found
LEFT_BY_ROUNDING = 3e5  # times epsilon and the number of places is what single precision leaves of that
MOST_ROUNDS = 60


class Mode(NamedTuple):
    """The mode of the latent coordinates, and how the log density curves there."""

    z: Array  # (places,)
    factor: ArrowFactor  # of minus the Hessian
    found: Array  # () bool, whether this is a maximum
    rounds: Array  # () Newton steps


def latent_gradient(problem: Problem, split: Split, phi: Array) -> Callable[[Array], Array]:
    """The gradient `(places,)` of the log density in the latent coordinates, as a function of these."""
    apart = split.join(phi, jnp.zeros(split.num_places, phi.dtype))
    density = lambda x: problem.log_density_beside(x, apart, split.held)
    gradient = jax.grad(density)  # taken apart afterwards, since to transpose `join` would be slow
    return lambda z: split.latent(gradient(split.join(phi, z)))


def curvature(problem: Problem, split: Split, phi: Array, z: Array) -> tuple[Array, Array]:
    """The gradient `(places,)` in z, and products `(colours, places)` of minus the Hessian there, without its sums."""
    of_z, seeds = latent_gradient(problem, split, phi), split.seeds(z.dtype)
    if len(seeds) == 1:
        gradient, product = jax.jvp(of_z, (z,), (seeds[0],))
        return gradient, split.without_sums(-product[None], seeds)
    gradient, product = jax.linearize(of_z, z)
    return gradient, split.without_sums(-jax.vmap(product)(seeds), seeds)


class _Search(NamedTuple):
    """Where a search is; a part is a block, or all of z where there are separators."""

    z: Array  # (places,)
    step: Array  # (places,) to be taken from there
    share: Array  # (parts,) of that step
    slope: Array  # (parts,) of the log density along the step, at z
    factor: ArrowFactor  # at z
    rounds: Array  # ()


def find_mode(problem: Problem, split: Split, phi: Array, z: Array) -> Mode:
    """The mode of the latent coordinates for these hyper-parameters `(k,)`, from z `(places,)`."""
    parts = 1 if split.is_connected else split.shape[0]
    small = SMALL_SQUARE * max(1.0, LEFT_BY_ROUNDING * float(jnp.finfo(z.dtype).eps) * split.num_places / parts)
    spread = lambda values: jnp.repeat(values, split.num_places // parts, total_repeat_length=split.num_places)
    summed = lambda values: values.reshape(parts, -1).sum(axis=1)

    def going(now: _Search) -> Array:
        return (now.slope.max() > small) & (now.rounds < MOST_ROUNDS)

    def body(now: _Search) -> _Search:
        there = now.z + spread(now.share) * now.step
        gradient, products = curvature(problem, split, phi, there)
        slope = summed(gradient * now.step)
        is_finite = jnp.isfinite(summed(gradient + products.sum(axis=0)))
        kept = is_finite & (slope >= -now.slope)
        factor = split.factor(products)
        newton = factor.solve_both(gradient)
        steepest = gradient / jnp.maximum(jnp.abs(products).sum(axis=0), jnp.finfo(z.dtype).tiny)
        step = jnp.where(spread(jnp.isfinite(summed(newton))), newton, steepest)  # if the curvature is not positive
        shorter = jnp.where(is_finite, jnp.clip(now.slope / (now.slope - slope), 0.1, 0.5), 0.25)
        return _Search(
            z=jnp.where(spread(kept), there, now.z),
            step=jnp.where(spread(kept), step, now.step),
            share=jnp.where(kept, 1.0, now.share * shorter),
            slope=jnp.where(kept, summed(gradient * step), now.slope),
            factor=_chosen(kept, factor, now.factor),
            rounds=now.rounds + 1,
        )

    first = _Search(
        z=z,
        step=jnp.zeros_like(z),
        share=jnp.ones(parts, z.dtype),
        slope=jnp.full(parts, jnp.inf, z.dtype),
        factor=_unknown(split, z.dtype),
        rounds=jnp.zeros((), int),
    )
    end = jax.lax.while_loop(going, body, first)
    found = (end.slope.max() <= small) & jnp.isfinite(end.factor.log_det())
    return Mode(end.z, end.factor, found, end.rounds)


def _chosen(kept: Array, new: ArrowFactor, old: ArrowFactor) -> ArrowFactor:
    """The new factor where it is kept, `(blocks,)` or `(1,)` bool."""
    wide = kept[:, None, None]
    corner = jnp.where(wide[0], new.corner, old.corner) if new.has_separators else new.corner
    along, gain = (jnp.where(kept[0], *pair) for pair in ((new.along, old.along), (new.gain, old.gain)))
    return ArrowFactor(
        jnp.where(wide, new.blocks, old.blocks),
        jnp.where(wide, new.border, old.border),
        corner,
        new.touched,
        along,
        gain,
    )


def _unknown(split: Split, dtype: Any) -> ArrowFactor:
    """A factor of NaN."""
    at, sums = split.entries, split.sums
    shapes = at.blocks.shape, at.border.shape, at.corner.shape, sums.shape, sums.shape[:1]
    blocks, border, corner, along, gain = (jnp.full(shape, jnp.nan, dtype) for shape in shapes)
    return ArrowFactor(blocks, border, corner, jnp.asarray(at.touched), along, gain)
