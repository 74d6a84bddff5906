"""Inverse Hessian estimates from the gradients along a path.

`Dense` keeps the factor C of the BFGS inverse Hessian C C^T rather than the matrix itself, so that the estimate cannot
lose positive definiteness. With s = x' - x, y = g - g' and C^-1 s = t C^T g known from the step x' = x + t C C^T g,

    w = sqrt(s.y) C^-1 s / |C^-1 s|,    C' = C - s (C^T y - w)^T / (s.y)
    log|C'| = log|C| + log(|C^-1 s| / sqrt(s.y))

gives C'^T y = w and C' w = s, hence C' C'^T y = s. `Limited` keeps a diagonal and the last few pairs, for many
coordinates; directions come from the L-BFGS recursion around the diagonal.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bbvi.algorithms.polish import triangular

Array = Any
MEMORY = 10  # pairs kept by Limited


class Dense(NamedTuple):
    """Inverse Hessian C C^T."""

    factor: Array  # (dim, dim)
    log_det: Array  # () log|C|
    count: Array  # () pairs seen

    @classmethod
    def identity(cls, dim: int, dtype: Any) -> "Dense":
        return cls(jnp.eye(dim, dtype=dtype), jnp.zeros((), dtype), jnp.zeros((), int))

    def solve(self, g: Array) -> Array:
        return self.factor @ (self.factor.T @ g)

    def scale_by(self, u: Array) -> Array:
        return u @ self.factor.T

    def update(self, s: Array, y: Array, step: Array, g: Array) -> "Dense":
        white_s, white_y, sy = step * (self.factor.T @ g), self.factor.T @ y, s @ y
        # The first pair sets the overall size.
        size = jnp.where(self.count == 0, jnp.sqrt(sy / (white_y @ white_y)), 1.0)
        white_s, white_y = white_s / size, white_y * size
        ratio = jnp.sqrt(sy / (white_s @ white_s))
        factor = size * self.factor - jnp.outer(s, white_y - ratio * white_s) / sy
        log_det = self.log_det + s.size * jnp.log(size) - jnp.log(ratio)
        return Dense(factor, log_det, self.count + 1)

    def scale(self) -> Array:
        """Lower triangular square root of the inverse Hessian, `(dim, dim)`."""
        return triangular(self.factor)


class Limited(NamedTuple):
    """Inverse Hessian as a diagonal and the last pairs (L-BFGS)."""

    diagonal: Array  # (dim,)
    s: Array  # (memory, dim), newest first
    y: Array  # (memory, dim)
    count: Array  # ()

    @classmethod
    def identity(cls, dim: int, dtype: Any) -> "Limited":
        pairs = jnp.zeros((MEMORY, dim), dtype)
        return cls(jnp.ones(dim, dtype), pairs, pairs, jnp.zeros((), int))

    @property
    def log_det(self) -> Array:
        return 0.5 * jnp.sum(jnp.log(self.diagonal))

    def solve(self, g: Array) -> Array:
        sy = jnp.sum(self.s * self.y, axis=1)
        rho = jnp.where(sy > 0, 1 / jnp.where(sy > 0, sy, 1), 0)  # empty slots do nothing

        def backward(r: Array, pair: tuple) -> tuple[Array, Array]:
            s, y, rho = pair
            a = rho * (s @ r)
            return r - a * y, a

        def forward(r: Array, pair: tuple) -> tuple[Array, None]:
            s, y, rho, a = pair
            return r + s * (a - rho * (y @ r)), None

        r, a = jax.lax.scan(backward, g, (self.s, self.y, rho))
        r, _ = jax.lax.scan(forward, self.diagonal * r, (self.s, self.y, rho, a), reverse=True)
        return r

    def scale_by(self, u: Array) -> Array:
        return u * jnp.sqrt(self.diagonal)

    def update(self, s: Array, y: Array, step: Array, g: Array) -> "Limited":
        # Diagonal that best explains the pair (Gilbert and Lemarechal 1989, eq. 4.9).
        old = jnp.where(self.count == 0, (s @ y) / (y @ y), 1.0) * self.diagonal
        a, b, c = y @ (old * y), s @ y, s @ (s / old)
        new = b / (a / old + y**2 - (a / c) * (s / old) ** 2)
        diagonal = jnp.where(jnp.isfinite(new) & (new > 0), new, old)
        push = lambda pairs, new: jnp.concatenate([new[None], pairs[:-1]])
        return Limited(diagonal, push(self.s, s), push(self.y, y), self.count + 1)

    def scale(self) -> Array:
        """Standard deviations, `(dim,)`."""
        return jnp.sqrt(self.diagonal)
