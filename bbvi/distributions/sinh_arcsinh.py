"""Gaussian whose coordinates are bent: skewed, and with lighter or heavier tails."""

from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from bbvi.distributions.base import Array
from bbvi.distributions.full_rank import raw_tril, scale_tril
from bbvi.distributions.mean_field import LOG_2PI
from bbvi.distributions.pushforward import Pushforward
from bbvi.pytree import pytree

# Gauss-Hermite nodes and weights for averages over one standard normal number
_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(64)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()


@pytree
class SinhArcsinh(Pushforward):
    """x = loc + L s(e), with s the sinh-arcsinh map of each coordinate of e ~ N(0, I),

        s(e) = (sinh(t (asinh(e) + a)) - sinh(t a)) / (t cosh(t a)),    t = exp(log_tail),

    scaled so that s(0) = 0 and s'(0) = 1. a > 0 skews to the right, a < 0 to the left; t > 1 makes tails heavier than
    a Gaussian's and t < 1 lighter. a = 0 and t = 1 is the full-rank Gaussian.

    Arguments:
        loc: `(dim,)`; the median when L is diagonal.
        raw_tril: `(dim, dim)`; L is its strict lower triangle plus the exponential of its diagonal.
        skew: a, `(dim,)`.
        log_tail: log t, `(dim,)`.

    Reference: Jones and Pewsey 2009, Biometrika 96(4), here in whitened coordinates and scaled as above.
    """

    name = "sinh_arcsinh"
    loc: Array
    raw_tril: Array
    skew: Array
    log_tail: Array
    default_method = "adam"

    @classmethod
    def standard(cls, dim: int, dtype: Any = float) -> Self:
        zeros = jnp.zeros(dim, dtype)
        return cls(zeros, jnp.zeros((dim, dim), dtype), zeros, zeros)

    @property
    def dim(self) -> int:
        return self.loc.shape[-1]

    def forward_one(self, noise: Array) -> tuple[Array, Array]:
        y, log_slopes = bend(noise, self.skew, self.log_tail)
        return self.loc + scale_tril(self.raw_tril) @ y, jnp.sum(log_slopes) + jnp.sum(jnp.diagonal(self.raw_tril))

    def inverse_one(self, x: Array) -> tuple[Array, Array]:
        y = solve_triangular(scale_tril(self.raw_tril), x - self.loc, lower=True)
        noise, log_slopes = unbend(y, self.skew, self.log_tail)
        return noise, jnp.sum(log_slopes) + jnp.sum(jnp.diagonal(self.raw_tril))

    def _averages(self) -> tuple[Array, Array, Array]:
        """E[s], sd[s] and E[log s'], each `(dim,)`."""
        bent, log_slopes = bend(jnp.asarray(_NODES[:, None], self.loc.dtype), self.skew, self.log_tail)
        weights = jnp.asarray(_WEIGHTS, self.loc.dtype)
        mean = weights @ bent
        return mean, jnp.sqrt(weights @ (bent - mean) ** 2), weights @ log_slopes

    def entropy(self) -> Array:
        gaussian = jnp.sum(jnp.diagonal(self.raw_tril)) + 0.5 * self.dim * (1 + LOG_2PI)
        return gaussian + jnp.sum(self._averages()[2])

    def mean(self) -> Array:
        return self.loc + scale_tril(self.raw_tril) @ self._averages()[0]

    def sd(self) -> Array:
        return jnp.sqrt(jnp.sum((scale_tril(self.raw_tril) * self._averages()[1]) ** 2, axis=-1))

    def affine(self, loc: Array, scale: Array) -> Self:
        """`scale` is `(dim,)`, or `(dim, dim)` lower triangular with a positive diagonal."""
        scale = jnp.diag(scale) if jnp.ndim(scale) == 1 else scale
        moved = raw_tril(scale @ scale_tril(self.raw_tril))
        return type(self)(loc + scale @ self.loc, moved, self.skew, self.log_tail)

    def near(self, loc: Array, scale: Array) -> Self:
        scale = jnp.diag(scale) if jnp.ndim(scale) == 1 else scale
        zeros = jnp.zeros_like(loc)
        return type(self)(loc, raw_tril(scale), zeros, zeros)

    def standardise(self) -> tuple[Array, Array, Self]:
        local = type(self)(jnp.zeros_like(self.loc), jnp.zeros_like(self.raw_tril), self.skew, self.log_tail)
        return self.loc, scale_tril(self.raw_tril), local


def bend(noise: Array, skew: Array, log_tail: Array) -> tuple[Array, Array]:
    """s(e) and log s'(e), elementwise."""
    t = jnp.exp(log_tail)
    angle, middle = t * (jnp.arcsinh(noise) + skew), t * skew
    bent = (jnp.sinh(angle) - jnp.sinh(middle)) / (t * jnp.cosh(middle))
    return bent, jnp.log(jnp.cosh(angle) / jnp.cosh(middle)) - 0.5 * jnp.log1p(noise**2)


def unbend(bent: Array, skew: Array, log_tail: Array) -> tuple[Array, Array]:
    """The e with s(e) = `bent`, and log s'(e), elementwise."""
    t = jnp.exp(log_tail)
    noise = jnp.sinh(jnp.arcsinh(bent * t * jnp.cosh(t * skew) + jnp.sinh(t * skew)) / t - skew)
    return noise, bend(noise, skew, log_tail)[1]
