"""Multivariate Student-t distribution."""

from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from scipy.special import digamma, gammaln

from bbvi.distributions.base import Array, Distribution
from bbvi.distributions.full_rank import raw_tril, scale_tril
from bbvi.distributions.pushforward import log_student_t
from bbvi.pytree import pytree, static

WIDENING = 2.0  # scale of the wider version over this one's


@pytree
class StudentT(Distribution):
    """x = loc + L e sqrt(nu / chi^2_nu), e ~ N(0, I): heavier tails than a Gaussian in all directions at once.

    Arguments:
        loc: mean, `(dim,)`.
        raw_tril: `(dim, dim)`; L is its strict lower triangle plus the exponential of its diagonal. The covariance is
            L L^T nu / (nu - 2).
        degrees_of_freedom: nu, an integer of at least 3, which optimisation leaves as it is.

    A draw takes dim + nu numbers of noise: the last nu make the chi^2.

    Example:
        >>> bbvi.StudentT(jnp.zeros(2), jnp.zeros((2, 2)), degrees_of_freedom=4).sd().round(2)  # sqrt(4 / 2)
        Array([1.41, 1.41], dtype=float32)
    """

    name = "student_t"
    loc: Array
    raw_tril: Array
    degrees_of_freedom: int = static(default=5)

    def __post_init__(self) -> None:
        if self.degrees_of_freedom < 3:
            raise ValueError(f"degrees_of_freedom={self.degrees_of_freedom} must be at least 3: a variance must exist.")

    @classmethod
    def standard(cls, dim: int, dtype: Any = float) -> Self:
        return cls(jnp.zeros(dim, dtype), jnp.zeros((dim, dim), dtype))

    @property
    def dim(self) -> int:
        return self.loc.shape[-1]

    @property
    def noise_dim(self) -> int:
        return self.dim + self.degrees_of_freedom

    @property
    def _inflation(self) -> float:
        """Standard deviations over those of the Gaussian N(loc, L L^T)."""
        return (self.degrees_of_freedom / (self.degrees_of_freedom - 2)) ** 0.5

    def push_one(self, noise: Array) -> Array:
        stretch = jnp.sqrt(self.degrees_of_freedom / jnp.sum(noise[self.dim :] ** 2))
        return self.loc + scale_tril(self.raw_tril) @ noise[: self.dim] * stretch

    def log_prob_one(self, x: Array) -> Array:
        z = solve_triangular(scale_tril(self.raw_tril), x - self.loc, lower=True)
        return log_student_t(z, self.degrees_of_freedom) - jnp.sum(jnp.diagonal(self.raw_tril))

    def push_wide(self, noise: Array, stretch: Array) -> Array:
        gaussian = noise[:, : self.dim] @ scale_tril(self.raw_tril).T
        return self.loc + gaussian * stretch * WIDENING

    def log_prob_wide(self, x: Array, degrees_of_freedom: float) -> Array:
        def one(x: Array) -> Array:
            z = solve_triangular(scale_tril(self.raw_tril), x - self.loc, lower=True) / WIDENING
            return log_student_t(z, degrees_of_freedom) - jnp.sum(jnp.diagonal(self.raw_tril))

        return jnp.vectorize(one, signature="(d)->()")(x) - self.dim * jnp.log(WIDENING)

    def entropy(self) -> Array:
        nu, half = self.degrees_of_freedom, (self.degrees_of_freedom + self.dim) / 2
        standard = 0.5 * self.dim * np.log(nu * np.pi) + gammaln(nu / 2) - gammaln(half)
        standard = standard + half * (digamma(half) - digamma(nu / 2))
        return jnp.sum(jnp.diagonal(self.raw_tril)) + float(standard)

    def mean(self) -> Array:
        return self.loc

    def sd(self) -> Array:
        return self._inflation * jnp.sqrt(jnp.sum(scale_tril(self.raw_tril) ** 2, axis=-1))

    def affine(self, loc: Array, scale: Array) -> Self:
        """`scale` is `(dim,)`, or `(dim, dim)` lower triangular with a positive diagonal."""
        scale = jnp.diag(scale) if jnp.ndim(scale) == 1 else scale
        moved = raw_tril(scale @ scale_tril(self.raw_tril))
        return type(self)(loc + scale @ self.loc, moved, self.degrees_of_freedom)

    def near(self, loc: Array, scale: Array) -> Self:
        scale = jnp.diag(scale) if jnp.ndim(scale) == 1 else scale
        return type(self)(loc, raw_tril(scale / self._inflation), self.degrees_of_freedom)

    def standardise(self) -> tuple[Array, Array, Self]:
        local = type(self)(jnp.zeros_like(self.loc), jnp.zeros_like(self.raw_tril), self.degrees_of_freedom)
        return self.loc, scale_tril(self.raw_tril), local

    @classmethod
    def from_leaves(cls, leaves: dict[str, Array]) -> Self:
        return cls(leaves["loc"], leaves["raw_tril"], int(leaves["degrees_of_freedom"]))

    def to_numpyro(self) -> Any:
        import numpyro.distributions as dist

        return dist.MultivariateStudentT(self.degrees_of_freedom, self.loc, scale_tril(self.raw_tril))
