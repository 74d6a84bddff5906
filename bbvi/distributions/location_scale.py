"""Families that are an affine map of a base: x = loc + S y.

Scales S and bases of y combine freely. A `Family` is one of the combinations, under a name.
"""

from dataclasses import dataclass, fields
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.distributions.affine import Affine
from bbvi.distributions.base import Distribution, Moments, float_type, moments_by_draws
from bbvi.distributions.bases import Base, HeavyTailed, Normal, Warped, invertible
from bbvi.distributions.scales import Array, Diagonal, Scale, Triangular, namespace
from bbvi.runtime.pytree import pytree

_NAMES: dict[tuple[type[Scale], type[Base]], "Family"] = {}


@pytree
class LocationScale(Distribution):
    """x = loc + S y, y from a base.

    Arguments:
        loc: `(dim,)`.
        scale: S, a `Scale`: `Diagonal`, `Triangular`, `DiagonalPlusLowRank` or `SpikedDiagonal`.
        base: of y: `Normal`, `HeavyTailed`, `SinhArcsinhBase`, or couplings.

    Example:
        >>> from bbvi.ext import DiagonalPlusLowRank, HeavyTailed
        >>> q = bbvi.LocationScale(jnp.zeros(5), DiagonalPlusLowRank.standard(5, rank=1), HeavyTailed(4))
        >>> q.name  # bbvi.fit(..., family=q) takes its structure
        'student_t+low_rank'
    """

    loc: Array
    scale: Scale
    base: Base = Normal()

    @classmethod
    def standard(cls, dim: int, dtype: Any = float) -> Self:
        return cls(jnp.zeros(dim, dtype), Triangular.standard(dim, dtype))

    @property
    def affine(self) -> Affine:
        """The map from y to x; of a normal base, the distribution itself."""
        return Affine(self.loc, self.scale)

    @property
    def family(self) -> "Family | None":
        """The named combination that it belongs to."""
        return _NAMES.get((type(self.scale), type(self.base)))

    @property
    def name(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]  # of the combination
        return self.family.name if self.family else f"{self.base.name}+{self.scale.name}"

    @property
    def default_method(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.base.default_method

    @property
    def title(self) -> str:
        return "".join(word.capitalize() for word in self.name.split("_")) if self.family else self.name

    @property
    def dim(self) -> int:
        return self.loc.shape[-1]

    @property
    def noise_dim(self) -> int:
        return self.base.noise_dim(self.scale.columns)

    def push_one(self, noise: Array) -> Array:
        return self.loc + self.scale.apply(self.base.push_one(noise))

    def log_prob_one(self, x: Array) -> Array:
        return self.base.log_prob_one(x - self.loc, self.scale)

    def forward_one(self, e: Array) -> tuple[Array, Array]:
        """x of the noise e `(dim,)` of a warped base, and log |det dx/de|, a scalar."""
        y, log_slope = self._warped.forward_one(jnp.asarray(e))
        return self.loc + self.scale.apply(y), log_slope + self.scale.log_det()

    def inverse_one(self, x: Array) -> tuple[Array, Array]:
        """The noise e of a warped base at x, and log |det dx/de| there."""
        e, log_slope = self._warped.inverse_one(jnp.asarray(invertible(self.scale).solve(x - self.loc)))
        return e, log_slope + self.scale.log_det()

    @property
    def _warped(self) -> Warped:
        if not isinstance(self.base, Warped):
            raise TypeError(f"a {self.base.name} base is no invertible map of noise.")
        return self.base

    def moments(self) -> Moments:
        found = self.base.moments(self.scale)
        return moments_by_draws(self) if found is None else found._replace(mean=self.loc + found.mean)

    def mean(self) -> Array:
        found = self.base.moments(self.scale)
        return moments_by_draws(self).mean if found is None else self.loc + found.mean

    def after(self, affine: Affine) -> Self:
        scale = self.scale.after(affine.scale)
        return type(self)(affine(self.loc), scale, self.base)

    def standardise(self) -> tuple[Affine, Self]:
        outer, inner = self.scale.coordinates()
        return Affine(self.loc, outer), type(self)(namespace(self.loc).zeros_like(self.loc), inner, self.base)

    def around(self, affine: Affine) -> Self:
        base = self.base.fresh(self.dim, float_type(self))
        scale = self.scale.like(affine.scale)
        if base.inflation != 1:
            scale = scale.after(Diagonal(jnp.full(self.dim, -jnp.log(base.inflation), float_type(self))))
        return type(self)(affine.loc, scale, base)

    def widened(self) -> "LocationScale":
        base, factor = self.base.widened()
        scale = self.scale
        if factor != 1:
            scale = scale.after(Diagonal(jnp.full(self.dim, jnp.log(factor), float_type(self))))
        return LocationScale(self.loc, scale, base)

    def to_numpyro(self) -> Any:
        return self.base.to_numpyro(self.loc, self.scale) or super().to_numpyro()

    def leaves(self) -> dict[str, Array]:
        parts = vars(self.scale) | {name: leaf for name, leaf in vars(self.base).items() if name != "noise"}
        return {"loc": self.loc, **parts}


@dataclass(frozen=True)
class Family:
    """A named combination of a scale and a base: makes its members, and knows them.

    Arguments:
        name: for `fit(family=...)`, reports and files.
        scale: the class of the scale.
        base: the class of the base.
        description: what it is for.

    A call makes the member with these leaves: the location, then those of the scale and those of the base.
    `isinstance(q, family)` says whether q is a member.

    Example:
        >>> bbvi.MeanField(jnp.zeros(2), jnp.log(jnp.array([1.0, 3.0]))).sd()
        Array([1., 3.], dtype=float32)
    """

    name: str
    scale: type[Scale]
    base: type[Base] = Normal
    description: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.description)
        if "+" in self.name:  # which is how a combination without a name of its own is called
            return
        known = _NAMES.setdefault((self.scale, self.base), self)
        if known.name != self.name:
            raise ValueError(f"{self.scale.__name__} with {self.base.__name__} is called {known.name!r} already.")

    @property
    def default_method(self) -> str:
        """The method that fits it when none is named."""
        return self.base.default_method

    def __call__(self, loc: Array, *leaves: Any, **named: Any) -> LocationScale:
        of_scale = [each.name for each in fields(self.scale)]  # pyright: ignore[reportArgumentType]
        of_base = [each.name for each in fields(self.base) if each.name != "noise"]  # pyright: ignore[reportArgumentType]
        given = {**dict(zip([*of_scale, *of_base], leaves, strict=False)), **named}
        if len(leaves) > len(of_scale) + len(of_base) or not set(of_scale) <= set(given) <= {*of_scale, *of_base}:
            raise TypeError(f"{self.name} is made of loc, {', '.join([*of_scale, *of_base])}; got {sorted(given)}.")
        scale = self.scale(**{name: given.pop(name) for name in of_scale})
        return LocationScale(loc, scale, self.base(**given))

    def standard(self, dim: int, dtype: Any = float, **structure: Any) -> LocationScale:
        """The member that optimisation starts from; `structure` is passed on to the scale, or to the base."""
        to_base = self.base.standard.__code__.co_varnames  # of a warped base, such as its layers
        inner = {name: structure.pop(name) for name in list(structure) if name in to_base}
        scale = self.scale.standard(dim, dtype, **structure)
        return LocationScale(jnp.zeros(dim, dtype), scale, self.base.standard(dim, dtype, **inner))

    def around(self, affine: Affine) -> LocationScale:
        """The member closest to a Gaussian."""
        return self.standard(affine.dim, affine.loc.dtype).around(affine)

    def from_leaves(self, leaves: dict[str, Array]) -> LocationScale:
        """The inverse of `LocationScale.leaves`."""
        given: dict[str, Any] = dict(leaves)
        if self.base is HeavyTailed:
            given["degrees_of_freedom"] = int(given["degrees_of_freedom"])
        return self(**given)

    def holds(self, q: Any) -> bool:
        """Whether q is a member."""
        return isinstance(q, LocationScale) and type(q.scale) is self.scale and type(q.base) is self.base

    def __instancecheck__(self, q: Any) -> bool:
        return self.holds(q)

    def __repr__(self) -> str:
        return f"<family {self.name}>"


def structure(family: Any, dim: int, dtype: Any = float) -> Any:
    """A member of a family, of zeros, for its structure."""
    shapes = jax.eval_shape(lambda: family.standard(dim, dtype))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def named_families() -> dict[str, Family]:
    """All named combinations, those of users among them."""
    return {family.name: family for family in _NAMES.values()}
