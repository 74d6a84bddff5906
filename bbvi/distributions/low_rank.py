"""A diagonal that is widened along a few directions."""

from typing import Any, Self

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from bbvi.distributions.scales import Array, Diagonal, Scale, diagonal_of, on_diagonal, random_directions
from bbvi.policy import default_rank
from bbvi.runtime.pytree import pytree


@pytree
class DiagonalPlusLowRank(Scale):
    """S = [D, F], so that the covariance is D^2 + F F^T: memory and time linear in dim.

    Arguments:
        log_diagonal: logarithms of the diagonal of D, `(dim,)`.
        factor: F, `(dim, rank)`.

    No `(dim, dim)` matrix is needed (Woodbury): with G = F / d and C = I + G^T G,
    log|S S^T| = 2 sum log d + log|C| and x^T (S S^T)^-1 x = |r|^2 - (G^T r)^T C^-1 (G^T r) for r = x / d.

    Reference: Ong, Nott and Smith 2018 (arXiv:1701.03208).
    """

    name = "low_rank"
    log_diagonal: Array
    factor: Array

    @classmethod
    def standard(cls, dim: int, dtype: Any = float, rank: int | None = None) -> Self:
        """Close to I. The factor starts small but not at zero, where its gradient would vanish."""
        rank = default_rank(dim) if rank is None else rank
        return cls(jnp.zeros(dim, dtype), 0.1 * random_directions(dim, rank, dtype) / rank**0.5)

    @property
    def dim(self) -> int:
        return self.log_diagonal.shape[-1]

    @property
    def rank(self) -> int:
        """Columns of F."""
        return self.factor.shape[-1]

    @property
    def columns(self) -> int:
        return self.dim + self.rank

    def apply(self, v: Array) -> Array:
        return jnp.exp(self.log_diagonal) * v[: self.dim] + self.factor @ v[self.dim :]

    def capacitance(self) -> tuple[Array, Array]:
        """G `(dim, rank)`, and the lower triangular root of C `(rank, rank)`."""
        scaled = self.factor * jnp.exp(-self.log_diagonal)[:, None]
        return scaled, jnp.linalg.cholesky(jnp.eye(self.rank, dtype=scaled.dtype) + scaled.T @ scaled)

    def square(self, x: Array) -> Array:
        scaled, root = self.capacitance()
        r = x * jnp.exp(-self.log_diagonal)
        return jnp.sum(r**2) - jnp.sum(solve_triangular(root, scaled.T @ r, lower=True) ** 2)

    def log_det(self) -> Array:
        return jnp.sum(self.log_diagonal) + jnp.sum(jnp.log(diagonal_of(self.capacitance()[1])))

    def sd(self) -> Array:
        return jnp.sqrt(jnp.exp(2 * self.log_diagonal) + jnp.sum(self.factor**2, axis=-1))

    def conditional_sd(self) -> Array:
        scaled, root = self.capacitance()
        within = jnp.sum(solve_triangular(root, scaled.T, lower=True) ** 2, axis=0)
        return jnp.exp(self.log_diagonal) / jnp.sqrt(1 - within)

    def after(self, outer: Scale) -> Self:
        if not isinstance(outer, Diagonal):
            raise TypeError(f"a {type(outer).__name__} in front of a diagonal plus low rank is none: give a Diagonal.")
        return type(self)(outer.log_scale + self.log_diagonal, outer.diagonal[:, None] * self.factor)

    def like(self, other: Scale) -> Self:
        d = other.conditional_sd()
        if isinstance(other, Diagonal):
            factor = self.standard(self.dim, d.dtype, self.rank).factor
        else:  # the widest directions of what the diagonal leaves over
            white = other.matrix() / d[:, None]
            eigenvalues, vectors = jnp.linalg.eigh(white @ white.T)
            factor = vectors[:, -self.rank :] * jnp.sqrt(jnp.maximum(eigenvalues[-self.rank :] - 1, 1e-3))
        return type(self)(jnp.log(d), d[:, None] * factor)

    def coordinates(self) -> tuple[Scale, Self]:
        sd = self.sd()
        return Diagonal.of(sd), self.after(Diagonal.of(1 / sd))

    def matrix(self) -> Array:
        return jnp.concatenate([on_diagonal(jnp.exp(self.log_diagonal)), self.factor], axis=1)
