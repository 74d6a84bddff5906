"""Gaussian with any covariance."""

from typing import Any, Self

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from bbvi.distributions.base import Array, Distribution
from bbvi.distributions.mean_field import LOG_2PI
from bbvi.pytree import pytree


@pytree
class FullRank(Distribution):
    """N(loc, L L^T) with L lower triangular and its diagonal positive.

    Arguments:
        loc: mean, `(dim,)`.
        raw_tril: `(dim, dim)`; L is its strict lower triangle plus the exponential of its diagonal, so that every
            value is admissible. The upper triangle is not used.
    """

    name = "full_rank"
    loc: Array
    raw_tril: Array

    @classmethod
    def standard(cls, dim: int, dtype: Any = float) -> Self:
        return cls(jnp.zeros(dim, dtype), jnp.zeros((dim, dim), dtype))

    @classmethod
    def from_scale_tril(cls, loc: Array, scale_tril: Array) -> Self:
        """N(loc, L L^T) from L itself, `(dim, dim)` lower triangular with a positive diagonal."""
        return cls(loc, raw_tril(scale_tril))

    @property
    def dim(self) -> int:
        return self.loc.shape[-1]

    @property
    def noise_dim(self) -> int:
        return self.dim

    @property
    def log_diagonal(self) -> Array:
        return jnp.diagonal(self.raw_tril)

    @property
    def scale_tril(self) -> Array:
        """L, `(dim, dim)`."""
        return scale_tril(self.raw_tril)

    def push_one(self, noise: Array) -> Array:
        return self.loc + self.scale_tril @ noise

    def log_prob_one(self, x: Array) -> Array:
        noise = solve_triangular(self.scale_tril, x - self.loc, lower=True)
        return -0.5 * jnp.sum(noise**2) - jnp.sum(self.log_diagonal) - 0.5 * self.dim * LOG_2PI

    def entropy(self) -> Array:
        return jnp.sum(self.log_diagonal) + 0.5 * self.dim * (1 + LOG_2PI)

    def mean(self) -> Array:
        return self.loc

    def sd(self) -> Array:
        return jnp.sqrt(jnp.sum(self.scale_tril**2, axis=-1))

    def affine(self, loc: Array, scale: Array) -> Self:
        """`scale` is `(dim,)`, or `(dim, dim)` lower triangular with a positive diagonal."""
        scale = jnp.diag(scale) if jnp.ndim(scale) == 1 else scale
        return self.from_scale_tril(loc + scale @ self.loc, scale @ self.scale_tril)

    def near(self, loc: Array, scale: Array) -> Self:
        return self.from_scale_tril(loc, jnp.diag(scale) if jnp.ndim(scale) == 1 else scale)

    def standardise(self) -> tuple[Array, Array, Self]:
        return self.loc, self.scale_tril, type(self)(jnp.zeros_like(self.loc), jnp.zeros_like(self.raw_tril))

    def to_numpyro(self) -> Any:
        import numpyro.distributions as dist

        return dist.MultivariateNormal(self.loc, scale_tril=self.scale_tril)


def scale_tril(raw: Array) -> Array:
    """The lower triangular matrix with positive diagonal that any square matrix `raw` stands for, `(dim, dim)`."""
    return jnp.tril(raw, -1) + jnp.diag(jnp.exp(jnp.diagonal(raw)))


def raw_tril(scale: Array) -> Array:
    """The inverse of `scale_tril`."""
    return jnp.tril(scale, -1) + jnp.diag(jnp.log(jnp.diagonal(scale)))
