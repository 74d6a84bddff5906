"""A Gaussian of hyper-parameters, and of blocks given these: its precision is block-diagonal with a border."""

from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from bbvi.distributions.affine import Affine
from bbvi.distributions.base import LOG_2PI, Distribution, Moments
from bbvi.distributions.scales import Array, Diagonal, Triangular
from bbvi.distributions.split import Split
from bbvi.runtime.pytree import pytree


@pytree
class Hierarchical(Distribution):
    """Hyper-parameters phi ~ N(m, C C^T), and blocks z_g that are independent given these.

    A block is N(a_g + B_g (phi - m), (L_g L_g^T)^-1).

    Arguments:
        split: which coordinates are hyper-parameters, and which make a block.
        hyper: the Gaussian of phi, with a triangular scale.
        centre: a `(blocks, size)`.
        slope: B `(blocks, size, k)`.
        factor: L `(blocks, size, size)`, lower triangular.
    """

    split: Split
    hyper: Affine
    centre: Array
    slope: Array
    factor: Array
    name = "hierarchical"
    default_method = "nested_laplace"

    @classmethod
    def standard(cls, dim: int, dtype: Any = float) -> Self:
        split = Split.of([0], np.arange(1, dim)[:, None], dim)
        return cls.of_split(split, Affine(jnp.zeros(1, dtype), Triangular.standard(1, dtype)))

    @classmethod
    def of_split(cls, split: Split, hyper: Affine) -> Self:
        """The member with these hyper-parameters and standard normal blocks."""
        (blocks, size), dtype = split.shape, hyper.loc.dtype
        eye = jnp.broadcast_to(jnp.eye(size, dtype=dtype), (blocks, size, size))
        zeros = jnp.zeros((blocks, size), dtype)
        return cls(split, hyper, zeros, jnp.zeros((blocks, size, split.num_hyper), dtype), eye)

    @property
    def dim(self) -> int:
        return self.split.dim

    @property
    def noise_dim(self) -> int:
        return self.split.dim

    def push_one(self, noise: Array) -> Array:
        phi = self.hyper(noise[self.split.hyper])
        eps = self.split.latent(noise)
        z = solve_triangular(self.factor, eps[..., None], lower=True, trans=1)[..., 0]
        return self.split.join(phi, self._centre(phi) + z)

    def log_prob_one(self, x: Array) -> Array:
        phi = x[self.split.hyper]
        apart = jnp.where(self.split.used, self.split.latent(x) - self._centre(phi), 0)
        eps = jnp.einsum("gij,gi->gj", self.factor, apart)
        return (
            -0.5 * (self.hyper.scale.square(phi - self.hyper.loc) + jnp.sum(eps**2) + self.dim * LOG_2PI)
            - self._log_volume()
        )

    def moments(self) -> Moments:
        own = solve_triangular(
            self.factor, jnp.broadcast_to(jnp.eye(self.factor.shape[-1]), self.factor.shape), lower=True
        )
        shared = self.slope @ self.hyper.scale.matrix()
        sd = jnp.sqrt(jnp.sum(own**2, axis=1) + jnp.sum(shared**2, axis=2))
        mean = self.split.join(self.hyper.loc, self.centre)
        entropy = 0.5 * self.dim * (1 + LOG_2PI) + self._log_volume()
        return Moments(mean, self.split.join(self.hyper.scale.sd(), sd), entropy)

    def after(self, affine: Affine) -> Self:
        if not isinstance(affine.scale, Diagonal):
            raise TypeError("the structure of a Hierarchical distribution survives diagonal maps only.")
        outer, loc = affine.scale.diagonal, affine(self.split.join(self.hyper.loc, self.centre))
        of_hyper = outer[self.split.hyper]
        of_blocks = jnp.where(self.split.used, self.split.latent(outer), 1)
        hyper = Affine(loc[self.split.hyper], self.hyper.scale.after(Diagonal(jnp.log(of_hyper))))
        return type(self)(
            self.split,
            hyper,
            self.split.latent(loc),
            of_blocks[..., None] * self.slope / of_hyper,
            self.factor / of_blocks[..., None],
        )

    def around(self, affine: Affine) -> Self:
        """The member with the mean of a Gaussian, and its standard deviations of the hyper-parameters."""
        hyper = Affine(
            affine.loc[self.split.hyper], Triangular.around(Diagonal.of(affine.scale.sd()[self.split.hyper]))
        )
        fresh = self.of_split(self.split, hyper)
        return type(self)(self.split, hyper, self.split.latent(affine.loc), fresh.slope, fresh.factor)

    @classmethod
    def from_leaves(cls, leaves: dict[str, Array]) -> Self:
        split = Split.of(leaves["split.hyper"], leaves["split.blocks"], len(leaves["split.place"]))
        hyper = Affine(leaves["loc"], Triangular(leaves["raw_tril"]))
        return cls(split, hyper, leaves["centre"], leaves["slope"], leaves["factor"])

    def leaves(self) -> dict[str, Array]:
        parts = {f"split.{name}": getattr(self.split, name) for name in ("hyper", "blocks", "place")}
        own = {name: getattr(self, name) for name in ("centre", "slope", "factor")}
        return {**parts, "loc": self.hyper.loc, **vars(self.hyper.scale), **own}

    def _centre(self, phi: Array) -> Array:
        return self.centre + self.slope @ (phi - self.hyper.loc)

    def _log_volume(self) -> Array:
        """Of the map from standard normal noise."""
        return self.hyper.scale.log_det() - jnp.sum(jnp.log(jnp.diagonal(self.factor, axis1=-2, axis2=-1)))
