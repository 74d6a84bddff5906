"""Coordinates in two groups: hyper-parameters, and latent ones in blocks that only touch each other by separators."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from bbvi.distributions.arrow import Arrow, ArrowFactor
from bbvi.distributions.scales import Array, namespace
from bbvi.runtime.pytree import pytree, static

MOST_MULTIPLICATIONS = 3.3e6  # in a factorisation that is done many times
LARGE = 1000  # places of latent coordinates, from which arrays are long enough by themselves


@pytree
class Split:
    """A vector x `(dim,)` as hyper-parameters `(k,)` and latent ones z `(places,)`: the blocks, then the separators.

    A block that is smaller than the largest is filled up with places that hold no coordinate.

    Fields:
        hyper: coordinates of the hyper-parameters, `(k,)` integers.
        latents: that of each place of z, `(places,)` integers; `dim` where there is none.
        place: where each coordinate is found in the hyper-parameters followed by z, `(dim,)` integers.
        colour: of each place, `(places,)` integers, -1 without a coordinate: how the log density curves along all
            places of a colour is known from one product with its Hessian.
        entries: where the entries of a Hessian are found in such products `(colours, places)`, flattened; one beyond
            their end for an entry that is zero.
        sums: rows v of terms -(v.z)^2 / 2 of the log density, `(r, places)`: they hold sums of many coordinates near a
            value, and are left out of `entries`.
        shape: number of blocks, and the size of the largest.
        num_colours: number of colours.
    """

    hyper: Array
    latents: Array
    place: Array
    colour: Array
    entries: Arrow
    sums: Array
    dim: int = static()
    shape: tuple[int, int] = static()
    num_colours: int = static()
    held: tuple[bool, ...] = static(default=())  # parameters of the problem that are hyper-parameters as a whole

    @classmethod
    def of(cls, hyper: Any, blocks: Any, dim: int) -> "Split":
        """Without separators, from the coordinates of both groups, in which each of the `dim` is found once.

        Arguments:
            blocks: `(blocks, size)`, filled up with `dim`.
        """
        blocks = np.asarray(blocks, np.int32)
        count, size = blocks.shape
        used, index = blocks < dim, np.arange(blocks.size).reshape(count, size)
        at = np.arange(size) * blocks.size + index[:, :, None]
        at = np.where(used[:, :, None] & used[:, None, :], at, size * blocks.size)
        none = np.zeros((count, 0), np.int32)
        entries = Arrow(at.astype(np.int32), none[:, None].repeat(size, 1), np.zeros((0, 0), np.int32), none)
        colour = np.where(used, np.arange(size, dtype=np.int32), -1).ravel()
        return cls.arranged(hyper, blocks.ravel(), colour, entries, dim, (count, size))

    @classmethod
    def apart(cls, dim: int) -> "Split":
        """The first coordinate as the hyper-parameter, and each of the others as a block."""
        return cls.of([0], np.arange(1, dim)[:, None], dim)

    @classmethod
    def arranged(
        cls,
        hyper: Any,
        latents: Any,
        colour: Any,
        entries: Arrow,
        dim: int,
        shape: tuple[int, int],
        sums: Any = None,
    ) -> "Split":
        """From all fields but `place` and `num_colours`."""
        hyper, latents, colour = (np.asarray(each, np.int32) for each in (hyper, latents, colour))
        order = np.concatenate([hyper, latents])
        place = np.zeros(dim + 1, np.int32)
        place[order] = np.arange(len(order))
        sums = np.zeros((0, len(latents))) if sums is None else np.asarray(sums)
        return cls(hyper, latents, place[:dim], colour, entries, sums, dim, shape, int(colour.max(initial=-1)) + 1)

    @property
    def num_hyper(self) -> int:
        """Number of hyper-parameters."""
        return self.hyper.shape[0]

    @property
    def num_latent(self) -> int:
        """Number of latent coordinates."""
        return self.dim - self.num_hyper

    @property
    def num_places(self) -> int:
        """Number of places of z."""
        return self.latents.shape[0]

    @property
    def has_separators(self) -> bool:
        """Whether blocks touch each other."""
        return self.entries.num_separators > 0

    @property
    def is_connected(self) -> bool:
        """Whether blocks are not independent given the hyper-parameters."""
        return self.has_separators or self.sums.shape[0] > 0

    @property
    def is_dear(self) -> bool:
        """Whether to factorise the precision takes too long to be done for each chain and step."""
        (blocks, size), touched = self.shape, self.entries.touched.shape[1]
        multiplications = blocks * size * (size + touched) ** 2 + self.entries.num_separators**3
        return self.has_separators and multiplications > MOST_MULTIPLICATIONS

    @property
    def is_large(self) -> bool:
        """Whether one place of the hyper-parameters after the other is as fast as many side by side."""
        return self.num_places >= LARGE

    @property
    def used(self) -> Array:
        """Which places hold a coordinate, `(places,)` bool."""
        return self.latents < self.dim

    def join(self, phi: Array, z: Array) -> Array:
        """x `(dim,)` of hyper-parameters `(k,)` and z `(places,)`."""
        return namespace(z).concatenate([phi, z])[self.place]

    def latent(self, x: Array) -> Array:
        """z of x `(dim,)`, with 0 where there is no coordinate."""
        xp = namespace(x)
        return xp.where(self.used, x[xp.minimum(self.latents, self.dim - 1)], 0)

    def in_blocks(self, z: Array) -> Array:
        """The blocks `(blocks, size)` of z."""
        blocks, size = self.shape
        return z[: blocks * size].reshape(blocks, size)

    def seeds(self, dtype: Any) -> Array:
        """The vectors `(colours, places)` that a Hessian is multiplied with."""
        colours = jnp.arange(self.num_colours, dtype=self.colour.dtype)
        return (self.colour == colours[:, None]).astype(dtype)

    def without_sums(self, products: Array, seeds: Array) -> Array:
        """Products of the precision `(colours, places)` with `seeds`, without those of the sums."""
        sums = jnp.asarray(self.sums, products.dtype)
        return products - (seeds @ sums.T) @ sums if len(sums) else products

    def factor(self, products: Array) -> ArrowFactor:
        """The factor of the precision whose products without the sums are these, `(colours, places)`."""
        return self.arrow(products).factorise(jnp.asarray(self.sums, products.dtype))

    def arrow(self, products: Array) -> Arrow:
        """The matrix of which these are the products `(colours, places)`; 1 on the diagonal without a coordinate."""
        at, flat = self.entries, jnp.pad(jnp.ravel(products), (0, 1))
        filled = jnp.where(self.in_blocks(self.used)[:, :, None], 0, jnp.eye(self.shape[1], dtype=flat.dtype))
        return Arrow(flat[at.blocks] + filled, flat[at.border], flat[at.corner], at.touched)

    def weights(self, arrow: Arrow) -> Array:
        """Weights `(colours, places)` of products, of which the sum is that of a matrix weighted by `arrow`."""
        at, length = self.entries, self.num_colours * self.num_places
        made = jnp.zeros(length + 1, arrow.blocks.dtype).at[at.blocks].add(arrow.blocks)
        if self.has_separators:  # the border stands for itself and its transpose
            made = made.at[at.border].add(2 * arrow.border).at[at.corner].add(arrow.corner)
        return made[:-1].reshape(self.num_colours, self.num_places)
