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
from bbvi.compiling import program
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


def advance(problem: Problem, noise: Array, path: Path) -> Path:
    """One iteration with one evaluation: of a point to try, and of draws from the Gaussian at the present point.

    The ELBO of a Gaussian is over the standard normal draws `noise` `(n, dim)`. Without any, n = 0 and `best` None, a
    path ends near the mode.
    """
    direction = path.curvature.solve(path.gradient)
    candidate = path.x + path.step * direction
    mean = path.x + direction
    points = jnp.concatenate([candidate[None], mean + path.curvature.scale_by(noise)])
    values, gradients, good = problem.values_and_gradients(points)

    first = ~jnp.isfinite(path.value)
    slope = path.gradient @ direction
    value, gradient = values[0], gradients[0]
    rise = value - path.value
    accept = path.running & good[0] & (first | (rise >= 1e-4 * path.step * slope))

    s, y = candidate - path.x, path.gradient - gradient
    curved = accept & ~first & (s @ y > 1e-10 * jnp.sqrt((s @ s) * (y @ y)))
    updated = path.curvature.update(s, y, path.step, path.gradient)
    curvature = jax.tree.map(lambda new, old: jnp.where(curved, new, old), updated, path.curvature)

    # Too far: the peak of the parabola through what is known. No curvature seen: go further.
    peak = slope * path.step**2 / (2 * (path.step * slope - rise))
    shorter = jnp.where(good[0], jnp.clip(peak, 0.1 * path.step, 0.5 * path.step), 0.1 * path.step)
    onward = jnp.where(first, 1 / (1e-12 + jnp.linalg.norm(gradient)), jnp.where(curved, 1.0, 4 * path.step))
    step = jnp.where(accept, onward, shorter)

    keep = lambda new, old: jnp.where(accept, new, old)
    stuck = ~accept & (
        (path.step * slope < max(1e-13, float(jnp.finfo(value.dtype).eps)) * jnp.abs(path.value))
        | (path.step < 1e-20)
        | first
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
        keep(candidate, path.x),
        keep(value, path.value),
        keep(gradient, path.gradient),
        curvature,
        step,
        best,
        waited,
        path.running & ~stuck & (waited < patience),
    )


@program
def climb(problem: Problem, xs: Array, noise: Array) -> Paths:
    """Climb from each of the points `xs` `(paths, dim)`; `noise` `(n, dim)` is standard normal, n even or 0.

    Without noise the Gaussian is that of the quadratic expansion where the path ended, and its ELBO Laplace's estimate
    of the log evidence.
    """
    dim, dtype = xs.shape[1], xs.dtype
    curvature = (Dense if dim <= DENSE else Limited).identity(dim, dtype)

    def body(carry: tuple[Array, Any]) -> tuple[Array, Any]:
        count, paths = carry
        return count + 1, jax.vmap(lambda path: advance(problem, noise, path))(paths)

    def unfinished(carry: tuple[Array, Any]) -> Array:
        return (carry[0] < MAX_ITERATIONS) & carry[1].running.any()

    paths = jax.vmap(lambda x: begin(x, curvature))(xs)
    paths = paths if len(noise) else paths._replace(best=None)
    count, paths = jax.lax.while_loop(unfinished, body, (jnp.zeros((), int), paths))
    if paths.best is None:
        mean, curvatures = paths.x, paths.curvature
        elbo = paths.value + jax.vmap(lambda c: c.log_det)(curvatures)
    else:
        elbo, mean, curvatures = paths.best
    elbo = elbo + constant(noise, dim)
    scale = jax.vmap(lambda c: c.scale())(curvatures)
    return problem.layout.everywhere(Paths(mean, scale, elbo, paths.value, count * len(xs) * (1 + len(noise))))


def constant(noise: Array, dim: int) -> Array:
    """What is missing in the ELBOs of `advance`: minus mean log q over the draws, up to log|C|."""
    return 0.5 * jnp.sum(noise**2) / max(len(noise), 1) + 0.5 * dim * jnp.log(2 * jnp.pi)
