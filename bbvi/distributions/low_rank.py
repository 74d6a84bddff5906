"""Gaussian whose covariance is a diagonal plus a few directions."""

from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, cholesky

from bbvi.distributions.base import Array, Distribution
from bbvi.distributions.mean_field import LOG_2PI, conditional_sd
from bbvi.pytree import pytree


@pytree
class LowRank(Distribution):
    """N(loc, diag(d)^2 + F F^T) with F of a few columns: memory and time linear in dim.

    Arguments:
        loc: mean, `(dim,)`.
        log_diagonal: log d, `(dim,)`.
        factor: F, `(dim, rank)`.

    The density needs no `(dim, dim)` matrix (Woodbury): with G = F / d and C = I + G^T G,
    log|Sigma| = 2 sum log d + log|C| and z^T Sigma^-1 z = |r|^2 - (G^T r)^T C^-1 (G^T r) for r = z / d.

    Example:
        >>> family = bbvi.LowRank.standard(50, rank=3)  # for fit(family=...)
        >>> family.factor.shape
        (50, 3)

    Reference: Ong, Nott and Smith 2018 (arXiv:1701.03208).
    """

    name = "low_rank"
    loc: Array
    log_diagonal: Array
    factor: Array

    @classmethod
    def standard(cls, dim: int, dtype: Any = float, rank: int | None = None) -> Self:
        """Close to N(0, I). The factor starts small but not at zero, where its gradient would vanish."""
        rank = max(1, min(32, dim // 4)) if rank is None else rank
        directions = jax.random.normal(jax.random.key(0), (dim, rank), dtype)
        return cls(jnp.zeros(dim, dtype), jnp.zeros(dim, dtype), 0.1 * directions / rank**0.5)

    @property
    def dim(self) -> int:
        return self.loc.shape[-1]

    @property
    def rank(self) -> int:
        return self.factor.shape[-1]

    @property
    def noise_dim(self) -> int:
        return self.dim + self.rank

    def push_one(self, noise: Array) -> Array:
        return self.loc + jnp.exp(self.log_diagonal) * noise[: self.dim] + self.factor @ noise[self.dim :]

    def _capacitance(self) -> tuple[Array, Array]:
        scaled = self.factor * jnp.exp(-self.log_diagonal)[:, None]  # G
        return scaled, cholesky(jnp.eye(self.rank, dtype=scaled.dtype) + scaled.T @ scaled, lower=True)

    def _log_det(self, capacitance: Array) -> Array:
        return jnp.sum(self.log_diagonal) + jnp.sum(jnp.log(jnp.diagonal(capacitance)))  # log|Sigma| / 2

    def log_prob_one(self, x: Array) -> Array:
        scaled, capacitance = self._capacitance()
        r = (x - self.loc) * jnp.exp(-self.log_diagonal)
        projected = scaled.T @ r
        quadratic = jnp.sum(r**2) - projected @ cho_solve((capacitance, True), projected)
        return -0.5 * quadratic - self._log_det(capacitance) - 0.5 * self.dim * LOG_2PI

    def entropy(self) -> Array:
        return self._log_det(self._capacitance()[1]) + 0.5 * self.dim * (1 + LOG_2PI)

    def mean(self) -> Array:
        return self.loc

    def sd(self) -> Array:
        return jnp.sqrt(jnp.exp(2 * self.log_diagonal) + jnp.sum(self.factor**2, axis=-1))

    def affine(self, loc: Array, scale: Array) -> Self:
        return type(self)(loc + scale * self.loc, jnp.log(scale) + self.log_diagonal, scale[:, None] * self.factor)

    def near(self, loc: Array, scale: Array) -> Self:
        d = conditional_sd(scale)
        start = self.standard(self.dim, d.dtype, self.rank).factor
        if jnp.ndim(scale) == 2:  # the widest directions of what the diagonal leaves over
            white = scale / d[:, None]
            eigenvalues, vectors = jnp.linalg.eigh(white @ white.T)
            excess = jnp.maximum(eigenvalues[-self.rank :] - 1, 1e-3)
            start = vectors[:, -self.rank :] * jnp.sqrt(excess)
        return type(self)(loc, jnp.log(d), d[:, None] * start)

    def standardise(self) -> tuple[Array, Array, Self]:
        sd = self.sd()
        q = type(self)(jnp.zeros_like(self.loc), self.log_diagonal - jnp.log(sd), self.factor / sd[:, None])
        return self.loc, sd, q

    def to_numpyro(self) -> Any:
        import numpyro.distributions as dist

        return dist.LowRankMultivariateNormal(self.loc, self.factor, jnp.exp(2 * self.log_diagonal))
