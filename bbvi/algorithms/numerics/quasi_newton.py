"""Inverse Hessian estimates from the gradients along a path.

`Dense` keeps the factor C of the BFGS inverse Hessian C C^T rather than the matrix itself, so that the estimate cannot
lose positive definiteness. With s = x' - x, y = g - g' and C^-1 s = t C^T g known from the step x' = x + t C C^T g,

    w = sqrt(s.y) C^-1 s / |C^-1 s|,    C' = C - s (C^T y - w)^T / (s.y)
    log|C'| = log|C| + log(|C^-1 s| / sqrt(s.y))

gives C'^T y = w and C' w = s, hence C' C'^T y = s. `Limited` keeps a diagonal and the last few pairs, for many
coordinates; directions come from the L-BFGS recursion around the diagonal.
"""

from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from bbvi.distributions.scales import Diagonal, Triangular, diagonal_of, on_diagonal
from bbvi.distributions.spiked import SpikedDiagonal
from bbvi.policy import Regime
from bbvi.runtime.types import Array

MEMORY, SHORT_MEMORY = 10, 2  # pairs kept by Limited, and of long vectors


class Dense(NamedTuple):
    """Inverse Hessian C C^T."""

    factor: Array  # (dim, dim)
    log_det: Array  # () log|C|
    seen: Array  # () pairs seen

    @classmethod
    def identity(cls, dim: int, dtype: Any) -> "Dense":
        """The estimate before any pair is seen, on the host."""
        return cls(np.eye(dim, dtype=dtype), np.zeros((), dtype), _zero())

    def solve(self, g: Array) -> Array:
        return self.factor @ (self.factor.T @ g)

    def scale_by(self, u: Array) -> Array:
        return u @ self.factor.T

    def update(self, s: Array, y: Array, step: Array, g: Array) -> "Dense":
        white_s, white_y, sy = step * (self.factor.T @ g), self.factor.T @ y, s @ y
        # The first pair sets the overall size.
        size = jnp.where(self.seen == 0, jnp.sqrt(sy / (white_y @ white_y)), 1.0)
        white_s, white_y = white_s / size, white_y * size
        ratio = jnp.sqrt(sy / (white_s @ white_s))
        factor = size * self.factor - s[:, None] * (white_y - ratio * white_s) / sy
        log_det = self.log_det + s.size * jnp.log(size) - jnp.log(ratio)
        return Dense(factor, log_det, self.seen + 1)

    def gaussian(self) -> Self:
        """The estimate without what only updates need."""
        return self

    def scale(self) -> Triangular:
        """A square root of the inverse Hessian."""
        return Triangular.of_factor(self.factor)


class Limited(NamedTuple):
    """Inverse Hessian as a diagonal and the last pairs (L-BFGS)."""

    diagonal: Array  # (dim,)
    s: Array  # (memory, dim), newest first
    y: Array  # (memory, dim)
    seen: Array  # ()

    @classmethod
    def identity(cls, dim: int, dtype: Any) -> Self:
        """The estimate before any pair is seen, on the host."""
        pairs = np.zeros((SHORT_MEMORY if Regime.of(dim).long else MEMORY, dim), dtype)
        return cls(np.ones(dim, dtype), pairs, pairs, _zero())

    @property
    def log_det(self) -> Array:
        return 0.5 * jnp.sum(jnp.log(self.diagonal))

    def solve(self, g: Array) -> Array:
        sy = jnp.sum(self.s * self.y, axis=1)
        rho = jnp.where(sy > 0, 1 / jnp.where(sy > 0, sy, 1), 0)  # empty slots do nothing

        def backward(r: Array, pair: tuple[Array, ...]) -> tuple[Array, Array]:
            s, y, rho = pair
            a = rho * (s @ r)
            return r - a * y, a

        def forward(r: Array, pair: tuple[Array, ...]) -> tuple[Array, None]:
            s, y, rho, a = pair
            return r + s * (a - rho * (y @ r)), None

        r, a = jax.lax.scan(backward, g, (self.s, self.y, rho))
        r, _ = jax.lax.scan(forward, self.diagonal * r, (self.s, self.y, rho, a), reverse=True)
        return r

    def scale_by(self, u: Array) -> Array:
        return u * jnp.sqrt(self.diagonal)

    def update(self, s: Array, y: Array, step: Array, g: Array) -> Self:
        # Diagonal that best explains the pair (Gilbert and Lemarechal 1989, eq. 4.9).
        old = jnp.where(self.seen == 0, (s @ y) / (y @ y), 1.0) * self.diagonal
        a, b, c = y @ (old * y), s @ y, s @ (s / old)
        new = b / (a / old + y**2 - (a / c) * (s / old) ** 2)
        diagonal = jnp.where(jnp.isfinite(new) & (new > 0), new, old)
        push = lambda pairs, new: jnp.concatenate([new[None], pairs[:-1]])
        return type(self)(diagonal, push(self.s, s), push(self.y, y), self.seen + 1)

    def gaussian(self) -> "Limited":
        return self._replace(s=self.s[:0], y=self.y[:0])

    def scale(self) -> Diagonal | SpikedDiagonal:
        """A square root of the diagonal."""
        return Diagonal.of(self.diagonal**0.5)


class Compact(Limited):
    """`Limited` with draws from the whole of it, rather than its diagonal.

    With A the diagonal, s_i and y_i the columns of S and Y, oldest first, R the upper triangle of S^T Y and E its
    diagonal, the recursion equals

        H = A + [A Y, S] M [A Y, S]^T,    M = [[0, -R^-1], [-R^-T, R^-T (E + Y^T A Y) R^-1]]

    and an eigendecomposition in the span of the pairs gives the form of a spiked diagonal.

    Reference: Byrd, Nocedal and Schnabel 1994, as in Pathfinder (arXiv:2108.03782, algorithm 4).
    """

    def gaussian(self) -> Self:
        return self

    def scale(self) -> SpikedDiagonal:
        """A square root of the whole of it."""
        s, y, d = self.s[::-1], self.y[::-1], jnp.sqrt(self.diagonal)
        empty = jnp.sum(s * y, axis=1) == 0
        r = jnp.triu(s @ y.T) + on_diagonal(empty.astype(s.dtype))
        inverse = solve_triangular(r, jnp.eye(len(r), dtype=r.dtype))
        corner = inverse.T @ (on_diagonal(jnp.where(empty, 0, diagonal_of(r))) + (y * self.diagonal) @ y.T) @ inverse
        middle = jnp.block([[jnp.zeros_like(r), -inverse], [-inverse.T, corner]])
        basis, upper = jnp.linalg.qr(jnp.concatenate([y * d, s / d]).T)
        eigenvalues, vectors = jnp.linalg.eigh(upper @ middle @ upper.T)
        spikes = jnp.maximum(1 + eigenvalues, 1e-12)
        return SpikedDiagonal.of_eigenvectors(d, basis @ vectors, jnp.sqrt(spikes))

    @property
    def log_det(self) -> Array:
        return self.scale().log_det()

    def scale_by(self, u: Array) -> Array:
        return jax.vmap(self.scale().apply)(u)


def _zero() -> np.ndarray:
    return np.zeros((), jax.dtypes.canonicalize_dtype(int))
