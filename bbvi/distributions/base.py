"""What a variational family is.

A variational distribution pushes standard normal noise through a differentiable map:
`x = push(noise)`, `noise ~ N(0, I)`. Its leaves are unconstrained arrays, so the gradient of any loss with
respect to a distribution is again a distribution, and an optimiser updates it as it stands.

Each has a wider version t with Student-t tails, for importance sampling. The one here is that of an elliptical family,
whose density depends on x through its distance from the mean alone, in q's own metric.

A family writes the mathematics for one point (`push_one`, `log_prob_one`); this class batches it.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

Array = Any  # a jax.Array, a tracer or a numpy.ndarray


class Distribution(ABC):
    """A probability distribution over `(dim,)` real vectors with a reparameterised sampler."""

    name: ClassVar[str]
    default_method: ClassVar[str] = "advi"  # that fits it when none is named

    @classmethod
    @abstractmethod
    def standard(cls, dim: int, dtype: Any = float) -> Self:
        """The member that optimisation starts from: N(0, I), or as near to it as can be optimised from."""

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

    @abstractmethod
    def entropy(self) -> Array:
        """Differential entropy in nats, a scalar; an average over fixed draws where there is no closed form."""

    @abstractmethod
    def mean(self) -> Array:
        """Mean, `(dim,)`; likewise."""

    @abstractmethod
    def sd(self) -> Array:
        """Marginal standard deviations, `(dim,)`; likewise."""

    @abstractmethod
    def affine(self, loc: Array, scale: Array) -> Self:
        """The distribution of `loc + scale * x`; `scale` is `(dim,)`, or whatever `standardise` returns."""

    @abstractmethod
    def near(self, loc: Array, scale: Array) -> Self:
        """The member with this one's structure closest in KL(q || .) to N(loc, scale scale^T), or about so.

        `scale` is `(dim, dim)` lower triangular, or `(dim,)` for a diagonal. Optimisation starts here.
        """

    @abstractmethod
    def standardise(self) -> tuple[Array, Array, Self]:
        """`(loc, scale, q)` with `q` close to N(0, I) and `q.affine(loc, scale)` equal to `self`."""

    @abstractmethod
    def to_numpyro(self) -> Any:
        """The same distribution as a `numpyro.distributions.Distribution` with event shape `(dim,)`."""

    def push(self, noise: Array) -> Array:
        """Draws `(..., dim)` from standard normal noise `(..., noise_dim)`; differentiable."""
        return jnp.vectorize(self.push_one, signature="(k)->(d)")(noise)

    def log_prob(self, x: Array) -> Array:
        """Log density at points `(..., dim)`, shape `(...)`."""
        return jnp.vectorize(self.log_prob_one, signature="(d)->()")(x)

    def weighted_draws(self, noise: Array) -> tuple[Array, Array]:
        """Draws `(n, dim)` from noise `(n, noise_dim)`, and weights `(n,)` that sum to 1.

        A weighted average over them is unbiased, and so is its gradient.
        """
        return self.push(noise), jnp.full(len(noise), 1 / len(noise), noise.dtype)

    def push_wide(self, noise: Array, stretch: Array) -> Array:
        """Draws `(n, dim)` of t from noise `(n, noise_dim)` and factors `(n, 1)`, sqrt(nu / chi^2_nu)."""
        return self.push(noise * stretch)

    def log_prob_wide(self, x: Array, degrees_of_freedom: float) -> Array:
        """Log density of t at points `(..., dim)`, shape `(...)`."""
        nu, dim, top = degrees_of_freedom, self.dim, self.log_prob(self.mean())
        distance = 2 * (top - self.log_prob(x))  # Mahalanobis, squared
        constant = gammaln((nu + dim) / 2) - gammaln(nu / 2) - 0.5 * dim * jnp.log(nu / 2)
        return top + constant - 0.5 * (nu + dim) * jnp.log1p(jnp.maximum(distance, 0) / nu)

    def nearest(self, x: Array) -> Array:
        """The component that each of the points `(n, dim)` is most likely from, `(n,)`: 0 where there is but one."""
        return np.zeros(len(x), int)

    @classmethod
    def from_leaves(cls, leaves: dict[str, Array]) -> Self:
        """The inverse of `leaves`."""
        return cls(**leaves)

    def leaves(self) -> dict[str, Array]:
        """The arrays that determine the distribution, by field name."""
        return dict(vars(self))


def stop_gradient(q: Distribution) -> Distribution:
    """`q` with its parameters held constant under differentiation."""
    return jax.tree.map(jax.lax.stop_gradient, q)
