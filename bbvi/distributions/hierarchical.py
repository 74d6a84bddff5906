"""A Gaussian of hyper-parameters, and of latent coordinates given these, whose precision is in arrow form."""

from dataclasses import replace
from typing import Any, Self

import jax.numpy as jnp
import numpy as np

from bbvi.distributions.affine import Affine
from bbvi.distributions.arrow import Arrow, ArrowFactor
from bbvi.distributions.base import LOG_2PI, Distribution, Moments
from bbvi.distributions.scales import Array, Diagonal, Triangular, namespace
from bbvi.distributions.split import Split
from bbvi.runtime.pytree import pytree

SPLIT_LEAVES = "hyper", "latents", "place", "colour", "sums"


@pytree
class Hierarchical(Distribution):
    """Hyper-parameters phi ~ N(m, C C^T), and latent coordinates z ~ N(a + B (phi - m), (K K^T)^-1) given these.

    Blocks of z only depend on one another by separators, or not at all.

    Arguments:
        split: which coordinates are hyper-parameters, which make a block, and which separate blocks.
        hyper: the Gaussian of phi, with a triangular scale.
        centre: a `(places,)`.
        slope: B `(places, k)`.
        factor: K, in arrow form.
    """

    split: Split
    hyper: Affine
    centre: Array
    slope: Array
    factor: ArrowFactor
    name = "hierarchical"
    default_method = "nested_laplace"

    @classmethod
    def standard(cls, dim: int, dtype: Any = float) -> Self:
        split = Split.of([0], np.arange(1, dim)[:, None], dim)
        return cls.of_split(split, Affine(jnp.zeros(1, dtype), Triangular.standard(1, dtype)))

    @classmethod
    def of_split(cls, split: Split, hyper: Affine) -> Self:
        """The member with these hyper-parameters and standard normal latent coordinates."""
        (blocks, size), dtype, at = split.shape, hyper.loc.dtype, split.entries
        xp = namespace(hyper.loc)
        factor = ArrowFactor.plain(
            xp.broadcast_to(xp.eye(size, dtype=dtype), (blocks, size, size)),
            xp.zeros(at.border.shape, dtype),
            xp.eye(at.num_separators, dtype=dtype),
            at.touched,
        )
        idle = {"along": xp.zeros(split.sums.shape, dtype), "gain": xp.zeros(split.sums.shape[:1], dtype)}
        return cls(
            split,
            hyper,
            xp.zeros(split.num_places, dtype),
            xp.zeros((split.num_places, split.num_hyper), dtype),
            replace(factor, **idle),
        )

    @property
    def dim(self) -> int:
        return self.split.dim

    @property
    def noise_dim(self) -> int:
        return self.split.dim

    def forward_one(self, noise: Array) -> tuple[Array, Array]:
        """A draw `(dim,)` from noise `(dim,)`, and log |det| of the map there."""
        return self.push_one(noise), self._log_volume()

    def push_one(self, noise: Array) -> Array:
        phi = self.hyper(noise[self.split.hyper])
        z = self.factor.solve_transposed(self.split.latent(noise))
        return self.split.join(phi, self.mode(phi) + z)

    def log_prob_one(self, x: Array) -> Array:
        phi = x[self.split.hyper]
        eps = self.factor.multiply_transposed(jnp.where(self.split.used, self.split.latent(x) - self.mode(phi), 0))
        return (
            -0.5 * (self.hyper.scale.square(phi - self.hyper.loc) + jnp.sum(eps**2) + self.dim * LOG_2PI)
            - self._log_volume()
        )

    def mean(self) -> Array:
        return self.split.join(self.hyper.loc, self.centre)

    def moments(self) -> Moments:
        inverse = self.factor.inverse()
        of_blocks = jnp.ravel(jnp.diagonal(inverse.blocks, axis1=1, axis2=2))
        own = jnp.concatenate([of_blocks, jnp.diagonal(inverse.corner)]) if self.split.has_separators else of_blocks
        shared = self.slope @ self.hyper.scale.matrix()
        sd = jnp.sqrt(own + jnp.sum(shared**2, axis=1))
        entropy = 0.5 * self.dim * (1 + LOG_2PI) + self._log_volume()
        return Moments(self.mean(), self.split.join(self.hyper.scale.sd(), sd), entropy)

    def after(self, affine: Affine) -> Self:
        if not isinstance(affine.scale, Diagonal):
            raise TypeError("the structure of a Hierarchical distribution survives diagonal maps only.")
        outer, loc = affine.scale.diagonal, affine(self.split.join(self.hyper.loc, self.centre))
        of_hyper = outer[self.split.hyper]
        of_latents = jnp.where(self.split.used, self.split.latent(outer), 1)
        hyper = Affine(loc[self.split.hyper], self.hyper.scale.after(Diagonal(jnp.log(of_hyper))))
        return type(self)(
            self.split,
            hyper,
            self.split.latent(loc),
            of_latents[:, None] * self.slope / of_hyper,
            self.factor.scaled(of_latents),
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
        entries = Arrow(**_under("entries.", leaves))
        of_split = {name: leaves[f"split.{name}"] for name in ("hyper", "latents", "colour", "sums")}
        count, size, _ = entries.blocks.shape
        split = Split.arranged(**of_split, entries=entries, dim=len(leaves["split.place"]), shape=(count, size))
        hyper = Affine(leaves["loc"], Triangular(leaves["raw_tril"]))
        return cls(split, hyper, leaves["centre"], leaves["slope"], ArrowFactor(**_under("factor.", leaves)))

    def leaves(self) -> dict[str, Array]:
        own = {"centre": self.centre, "slope": self.slope, "loc": self.hyper.loc, **vars(self.hyper.scale)}
        of_split = {f"split.{name}": getattr(self.split, name) for name in SPLIT_LEAVES}
        entries = {f"entries.{name}": each for name, each in vars(self.split.entries).items()}
        factor = {f"factor.{name}": each for name, each in vars(self.factor).items()}
        return {**own, **of_split, **entries, **factor}

    def mode(self, phi: Array) -> Array:
        """The mean `(places,)` of the latent coordinates given the hyper-parameters `(k,)`."""
        return self.centre + self.slope @ (phi - self.hyper.loc)

    def _log_volume(self) -> Array:
        """Of the map from standard normal noise."""
        return self.hyper.scale.log_det() - self.factor.log_det()


def _under(prefix: str, leaves: dict[str, Array]) -> dict[str, Array]:
    """The leaves whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): each for name, each in leaves.items() if name.startswith(prefix)}
