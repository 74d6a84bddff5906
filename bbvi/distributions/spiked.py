"""A diagonal that is stretched or squeezed along a few directions."""

from typing import Any, Self

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from bbvi.distributions.scales import Array, Diagonal, Invertible, Scale, random_directions
from bbvi.policy import default_rank
from bbvi.runtime.pytree import pytree


@pytree
class SpikedDiagonal(Invertible):
    """S = D (I + V (T - I) V^T): memory and time linear in dim.

    Arguments:
        log_diagonal: logarithms of the diagonal of D, `(dim,)`.
        directions: W, `(dim, rank)` of full column rank; V = W L^-T, with L L^T = W^T W, spans the same space.
        log_spikes: logarithms of the diagonal of T, `(rank,)`: in coordinates divided by D, the standard deviation
            along each direction of V, where it is 1 along all others.

    Where D^2 + F F^T can only widen a diagonal, this can narrow it as well, as data do with a wide prior. Its
    log-determinant is sum log D + sum log T.

    Reference: the spiked covariance model (Johnstone 2001).
    """

    name = "spiked"
    log_diagonal: Array
    directions: Array
    log_spikes: Array

    @classmethod
    def standard(cls, dim: int, dtype: Any = float, rank: int | None = None) -> Self:
        """Close to I. The spikes start small but not at zero, where the directions have no gradient."""
        rank = default_rank(dim) if rank is None else rank
        return cls(jnp.zeros(dim, dtype), random_directions(dim, rank, dtype), jnp.full(rank, 0.1, dtype))

    @classmethod
    def of_eigenvectors(cls, diagonal: Array, vectors: Array, spikes: Array) -> Self:
        """From D `(dim,)`, orthonormal V `(dim, rank)` and T `(rank,)` themselves."""
        return cls(jnp.log(diagonal), vectors, jnp.log(spikes))

    @property
    def dim(self) -> int:
        return self.log_diagonal.shape[-1]

    @property
    def rank(self) -> int:
        """Columns of V."""
        return self.directions.shape[-1]

    @property
    def basis(self) -> Array:
        """V, `(dim, rank)`."""
        root = jnp.linalg.cholesky(self.directions.T @ self.directions)
        return solve_triangular(root, self.directions.T, lower=True).T

    def apply(self, v: Array) -> Array:
        basis = self.basis
        return jnp.exp(self.log_diagonal) * (v + basis @ (jnp.expm1(self.log_spikes) * (basis.T @ v)))

    def solve(self, x: Array) -> Array:
        basis, r = self.basis, x * jnp.exp(-self.log_diagonal)
        return r + basis @ (jnp.expm1(-self.log_spikes) * (basis.T @ r))

    def square(self, x: Array) -> Array:
        r = x * jnp.exp(-self.log_diagonal)
        return jnp.sum(r**2) + jnp.sum(jnp.expm1(-2 * self.log_spikes) * (self.basis.T @ r) ** 2)

    def log_det(self) -> Array:
        return jnp.sum(self.log_diagonal) + jnp.sum(self.log_spikes)

    def _sd_with(self, spikes: Array) -> Array:
        """Square roots of the diagonal of I + V (diag(spikes)^2 - I) V^T, `(dim,)`."""
        squares = self.basis**2
        return jnp.sqrt(jnp.maximum(1 - squares.sum(axis=1), 0) + squares @ spikes**2)

    def sd(self) -> Array:
        return jnp.exp(self.log_diagonal) * self._sd_with(jnp.exp(self.log_spikes))

    def sd_of(self, sd: Array) -> Array:
        basis, excess = self.basis, jnp.expm1(self.log_spikes)
        stretched = basis * excess  # M = V (T - I) V^T, whose products with diag(sd)^2 never become a matrix
        inner = basis.T @ (sd[:, None] ** 2 * basis)
        variance = sd**2 * (1 + 2 * jnp.sum(stretched * basis, axis=1)) + jnp.sum(stretched @ inner * stretched, axis=1)
        return jnp.exp(self.log_diagonal) * jnp.sqrt(variance)

    def conditional_sd(self) -> Array:
        return jnp.exp(self.log_diagonal) / self._sd_with(jnp.exp(-self.log_spikes))

    def after(self, outer: Scale) -> Self:
        if not isinstance(outer, Diagonal):
            raise TypeError(f"a {type(outer).__name__} in front of a spiked diagonal is none: give a Diagonal.")
        return type(self)(outer.log_scale + self.log_diagonal, self.directions, self.log_spikes)

    def like(self, other: Scale) -> Self:
        d = other.conditional_sd()
        if isinstance(other, Diagonal):
            start = self.standard(self.dim, d.dtype, self.rank)
            return type(self)(jnp.log(d), start.directions, start.log_spikes)
        white = other.matrix() / d[:, None]
        eigenvalues, vectors = jnp.linalg.eigh(white @ white.T)
        eigenvalues = jnp.maximum(eigenvalues, jnp.finfo(eigenvalues.dtype).eps)
        largest = jnp.argsort(-jnp.abs(jnp.log(eigenvalues)))[: self.rank]
        return type(self)(jnp.log(d), vectors[:, largest], 0.5 * jnp.log(eigenvalues[largest]))

    def coordinates(self) -> tuple[Scale, Self]:
        sd = self.sd()
        return Diagonal.of(sd), self.after(Diagonal.of(1 / sd))

    def matrix(self) -> Array:
        basis = self.basis
        inner = jnp.eye(self.dim, dtype=basis.dtype) + (basis * jnp.expm1(self.log_spikes)) @ basis.T
        return jnp.exp(self.log_diagonal)[:, None] * inner
