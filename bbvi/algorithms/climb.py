"""Quasi-Newton paths to regions of high density, judged by the ELBO along the way.

At each iterate x a path carries an inverse Hessian estimate H, and with it a Gaussian guess N(x + H g, H); the guess
with the best ELBO on a few common draws wins. Judging by ELBO rather than by density keeps the result out of spikes
and of modes at infinity.

Reference: Pathfinder (Zhang, Carpenter, Gelman and Vehtari 2022, arXiv:2108.03782), here with few draws, a path that
ends when the ELBO no longer improves, and one evaluation of the log density per iteration for candidate and draws.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bbvi.algorithms.quasi_newton import Dense, Limited
from bbvi.problem import Problem

Array = Any
DENSE = 200  # coordinates up to which the inverse Hessian is dense
NUM_DRAWS = 4  # for each ELBO along a path
MAX_ITERATIONS = 300
PATIENCE = 10  # iterations without a better ELBO, by at least GAIN nats, before a path ends
GAIN = 0.05
STEEP = 1.0  # nats by which the density rises in an iteration that does not count as waiting
NEAR = 1e-3  # nats by which it rises near the mode, where a path without draws ends after SETTLED such iterations
SETTLED = 2
WARY = 2.0  # units, or quarters of a coordinate where that is larger, that a wary path moves a coordinate in a step


class Path(NamedTuple):
    """One path under way."""

    x: Array  # (dim,)
    value: Array  # () log density at x
    gradient: Array  # (dim,)
    curvature: Dense | Limited
    step: Array  # () length to try along the direction
    best: Any  # ELBO, mean and curvature (without pairs) of the best Gaussian so far, or None where no draws judge it
    waited: Array  # () iterations since it improved
    running: Array  # () bool


class Paths(NamedTuple):
    """What the paths found."""

    loc: Array  # (paths, dim)
    scale: Array  # (paths, dim, dim) lower triangular or (paths, dim)
    elbo: Array  # (paths,) of the best Gaussian, -inf for none
    value: Array  # (paths,) log density at the end of the path
    evaluations: Array  # () gradient evaluations


def begin(x: Array, curvature: Dense | Limited) -> Path:
    """A path that has gone nowhere yet, from `x` `(dim,)`."""
    nothing, zero = jnp.array(-jnp.inf, x.dtype), jnp.zeros((), x.dtype)
    best = (nothing, x, curvature.gaussian())
    return Path(x, nothing, jnp.zeros_like(x), curvature, zero, best, jnp.zeros((), int), jnp.array(True))


class Points(NamedTuple):
    """What an iteration evaluates."""

    direction: Array  # (dim,)
    step: Array  # () along it
    points: Array  # (1 + n, dim) the candidate, and draws from the Gaussian at the present point


def look_ahead(noise: Array, path: Path, wary: bool = False) -> Points:
    """What to evaluate next, where `noise` `(n, dim)` is standard normal.

    A `wary` path takes short steps, since far out a point may take for ever.
    """
    direction = path.curvature.solve(path.gradient)
    step = path.step
    if wary:
        reach = jnp.maximum(WARY, jnp.abs(path.x) / 4)
        step = jnp.minimum(step, jnp.min(reach / jnp.maximum(jnp.abs(direction), 1e-30)))
    draws = path.x + direction + path.curvature.scale_by(noise)
    return Points(direction, step, jnp.concatenate([(path.x + step * direction)[None], draws]))


def advance(path: Path, at: Points, values: Array, gradients: Array, good: Array) -> Path:
    """One iteration, given values `(1 + n,)` and gradients `(1 + n, dim)` at its points.

    The ELBO of a Gaussian is over its draws. Without any, n = 0 and `best` None, a path ends near the mode.
    """
    direction, step, candidate, mean = at.direction, at.step, at.points[0], path.x + at.direction
    first = ~jnp.isfinite(path.value)
    slope = path.gradient @ direction
    value, gradient = values[0], gradients[0]
    rise = value - path.value
    accept = path.running & good[0] & (first | (rise >= 1e-4 * step * slope))

    s, y = candidate - path.x, path.gradient - gradient
    curved = accept & ~first & (s @ y > 1e-10 * jnp.sqrt((s @ s) * (y @ y)))
    updated = path.curvature.update(s, y, step, path.gradient)
    curvature = jax.tree.map(lambda new, old: jnp.where(curved, new, old), updated, path.curvature)

    # Too far: the peak of the parabola through what is known. No curvature seen: go further.
    peak = slope * step**2 / (2 * (step * slope - rise))
    shorter = jnp.where(good[0], jnp.clip(peak, 0.1 * step, 0.5 * step), 0.1 * step)
    onward = jnp.where(first, 1 / (1e-12 + jnp.linalg.norm(gradient)), jnp.where(curved, 1.0, 4 * step))

    keep = lambda new, old: jnp.where(accept, new, old)
    stuck = ~accept & (
        (step * slope < max(1e-13, float(jnp.finfo(value.dtype).eps)) * jnp.abs(path.value)) | (step < 1e-20) | first
    )
    if path.best is None:
        best, patience = None, SETTLED
        waited = jnp.where(accept, jnp.where(rise > NEAR, 0, path.waited + 1), path.waited)
    else:
        expected = jnp.where(good[1:].all() & jnp.isfinite(path.value), values[1:].mean(), -jnp.inf)
        elbo, patience = expected + path.curvature.log_det, PATIENCE
        better = path.running & (elbo > path.best[0])
        now = (elbo, mean, path.curvature.gaussian())
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, path.best)
        gained = (elbo > path.best[0] + GAIN) | ~jnp.isfinite(path.best[0])
        waited = jnp.where(gained, 0, path.waited + (~accept | (rise <= STEEP)).astype(int))
    return Path(
        x=keep(candidate, path.x),
        value=keep(value, path.value),
        gradient=keep(gradient, path.gradient),
        curvature=curvature,
        step=jnp.where(accept, onward, shorter),
        best=best,
        waited=waited,
        running=path.running & ~stuck & (waited < patience),
    )


class Climb(NamedTuple):
    """Paths under way."""

    count: Array  # () iterations
    paths: Path  # each leaf with a leading axis of paths


def set_out(xs: Array, judged: bool) -> Climb:
    """Paths from each of the points `xs` `(paths, dim)`; whether draws are to judge them."""
    curvature = (Dense if xs.shape[1] <= DENSE else Limited).identity(xs.shape[1], xs.dtype)
    paths = jax.vmap(lambda x: begin(x, curvature))(xs)
    return Climb(jnp.zeros((), int), paths if judged else paths._replace(best=None))


def climb(
    problem: Problem, xs: Array, noise: Array, under_way: Climb | None = None, limit: Array | int = MAX_ITERATIONS
) -> tuple[Climb, Paths, Array]:
    """At most `limit` iterations on paths from each of the points `xs` `(paths, dim)`.

    Without noise the Gaussian is that of the quadratic expansion where the path ended, and its ELBO Laplace's estimate
    of the log evidence.

    Arguments:
        noise: standard normal `(n, dim)`, n even or 0.
        under_way: where to go on; None, or a count of 0, for the beginning.

    Returns:
        Where to go on, what the paths have found so far, and whether any of them is unfinished, () bool.
    """
    begun = set_out(xs, judged=len(noise) > 0)
    if under_way is not None:
        begun = jax.tree.map(lambda new, old: jnp.where(under_way.count == 0, new, old), begun, under_way)
    wary = problem.is_irregular

    def body(carry: tuple[Array, Climb]) -> tuple[Array, Climb]:
        i, (count, paths) = carry
        at = jax.vmap(lambda path: look_ahead(noise, path, wary))(paths)
        found = problem.values_and_gradients(at.points.reshape(-1, xs.shape[1]))
        each = [values.reshape(len(xs), -1, *values.shape[1:]) for values in found]
        return i + 1, Climb(count + 1, jax.vmap(advance)(paths, at, *each))

    unfinished = lambda now: (now.count < MAX_ITERATIONS) & now.paths.running.any()
    _, now = jax.lax.while_loop(
        lambda carry: (carry[0] < limit) & unfinished(carry[1]), body, (jnp.zeros((), int), begun)
    )
    paths = now.paths
    if paths.best is None:
        mean, curvatures = paths.x, paths.curvature
        elbo = paths.value + jax.vmap(lambda c: c.log_det)(curvatures)
    else:
        elbo, mean, curvatures = paths.best
    elbo = elbo + constant(noise, xs.shape[1])
    scale = jax.vmap(lambda c: c.scale())(curvatures)
    evaluations = now.count * len(xs) * (1 + len(noise))
    found = Paths(mean, scale, elbo, paths.value, evaluations)
    return problem.layout.everywhere((now, found, unfinished(now)))


def constant(noise: Array, dim: int) -> Array:
    """What is missing in the ELBOs of `advance`: minus mean log q over the draws, up to log|C|."""
    return 0.5 * jnp.sum(noise**2) / max(len(noise), 1) + 0.5 * dim * jnp.log(2 * jnp.pi)
