"""What normalising flows of couplings have in common.

A coupling leaves half of the coordinates as they are, and moves each of the others by an increasing function whose
parameters a neural network computes from the first half. It is inverted as easily as it is applied.
"""

from abc import abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from bbvi.distributions.base import Array
from bbvi.distributions.full_rank import raw_tril, scale_tril
from bbvi.distributions.mean_field import LOG_2PI
from bbvi.distributions.pushforward import Pushforward, moments
from bbvi.pytree import pytree

LAYERS, WIDTH = 6, 24


@pytree
class Couplings(Pushforward):
    """x = loc + L T(e), e ~ N(0, I), with T a chain of couplings; `Flow` and `SplineFlow` say of what kind.

    Each coupling shuffles the coordinates by a permutation of its own. Its network has one hidden layer. A new flow is
    the Gaussian N(loc, L L^T): the last weights of its networks are zero. Mean, standard deviations and entropy are
    averages over 4096 fixed draws.

    Arguments:
        loc: `(dim,)`.
        raw_tril: `(dim, dim)`; L is its strict lower triangle plus the exponential of its diagonal.
        inner, inner_bias: of the hidden layers, `(layers, width, dim // 2)` and `(layers, width)`.
        outer, outer_bias: of the last ones, `(layers, outputs, width)` and `(layers, outputs)`, where there are
            `per_coordinate` outputs for each coordinate that is moved.
    """

    loc: Array
    raw_tril: Array
    inner: Array
    inner_bias: Array
    outer: Array
    outer_bias: Array
    default_method = "adam"
    per_coordinate: ClassVar[int]

    @staticmethod
    @abstractmethod
    def move(v: Array, parameters: Array) -> tuple[Array, Array]:
        """v moved, and the logarithms of the slopes, for v `(m,)` and `parameters` `(m, per_coordinate)`."""

    @staticmethod
    @abstractmethod
    def move_back(v: Array, parameters: Array) -> tuple[Array, Array]:
        """The inverse of `move`, and the logarithms of the slopes of `move` there."""

    @classmethod
    def standard(cls, dim: int, dtype: Any = float, layers: int = LAYERS, width: int = WIDTH) -> Self:
        """N(0, I), with random weights, always the same, in the hidden layers."""
        first, outputs = dim // 2, cls.per_coordinate * (dim - dim // 2)
        inner = np.random.default_rng(0).standard_normal((layers, width, first)) / max(first, 1) ** 0.5
        zeros = lambda *shape: jnp.zeros(shape, dtype)
        return cls(
            zeros(dim),
            zeros(dim, dim),
            jnp.asarray(inner, dtype),
            zeros(layers, width),
            zeros(layers, outputs, width),
            zeros(layers, outputs),
        )

    @property
    def dim(self) -> int:
        return self.loc.shape[-1]

    @property
    def _layers(self) -> Any:
        """Permutations and weights. Of two couplings in a row the second moves what the first kept."""
        rng = np.random.default_rng(self.dim)
        layers = self.inner.shape[0]
        shuffles = [rng.permutation(self.dim) for _ in range(layers)]
        turned = [np.roll(shuffles[i // 2], i % 2 * (self.dim // 2)) for i in range(layers)]
        return jnp.asarray(np.stack(turned)), self.inner, self.inner_bias, self.outer, self.outer_bias

    def forward_one(self, noise: Array) -> tuple[Array, Array]:
        y, log_det = self._through(self.move, noise, reverse=False)
        return self.loc + scale_tril(self.raw_tril) @ y, log_det + jnp.sum(jnp.diagonal(self.raw_tril))

    def inverse_one(self, x: Array) -> tuple[Array, Array]:
        y = solve_triangular(scale_tril(self.raw_tril), x - self.loc, lower=True)
        noise, log_det = self._through(self.move_back, y, reverse=True)
        return noise, log_det + jnp.sum(jnp.diagonal(self.raw_tril))

    def _through(self, move: Any, y: Array, reverse: bool) -> tuple[Array, Array]:
        def couple(carry: tuple[Array, Array], layer: Any) -> tuple[tuple[Array, Array], None]:
            (y, log_det), (permutation, inner, inner_bias, outer, outer_bias) = carry, layer
            u, v = jnp.split(y[permutation], [self.dim // 2])
            parameters = outer @ jax.nn.silu(inner @ u + inner_bias) + outer_bias
            v, log_slopes = move(v, parameters.reshape(len(v), self.per_coordinate))
            return (jnp.zeros_like(y).at[permutation].set(jnp.concatenate([u, v])), log_det + log_slopes.sum()), None

        return jax.lax.scan(couple, (y, jnp.zeros((), y.dtype)), self._layers, reverse=reverse)[0]

    def entropy(self) -> Array:
        return 0.5 * self.dim * (1 + LOG_2PI) + moments(self)[2]

    def mean(self) -> Array:
        return moments(self)[0]

    def sd(self) -> Array:
        return moments(self)[1]

    def affine(self, loc: Array, scale: Array) -> Self:
        """`scale` is `(dim,)`, or `(dim, dim)` lower triangular with a positive diagonal."""
        scale = jnp.diag(scale) if jnp.ndim(scale) == 1 else scale
        return replace(self, loc=loc + scale @ self.loc, raw_tril=raw_tril(scale @ scale_tril(self.raw_tril)))

    def near(self, loc: Array, scale: Array) -> Self:
        scale = jnp.diag(scale) if jnp.ndim(scale) == 1 else scale
        layers, width = self.inner_bias.shape
        new = self.standard(self.dim, jnp.result_type(loc), layers, width)
        return replace(new, loc=loc, raw_tril=raw_tril(scale))

    def standardise(self) -> tuple[Array, Array, Self]:
        local = replace(self, loc=jnp.zeros_like(self.loc), raw_tril=jnp.zeros_like(self.raw_tril))
        return self.loc, scale_tril(self.raw_tril), local
