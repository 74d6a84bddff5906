"""Where to start: quasi-Newton paths to regions of high density, judged by the ELBO along the way.

A stochastic optimiser that starts far from the posterior, or in units that do not suit it, wastes its steps. So each
fit begins with a few short BFGS ascents. At each iterate x the path carries an inverse Hessian estimate C C^T, and
with it a Gaussian guess N(x + C C^T g, C C^T); the guess with the best ELBO on a few common draws wins. Judging by
ELBO rather than by density is what keeps the start out of spikes and of modes at infinity (Zhang, Carpenter, Gelman
and Vehtari 2022, arXiv:2108.03782).

The update keeps the factor C rather than the inverse Hessian, so the estimate cannot lose positive definiteness.
With s = x' - x, y = g - g' and C^-1 s = t C^T g known from the step, w = sqrt(s.y) C^-1 s / |C^-1 s|:

    C' = C - s (C^T y - w)^T / (s.y),    log|C'| = log|C| + log(|C^-1 s| / sqrt(s.y))

which gives C' C'^T y = s, the BFGS inverse Hessian. Above `DENSE` coordinates C is a diagonal, and directions come
from the L-BFGS recursion around it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.algorithms.polish import balanced_draws, polish, triangular
from bbvi.problem import Problem

Array = Any
DENSE = 200  # above this many coordinates, curvature is kept as a diagonal and a few pairs
MEMORY = 10  # pairs kept then
NUM_DRAWS = 4  # for each ELBO along a path
NUM_PATHS = 4
ATTEMPTS = 5  # sets of starting points tried before giving up
MAX_ITERATIONS = 300
PATIENCE = 10  # iterations without a better ELBO, by at least GAIN nats, before a path ends
GAIN = 0.05


class Dense(NamedTuple):
    """Inverse Hessian C C^T."""

    factor: Array  # (dim, dim)
    log_det: Array  # () log|C|
    count: Array  # () pairs seen

    @classmethod
    def identity(cls, dim: int, dtype: Any) -> "Dense":
        return cls(jnp.eye(dim, dtype=dtype), jnp.zeros((), dtype), jnp.zeros((), int))

    def solve(self, g: Array) -> Array:
        return self.factor @ (self.factor.T @ g)

    def scale_by(self, u: Array) -> Array:
        return u @ self.factor.T

    def update(self, s: Array, y: Array, step: Array, g: Array) -> "Dense":
        white_s, white_y, sy = step * (self.factor.T @ g), self.factor.T @ y, s @ y
        # The first pair sets the overall size.
        size = jnp.where(self.count == 0, jnp.sqrt(sy / (white_y @ white_y)), 1.0)
        white_s, white_y = white_s / size, white_y * size
        ratio = jnp.sqrt(sy / (white_s @ white_s))
        factor = size * self.factor - jnp.outer(s, white_y - ratio * white_s) / sy
        log_det = self.log_det + s.size * jnp.log(size) - jnp.log(ratio)
        return Dense(factor, log_det, self.count + 1)

    def scale(self) -> Array:
        """Lower triangular square root of the inverse Hessian, `(dim, dim)`."""
        return triangular(self.factor)


class Limited(NamedTuple):
    """Inverse Hessian as a diagonal and the last pairs (L-BFGS)."""

    diagonal: Array  # (dim,)
    s: Array  # (memory, dim), newest first
    y: Array  # (memory, dim)
    count: Array  # ()

    @classmethod
    def identity(cls, dim: int, dtype: Any) -> "Limited":
        pairs = jnp.zeros((MEMORY, dim), dtype)
        return cls(jnp.ones(dim, dtype), pairs, pairs, jnp.zeros((), int))

    @property
    def log_det(self) -> Array:
        return 0.5 * jnp.sum(jnp.log(self.diagonal))

    def solve(self, g: Array) -> Array:
        sy = jnp.sum(self.s * self.y, axis=1)
        rho = jnp.where(sy > 0, 1 / jnp.where(sy > 0, sy, 1), 0)  # empty slots do nothing

        def backward(r: Array, pair: tuple) -> tuple[Array, Array]:
            s, y, rho = pair
            a = rho * (s @ r)
            return r - a * y, a

        def forward(r: Array, pair: tuple) -> tuple[Array, None]:
            s, y, rho, a = pair
            return r + s * (a - rho * (y @ r)), None

        r, a = jax.lax.scan(backward, g, (self.s, self.y, rho))
        r, _ = jax.lax.scan(forward, self.diagonal * r, (self.s, self.y, rho, a), reverse=True)
        return r

    def scale_by(self, u: Array) -> Array:
        return u * jnp.sqrt(self.diagonal)

    def update(self, s: Array, y: Array, step: Array, g: Array) -> "Limited":
        # Diagonal that best explains the pair (Gilbert and Lemarechal 1989, eq. 4.9).
        old = jnp.where(self.count == 0, (s @ y) / (y @ y), 1.0) * self.diagonal
        a, b, c = y @ (old * y), s @ y, s @ (s / old)
        new = b / (a / old + y**2 - (a / c) * (s / old) ** 2)
        diagonal = jnp.where(jnp.isfinite(new) & (new > 0), new, old)
        push = lambda pairs, new: jnp.concatenate([new[None], pairs[:-1]])  # noqa: E731
        return Limited(diagonal, push(self.s, s), push(self.y, y), self.count + 1)

    def scale(self) -> Array:
        """Standard deviations, `(dim,)`."""
        return jnp.sqrt(self.diagonal)


class Path(NamedTuple):
    x: Array  # (dim,)
    value: Array  # () log density at x
    gradient: Array  # (dim,)
    curvature: Dense | Limited
    step: Array  # () length to try along the direction
    best: tuple[Array, Array, Any]  # ELBO, mean and curvature of the best Gaussian so far
    waited: Array  # () iterations since it improved
    running: Array  # () bool


class Start(NamedTuple):
    """A Gaussian to start from, and what else was seen."""

    loc: Array  # (dim,)
    scale: Array  # (dim, dim) lower triangular, or (dim,) for a diagonal
    path_locs: np.ndarray  # (paths, dim) best mean on each path
    path_elbos: np.ndarray  # (paths,) its ELBO, -inf for a path that failed
    log_densities: int  # evaluations without gradient
    gradients: int  # evaluations with gradient


def find_start(problem: Problem, rng: np.random.Generator, point: np.ndarray | None, use_gradients: bool) -> Start:
    """Find a Gaussian from which to optimise.

    Arguments:
        point: where to look, `(dim,)`, or None for the origin and random points in [-2, 2]^dim.
        use_gradients: False for a log density without any: then the Gaussian is N(x, I) with x the best point seen.

    Raises:
        FloatingPointError: when the log density is finite at no point tried.
    """
    evaluations = 0
    for attempt in range(ATTEMPTS):
        xs = _starting_points(rng, problem.dim, point, attempt)
        if not use_gradients:
            values = np.asarray(_log_densities(problem, xs))
            evaluations += len(xs)
            if np.isfinite(values).any():
                best = xs[np.argmax(np.where(np.isfinite(values), values, -np.inf))]
                return Start(best, np.ones(problem.dim, xs.dtype), best[None], values[None].max(axis=1), evaluations, 0)
            continue
        half = rng.standard_normal((NUM_DRAWS // 2, problem.dim)).astype(xs.dtype)
        paths = jax.device_get(climb(problem, xs, np.concatenate([half, -half])))
        evaluations += int(paths.evaluations)
        order = np.argsort(-paths.elbo, kind="stable")
        best = order[0]
        if not np.isfinite(paths.value[best]):
            continue
        loc, scale = paths.loc[best], paths.scale[best]
        if scale.ndim == 2:
            draws = balanced_draws(rng, problem.dim).astype(xs.dtype)
            polished = polish(problem, loc, scale, draws)
            evaluations += (1 + int(polished.steps)) * len(draws)
            loc, scale = polished.loc, polished.scale
        return Start(loc, scale, paths.loc[order], paths.elbo[order], 0, evaluations)
    where = "near the given init" if point is not None else "at the origin or at random points around it"
    raise FloatingPointError(
        f"logprob is not finite at any of the {ATTEMPTS * NUM_PATHS} starting points tried {where}. Check the sign and "
        "the constraints of the parameters, or give init= a point at which it is finite."
    )


def _starting_points(rng: np.random.Generator, dim: int, point: np.ndarray | None, attempt: int) -> np.ndarray:
    dtype = jax.dtypes.canonicalize_dtype(float)
    radius = 2.0 * 4.0 ** -(attempt % 3) if attempt < 3 else 2.0 * 4.0 ** (attempt - 2)
    xs = rng.uniform(-radius, radius, (NUM_PATHS, dim))
    if attempt == 0:
        xs[0] = 0
    if point is not None:
        xs = point + (0 if attempt == 0 else 0.01 * 4.0**attempt) * xs
        xs = xs[:1] if attempt == 0 else xs
    return xs.astype(dtype)


@jax.jit
def _log_densities(problem: Problem, xs: Array) -> Array:
    return problem.log_densities(xs)


class Paths(NamedTuple):
    loc: Array  # (paths, dim)
    scale: Array  # (paths, dim, dim) lower triangular or (paths, dim)
    elbo: Array  # (paths,) of the best Gaussian, -inf for none
    value: Array  # (paths,) log density at the end of the path
    evaluations: Array  # () gradient evaluations


@jax.jit
def climb(problem: Problem, xs: Array, noise: Array) -> Paths:
    """Climb from each of the points `xs` `(paths, dim)`; `noise` `(NUM_DRAWS, dim)` is standard normal."""
    dim, dtype = xs.shape[1], xs.dtype
    curvature = (Dense if dim <= DENSE else Limited).identity(dim, dtype)

    def begin(x: Array) -> Path:
        nothing, zero = jnp.array(-jnp.inf, dtype), jnp.zeros((), dtype)
        return Path(
            x, nothing, jnp.zeros_like(x), curvature, zero, (nothing, x, curvature), jnp.zeros((), int), jnp.array(True)
        )

    def advance(path: Path) -> Path:
        # One evaluation: the point to try, and draws from the Gaussian at the present point.
        direction = path.curvature.solve(path.gradient)
        candidate = path.x + path.step * direction
        mean = path.x + direction
        points = jnp.concatenate([candidate[None], mean + path.curvature.scale_by(noise)])
        values, gradients, good = problem.values_and_gradients(points)

        elbo = jnp.where(good[1:].all(), values[1:].mean() + path.curvature.log_det, -jnp.inf)
        elbo = jnp.where(jnp.isfinite(path.value), elbo, -jnp.inf)
        better = elbo > path.best[0]
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), (elbo, mean, path.curvature), path.best)

        first = ~jnp.isfinite(path.value)
        slope = path.gradient @ direction
        value, gradient = values[0], gradients[0]
        rise = value - path.value
        accept = good[0] & (first | (rise >= 1e-4 * path.step * slope))

        s, y = candidate - path.x, path.gradient - gradient
        curved = accept & ~first & (s @ y > 1e-10 * jnp.sqrt((s @ s) * (y @ y)))
        updated = path.curvature.update(s, y, path.step, path.gradient)
        new_curvature = jax.tree.map(lambda new, old: jnp.where(curved, new, old), updated, path.curvature)

        # Too far: the peak of the parabola through what is known. No curvature seen: go further.
        peak = slope * path.step**2 / (2 * (path.step * slope - rise))
        shorter = jnp.where(good[0], jnp.clip(peak, 0.1 * path.step, 0.5 * path.step), 0.1 * path.step)
        onward = jnp.where(first, 1 / (1e-12 + jnp.linalg.norm(gradient)), jnp.where(curved, 1.0, 4 * path.step))
        step = jnp.where(accept, onward, shorter)

        keep = lambda new, old: jnp.where(accept, new, old)  # noqa: E731
        stuck = ~accept & ((path.step * slope < 1e-13 * jnp.abs(path.value)) | (path.step < 1e-20) | first)
        gained = (elbo > path.best[0] + GAIN) | ~jnp.isfinite(path.best[0])
        waited = jnp.where(gained, 0, path.waited + 1)
        return Path(
            keep(candidate, path.x),
            keep(value, path.value),
            keep(gradient, path.gradient),
            new_curvature,
            step,
            best,
            waited,
            path.running & ~stuck & (waited < PATIENCE),
        )

    def body(carry: tuple[Array, Any]) -> tuple[Array, Any]:
        count, paths = carry
        moved = jax.vmap(advance)(paths)
        held = jax.tree.map(
            lambda new, old: jnp.where(paths.running.reshape(-1, *[1] * (new.ndim - 1)), new, old), moved, paths
        )
        return count + 1, held

    def unfinished(carry: tuple[Array, Any]) -> Array:
        return (carry[0] < MAX_ITERATIONS) & carry[1].running.any()

    count, paths = jax.lax.while_loop(unfinished, body, (jnp.zeros((), int), jax.vmap(begin)(xs)))
    elbo, mean, curvatures = paths.best
    elbo = elbo + 0.5 * jnp.sum(noise**2) / len(noise) + 0.5 * dim * jnp.log(2 * jnp.pi)
    scale = jax.vmap(lambda c: c.scale())(curvatures)
    return Paths(mean, scale, elbo, paths.value, count * len(xs) * (1 + NUM_DRAWS))
