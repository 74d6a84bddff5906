"""Normalising flow of affine couplings around a Gaussian."""

from dataclasses import replace
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from bbvi.distributions.base import Array
from bbvi.distributions.full_rank import raw_tril, scale_tril
from bbvi.distributions.mean_field import LOG_2PI
from bbvi.distributions.pushforward import Pushforward, dtype_of, moments
from bbvi.pytree import pytree

LAYERS, WIDTH = 6, 24
BOUND = 8.0  # of a coupling's log scales


@pytree
class Flow(Pushforward):
    """x = loc + L T(e), with T a chain of affine couplings: a RealNVP flow around a Gaussian.

    Each coupling shuffles the coordinates by a permutation of its own, leaves the first half u as it is, and scales and
    shifts the second half v by a neural network of the first, with one hidden layer:

        v  <-  v exp(s(u)) + t(u),    |s| < 8.

    A new flow is the Gaussian N(loc, L L^T): the last weights of its networks are zero.

    Arguments:
        loc: `(dim,)`.
        raw_tril: `(dim, dim)`; L is its strict lower triangle plus the exponential of its diagonal.
        inner, inner_bias: of the hidden layers, `(layers, width, dim // 2)` and `(layers, width)`.
        outer, outer_bias: of the last ones, `(layers, 2 (dim - dim // 2), width)` and `(layers, 2 (dim - dim // 2))`.

    Mean, standard deviations and entropy are averages over 4096 fixed draws.

    References: Dinh, Sohl-Dickstein and Bengio 2017 (arXiv:1605.08803); Agrawal, Sheldon and Domke 2020
    (arXiv:2006.10343).
    """

    name = "flow"
    loc: Array
    raw_tril: Array
    inner: Array
    inner_bias: Array
    outer: Array
    outer_bias: Array

    @classmethod
    def standard(cls, dim: int, dtype: Any = float, layers: int = LAYERS, width: int = WIDTH) -> Self:
        """N(0, I), with random weights, always the same, in the hidden layers."""
        first, second = dim // 2, dim - dim // 2
        inner = np.random.default_rng(0).standard_normal((layers, width, first)) / max(first, 1) ** 0.5
        zeros = lambda *shape: jnp.zeros(shape, dtype)
        return cls(
            zeros(dim),
            zeros(dim, dim),
            jnp.asarray(inner, dtype),
            zeros(layers, width),
            zeros(layers, 2 * second, width),
            zeros(layers, 2 * second),
        )

    @property
    def dim(self) -> int:
        return self.loc.shape[-1]

    @property
    def _permutations(self) -> np.ndarray:
        """Of each coupling, `(layers, dim)`: what is transformed by one is mostly kept by the next."""
        rng = np.random.default_rng(self.dim)
        shuffles = [rng.permutation(self.dim) for _ in range(len(self.inner))]
        return np.stack([np.roll(shuffles[i // 2 * 2], i % 2 * (self.dim // 2)) for i in range(len(self.inner))])

    def forward_one(self, noise: Array) -> tuple[Array, Array]:
        def couple(carry: tuple[Array, Array], layer: Any) -> tuple[tuple[Array, Array], None]:
            (y, log_det), (permutation, *weights) = carry, layer
            u, v = jnp.split(y[permutation], [self.dim // 2])
            log_scale, shift = _network(u, *weights)
            y = jnp.zeros_like(y).at[permutation].set(jnp.concatenate([u, v * jnp.exp(log_scale) + shift]))
            return (y, log_det + log_scale.sum()), None

        begin = (noise, jnp.sum(jnp.diagonal(self.raw_tril)))
        (y, log_det), _ = jax.lax.scan(couple, begin, self._couplings)
        return self.loc + scale_tril(self.raw_tril) @ y, log_det

    def inverse_one(self, x: Array) -> tuple[Array, Array]:
        def uncouple(carry: tuple[Array, Array], layer: Any) -> tuple[tuple[Array, Array], None]:
            (y, log_det), (permutation, *weights) = carry, layer
            u, v = jnp.split(y[permutation], [self.dim // 2])
            log_scale, shift = _network(u, *weights)
            y = jnp.zeros_like(y).at[permutation].set(jnp.concatenate([u, (v - shift) * jnp.exp(-log_scale)]))
            return (y, log_det + log_scale.sum()), None

        y = solve_triangular(scale_tril(self.raw_tril), x - self.loc, lower=True)
        begin = (y, jnp.sum(jnp.diagonal(self.raw_tril)))
        (noise, log_det), _ = jax.lax.scan(uncouple, begin, self._couplings, reverse=True)
        return noise, log_det

    @property
    def _couplings(self) -> Any:
        return jnp.asarray(self._permutations), self.inner, self.inner_bias, self.outer, self.outer_bias

    def entropy(self) -> Array:
        return 0.5 * self.dim * (1 + LOG_2PI) + moments(self)[2]

    def mean(self) -> Array:
        return moments(self)[0]

    def sd(self) -> Array:
        return moments(self)[1]

    def affine(self, loc: Array, scale: Array) -> Self:
        """`scale` is `(dim,)`, or `(dim, dim)` lower triangular with a positive diagonal."""
        scale = jnp.diag(scale) if jnp.ndim(scale) == 1 else scale
        moved = raw_tril(scale @ scale_tril(self.raw_tril))
        return self._with(loc + scale @ self.loc, moved)

    def _with(self, loc: Array, raw: Array) -> Self:
        return replace(self, loc=loc, raw_tril=raw)

    def near(self, loc: Array, scale: Array) -> Self:
        scale = jnp.diag(scale) if jnp.ndim(scale) == 1 else scale
        layers, width = self.inner_bias.shape
        return self.standard(self.dim, dtype_of(self), layers, width)._with(loc, raw_tril(scale))

    def standardise(self) -> tuple[Array, Array, Self]:
        local = self._with(jnp.zeros_like(self.loc), jnp.zeros_like(self.raw_tril))
        return self.loc, scale_tril(self.raw_tril), local


def _network(u: Array, inner: Array, inner_bias: Array, outer: Array, outer_bias: Array) -> tuple[Array, Array]:
    """Log scales and shifts from the half that is kept."""
    hidden = jax.nn.silu(inner @ u + inner_bias)
    log_scale, shift = jnp.split(outer @ hidden + outer_bias, 2)
    return BOUND * jnp.tanh(log_scale / BOUND), shift
