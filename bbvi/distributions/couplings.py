"""What normalising flows of couplings have in common.

A coupling leaves half of the coordinates as they are, and moves each of the others by an increasing function whose
parameters a neural network computes from the first half. It is inverted as easily as it is applied.
"""

from abc import abstractmethod
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.distributions.bases import Warped
from bbvi.distributions.scales import Array
from bbvi.runtime.pytree import pytree

LAYERS, HIDDEN = 6, 24


@pytree
class Couplings(Warped):
    """y = T(e), with T a chain of couplings; `AffineCouplings` and `SplineCouplings` say of what kind.

    Each coupling shuffles the coordinates by a permutation of its own. Its network has one hidden layer. A new chain is
    the identity: the last weights of its networks are zero.

    Arguments:
        inner, inner_bias: of the hidden layers, `(layers, width, dim // 2)` and `(layers, width)`.
        outer, outer_bias: of the last ones, `(layers, outputs, width)` and `(layers, outputs)`, where there are
            `per_coordinate` outputs for each coordinate that is moved.
    """

    inner: Array
    inner_bias: Array
    outer: Array
    outer_bias: Array
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
    def standard(cls, dim: int, dtype: Any = float, layers: int = LAYERS, width: int = HIDDEN) -> Self:
        """The identity, with random weights, always the same, in the hidden layers."""
        first, outputs = dim // 2, cls.per_coordinate * (dim - dim // 2)
        inner = np.random.default_rng(0).standard_normal((layers, width, first)) / max(first, 1) ** 0.5
        zeros = lambda *shape: jnp.zeros(shape, dtype)
        return cls(
            jnp.asarray(inner, dtype), zeros(layers, width), zeros(layers, outputs, width), zeros(layers, outputs)
        )

    def fresh(self, dim: int, dtype: Any) -> Self:
        layers, width = self.inner_bias.shape
        return self.standard(dim, dtype, layers, width)

    @property
    def dim(self) -> int:
        """Length of y."""
        return self.outer_bias.shape[-1] // self.per_coordinate + self.inner.shape[-1]

    @property
    def _layers(self) -> Any:
        """Permutations and weights. Of two couplings in a row the second moves what the first kept."""
        rng = np.random.default_rng(self.dim)
        layers = self.inner.shape[0]
        shuffles = [rng.permutation(self.dim) for _ in range(layers)]
        turned = [np.roll(shuffles[i // 2], i % 2 * (self.dim // 2)) for i in range(layers)]
        return jnp.asarray(np.stack(turned)), self.inner, self.inner_bias, self.outer, self.outer_bias

    def forward_one(self, e: Array) -> tuple[Array, Array]:
        return self._through(self.move, e, reverse=False)

    def inverse_one(self, y: Array) -> tuple[Array, Array]:
        return self._through(self.move_back, y, reverse=True)

    def _through(self, move: Any, y: Array, reverse: bool) -> tuple[Array, Array]:
        def couple(carry: tuple[Array, Array], layer: Any) -> tuple[tuple[Array, Array], None]:
            (y, log_det), (permutation, inner, inner_bias, outer, outer_bias) = carry, layer
            u, v = jnp.split(y[permutation], [self.dim // 2])
            parameters = outer @ jax.nn.silu(inner @ u + inner_bias) + outer_bias
            v, log_slopes = move(v, parameters.reshape(len(v), self.per_coordinate))
            return (jnp.zeros_like(y).at[permutation].set(jnp.concatenate([u, v])), log_det + log_slopes.sum()), None

        return jax.lax.scan(couple, (y, jnp.zeros((), y.dtype)), self._layers, reverse=reverse)[0]
