"""Trust-region Newton steps with Hessian-vector products.

A step p maximises the quadratic model g.p - p.Bp / 2 of the rise within |p|_W <= radius, by conjugate gradients
preconditioned with W^-1. They stop when the residual is small, at the boundary, or, on meeting a direction of negative
curvature, go along it to the boundary. B = minus the Hessian need not be positive definite, and is never formed.

References: Steihaug 1983; Nocedal and Wright 2006, algorithms 4.1 and 7.2.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Array = Any
ACCEPT = 1e-4  # share of the predicted rise from which a step is taken
LARGEST_RADIUS = 1e16
ESCAPED = 1e12  # distance in units of the start, from which a search counts as run off
ARRIVED = 1e-8  # nats still to gain from which the optimum counts as reached
MOST_STEPS = 200  # after which a search gives up


class Step(NamedTuple):
    """A proposed step."""

    move: Array  # (dim,) p
    predicted: Array  # () rise of the model
    length: Array  # () |p|_W
    products: Array  # () Hessian-vector products made


class Inner(NamedTuple):
    """Conjugate gradients under way."""

    move: Array
    residual: Array  # g - B p
    direction: Array
    product: Array  # B p
    count: Array
    running: Array


def propose(
    gradient: Array,
    matvec: Callable[[Array], Array],
    radius: Array,
    metric: Array | float = 1.0,
    forcing: float = 0.1,
    max_products: int | None = None,
) -> Step:
    """The step that the model recommends.

    Arguments:
        gradient: g, `(dim,)`.
        matvec: v -> B v.
        metric: diagonal of W, `(dim,)` or a number: about B.
        forcing: largest residual, relative to g, at which to stop; it is sqrt|g| where that is smaller.
        max_products: 2 dim + 10 and at most 500 when not given: rounding takes more than dim of them.
    """
    limit = min(2 * gradient.size + 10, 500) if max_products is None else max_products
    norm = lambda v: jnp.sqrt(jnp.sum(metric * v * v))
    dual = lambda r: jnp.sum(r * r / metric)
    target = dual(gradient) * jnp.minimum(forcing**2, dual(gradient) ** 0.5)  # of squares

    def boundary(move: Array, direction: Array) -> Array:
        a, b = jnp.sum(metric * direction**2), jnp.sum(metric * move * direction)
        c = jnp.sum(metric * move**2) - radius**2
        return (-b + jnp.sqrt(jnp.maximum(b**2 - a * c, 0))) / jnp.maximum(a, jnp.finfo(a.dtype).tiny)

    def advance(now: Inner) -> Inner:
        product = matvec(now.direction)
        curvature = now.direction @ product
        before = dual(now.residual)
        size = before / jnp.where(curvature > 0, curvature, 1)
        outside = (curvature <= 0) | ~jnp.isfinite(curvature) | (norm(now.move + size * now.direction) >= radius)
        size = jnp.where(outside, boundary(now.move, now.direction), size)
        residual = now.residual - size * product
        after = dual(residual)
        direction = residual / metric + after / jnp.maximum(before, jnp.finfo(before.dtype).tiny) * now.direction
        running = ~outside & (after > target) & (now.count + 1 < limit)
        return Inner(
            now.move + size * now.direction, residual, direction, now.product + size * product, now.count + 1, running
        )

    zero = jnp.zeros_like(gradient)
    begin = Inner(zero, gradient, gradient / metric, zero, jnp.zeros((), int), dual(gradient) > 0)
    end = jax.lax.while_loop(lambda now: now.running, advance, begin)
    return Step(end.move, gradient @ end.move - 0.5 * end.move @ end.product, norm(end.move), end.count)


def judge(step: Step, rise: Array, radius: Array, value: Array) -> tuple[Array, Array]:
    """Whether to take a step that raised the value by `rise`, and the radius for the next.

    Rises below the rounding of `value` count as what was predicted.
    """
    rounding = 10 * jnp.finfo(value.dtype).eps * jnp.abs(value)
    within = (jnp.abs(rise) <= rounding) & (step.predicted <= rounding)
    ratio = jnp.where(within, 1.0, rise / jnp.maximum(step.predicted, jnp.finfo(value.dtype).tiny))
    accept = jnp.isfinite(rise) & (ratio > ACCEPT)
    at_boundary = step.length > 0.99 * radius
    growth = jnp.where(jnp.abs(ratio - 1) < 0.1, 8.0, 2.0)  # fast where the model is all but exact
    larger = jnp.where((ratio > 0.75) & at_boundary, jnp.minimum(growth * radius, LARGEST_RADIUS), radius)
    return accept, jnp.where(accept & (ratio >= 0.25), larger, 0.25 * jnp.minimum(radius, step.length))


def first_radius(like: Array, dim: int) -> Array:
    """The radius to begin with: three times the width of a standard normal distribution."""
    return jnp.full((), 3 * dim**0.5, like.dtype)


def has_arrived(step: Step, accept: Array, radius: Array, value: Array) -> Array:
    """Whether a step that was taken ended at the optimum, as far as rounding of the value lets tell."""
    rounding = 10 * jnp.finfo(value.dtype).eps * jnp.abs(value)
    return accept & (step.length < 0.99 * radius) & (step.predicted < jnp.maximum(ARRIVED, rounding))


def is_stuck(x: Array, radius: Array, count: Array) -> Array:
    """Whether a search at x, after `count` steps, can go no further."""
    return (jnp.abs(x).max() > ESCAPED) | (radius < 1e-10) | (count >= MOST_STEPS)
