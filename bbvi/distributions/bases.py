"""What a location-scale family is made of: the distribution of y in x = loc + S y.

There are two kinds. The density of an elliptical one depends on y through |y| alone, so that it goes with any scale. A
warped one is an invertible map of noise, and needs a scale that can be inverted; its noise is elliptical in turn. The
wider version of either has Student-t noise in the same place.
"""

from abc import ABC, abstractmethod
from dataclasses import field, replace
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import digamma, gammaln

from bbvi.distributions.base import LOG_2PI, WIDE_TAILS, Moments
from bbvi.distributions.low_rank import DiagonalPlusLowRank
from bbvi.distributions.numpyro import transformed
from bbvi.distributions.scales import Array, Diagonal, Invertible, Scale, Triangular
from bbvi.runtime.pytree import pytree, static

TWICE = 2.0  # scale of the wider version of a Student-t distribution over its own


class Base(ABC):
    """The distribution of y, close to N(0, I); the methods speak of one vector, and of S y with a scale S."""

    name: ClassVar[str]
    default_method: ClassVar[str] = "advi"  # that fits a family with this base

    @classmethod
    @abstractmethod
    def standard(cls, dim: int, dtype: Any = float) -> Self:
        """The member that optimisation starts from."""

    @abstractmethod
    def noise_dim(self, columns: int) -> int:
        """Length of the standard normal vector behind y `(columns,)`."""

    @abstractmethod
    def push_one(self, noise: Array) -> Array:
        """y `(columns,)` from standard normal noise."""

    @abstractmethod
    def log_prob_one(self, x: Array, scale: Scale) -> Array:
        """Log density of S y at x `(dim,)`, a scalar."""

    @abstractmethod
    def moments(self, scale: Scale) -> Moments | None:
        """Those of S y; None where they have no closed form."""

    def fresh(self, dim: int, dtype: Any) -> Self:
        """`standard`, with this one's structure."""
        return type(self).standard(dim, dtype)

    @abstractmethod
    def widened(self) -> tuple["Base", float]:
        """The base with Student-t tails, and a factor for the scale."""

    @property
    def inflation(self) -> float:
        """Standard deviations of a fresh y."""
        return 1.0

    def to_numpyro(self, loc: Array, scale: Scale) -> Any:
        """loc + S y as a numpyro distribution, or None where numpyro has none."""
        return None


class Elliptical(Base):
    """y whose density depends on |y| alone."""

    @classmethod
    def standard(cls, dim: int, dtype: Any = float) -> Self:
        return cls()

    @abstractmethod
    def log_prob_of_square(self, square: Array, dim: int) -> Array:
        """Log density of y `(dim,)` with |y|^2 = square, a scalar."""

    @abstractmethod
    def standard_entropy(self, dim: int) -> float:
        """Entropy of y `(dim,)` in nats."""

    def log_prob_one(self, x: Array, scale: Scale) -> Array:
        return self.log_prob_of_square(scale.square(x), scale.dim) - scale.log_det()

    def moments(self, scale: Scale) -> Moments:
        sd = scale.sd()
        return Moments(0 * sd, self.inflation * sd, self.standard_entropy(scale.dim) + scale.log_det())

    def fresh(self, dim: int, dtype: Any) -> Self:
        return self


@pytree
class Normal(Elliptical):
    """y ~ N(0, I)."""

    name = "normal"

    def noise_dim(self, columns: int) -> int:
        return columns

    def push_one(self, noise: Array) -> Array:
        return noise

    def log_prob_of_square(self, square: Array, dim: int) -> Array:
        return -0.5 * square - 0.5 * dim * LOG_2PI

    def standard_entropy(self, dim: int) -> float:
        return 0.5 * dim * (1 + LOG_2PI)

    def widened(self) -> tuple[Base, float]:
        return HeavyTailed(WIDE_TAILS), 1.0

    def to_numpyro(self, loc: Array, scale: Scale) -> Any:
        import numpyro.distributions as dist

        if isinstance(scale, Diagonal):
            return dist.Normal(loc, scale.diagonal).to_event(1)
        if isinstance(scale, DiagonalPlusLowRank):
            return dist.LowRankMultivariateNormal(loc, scale.factor, jnp.exp(2 * scale.log_diagonal))
        return dist.MultivariateNormal(loc, scale_tril=Triangular.around(scale).matrix())


@pytree
class HeavyTailed(Elliptical):
    """y = e sqrt(nu / chi^2_nu), e ~ N(0, I): the standard multivariate Student-t distribution.

    Arguments:
        degrees_of_freedom: nu, an integer of at least 3, which optimisation leaves as it is. The last nu numbers of
            the noise make the chi^2.
    """

    name = "student_t"
    degrees_of_freedom: int = static(default=5)

    def __post_init__(self) -> None:
        if self.degrees_of_freedom < 3:
            raise ValueError(f"degrees_of_freedom={self.degrees_of_freedom} must be at least 3: a variance must exist.")

    @property
    def inflation(self) -> float:
        return (self.degrees_of_freedom / (self.degrees_of_freedom - 2)) ** 0.5

    def noise_dim(self, columns: int) -> int:
        return columns + self.degrees_of_freedom

    def push_one(self, noise: Array) -> Array:
        columns = noise.shape[-1] - self.degrees_of_freedom
        return noise[:columns] * jnp.sqrt(self.degrees_of_freedom / jnp.sum(noise[columns:] ** 2))

    def log_prob_of_square(self, square: Array, dim: int) -> Array:
        nu = self.degrees_of_freedom
        constant = gammaln((nu + dim) / 2) - gammaln(nu / 2) - 0.5 * dim * np.log(nu * np.pi)
        return float(constant) - 0.5 * (nu + dim) * jnp.log1p(square / nu)

    def standard_entropy(self, dim: int) -> float:
        nu, half = self.degrees_of_freedom, (self.degrees_of_freedom + dim) / 2
        constant = 0.5 * dim * np.log(nu * np.pi) + gammaln(nu / 2) - gammaln(half)
        return float(constant + half * (digamma(half) - digamma(nu / 2)))

    def widened(self) -> tuple[Base, float]:
        return HeavyTailed(WIDE_TAILS), TWICE

    def to_numpyro(self, loc: Array, scale: Scale) -> Any:
        import numpyro.distributions as dist

        return dist.MultivariateStudentT(self.degrees_of_freedom, loc, Triangular.around(scale).matrix())


@pytree
class Warped(Base):
    """y = T(e), with T invertible and differentiable and e elliptical.

    Arguments:
        noise: the distribution of e.

    Example:
        >>> from bbvi.ext import Family, Triangular, Warped, pytree
        >>> @pytree
        ... class BananaBase(Warped):  # y_2 is bent along y_1
        ...     bend: Any
        ...     name = "banana"
        ...     @classmethod
        ...     def standard(cls, dim, dtype=float):
        ...         return cls(bend=jnp.zeros((), dtype))
        ...     def forward_one(self, e):
        ...         return e.at[1].add(self.bend * (e[0] ** 2 - 1)), jnp.zeros((), e.dtype)
        ...     def inverse_one(self, y):
        ...         return y.at[1].add(-self.bend * (y[0] ** 2 - 1)), jnp.zeros((), y.dtype)
        >>> family = Family("banana", Triangular, BananaBase)  # for fit(family=...)
        >>> family.standard(2).push(jnp.ones(2))
        Array([1., 1.], dtype=float32)
    """

    noise: Elliptical = field(default=Normal(), kw_only=True)
    default_method = "adam"

    @abstractmethod
    def forward_one(self, e: jax.Array) -> tuple[Array, Array]:
        """T(e) `(dim,)` of e `(dim,)`, and log |det dT/de|, a scalar."""

    @abstractmethod
    def inverse_one(self, y: jax.Array) -> tuple[Array, Array]:
        """The e `(dim,)` with T(e) = y, and log |det dT/de| there, a scalar."""

    def noise_dim(self, columns: int) -> int:
        return self.noise.noise_dim(columns)

    def push_one(self, noise: Array) -> Array:
        return self.forward_one(jnp.asarray(self.noise.push_one(noise)))[0]

    def log_prob_one(self, x: Array, scale: Scale) -> Array:
        e, log_slope = self.inverse_one(jnp.asarray(invertible(scale).solve(x)))
        return self.noise.log_prob_of_square(jnp.sum(e**2), scale.dim) - log_slope - scale.log_det()

    def moments(self, scale: Scale) -> Moments | None:
        return None

    def widened(self) -> tuple[Base, float]:
        return replace(self, noise=HeavyTailed(WIDE_TAILS)), 1.0

    def to_numpyro(self, loc: Array, scale: Scale) -> Any:
        def forward(e: Array) -> tuple[Array, Array]:
            y, log_slope = self.forward_one(jnp.asarray(e))
            return loc + scale.apply(y), log_slope + scale.log_det()

        def inverse(x: Array) -> tuple[Array, Array]:
            e, log_slope = self.inverse_one(jnp.asarray(invertible(scale).solve(x - loc)))
            return e, log_slope + scale.log_det()

        return transformed(scale.dim, loc.dtype, forward, inverse)


def invertible(scale: Scale) -> Invertible:
    """The scale, for a base that needs one that can be inverted."""
    if not isinstance(scale, Invertible):
        raise TypeError(f"a {type(scale).__name__} scale cannot be inverted, as this base needs: use SpikedDiagonal.")
    return scale
