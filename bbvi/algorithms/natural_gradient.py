"""Natural gradients of the ELBO: steps measured by how much they change q, not its parameters.

For a Gaussian q with precision P they need g = E_q[grad log p] and A = E_q[-hess log p] alone (Bonnet, Price):

    P' = (1 - eta) P + eta A,    m' = m + eta P'^-1 g.

In coordinates in which q = N(0, I), A is X, and each of its eigenvalues x (its diagonal, for a mean-field Gaussian)
makes a variance of 1 one of 1 / b with

    b = 1 - eta (1 - x)                           for x > 0
    b = 1 - eta (1 - x) + eta^2 (1 - x)^2 / 2     otherwise: positive for any x and eta

so that the covariance stays positive definite whatever noise and target do.

For a Gaussian of diagonal plus low rank the Fisher information F has no inverse in closed form; d solves
(F + delta I) d = gradient by conjugate gradients, which evaluate no density; q's parameters
admit positive definite covariances only.

References: Khan and Lin 2017 (arXiv:1703.04265); Khan and Rue 2023 (arXiv:2107.04562); Lin, Schmidt and Khan 2020
(arXiv:2002.10060) for the second form of b; Amari 1998 for the last.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from bbvi.algorithms.base import Info
from bbvi.algorithms.newton import MAX_RATIO, triangular
from bbvi.algorithms.rounds import Rounds, RoundsState
from bbvi.distributions import Distribution, FullRank, LowRank, MeanField
from bbvi.estimators import StickingTheLanding
from bbvi.problem import Problem
from bbvi.random import Random

Array = Any
DELTA = 1e-2  # added to the Fisher information, which is singular under rotations of the factor
PRODUCTS = 20  # conjugate gradients for the low-rank family, at most


@dataclass(frozen=True, kw_only=True)
class NaturalGradient(Rounds):
    """Stochastic natural gradient ascent of the ELBO.

    Full rank: the Hessian at each draw, by dim Hessian-vector products. Mean field: its diagonal, by one product with
    random signs at each draw. Low rank: the Fisher information of q applied to the path-derivative gradient.

    Arguments:
        num_draws: in each step, in antithetic pairs: an even number. None for 4, or 10 for the low-rank family.
    """

    num_draws: int | None = None
    name = "natural_gradient"
    families = (FullRank, MeanField, LowRank)
    first_half = 10

    def __post_init__(self) -> None:
        if self.num_draws is not None and (self.num_draws < 2 or self.num_draws % 2):
            raise ValueError(f"num_draws={self.num_draws} must be even and positive: draws come in antithetic pairs.")

    def draws_per_step(self, q: Distribution) -> int:
        """Draws in each step."""
        return self.num_draws or (10 if isinstance(q, LowRank) else 4)

    def noise(self, random: Random, problem: Problem, state: RoundsState, steps: int) -> tuple[Array, Array]:
        pairs = self.draws_per_step(state.q) // 2
        half = random.normal((steps, pairs, state.q.noise_dim))
        probes = (steps, 2 * pairs, problem.dim if isinstance(state.q, MeanField) else 0)
        return random.xp.concatenate([half, -half], axis=1), random.bits(probes) >> 31

    def move(
        self, noise: tuple[Array, Array], problem: Problem, q: Distribution, memory: Any, damping: Array
    ) -> tuple[Distribution, Any, Info]:
        draws, bits = noise
        n, dim = len(draws), q.dim
        if isinstance(q, LowRank):
            (_, estimate), gradient = jax.value_and_grad(StickingTheLanding(), has_aux=True)(q, problem, draws)
            new = low_rank_step(q, gradient, damping * 0.2 / (1 + 0.2 * (2 + q.rank) / n))
            return _if_finite(new, q), memory, Info.of(estimate, gradients=n)

        x = q.push(draws)
        values, gradients, good = problem.values_and_gradients(x)
        weights = good.astype(values.dtype) / jnp.maximum(jnp.sum(good, dtype=values.dtype), 1)
        if isinstance(q, FullRank):
            scale = q.scale_tril
            product = lambda v: _hessian_average(problem, x, jnp.broadcast_to(v, x.shape), weights)
            precision = jax.lax.map(product, scale.T) @ scale
            new = full_rank_step(q, weights @ gradients @ scale, -(precision + precision.T) / 2, damping)
            products = n * dim
        else:
            assert isinstance(q, MeanField)
            sd = q.sd()
            signs = 1 - 2 * jnp.asarray(bits).astype(x.dtype)
            each = problem.hessian_vector_products(x, sd * signs)
            diagonal = -weights @ jnp.where(good[:, None] & jnp.isfinite(each), each * sd * signs, 0)
            new = mean_field_step(q, weights @ gradients * sd, diagonal, damping)
            products = n
        estimate = StickingTheLanding().estimate(values - q.log_prob(x), good)
        q = _if_finite(jax.tree.map(lambda new, old: jnp.where(good.any(), new, old), new, q), q)
        return q, memory, Info.of(estimate, gradients=n, hessian_vector_products=products)


def new_precision(x: Array, rate: Array) -> Array:
    """b for eigenvalues x of the whitened E_q[-hess log p], positive."""
    plain = 1 - rate * (1 - x)
    return jnp.clip(jnp.where(x > 0, plain, plain + 0.5 * (rate * (1 - x)) ** 2), 1 / MAX_RATIO, MAX_RATIO)


def full_rank_step(q: FullRank, gradient: Array, precision: Array, rate: Array) -> FullRank:
    """A step from E[grad] `(dim,)` and E[-hess] `(dim, dim)` in coordinates in which q is N(0, I)."""
    eigenvalues, vectors = jnp.linalg.eigh(precision)
    b = new_precision(eigenvalues, rate)
    move = vectors @ _limited(rate * (vectors.T @ gradient) / b)
    scale = q.scale_tril
    return FullRank.from_scale_tril(q.loc + scale @ move, triangular(scale @ (vectors / jnp.sqrt(b))))


def mean_field_step(q: MeanField, gradient: Array, precision: Array, rate: Array) -> MeanField:
    """The same from the diagonal of E[-hess], `(dim,)`."""
    b = new_precision(precision, rate)
    return MeanField(q.loc + q.sd() * _limited(rate * gradient / b), q.log_scale - 0.5 * jnp.log(b))


def low_rank_step(q: LowRank, gradient: LowRank, rate: Array) -> LowRank:
    """A step of size `rate` against the natural gradient of a loss whose plain gradient is given."""
    fisher = lambda v: jax.jvp(jax.grad(lambda other: cross_entropy(q, other)), (q,), (v,))[1]
    damped = lambda v: jax.tree.map(lambda a, b: a + DELTA * b, fisher(v), v)
    natural, _ = cg(damped, gradient, tol=1e-3, maxiter=PRODUCTS)
    size = jnp.sqrt(sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (natural, gradient)), strict=True)))
    rate = rate * jnp.minimum(1, q.dim**0.5 / jnp.maximum(size, 1e-30))
    return jax.tree.map(lambda p, d: p - rate * d, q, natural)


def cross_entropy(q: LowRank, other: LowRank) -> Array:
    """-E_q[log other], up to a constant, for two Gaussians of diagonal plus low rank; its Hessian at q is the Fisher
    information."""
    inverse = jnp.exp(-other.log_diagonal)
    scaled = other.factor * inverse[:, None]
    capacitance = jnp.linalg.cholesky(jnp.eye(other.rank, dtype=scaled.dtype) + scaled.T @ scaled)
    # Sigma_q and the distance of the means, as rows whose squares are to be averaged in the metric of `other`.
    rows = jnp.concatenate([q.factor.T, (q.loc - other.loc)[None]]) * inverse
    d = jnp.exp(q.log_diagonal) * inverse
    whole = jnp.sum(rows**2) + jnp.sum(d**2)
    solve = lambda b: jax.scipy.linalg.solve_triangular(capacitance, b, lower=True)
    spanned = jnp.sum(solve(scaled.T @ rows.T) ** 2) + jnp.sum(solve((scaled * d[:, None]).T) ** 2)
    return 0.5 * (whole - spanned) + jnp.sum(other.log_diagonal) + jnp.sum(jnp.log(jnp.diagonal(capacitance)))


def _limited(move: Array) -> Array:
    """No further than sqrt(dim) standard deviations in all, the width of q."""
    return move * jnp.minimum(1, move.size**0.5 / jnp.maximum(jnp.linalg.norm(move), 1e-30))


def _hessian_average(problem: Problem, x: Array, v: Array, weights: Array) -> Array:
    products = problem.hessian_vector_products(x, v)
    return weights @ jnp.where((weights > 0)[:, None] & jnp.isfinite(products), products, 0)


def _if_finite(new: Distribution, old: Distribution) -> Distribution:
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(new)]).all()
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
