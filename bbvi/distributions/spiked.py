"""Gaussian whose covariance is a diagonal, stretched or squeezed along a few directions."""

from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from bbvi.distributions.base import Array, Distribution
from bbvi.distributions.mean_field import LOG_2PI, conditional_sd
from bbvi.pytree import pytree


@pytree
class Spiked(Distribution):
    """N(loc, D (I + V (S^2 - I) V^T) D): memory and time linear in dim.

    Arguments:
        loc: mean, `(dim,)`.
        log_diagonal: log of the diagonal of D, `(dim,)`.
        directions: W, `(dim, rank)` of full column rank; V = W L^-T, with L L^T = W^T W, spans the same space.
        log_spikes: log of the diagonal of S, `(rank,)`: in coordinates divided by D, the standard deviation along each
            direction of V, where it is 1 along all others.

    Where `LowRank` can only widen a diagonal, this can narrow it as well, as data do with a wide prior. A draw is
    x = loc + D (u + V (S - I) V^T u), and log|Sigma| = 2 sum log D + 2 sum log S.

    Reference: the spiked covariance model (Johnstone 2001).
    """

    name = "spiked"
    loc: Array
    log_diagonal: Array
    directions: Array
    log_spikes: Array

    @classmethod
    def standard(cls, dim: int, dtype: Any = float, rank: int | None = None) -> Self:
        """Close to N(0, I). The spikes start small but not at zero, where the directions have no gradient."""
        rank = max(1, min(32, dim // 4)) if rank is None else rank
        directions = jax.random.normal(jax.random.key(0), (dim, rank), dtype)
        return cls(jnp.zeros(dim, dtype), jnp.zeros(dim, dtype), directions, jnp.full(rank, 0.1, dtype))

    @classmethod
    def from_eigenvectors(cls, loc: Array, diagonal: Array, vectors: Array, spikes: Array) -> Self:
        """From D `(dim,)`, orthonormal V `(dim, rank)` and S `(rank,)` themselves."""
        return cls(loc, jnp.log(diagonal), vectors, jnp.log(spikes))

    @property
    def dim(self) -> int:
        return self.loc.shape[-1]

    @property
    def rank(self) -> int:
        return self.directions.shape[-1]

    @property
    def noise_dim(self) -> int:
        return self.dim

    def _basis(self) -> Array:
        root = jnp.linalg.cholesky(self.directions.T @ self.directions)
        return solve_triangular(root, self.directions.T, lower=True).T

    def push_one(self, noise: Array) -> Array:
        basis = self._basis()
        stretched = noise + basis @ (jnp.expm1(self.log_spikes) * (basis.T @ noise))
        return self.loc + jnp.exp(self.log_diagonal) * stretched

    def log_prob_one(self, x: Array) -> Array:
        r = (x - self.loc) * jnp.exp(-self.log_diagonal)
        quadratic = jnp.sum(r**2) + jnp.sum(jnp.expm1(-2 * self.log_spikes) * (self._basis().T @ r) ** 2)
        return -0.5 * quadratic - self._log_det() - 0.5 * self.dim * LOG_2PI

    def _log_det(self) -> Array:
        return jnp.sum(self.log_diagonal) + jnp.sum(self.log_spikes)  # log|Sigma| / 2

    def entropy(self) -> Array:
        return self._log_det() + 0.5 * self.dim * (1 + LOG_2PI)

    def mean(self) -> Array:
        return self.loc

    def sd(self) -> Array:
        squares = self._basis() ** 2
        outside = jnp.maximum(1 - squares.sum(axis=1), 0)
        return jnp.exp(self.log_diagonal) * jnp.sqrt(outside + squares @ jnp.exp(2 * self.log_spikes))

    def affine(self, loc: Array, scale: Array) -> Self:
        return type(self)(loc + scale * self.loc, jnp.log(scale) + self.log_diagonal, self.directions, self.log_spikes)

    def near(self, loc: Array, scale: Array) -> Self:
        d = conditional_sd(scale)
        start = self.standard(self.dim, d.dtype, self.rank)
        if jnp.ndim(scale) == 1:
            return type(self)(loc, jnp.log(d), start.directions, start.log_spikes)
        white = scale / d[:, None]
        eigenvalues, vectors = jnp.linalg.eigh(white @ white.T)
        eigenvalues = jnp.maximum(eigenvalues, jnp.finfo(eigenvalues.dtype).eps)
        largest = jnp.argsort(-jnp.abs(jnp.log(eigenvalues)))[: self.rank]
        return type(self)(loc, jnp.log(d), vectors[:, largest], 0.5 * jnp.log(eigenvalues[largest]))

    def standardise(self) -> tuple[Array, Array, Self]:
        sd = self.sd()
        log_diagonal = self.log_diagonal - jnp.log(sd)
        return self.loc, sd, type(self)(jnp.zeros_like(self.loc), log_diagonal, self.directions, self.log_spikes)

    def to_numpyro(self) -> Any:
        """With a dense covariance: numpyro has no such distribution."""
        import numpyro.distributions as dist

        root = jax.vmap(lambda e: self.push_one(e) - self.loc)(jnp.eye(self.dim, dtype=self.loc.dtype))
        return dist.MultivariateNormal(self.loc, root.T @ root)
