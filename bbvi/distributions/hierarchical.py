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

MOST_WIDENED = 2.0  # log of the ratio by which standard deviations of latent coordinates change with phi, at most
HERMITE_NODES = 20  # of Gauss and Hermite for their average
SPLIT_LEAVES = "hyper", "latents", "place", "colour", "sums"


@pytree
class Hierarchical(Distribution):
    """Hyper-parameters phi ~ N(m, C C^T), and latent coordinates z = a + B (phi - m) + exp(t(phi)) K^-T e given these.

    With e ~ N(0, I), blocks of z only depend on one another by separators, or not at all. Both the means and the scales
    of z move with phi, as they do along a funnel: t is D (phi - m), bent so that it stays between -2 and 2.

    Arguments:
        split: which coordinates are hyper-parameters, which make a block, and which separate blocks.
        hyper: the Gaussian of phi, with a triangular scale.
        centre: a `(places,)`.
        slope: B `(places, k)`.
        widening: D `(places, k)`.
        factor: K, in arrow form.
    """

    split: Split
    hyper: Affine
    centre: Array
    slope: Array
    widening: Array
    factor: ArrowFactor
    name = "hierarchical"
    default_method = "nested_laplace"

    @classmethod
    def standard(cls, dim: int, dtype: Any = float) -> Self:
        return cls.of_split(Split.apart(dim), Affine(jnp.zeros(1, dtype), Triangular.standard(1, dtype)))

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
        phi = self.hyper(noise[self.split.hyper])
        widened = self._widened(phi)
        z = jnp.exp(widened) * self.factor.solve_transposed(self.split.latent(noise))
        return self.split.join(phi, self.mode(phi) + z), self._log_volume() + jnp.sum(widened)

    def push_one(self, noise: Array) -> Array:
        return self.forward_one(noise)[0]

    def log_prob_one(self, x: Array) -> Array:
        phi = x[self.split.hyper]
        widened = self._widened(phi)
        beside = jnp.where(self.split.used, self.split.latent(x) - self.mode(phi), 0)
        eps = self.factor.multiply_transposed(jnp.exp(-widened) * beside)
        return (
            -0.5 * (self.hyper.scale.square(phi - self.hyper.loc) + jnp.sum(eps**2) + self.dim * LOG_2PI)
            - self._log_volume()
            - jnp.sum(widened)
        )

    def mean(self) -> Array:
        return self.split.join(self.hyper.loc, self.centre)

    def moments(self) -> Moments:
        own = jnp.exp(2 * self.factor.log_sd())
        root = self.hyper.scale.matrix()
        shared, bend = self.slope @ root, jnp.linalg.norm(self.widening @ root, axis=1)
        nodes, weights = np.polynomial.hermite_e.hermegauss(HERMITE_NODES)
        factors = jnp.exp(2 * _bounded(bend[:, None] * nodes.astype(bend.dtype)))
        ratio = factors @ (weights / weights.sum()).astype(bend.dtype)
        sd = jnp.sqrt(ratio * own + jnp.sum(shared**2, axis=1))
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
            self.widening / of_hyper,
            self.factor.scaled(of_latents),
        )

    def around(self, affine: Affine) -> Self:
        """The member with the mean of a Gaussian, and its standard deviations of the hyper-parameters."""
        hyper = Affine(
            affine.loc[self.split.hyper], Triangular.around(Diagonal.of(affine.scale.sd()[self.split.hyper]))
        )
        fresh = self.of_split(self.split, hyper)
        return replace(fresh, centre=self.split.latent(affine.loc))

    @classmethod
    def from_leaves(cls, leaves: dict[str, Array]) -> Self:
        entries = Arrow(**_under("entries.", leaves))
        of_split = {name: leaves[f"split.{name}"] for name in ("hyper", "latents", "colour", "sums")}
        count, size, _ = entries.blocks.shape
        split = Split.arranged(**of_split, entries=entries, dim=len(leaves["split.place"]), shape=(count, size))
        hyper = Affine(leaves["loc"], Triangular(leaves["raw_tril"]))
        centre, slope, widening = (leaves[name] for name in ("centre", "slope", "widening"))
        return cls(split, hyper, centre, slope, widening, ArrowFactor(**_under("factor.", leaves)))

    def leaves(self) -> dict[str, Array]:
        of_latents = {"centre": self.centre, "slope": self.slope, "widening": self.widening}
        own = {**of_latents, "loc": self.hyper.loc, **vars(self.hyper.scale)}
        of_split = {f"split.{name}": getattr(self.split, name) for name in SPLIT_LEAVES}
        entries = {f"entries.{name}": each for name, each in vars(self.split.entries).items()}
        factor = {f"factor.{name}": each for name, each in vars(self.factor).items()}
        return {**own, **of_split, **entries, **factor}

    def mode(self, phi: Array) -> Array:
        """The mean `(places,)` of the latent coordinates given the hyper-parameters `(k,)`."""
        return self.centre + self.slope @ (phi - self.hyper.loc)

    def _widened(self, phi: Array) -> Array:
        """log of the ratios `(places,)` of scales of the latent coordinates to those at the mean of phi `(k,)`."""
        return _bounded(self.widening @ (phi - self.hyper.loc))

    def _log_volume(self) -> Array:
        """Of the map from standard normal noise, at the mean of phi."""
        return self.hyper.scale.log_det() - self.factor.log_det()


def _bounded(logs: Array) -> Array:
    return MOST_WIDENED * jnp.tanh(logs / MOST_WIDENED)


def _under(prefix: str, leaves: dict[str, Array]) -> dict[str, Array]:
    """The leaves whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): each for name, each in leaves.items() if name.startswith(prefix)}
