"""Gaussian with independent coordinates."""

from typing import Any, Self

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from bbvi.distributions.base import Array, Distribution
from bbvi.pytree import pytree

LOG_2PI = 1.8378770664093453


@pytree
class MeanField(Distribution):
    """N(loc, diag(scale)^2): the mean-field Gaussian.

    Arguments:
        loc: mean, `(dim,)`.
        log_scale: logarithm of the standard deviations, `(dim,)`.

    Against a correlated target its best fit has the right means (for a symmetric target) and standard deviations
    `1 / sqrt(P_ii)`, with P the target's precision: too small whenever coordinates are correlated.
    """

    name = "mean_field"
    loc: Array
    log_scale: Array

    @classmethod
    def standard(cls, dim: int, dtype: Any = float) -> Self:
        return cls(jnp.zeros(dim, dtype), jnp.zeros(dim, dtype))

    @property
    def dim(self) -> int:
        return self.loc.shape[-1]

    @property
    def noise_dim(self) -> int:
        return self.dim

    def push_one(self, noise: Array) -> Array:
        return self.loc + self.sd() * noise

    def log_prob_one(self, x: Array) -> Array:
        noise = (x - self.loc) / self.sd()  # the same `sd` as in `push`, so that a program holds one of them
        return -0.5 * jnp.sum(noise**2) - jnp.sum(self.log_scale) - 0.5 * self.dim * LOG_2PI

    def entropy(self) -> Array:
        return jnp.sum(self.log_scale) + 0.5 * self.dim * (1 + LOG_2PI)

    def mean(self) -> Array:
        return self.loc

    def sd(self) -> Array:
        return jnp.exp(self.log_scale)

    def affine(self, loc: Array, scale: Array) -> Self:
        return type(self)(loc + scale * self.loc, jnp.log(scale) + self.log_scale)

    def near(self, loc: Array, scale: Array) -> Self:
        return type(self)(loc, jnp.log(conditional_sd(scale)))

    def standardise(self) -> tuple[Array, Array, Self]:
        return self.loc, self.sd(), type(self)(jnp.zeros_like(self.loc), jnp.zeros_like(self.loc))

    def to_numpyro(self) -> Any:
        import numpyro.distributions as dist

        return dist.Normal(self.loc, self.sd()).to_event(1)


def conditional_sd(scale: Array) -> Array:
    """Standard deviations `1 / sqrt(P_ii)` of the mean-field Gaussian closest to N(0, P^-1), P^-1 = scale scale^T."""
    if jnp.ndim(scale) == 1:
        return scale
    inverse = solve_triangular(scale, jnp.eye(len(scale), dtype=scale.dtype), lower=True)
    return 1 / jnp.sqrt(jnp.sum(inverse**2, axis=0))
