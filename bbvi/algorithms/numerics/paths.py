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
import numpy as np

from bbvi.algorithms.numerics.quasi_newton import Dense, Limited
from bbvi.distributions.base import LOG_2PI
from bbvi.runtime.types import Array

ENDURANCE = 10  # iterations without a better ELBO, by at least GAIN nats, before a path ends
GAIN = 0.05
STEEP = 1.0  # nats by which the density rises in an iteration that does not count as waiting
NEARLY_LEVEL = 1e-3  # nats by which it rises near the mode; SETTLING such iterations end a path without draws
SETTLING = 2
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


def at_start(xs: Array, curvature: Dense | Limited, judged: bool) -> Path:
    """Paths that have gone nowhere yet, from each of the points `xs` `(paths, dim)`; each leaf has an axis of paths.

    Arguments:
        curvature: of each, before any pair is seen.
        judged: whether draws are to judge them.
    """
    dtype, count = xs.dtype, len(xs)
    each = lambda leaf: np.broadcast_to(leaf, (count, *np.shape(leaf)))
    nothing = np.full(count, -np.inf, dtype)
    best = (nothing, xs, jax.tree.map(each, curvature.gaussian())) if judged else None
    return Path(
        x=xs,
        value=nothing,
        gradient=np.zeros(xs.shape, dtype),
        curvature=jax.tree.map(each, curvature),
        step=np.zeros(count, dtype),
        best=best,
        waited=np.zeros(count, jax.dtypes.canonicalize_dtype(int)),
        running=np.ones(count, bool),
    )


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


def advance(
    path: Path, at: Points, values: Array, gradients: Array, finite: Array, judged: Array | bool = True
) -> Path:
    """One iteration, given values `(1 + n,)` and gradients `(1 + n, dim)` at its points.

    The ELBO of a Gaussian is over its draws. A path that is not `judged` by them, and one without any, for which n = 0
    and `best` is None, ends near the mode.
    """
    direction, step, candidate, mean = at.direction, at.step, at.points[0], path.x + at.direction
    first = ~jnp.isfinite(path.value)
    slope = path.gradient @ direction
    value, gradient = values[0], gradients[0]
    rise = value - path.value
    accept = path.running & finite[0] & (first | (rise >= 1e-4 * step * slope))

    s, y = candidate - path.x, path.gradient - gradient
    curved = accept & ~first & (s @ y > 1e-10 * jnp.sqrt((s @ s) * (y @ y)))
    updated = path.curvature.update(s, y, step, path.gradient)
    curvature = jax.tree.map(lambda new, old: jnp.where(curved, new, old), updated, path.curvature)

    # Too far: the peak of the parabola through what is known. No curvature seen: go further.
    peak = slope * step**2 / (2 * (step * slope - rise))
    shorter = jnp.where(finite[0], jnp.clip(peak, 0.1 * step, 0.5 * step), 0.1 * step)
    onward = jnp.where(first, 1 / (1e-12 + jnp.linalg.norm(gradient)), jnp.where(curved, 1.0, 4 * step))

    keep = lambda new, old: jnp.where(accept, new, old)
    stuck = ~accept & (
        (step * slope < max(1e-13, float(jnp.finfo(value.dtype).eps)) * jnp.abs(path.value)) | (step < 1e-20) | first
    )
    best, patience = None, jnp.asarray(SETTLING)
    waited = jnp.where(accept, jnp.where(rise > NEARLY_LEVEL, 0, path.waited + 1), path.waited)
    if path.best is not None:
        expected = jnp.where(finite[1:].all() & jnp.isfinite(path.value), values[1:].mean(), -jnp.inf)
        elbo, patience = expected + path.curvature.log_det, jnp.where(judged, ENDURANCE, SETTLING)
        better = path.running & judged & (elbo > path.best[0])
        now = (elbo, mean, path.curvature.gaussian())
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), now, path.best)
        gained = (elbo > path.best[0] + GAIN) | ~jnp.isfinite(path.best[0])
        since_gain = jnp.where(gained, 0, path.waited + (~accept | (rise <= STEEP)).astype(int))
        waited = jnp.where(judged, since_gain, waited)
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


def missing_entropy(noise: Array, dim: int) -> Array:
    """What is missing in the ELBOs of `advance`: minus mean log q over the draws, up to log|C|, in nats."""
    return 0.5 * (noise**2).sum() / max(len(noise), 1) + 0.5 * dim * LOG_2PI
