"""What a variational family is.

A variational distribution pushes standard normal noise through a differentiable map:
`x = push(noise)`, `noise ~ N(0, I)`. Its leaves are unconstrained arrays, so the gradient of any loss with
respect to a distribution is again a distribution, and an optimiser updates it as it stands.

A family writes the mathematics for one point (`push_one`, `log_prob_one`); this class batches it.
"""

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import gammaln

from bbvi.distributions.affine import Affine
from bbvi.distributions.numpyro import as_numpyro
from bbvi.distributions.scales import Array, Diagonal
from bbvi.runtime.pytree import pytree

LOG_2PI = 1.8378770664093453
WIDE_TAILS = 5  # degrees of freedom of widened distributions
FIXED_DRAWS = 4096  # behind moments that have no closed form


class Moments(NamedTuple):
    """Moments of a distribution."""

    mean: Array  # (dim,)
    sd: Array  # (dim,) marginal standard deviations
    entropy: Array  # () differential, in nats


class Reparameterised(ABC):
    """What can be drawn from noise and has a density."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length of a draw."""

    @property
    @abstractmethod
    def noise_dim(self) -> int:
        """Length of the standard normal vector behind one draw."""

    @abstractmethod
    def push_one(self, noise: Array) -> Array:
        """One draw `(dim,)` from standard normal noise `(noise_dim,)`."""

    @abstractmethod
    def log_prob_one(self, x: Array) -> Array:
        """Log density at one point `(dim,)`, a scalar."""

    def push(self, noise: Array) -> Array:
        """Draws `(..., dim)` from standard normal noise `(..., noise_dim)`; differentiable."""
        return jnp.vectorize(self.push_one, signature="(k)->(d)")(noise)

    def log_prob(self, x: Array) -> Array:
        """Log density at points `(..., dim)`, shape `(...)`."""
        return jnp.vectorize(self.log_prob_one, signature="(d)->()")(x)


class Distribution(Reparameterised):
    """A probability distribution over `(dim,)` real vectors with a reparameterised sampler.

    A family has seven members to write. What follows from them can be written better where there is a closed form:
    `standardise`, `around`, `widened`, `to_numpyro`.

    Example:
        >>> from bbvi.ext import Moments, pytree
        >>> @pytree
        ... class Cauchy(bbvi.Distribution):  # of one coordinate, around a number
        ...     loc: Any
        ...     name, dim, noise_dim = "cauchy", 1, 2
        ...     @classmethod
        ...     def standard(cls, dim, dtype=float):
        ...         return cls(jnp.zeros(1, dtype))
        ...     def push_one(self, noise):
        ...         return self.loc + noise[:1] / noise[1:]
        ...     def log_prob_one(self, x):
        ...         return -jnp.log(jnp.pi * (1 + (x - self.loc)[0] ** 2))
        ...     def moments(self):
        ...         return Moments(self.loc, jnp.full(1, jnp.inf), jnp.log(4 * jnp.pi))
        ...     def after(self, affine):
        ...         return Cauchy(affine(self.loc))
        >>> print(f"{Cauchy(jnp.zeros(1)).log_prob(jnp.array([1.0])):.3f}")
        -1.838
    """

    name: ClassVar[str]
    default_method: ClassVar[str] = "advi"  # that fits it when none is named

    @classmethod
    @abstractmethod
    def standard(cls, dim: int, dtype: Any = float) -> Self:
        """The member that optimisation starts from: N(0, I), or as near to it as can be optimised from."""

    @abstractmethod
    def moments(self) -> Moments:
        """Mean, standard deviations and entropy; by `moments_by_draws` where they have no closed form."""

    @abstractmethod
    def after(self, affine: Affine) -> Self:
        """The distribution of `affine(x)`; the scale is diagonal, or of the kind that `standardise` returns."""

    # -- what follows ------------------------------------------------------------------------------------------------

    @classmethod
    def holds(cls, q: "Distribution") -> bool:
        """Whether q is one of these, of whatever structure."""
        return isinstance(q, cls)

    def mean(self) -> Array:
        """Mean, `(dim,)`."""
        return self.moments().mean

    def sd(self) -> Array:
        """Marginal standard deviations, `(dim,)`."""
        return self.moments().sd

    def entropy(self) -> Array:
        """Differential entropy in nats, a scalar."""
        return self.moments().entropy

    def standardise(self) -> tuple[Affine, Self]:
        """An affine map, and the distribution close to N(0, I) that it turns into this one."""
        mean, sd, _ = self.moments()
        affine = Affine(mean, Diagonal.of(sd))
        return affine, self.after(affine.inverse())

    def around(self, affine: Affine) -> Self:
        """The member with this one's structure closest in KL(q || .) to the Gaussian, or about so: a start."""
        return type(self).standard(self.dim, float_type(self)).after(affine)

    def widened(self) -> Reparameterised:
        """A wider version with Student-t tails, for importance sampling.

        This one is right for an elliptical family, whose density depends on x through its distance from the mean
        alone, in its own metric.
        """
        return Widened(self)

    def weighted_draws(self, noise: Array) -> tuple[Array, Array]:
        """Draws `(n, dim)` from noise `(n, noise_dim)`, and weights `(n,)` that sum to 1.

        A weighted average over them is unbiased, and so is its gradient.
        """
        return self.push(noise), jnp.full(len(noise), 1 / len(noise), noise.dtype)

    @property
    def is_reparameterised(self) -> bool:
        """Whether draws have a gradient in all of its parameters."""
        return True

    def nearest(self, x: Array) -> Array:
        """The component that each of the points `(n, dim)` is most likely from, `(n,)`: 0 where there is but one."""
        return np.zeros(len(x), int)

    def to_numpyro(self) -> Any:
        """The same distribution as a `numpyro.distributions.Distribution` with event shape `(dim,)`."""
        return as_numpyro(self)

    @classmethod
    def from_leaves(cls, leaves: dict[str, Array]) -> Self:
        """The inverse of `leaves`."""
        return cls(**leaves)

    def leaves(self) -> dict[str, Array]:
        """The arrays that determine the distribution, by field name."""
        return dict(vars(self))

    @property
    def title(self) -> str:
        """The family as it is called in a heading."""
        return type(self).__name__

    def __repr__(self) -> str:
        return f"{self.title}(dim={self.dim})"


@pytree
class Widened(Reparameterised):
    """The image of a standard Student-t distribution under the map of an elliptical q.

    Arguments:
        q: the distribution.
    """

    q: Distribution

    @property
    def dim(self) -> int:
        return self.q.dim

    @property
    def noise_dim(self) -> int:
        return self.q.noise_dim + WIDE_TAILS

    def push_one(self, noise: Array) -> Array:
        normal, chi = jnp.split(noise, [self.q.noise_dim])
        return self.q.push_one(normal * jnp.sqrt(WIDE_TAILS / jnp.sum(chi**2)))

    def log_prob_one(self, x: Array) -> Array:
        nu, dim, top = WIDE_TAILS, self.dim, self.q.log_prob_one(self.q.mean())
        distance = 2 * (top - self.q.log_prob_one(x))  # Mahalanobis, squared
        constant = gammaln((nu + dim) / 2) - gammaln(nu / 2) - 0.5 * dim * jnp.log(nu / 2)
        return top + constant - 0.5 * (nu + dim) * jnp.log1p(jnp.maximum(distance, 0) / nu)


def float_type(q: Any) -> Any:
    """The floating point type of a distribution's arrays, beside which there may be integers."""
    return jnp.result_type(*(leaf for leaf in jax.tree.leaves(q) if jnp.issubdtype(leaf.dtype, jnp.floating)))


@lru_cache(maxsize=8)
def fixed_draws(dim: int) -> np.ndarray:
    """Standard normal vectors `(FIXED_DRAWS, dim)`, always the same, in antithetic pairs, for averages over noise."""
    half = np.random.default_rng(0).standard_normal((FIXED_DRAWS // 2, dim))
    draws = np.concatenate([half, -half])
    return draws / np.sqrt(np.mean(draws**2, axis=0))


@jax.jit
def moments_by_draws(q: Distribution) -> Moments:
    """Moments as averages over `fixed_draws`."""
    x, weights = q.weighted_draws(jnp.asarray(fixed_draws(q.noise_dim), float_type(q)))
    mean = weights @ x
    return Moments(mean, jnp.sqrt(weights @ (x - mean) ** 2), -(weights @ q.log_prob(x)))
