"""Matching the score of a Gaussian to that of the posterior: batch and match, and Gaussian score matching.

At draws z_b of q_t = N(m, S) the scores g_b = grad log p(z_b) are compared with those of q = N(m', S'), in the metric
of q itself, and q may not move far:

    minimise over q    mean_b |grad log q(z_b) - g_b|^2_{S'} + 2/lambda KL(q_t || q),    |v|^2_S = v^T S v.

The minimum has a closed form. Neither it nor GSM's depends on the coordinates, so both are written here in those of
q_t: draws are standard normal noise, gradients are with respect to noise, and what comes back is N(m', A A^T) as seen
from N(0, I). There every matrix is the identity plus a positive one, which no rounding makes indefinite.

The objective is a weighted Fisher divergence and not KL(q || p): the two agree where p is Gaussian, and elsewhere they
weigh its tails differently.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from bbvi.algorithms.base import Info, Needs
from bbvi.algorithms.stochastic import Stochastic
from bbvi.distributions import Distribution, FullRank, LocationScale
from bbvi.distributions.scales import Triangular
from bbvi.draws.random import Random
from bbvi.estimators import StickingTheLanding
from bbvi.outcome import Evaluations
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

LEAST_REGULARISATION = 1e-12  # regularisation at which a step is none


def bam_update(noise: Array, gradients: Array, weights: Array, regularisation: Array) -> tuple[Array, Array]:
    """Batch and match, from q_t = N(0, I).

    With means zb, gb and covariances C, G of noise and gradients, and lambda the regularisation,

        V = I + lambda C + lambda/(1+lambda) zb zb^T
        U =     lambda G + lambda/(1+lambda) gb gb^T
        S' solves S' U S' + S' = V,    m' = lambda/(1+lambda) (S' gb + zb).

    With F F^T = V, and w and W the eigenvalues and eigenvectors of F^T U F,

        S' = F W diag(2 / (1 + sqrt(1 + 4 w))) W^T F^T.

    Arguments:
        noise: draws of q_t, `(n, dim)`.
        gradients: of log p at the draws, `(n, dim)`.
        weights: of the draws, `(n,)`, with sum one; zero for a draw that does not count.
        regularisation: lambda, `()`. The larger it is, the less q is kept near q_t.

    Returns:
        m' `(dim,)` and A `(dim, dim)` with S' = A A^T.

    Reference: Cai et al. 2024 (arXiv:2402.14758), where S' holds the square root of a matrix that is not symmetric.
    """
    spread, pull, gradient, centre = _moments(noise, gradients, weights, regularisation)
    factor = jnp.linalg.cholesky(jnp.eye(noise.shape[1], dtype=noise.dtype) + spread.T @ spread)
    pulled = pull @ factor
    w, vectors = jnp.linalg.eigh(pulled.T @ pulled)
    shrink = jnp.sqrt(2 / (1 + jnp.sqrt(1 + 4 * jnp.maximum(w, 0))))
    factor = factor @ (vectors * shrink)
    return regularisation / (1 + regularisation) * (factor @ (factor.T @ gradient) + centre), factor


def bam_update_low_rank(noise: Array, gradients: Array, weights: Array, regularisation: Array) -> tuple[Array, Array]:
    """The same as `bam_update`, without an eigenvalue problem of size dim: for n + 1 < dim.

    V = I + Q^T Q and U = R^T R with n + 1 rows in Q and R. Square roots of identity plus low rank are products with
    eigenvectors of the small matrices Q Q^T and T T^T, with T = R V^(1/2).
    """
    spread, pull, gradient, centre = _moments(noise, gradients, weights, regularisation)
    d, vectors = jnp.linalg.eigh(spread @ spread.T)
    inner = (vectors / (1 + jnp.sqrt(1 + jnp.maximum(d, 0)))) @ vectors.T  # V^(1/2) = I + Q^T inner Q
    pulled = pull + pull @ spread.T @ inner @ spread
    w, vectors = jnp.linalg.eigh(pulled @ pulled.T)
    s = 0.5 + jnp.sqrt(0.25 + jnp.maximum(w, 0))  # the shrinkage is I - T^T (...) T, with eigenvalues s^(-1/2)
    shrink = (vectors / (s**2 + s**1.5)) @ vectors.T
    factor = jnp.eye(noise.shape[1], dtype=noise.dtype) - pulled.T @ shrink @ pulled
    factor = factor + spread.T @ (inner @ (spread @ factor))
    return regularisation / (1 + regularisation) * (factor @ (factor.T @ gradient) + centre), factor


def _moments(
    noise: Array, gradients: Array, weights: Array, regularisation: Array
) -> tuple[Array, Array, Array, Array]:
    """Q `(n + 1, dim)` with V = I + Q^T Q, R likewise with U = R^T R, and the means of gradients and noise."""
    shrink = jnp.sqrt(regularisation / (1 + regularisation))
    each = jnp.sqrt(regularisation * weights)[:, None]

    def root(rows: Array) -> tuple[Array, Array]:
        mean = weights @ rows
        return jnp.concatenate([each * (rows - mean), shrink * mean[None]]), mean

    (spread, centre), (pull, gradient) = root(noise), root(gradients)
    return spread, pull, gradient, centre


def gsm_update(noise: Array, gradients: Array, weights: Array) -> tuple[Array, Array]:
    """Gaussian score matching, from q_t = N(0, I).

    For each draw z with gradient g, the Gaussian nearest to q_t in KL(q_t || q) whose score at z is g is

        rho = (sqrt(1 + 4 (g^T g + (z^T g)^2)) - 1) / 2,    e = g + z
        m' = (e + z (g^T e) / (1 + rho - z^T g)) / (1 + rho),    S' = I + z z^T - (m' - z) (m' - z)^T

    and the result is the average of m' and S' over the draws.

    Arguments:
        noise, gradients, weights: as in `bam_update`.

    Returns:
        m' `(dim,)` and S' `(dim, dim)`.

    Reference: Modi et al. 2023 (arXiv:2307.07849).
    """
    zg, gg = jnp.sum(noise * gradients, axis=1), jnp.sum(gradients**2, axis=1)
    rho = 0.5 * jnp.sqrt(1 + 4 * (gg + zg**2)) - 0.5
    along = (gg + zg) / (1 + rho - zg)  # the denominator is above 1/2
    locs = (gradients + (1 + along)[:, None] * noise) / (1 + rho)[:, None]
    moves, root = locs - noise, jnp.sqrt(weights)[:, None]
    covariance = jnp.eye(noise.shape[1], dtype=noise.dtype) + (root * noise).T @ (root * noise)
    return weights @ locs, covariance - (root * moves).T @ (root * moves)


def symmetric_kl(loc: Array, scale: Array) -> Array:
    """KL(q || q_t) + KL(q_t || q) for q = N(loc, scale scale^T), scale lower triangular, and q_t = N(0, I)."""
    both = jnp.concatenate([jnp.eye(len(loc), dtype=loc.dtype), loc[:, None]], axis=1)
    back = solve_triangular(scale, both, lower=True)
    return 0.5 * (jnp.sum(scale**2) + jnp.sum(loc**2) + jnp.sum(back**2)) - len(loc)


@dataclass(frozen=True, kw_only=True)
class _Matching(Stochastic):
    """What the two share: a step is an update as seen from q, and is made only if what comes of it is a Gaussian."""

    num_draws: int | None = None
    fewest = 1

    def __post_init__(self) -> None:
        if self.num_draws is None:
            return
        if isinstance(self.num_draws, bool) or not isinstance(self.num_draws, int):
            raise TypeError(f"num_draws={self.num_draws!r} must be an integer.")
        if self.num_draws < self.fewest:
            raise ValueError(f"num_draws={self.num_draws}: {type(self).__name__} needs at least {self.fewest}.")

    def needs(self, dim: int, q: Distribution | None = None) -> Needs:
        def noise(random: Random, problem: Problem, steps: int) -> Array:
            return random.normal((steps, self.draws_per_step(dim), dim))

        return Needs(family=FullRank, families=(FullRank,), noise=noise)

    @abstractmethod
    def draws_per_step(self, dim: int) -> int:
        """Draws in each step."""

    @abstractmethod
    def match(self, noise: Array, gradients: Array, weights: Array, damping: Array) -> tuple[Array, Array]:
        """The new mean `(dim,)` and lower triangular scale `(dim, dim)`, from N(0, I)."""

    def update(
        self, noise: Array, problem: Problem, q: Distribution, aux: Any, damping: Array
    ) -> tuple[Distribution, Any, Info]:
        assert isinstance(q, LocationScale)
        draws, scale = q.push(noise), q.scale.matrix()
        values, gradients, finite = problem.values_and_gradients(draws)
        gradients = gradients @ scale
        finite &= jnp.isfinite(jnp.sum(gradients**2, axis=1))
        count = jnp.sum(finite, dtype=values.dtype)
        weights = jnp.where(finite, 1 / jnp.maximum(count, 1), 0)
        loc, factor = self.match(noise, jnp.where(finite[:, None], gradients, 0), weights, damping)
        new = LocationScale(q.loc + scale @ loc, Triangular.of(scale @ factor))
        usable = count >= self.fewest
        for leaf in jax.tree.leaves(new):
            usable &= jnp.isfinite(leaf).all()
        estimate = StickingTheLanding().estimate(values - q.log_prob(draws), finite)
        q = jax.tree.map(lambda new, old: jnp.where(usable, new, old), new, q)
        return q, aux, Info.of(estimate, Evaluations(gradients=len(noise)))


@dataclass(frozen=True, kw_only=True)
class BaM(_Matching):
    """Batch and match: full-rank score matching with regularised steps of closed form.

    The regularisation is `lambda = damping^2 x num_draws x dim`: constant while the iterates travel, and a quarter
    whenever they are stationary and only noisy. A step that would change q by a symmetric KL divergence of more than
    dim nats is taken with a smaller lambda. Minimises a Fisher divergence rather than KL(q || p).

    Arguments:
        num_draws: in each step; None for 2 dim, at least 32 and at most 512.

    Reference: Cai et al. 2024 (arXiv:2402.14758).
    """

    name = "bam"
    fewest = 2
    first_half = 5

    def draws_per_step(self, dim: int) -> int:
        return min(max(2 * dim, 32), 512) if self.num_draws is None else self.num_draws

    def match(self, noise: Array, gradients: Array, weights: Array, damping: Array) -> tuple[Array, Array]:
        n, dim = noise.shape
        rule = bam_update_low_rank if n + 1 < dim else bam_update

        def shorter(carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            regularisation = carry[0] / 4
            loc, factor = rule(noise, gradients, weights, regularisation)
            return regularisation, loc, Triangular.of_factor(factor).matrix()

        def too_long(carry: tuple[Array, Array, Array]) -> Array:
            return (carry[0] > LEAST_REGULARISATION) & ~(symmetric_kl(*carry[1:]) < dim)

        begin = 4 * damping**2 * n * dim, jnp.full(dim, jnp.inf, noise.dtype), jnp.eye(dim, dtype=noise.dtype)
        return jax.lax.while_loop(too_long, shorter, begin)[1:]


@dataclass(frozen=True, kw_only=True)
class GSM(_Matching):
    """Gaussian score matching: each draw asks for the nearest Gaussian with the right score there; they are averaged.

    A step goes a share `damping` of the way to the average, and is not made where the covariance would not be positive
    definite. A baseline.

    Arguments:
        num_draws: in each step; None for 4.

    Reference: Modi et al. 2023 (arXiv:2307.07849).
    """

    name = "gsm"

    def draws_per_step(self, dim: int) -> int:
        return 4 if self.num_draws is None else self.num_draws

    def match(self, noise: Array, gradients: Array, weights: Array, damping: Array) -> tuple[Array, Array]:
        loc, covariance = gsm_update(noise, gradients, weights)
        eye = jnp.eye(noise.shape[1], dtype=noise.dtype)
        # Short of the whole way, what is left of I keeps the covariance away from singular.
        rate = jnp.minimum(damping, 0.99)
        return rate * loc, jnp.linalg.cholesky(eye + rate * (covariance - eye))
