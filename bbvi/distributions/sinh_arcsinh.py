"""Coordinates that are bent: skewed, and with lighter or heavier tails."""

from typing import Any, Self

import jax.numpy as jnp
import numpy as np

from bbvi.distributions.base import LOG_2PI, Moments, float_type
from bbvi.distributions.bases import Warped, invertible
from bbvi.distributions.scales import Array, Scale
from bbvi.runtime.pytree import pytree

# Gauss-Hermite nodes and weights for averages over one standard normal number
_NODES, _MASSES = np.polynomial.hermite_e.hermegauss(64)
_WEIGHTS = _MASSES / _MASSES.sum()


@pytree
class SinhArcsinhBase(Warped):
    """y = s(e), with s the sinh-arcsinh map of each coordinate of e,

        s(e) = (sinh(t (asinh(e) + a)) - sinh(t a)) / (t cosh(t a)),    t = exp(log_tail),

    scaled so that s(0) = 0 and s'(0) = 1. a > 0 skews to the right, a < 0 to the left; t > 1 makes tails heavier than
    a Gaussian's and t < 1 lighter. a = 0 and t = 1 leave e as it is.

    Arguments:
        skew: a, `(dim,)`.
        log_tail: log t, `(dim,)`.

    Reference: Jones and Pewsey 2009, Biometrika 96(4), here scaled as above.
    """

    name = "sinh_arcsinh"
    skew: Array
    log_tail: Array

    @classmethod
    def standard(cls, dim: int, dtype: Any = float) -> Self:
        zeros = jnp.zeros(dim, dtype)
        return cls(zeros, zeros)

    def forward_one(self, e: Array) -> tuple[Array, Array]:
        bent, log_slopes = bend(e, self.skew, self.log_tail)
        return bent, jnp.sum(log_slopes)

    def inverse_one(self, y: Array) -> tuple[Array, Array]:
        e, log_slopes = unbend(y, self.skew, self.log_tail)
        return e, jnp.sum(log_slopes)

    def moments(self, scale: Scale) -> Moments:
        """By quadrature, for normal e."""
        bent, log_slopes = bend(jnp.asarray(_NODES[:, None], float_type(self)), self.skew, self.log_tail)
        weights = jnp.asarray(_WEIGHTS, float_type(self))
        mean = weights @ bent
        sd = jnp.sqrt(weights @ (bent - mean) ** 2)
        entropy = 0.5 * scale.dim * (1 + LOG_2PI) + jnp.sum(weights @ log_slopes) + scale.log_det()
        return Moments(scale.apply(mean), invertible(scale).sd_of(sd), entropy)


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
