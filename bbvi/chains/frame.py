"""Coordinates y in which an approximation q is near N(0, I), and the log density seen from there.

    a Gaussian, a Student-t, a mixture    y = S^-1 (x - loc), by `q.standardise()`
    a hierarchy, or a flow                y is its noise, which it maps to x (Hoffman et al. 2019, arXiv:1903.03704)
    a hierarchy that is dear to factorise y = (x - loc) / sd, where trajectories are to be longer

q as it is in y tells how to begin, and what to propose that depends on nothing: its wider version.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bbvi.distributions import Distribution, LocationScale
from bbvi.distributions.affine import Affine
from bbvi.distributions.base import Reparameterised, float_type
from bbvi.distributions.bases import Warped
from bbvi.distributions.hierarchical import Hierarchical
from bbvi.distributions.scales import Diagonal
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

LONG = 5.0  # trajectories among coordinates that are correlated: more than once across the widest of them


class Frame(NamedTuple):
    """A map from y to x, and q as it is in y."""

    map: Affine | LocationScale | Hierarchical  # the second with a warped base
    q: Distribution

    @classmethod
    def of(cls, q: Distribution) -> "Frame":
        """That of an approximation."""
        zeros = jnp.zeros(q.dim, float_type(q))
        normal = LocationScale(zeros, Diagonal(zeros))
        if isinstance(q, Hierarchical) and not q.split.is_dear:
            return cls(q, normal)
        if isinstance(q, LocationScale) and isinstance(q.base, Warped):
            return cls(q, normal)
        return cls(*q.standardise())

    @property
    def least_time(self) -> float:
        """That a trajectory has to take at least, in units of y."""
        return LONG if isinstance(self.q, Hierarchical) else 0.0

    @property
    def wide(self) -> Reparameterised:
        """q's wider version, in y."""
        return self.q.widened()

    def forward(self, y: Array) -> tuple[Array, Array]:
        """x `(dim,)` of y, and log |det dx/dy|, a scalar."""
        if isinstance(self.map, Affine):
            return self.map(y), self.map.scale.log_det()
        return self.map.forward_one(y)

    def log_densities(self, problem: Problem, ys: Array) -> Array:
        """The log density in y at points `(n, dim)`, `(n,)`; -inf where it is not finite."""
        values = problem.over(lambda y: self._pulled(problem, y), ys)
        return jnp.where(jnp.isfinite(values), values, -jnp.inf)

    def values_and_gradients(self, problem: Problem, ys: Array) -> tuple[Array, Array]:
        """The same with its gradient in y `(n, dim)`; where one is not finite, -inf and zeros."""
        values, gradients = problem.over(jax.value_and_grad(lambda y: self._pulled(problem, y)), ys)
        finite = jnp.isfinite(values) & jnp.isfinite(gradients).all(axis=-1)
        return jnp.where(finite, values, -jnp.inf), jnp.where(finite[:, None], gradients, 0)

    def _pulled(self, problem: Problem, y: Array) -> Array:
        x, log_det = self.forward(y)
        return problem.log_density(x) + log_det
