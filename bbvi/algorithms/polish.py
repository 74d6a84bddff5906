"""Newton ascent of the ELBO over full-rank Gaussians, on a few fixed draws.

In coordinates x = loc + C y, with q = N(0, I) in y, the stationary conditions of the ELBO are

    E_q[grad log p] = 0    and    E_q[-hess log p] = I,

and Stein's lemma gives the second from gradients alone, E_q[-hess] = -E_q[grad y^T]. Draws are antithetic and have
unit sample covariance, which makes both averages exact for a Gaussian target: it is recovered in one undamped step.
A step is kept only when it raises the ELBO on the draws; eigenvalues are taken by magnitude and bounded, so that
C stays invertible wherever the path begins.

Reference: variational online Newton (Khan and Rue 2023, arXiv:2107.04562), here with fixed draws and a safeguard.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.problem import Problem

Array = Any
MAX_STEPS = 40
TOLERANCE = 1e-2  # stop when no mean moves by more than this many standard deviations, and no scale by this ratio
MAX_RATIO = 100.0  # by which one step may change a variance


class Polished(NamedTuple):
    """A Gaussian, and what is known of the ELBO there."""

    loc: Array  # (dim,)
    scale: Array  # (dim, dim) lower triangular
    elbo: Array  # () in nats, on the draws
    gradient: Array  # (dim,) E_q[grad]
    precision: Array  # (dim, dim) E_q[-hess]
    rate: Array  # () damping, 1 for a full Newton step
    radius: Array  # () standard deviations that the mean may move in one step
    steps: Array  # ()
    running: Array  # () bool
    evaluations: Array  # () gradient evaluations


def balanced_draws(rng: np.random.Generator, dim: int) -> np.ndarray:
    """Antithetic standard normal draws `(n, dim)` with sample covariance exactly I; n grows with dim."""
    half = rng.standard_normal((max(32, dim + 16), dim))
    draws = np.concatenate([half, -half])
    factor = np.linalg.cholesky(draws.T @ draws / len(draws))
    return np.linalg.solve(factor, draws.T).T


def polish(problem: Problem, loc: Array, scale: Array, rng: np.random.Generator) -> Polished:
    """The best Gaussian found from N(loc, scale scale^T), on draws made by `rng`."""
    draws = balanced_draws(rng, problem.dim).astype(jax.dtypes.canonicalize_dtype(float))
    return _polish(problem, loc, scale, draws)


@jax.jit
def _polish(problem: Problem, loc: Array, scale: Array, draws: Array) -> Polished:
    dim = loc.size
    entropy = 0.5 * dim * (1 + jnp.log(2 * jnp.pi))  # of N(0, I); volumes are in the density

    def evaluate(loc: Array, scale: Array) -> tuple[Array, Array, Array]:
        values, gradients, good = problem.in_coordinates(loc, scale).values_and_gradients(draws)
        mean = gradients.mean(axis=0)
        precision = -(gradients - mean).T @ draws / len(draws)
        return jnp.where(good.all(), values.mean() + entropy, -jnp.inf), mean, (precision + precision.T) / 2

    def step(now: Polished) -> Polished:
        eigenvalues, vectors = jnp.linalg.eigh(now.precision)
        eigenvalues = jnp.clip(jnp.abs(eigenvalues), 1 / MAX_RATIO, MAX_RATIO) ** now.rate
        white_gradient = vectors.T @ now.gradient
        length = jnp.sqrt(jnp.sum(white_gradient**2 / eigenvalues))
        limit = jnp.minimum(1.0, now.radius / jnp.maximum(length, 1e-30))
        move = now.rate * limit * (vectors @ (white_gradient / eigenvalues))
        scale = triangular(now.scale @ (vectors / jnp.sqrt(eigenvalues)))
        loc = now.loc + now.scale @ move
        elbo, gradient, precision = evaluate(loc, scale)

        better = elbo >= now.elbo - 1e-9 * jnp.abs(now.elbo)
        small = (jnp.abs(move).max() < TOLERANCE) & (jnp.abs(jnp.log(eigenvalues)).max() < TOLERANCE)
        rate = jnp.where(better, jnp.minimum(1.0, 2 * now.rate), now.rate / 4)
        radius = now.radius * jnp.where(better, 2.0, 0.25)
        running = ~(better & small) & (rate > 1e-3) & jnp.isfinite(now.elbo)
        made = now.evaluations + len(draws)
        new = Polished(loc, scale, elbo, gradient, precision, rate, radius, now.steps + 1, running, made)
        kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), new, now)
        return kept._replace(rate=rate, radius=radius, steps=now.steps + 1, running=running, evaluations=made)

    elbo, gradient, precision = evaluate(loc, scale)
    one, zero, true = jnp.ones((), loc.dtype), jnp.zeros((), int), jnp.array(True)
    begin = Polished(loc, scale, elbo, gradient, precision, one, 3 * dim**0.5 * one, zero, true, zero + len(draws))
    return jax.lax.while_loop(lambda now: now.running & (now.steps < MAX_STEPS), step, begin)


def triangular(factor: Array) -> Array:
    """The lower triangular L with positive diagonal and L L^T = factor factor^T."""
    lower = jnp.linalg.qr(factor.T, mode="r").T
    return lower * jnp.where(jnp.diagonal(lower) < 0, -1, 1)
