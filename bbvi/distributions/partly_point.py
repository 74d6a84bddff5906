"""Independent normal coordinates, and further ones that are a point."""

from typing import Any, Self

import jax.numpy as jnp

from bbvi.distributions.affine import Affine
from bbvi.distributions.base import LOG_2PI, Distribution, Moments
from bbvi.distributions.scales import Array, Diagonal
from bbvi.runtime.pytree import pytree


@pytree
class PartlyPoint(Distribution):
    """A mean-field Gaussian in the first coordinates, and a point in those after them.

    Its density is that of the first. An evidence bound is maximised over the point, as over weights of a network.

    Arguments:
        loc: `(dim,)`.
        log_scale: logarithms of the standard deviations of the first coordinates, `(k,)` with k <= dim.
    """

    loc: Array
    log_scale: Array
    name = "partly_point"

    @classmethod
    def standard(cls, dim: int, dtype: Any = float) -> Self:
        return cls(jnp.zeros(dim, dtype), jnp.zeros(dim, dtype))

    @property
    def dim(self) -> int:
        return self.loc.shape[-1]

    @property
    def noise_dim(self) -> int:
        return self.log_scale.shape[-1]

    def push_one(self, noise: Array) -> Array:
        return jnp.asarray(self.loc).at[: self.noise_dim].add(jnp.exp(self.log_scale) * noise)

    def log_prob_one(self, x: Array) -> Array:
        y = (x - self.loc)[: self.noise_dim] * jnp.exp(-self.log_scale)
        return -0.5 * jnp.sum(y**2) - jnp.sum(self.log_scale) - 0.5 * self.noise_dim * LOG_2PI

    def moments(self) -> Moments:
        sd = jnp.zeros_like(self.loc).at[: self.noise_dim].set(jnp.exp(self.log_scale))
        entropy = jnp.sum(self.log_scale) + 0.5 * self.noise_dim * (1 + LOG_2PI)
        return Moments(self.loc, sd, entropy)

    def standardise(self) -> tuple[Affine, Self]:
        """Coordinates in standard deviations of the first ones; the point keeps its units."""
        zeros = jnp.zeros(self.dim - self.noise_dim, self.loc.dtype)
        affine = Affine(self.loc, Diagonal(jnp.concatenate([self.log_scale, zeros])))
        return affine, type(self)(jnp.zeros_like(self.loc), jnp.zeros_like(self.log_scale))

    def after(self, affine: Affine) -> Self:
        assert isinstance(affine.scale, Diagonal)
        return type(self)(affine(self.loc), self.log_scale + affine.scale.log_scale[: self.noise_dim])
