"""Coordinates in two groups: hyper-parameters, and latent ones in blocks that do not touch each other."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from bbvi.distributions.scales import Array
from bbvi.runtime.pytree import pytree, static


@pytree
class Split:
    """A vector x `(dim,)` as hyper-parameters `(k,)` and blocks `(blocks, size)`.

    Fields:
        hyper: coordinates of the hyper-parameters, `(k,)` integers.
        blocks: coordinates of each block, `(blocks, size)` integers; `dim` where a block is smaller than the largest.
        place: where each coordinate is found in the hyper-parameters followed by the blocks, `(dim,)` integers.
    """

    hyper: Array
    blocks: Array
    place: Array
    dim: int = static()

    @classmethod
    def of(cls, hyper: Any, blocks: Any, dim: int) -> "Split":
        """From the coordinates of both groups, in which each of the `dim` coordinates is found once."""
        hyper, blocks = np.asarray(hyper, np.int32), np.asarray(blocks, np.int32)
        order = np.concatenate([hyper, blocks.ravel()])
        place = np.zeros(dim + 1, np.int32)
        place[order] = np.arange(len(order))
        return cls(hyper, blocks, place[:dim], dim)

    @property
    def shape(self) -> tuple[int, int]:
        """Number of blocks, and the size of the largest."""
        blocks, size = self.blocks.shape
        return blocks, size

    @property
    def num_hyper(self) -> int:
        """Number of hyper-parameters."""
        return self.hyper.shape[0]

    @property
    def num_latent(self) -> int:
        """Number of coordinates in blocks."""
        return self.dim - self.num_hyper

    @property
    def used(self) -> Array:
        """Which places in the blocks hold a coordinate, `(blocks, size)` bool."""
        return self.blocks < self.dim

    def join(self, phi: Array, z: Array) -> Array:
        """x `(dim,)` of hyper-parameters `(k,)` and blocks `(blocks, size)`."""
        return jnp.concatenate([phi, jnp.ravel(z)])[self.place]

    def latent(self, x: Array) -> Array:
        """The blocks `(blocks, size)` of x `(dim,)`, with 0 where there is no coordinate."""
        return jnp.where(self.used, x[jnp.minimum(self.blocks, self.dim - 1)], 0)
