"""Newton ascent of the ELBO over full-rank Gaussians, on fixed draws.

In coordinates x = loc + C y, with q = N(0, I) in y, the stationary conditions of the ELBO are

    E_q[grad log p] = 0    and    E_q[-hess log p] = I,

and Stein's lemma gives the second from gradients alone, E_q[-hess] = -E_q[grad y^T]. Draws are antithetic and have
unit sample covariance, which makes both averages exact for a Gaussian target: it is recovered in one undamped step.
A step is kept only when it raises the ELBO on the draws; eigenvalues are taken by magnitude and bounded, so that
C stays invertible wherever the path begins.

What the draws leave over once the steps have become small is r = grad log p + y, which is zero for a Gaussian. The
standard errors of the averages of r and of r y over antithetic pairs say how far mean and scale would move with other
draws, in standard deviations; while they are large, the number of draws is doubled.

Reference: variational online Newton (Khan and Rue 2023, arXiv:2107.04562), here with fixed draws and a safeguard.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.algorithms.base import Algorithm, Info, Result, extract
from bbvi.distributions import Distribution, FullRank
from bbvi.outcome import Finding, Status
from bbvi.problem import Problem

Array = Any
TOLERANCE = 1e-2  # stop when no mean moves by more than this many standard deviations, and no scale by this ratio
ERROR = 0.1  # of the draws, in the same units, above which there are too few
MAX_RATIO = 100.0  # by which one step may change a variance


class NewtonState(NamedTuple):
    """State of `Newton`."""

    loc: Array  # (dim,)
    scale: Array  # (dim, dim) lower triangular
    elbo: Array  # () in nats, on the draws
    elbo_error: Array  # () its standard error
    gradient: Array  # (dim,) E_q[grad]
    precision: Array  # (dim, dim) E_q[-hess]
    error: Array  # () standard error of means and scales, in standard deviations
    rate: Array  # () damping, 1 for a full Newton step
    radius: Array  # () standard deviations that the mean may move in one step
    steps: Array  # ()
    running: Array  # () bool
    settled: Array  # () bool, whether the steps have become small
    used: Array  # () blocks of draws in use
    draws: Array  # (blocks, n, dim)


@dataclass(frozen=True, kw_only=True)
class Newton(Algorithm[NewtonState]):
    """Variational Newton: the full-rank Gaussian of largest ELBO, on fixed draws.

    Arguments:
        num_draws: at first, in antithetic pairs: an even number. None for twice dim + 16, at least 64.
        max_doublings: of the number of draws, while their error is large.
        products: take the Hessians at the draws by Hessian-vector products, dim for each draw, rather than by Stein's
            lemma from the gradients: less noise for each draw, but more than dim times the cost.
        max_steps: after which it gives up.
    """

    num_draws: int | None = None
    max_doublings: int = 4
    products: bool = False
    max_steps: int = 100
    name = "newton"
    families = (FullRank,)

    def __post_init__(self) -> None:
        if self.num_draws is not None and (self.num_draws < 4 or self.num_draws % 2):
            raise ValueError(f"num_draws={self.num_draws} must be even and at least 4: two antithetic pairs.")
        if self.max_doublings < 0:
            raise ValueError(f"max_doublings={self.max_doublings} must not be negative.")

    def derivatives(self, q: Distribution) -> int:
        return 2 if self.products else 1

    def default_family(self, dim: int) -> type[Distribution]:
        return FullRank

    def draws(self, rng: np.random.Generator, dim: int) -> Array:
        fewest = 8 if self.products else max(64, 2 * (dim + 16))
        n = fewest if self.num_draws is None else self.num_draws
        if not self.products and n < 2 * (dim + 1):
            raise ValueError(f"num_draws={n} is too few for {dim} coordinates: give at least {2 * (dim + 1)}.")
        blocks = [balanced_draws(rng, n, dim) for _ in range(2**self.max_doublings)]
        return np.stack(blocks).astype(jax.dtypes.canonicalize_dtype(float))

    def init(self, problem: Problem, q: Distribution, draws: Array) -> NewtonState:
        loc, scale, _ = q.standardise()
        zero, false = jnp.zeros((), loc.dtype), jnp.array(False)
        return NewtonState(
            loc,
            scale,
            zero - jnp.inf,
            zero,
            jnp.zeros_like(loc),
            jnp.eye(q.dim, dtype=loc.dtype),
            zero,
            zero + 1,
            zero + 3 * q.dim**0.5,
            jnp.zeros((), int),
            jnp.array(True),
            false,
            jnp.ones((), int),
            draws,
        )

    def step(self, noise: Any, problem: Problem, state: NewtonState) -> tuple[NewtonState, Info]:
        now = state
        # The first step, whose precision is I and gradient 0, only looks; so does the first with more draws.
        eigenvalues, vectors = jnp.linalg.eigh(now.precision)
        eigenvalues = jnp.clip(jnp.abs(eigenvalues), 1 / MAX_RATIO, MAX_RATIO) ** now.rate
        white_gradient = vectors.T @ now.gradient
        length = jnp.sqrt(jnp.sum(white_gradient**2 / eigenvalues))
        limit = jnp.minimum(1.0, now.radius / jnp.maximum(length, 1e-30))
        move = now.rate * limit * (vectors @ (white_gradient / eigenvalues))
        scale = triangular(now.scale @ (vectors / jnp.sqrt(eigenvalues)))
        loc = now.loc + now.scale @ move
        elbo, elbo_error, gradient, precision, error, bad = self._evaluate(problem, loc, scale, now.draws, now.used)

        looking = ~jnp.isfinite(now.elbo)
        better = looking | (elbo >= now.elbo - 1e-9 * jnp.abs(now.elbo))
        small = (jnp.abs(move).max() < TOLERANCE) & (jnp.abs(jnp.log(eigenvalues)).max() < TOLERANCE)
        rate = jnp.where(better, jnp.minimum(1.0, 2 * now.rate), now.rate / 4)
        radius = now.radius * jnp.where(looking, 1.0, jnp.where(better, 2.0, 0.25))
        settled = better & small & ~looking
        too_few = settled & (error > ERROR) & (2 * now.used <= len(now.draws))
        able = (rate > 1e-3) & (now.steps + 1 < self.max_steps) & (jnp.isfinite(elbo) | ~looking)
        new = now._replace(
            loc=loc,
            scale=scale,
            elbo=elbo,
            elbo_error=elbo_error,
            gradient=gradient,
            precision=precision,
            error=error,
        )
        kept = jax.tree.map(lambda new, old: jnp.where(better, new, old), new, now)
        eye = jnp.eye(len(loc), dtype=loc.dtype)
        state = kept._replace(
            elbo=jnp.where(too_few, -jnp.inf, kept.elbo),
            gradient=jnp.where(too_few, 0, kept.gradient),
            precision=jnp.where(too_few, eye, kept.precision),
            used=jnp.where(too_few, 2 * now.used, now.used),
            rate=rate,
            radius=radius,
            steps=now.steps + 1,
            running=able & (~settled | too_few),
            settled=settled & ~too_few,
        )
        made = now.used * now.draws.shape[1]
        products = made * len(loc) if self.products else jnp.zeros((), int)
        return state, Info(elbo, elbo_error, bad, jnp.zeros((), int), made, products)

    def _evaluate(self, problem: Problem, loc: Array, scale: Array, draws: Array, used: Array) -> tuple[Array, ...]:
        """ELBO and its error, E[grad], E[-hess], error of the draws, and bad draws, at N(loc, scale scale^T)."""
        local = problem.in_coordinates(loc, scale)
        n, dim = draws.shape[1:]
        zero, vector, matrix = jnp.zeros((), loc.dtype), jnp.zeros_like(loc), jnp.zeros_like(scale)

        def block(i: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            y = jnp.asarray(draws)[i]
            values, gradients, good = local.values_and_gradients(y)
            if self.products:
                column = lambda v: -local.hessian_vector_products(y, jnp.broadcast_to(v, y.shape)).mean(axis=0)
                precision = jax.lax.map(column, jnp.eye(dim, dtype=y.dtype))
            else:
                precision = -(gradients - gradients.mean(axis=0)).T @ y / n
            rest = gradients + y
            pair = lambda rows: (rows[: n // 2] + rows[n // 2 :]) / 2
            even, odd, height = pair(rest), pair(rest * y), pair(values + 0.5 * jnp.sum(y**2, axis=1))
            new = (
                values.sum(),
                (height**2).sum(),
                height.sum(),
                gradients.mean(axis=0),
                (precision + precision.T) / 2,
                (even**2).sum(axis=0),
                (odd**2).sum(axis=0),
                odd.sum(axis=0),
                jnp.sum(~good),
            )
            return jax.tree.map(jnp.add, sums, new)

        zeros = (zero, zero, zero, vector, matrix, vector, vector, vector, jnp.zeros((), int))
        total = jax.lax.fori_loop(0, used, block, zeros)
        value, square, height, gradient, precision, evens, odds, odd, bad = total
        blocks, pairs = used.astype(loc.dtype), (used * (n // 2)).astype(loc.dtype)
        variance = lambda squares, mean: jnp.maximum(squares / pairs - mean**2, 0) / jnp.maximum(pairs - 1, 1)
        gradient, precision = gradient / blocks, precision / blocks
        errors = jnp.stack([variance(evens, gradient), variance(odds, odd / pairs) / 4])
        entropy = 0.5 * dim * (1 + jnp.log(2 * jnp.pi))  # of N(0, I); volumes are in the density
        elbo = jnp.where(bad == 0, value / (2 * pairs) + entropy, -jnp.inf)
        return elbo, jnp.sqrt(variance(square, height / pairs)), gradient, precision, jnp.sqrt(errors.max()), bad

    def done(self, state: NewtonState) -> Array:
        return ~state.running

    def extract(self, state: NewtonState) -> Distribution:
        return FullRank.from_scale_tril(state.loc, state.scale)

    def finish(self, problem: Problem, state: NewtonState) -> Result:
        findings = []
        if state.settled and state.error > ERROR:
            reason = (
                f"with other draws a mean or scale would move by about {float(state.error):.2g} standard deviations"
            )
            findings.append(Finding(Status.RELIABLE, reason, "raise num_draws or max_doublings"))
        return Result((jax.device_get(extract(self, state)),), findings, converged=bool(state.settled))


def balanced_draws(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Antithetic normal draws `(n, dim)` with unit variances, and sample covariance exactly I if n >= 2 dim."""
    half = rng.standard_normal((n // 2, dim))
    draws = np.concatenate([half, -half])
    if n < 2 * dim:
        return draws / np.sqrt(np.mean(draws**2, axis=0))
    factor = np.linalg.cholesky(draws.T @ draws / n)
    return np.linalg.solve(factor, draws.T).T


def triangular(factor: Array) -> Array:
    """The lower triangular L with positive diagonal and L L^T = factor factor^T."""
    lower = jnp.linalg.qr(factor.T, mode="r").T
    return lower * jnp.where(jnp.diagonal(lower) < 0, -1, 1)
