"""Natural gradients of the ELBO: steps measured by how much they change q, not its parameters.

For a Gaussian q with precision P they need g = E_q[grad log p] and A = E_q[-hess log p] alone (Bonnet, Price):

    P' = (1 - eta) P + eta A,    m' = m + eta P'^-1 g.

In coordinates in which q = N(0, I), A is X, and each of its eigenvalues x (its diagonal, for a mean-field Gaussian)
makes a variance of 1 one of 1 / b with

    b = 1 - eta (1 - x)                           for x > 0
    b = 1 - eta (1 - x) + eta^2 (1 - x)^2 / 2     otherwise: positive for any x and eta

so that the covariance stays positive definite whatever noise and target do.

For a Gaussian of diagonal plus low rank the Fisher information F of the diagonal and the factor has no inverse in
closed form; d solves (F + delta I) d = gradient by conjugate gradients, which evaluate no density. q's parameters admit
positive definite covariances only. With u = Sigma^-1 (x - m) and r = grad log p + u, the gradient is that of

    E_q[r . (dm + dSigma u / 2)],

which rotations of the factor leave as it is, and which is zero at every draw when q = p.

References: Khan and Lin 2017 (arXiv:1703.04265); Khan and Rue 2023 (arXiv:2107.04562); Lin, Schmidt and Khan 2020
(arXiv:2002.10060) for the second form of b; Amari 1998 for the last.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from bbvi.algorithms.base import Info, Initialisation, Needs
from bbvi.algorithms.numerics.draws import check_pairs
from bbvi.algorithms.stochastic import Stochastic
from bbvi.algorithms.variational_newton import MAX_RATIO
from bbvi.distributions import Distribution, FullRank, LocationScale, LowRank, MeanField
from bbvi.distributions.low_rank import DiagonalPlusLowRank
from bbvi.distributions.scales import Diagonal, Triangular
from bbvi.draws.random import Random
from bbvi.estimators import StickingTheLanding
from bbvi.outcome import Evaluations
from bbvi.policy import Regime
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

DELTA = 0.1  # added to the Fisher information, which is singular under rotations of the factor
PRODUCTS = 20  # conjugate gradients for the low-rank family, at most
LENGTH = 0.3  # of a low-rank step in the Fisher metric, over sqrt(dim), at most
CROWDING = 14.0  # how much shorter low-rank steps are, the more parameters share a draw


@dataclass(frozen=True, kw_only=True)
class NaturalGradient(Stochastic):
    """Stochastic natural gradient ascent of the ELBO.

    Full rank: the Hessian at each draw, by dim Hessian-vector products, and steps of rate 1 at first. Mean field: its
    diagonal from gradients, by Stein's lemma, and rate 0.2. Low rank: gradients, and a rate below 0.25.

    Arguments:
        num_draws: in each step, in antithetic pairs: an even number. None for 4 in full rank, and 50 otherwise.
    """

    num_draws: int | None = None
    name = "natural_gradient"
    first_half = 10

    def __post_init__(self) -> None:
        check_pairs(self.num_draws)

    def needs(self, dim: int, q: Distribution | None = None) -> Needs:
        def noise(random: Random, problem: Problem, steps: int) -> Array:
            assert q is not None
            half = random.normal((steps, self.draws_per_step(q) // 2, q.noise_dim))
            return random.xp.concatenate([half, -half], axis=1)

        return Needs(
            family=FullRank if Regime.of(dim).full_rank else MeanField,
            families=(FullRank, MeanField, LowRank),
            start=Initialisation.POLISHED,
            derivatives=2 if FullRank.holds(q) else 1,
            noise=noise,
        )

    def draws_per_step(self, q: Distribution) -> int:
        """Draws in each step."""
        return self.num_draws or (4 if FullRank.holds(q) else 50)

    def update(
        self, noise: Array, problem: Problem, q: Distribution, aux: Any, damping: Array
    ) -> tuple[Distribution, Any, Info]:
        assert isinstance(q, LocationScale)
        n, x, products = len(noise), q.push(noise), 0
        values, gradients, finite = problem.values_and_gradients(x)
        weights = finite.astype(values.dtype) / jnp.maximum(jnp.sum(finite, dtype=values.dtype), 1)
        scale = q.scale
        if isinstance(scale, Triangular):
            tril = scale.matrix()
            product = lambda v: _hessian_average(problem, x, jnp.broadcast_to(v, x.shape), weights)
            precision = jax.lax.map(product, tril.T) @ tril
            new = full_rank_step(q, weights @ gradients @ tril, -(precision + precision.T) / 2, damping)
            products = n * q.dim
        elif isinstance(scale, Diagonal):
            white = gradients * scale.diagonal
            diagonal = 1 - weights @ (noise * (white + noise))
            new = mean_field_step(q, weights @ white, diagonal, 0.2 * damping)
        else:
            assert isinstance(scale, DiagonalPlusLowRank)
            rate = 0.25 * damping / (1 + CROWDING * (2 + scale.rank) / n)
            new = low_rank_step(q, x, gradients, weights, rate)
        estimate = StickingTheLanding().estimate(values - q.log_prob(x), finite)
        q = _if_finite(jax.tree.map(lambda new, old: jnp.where(finite.any(), new, old), new, q), q)
        return q, aux, Info.of(estimate, Evaluations(gradients=n, hessian_vector_products=products))


def new_precision(x: Array, rate: Array) -> Array:
    """b for eigenvalues x of the whitened E_q[-hess log p], positive."""
    plain = 1 - rate * (1 - x)
    return jnp.clip(jnp.where(x > 0, plain, plain + 0.5 * (rate * (1 - x)) ** 2), 1 / MAX_RATIO, MAX_RATIO)


def full_rank_step(q: LocationScale, gradient: Array, precision: Array, rate: Array) -> LocationScale:
    """A step from E[grad] `(dim,)` and E[-hess] `(dim, dim)` in coordinates in which q is N(0, I)."""
    eigenvalues, vectors = jnp.linalg.eigh(precision)
    b = new_precision(eigenvalues, rate)
    move = vectors @ _limited(rate * (vectors.T @ gradient) / b)
    return LocationScale(q.affine(move), Triangular.of_factor(q.scale.matrix() @ (vectors / jnp.sqrt(b))))


def mean_field_step(q: LocationScale, gradient: Array, precision: Array, rate: Array) -> LocationScale:
    """The same from the diagonal of E[-hess], `(dim,)`."""
    b = new_precision(precision, rate)
    return LocationScale(q.affine(_limited(rate * gradient / b)), Diagonal(-0.5 * jnp.log(b)).after(q.scale))


def low_rank_step(q: LocationScale, x: Array, gradients: Array, weights: Array, rate: Array) -> LocationScale:
    """A step of size `rate` along the natural gradient of the ELBO, from gradients of log p at draws x `(n, dim)`."""
    pull = -jax.vmap(jax.grad(q.log_prob_one))(x)  # Sigma^-1 (x - m)
    score = gradients + pull

    def rise(t: LocationScale) -> Array:
        return weights @ jnp.sum(score * (t.loc + times_covariance(t, pull) / 2), axis=1)

    gradient = jax.grad(rise)(q)
    natural = natural_gradient(q, gradient)
    length = jnp.sqrt(sum(jnp.vdot(a, b) for a, b in zip(*map(jax.tree.leaves, (gradient, natural)), strict=True)))
    limit = LENGTH * q.dim**0.5
    rate = jnp.minimum(rate, limit / jnp.maximum(length, limit))
    return jax.tree.map(lambda p, d: p + rate * d, q, natural)


def natural_gradient(q: LocationScale, gradient: LocationScale) -> LocationScale:
    """Sigma times the gradient in the mean, and (F + delta I)^-1 times that in the diagonal and the factor."""
    fisher = jax.linearize(jax.grad(lambda other: cross_entropy(q, other)), q)[1]
    damped = lambda v: jax.tree.map(lambda a, b: a + DELTA * b, fisher(v), v)
    natural, _ = cg(damped, replace(gradient, loc=jnp.zeros_like(q.loc)), tol=1e-3, maxiter=PRODUCTS)
    return replace(natural, loc=times_covariance(q, gradient.loc))


def times_covariance(q: LocationScale, v: Array) -> Array:
    """Sigma v for v `(..., dim)`."""
    assert isinstance(q.scale, DiagonalPlusLowRank)
    return jnp.exp(2 * q.scale.log_diagonal) * v + (v @ q.scale.factor) @ q.scale.factor.T


def cross_entropy(q: LocationScale, other: LocationScale) -> Array:
    """-E_q[log other], up to a constant, for two Gaussians of diagonal plus low rank; its Hessian at q is the Fisher
    information."""
    assert isinstance(q.scale, DiagonalPlusLowRank)
    assert isinstance(other.scale, DiagonalPlusLowRank)
    inverse = jnp.exp(-other.scale.log_diagonal)
    scaled, root = other.scale.capacitance()
    # Sigma_q and the distance of the means, as rows whose squares are to be averaged in the metric of `other`.
    rows = jnp.concatenate([q.scale.factor.T, (q.loc - other.loc)[None]]) * inverse
    d = jnp.exp(q.scale.log_diagonal) * inverse
    whole = jnp.sum(rows**2) + jnp.sum(d**2)
    solve = lambda b: jax.scipy.linalg.solve_triangular(root, b, lower=True)
    spanned = jnp.sum(solve(scaled.T @ rows.T) ** 2) + jnp.sum(solve((scaled * d[:, None]).T) ** 2)
    return 0.5 * (whole - spanned) + other.scale.log_det()


def _limited(move: Array) -> Array:
    """No further than sqrt(dim) standard deviations in all, the width of q."""
    return move * jnp.minimum(1, move.size**0.5 / jnp.maximum(jnp.linalg.norm(move), 1e-30))


def _hessian_average(problem: Problem, x: Array, v: Array, weights: Array) -> Array:
    products = problem.hessian_vector_products(x, v)
    return weights @ jnp.where((weights > 0)[:, None] & jnp.isfinite(products), products, 0)


def _if_finite(new: Distribution, old: Distribution) -> Distribution:
    finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(new)]).all()
    return jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
