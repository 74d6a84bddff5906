"""What families have in common that are an invertible map of standard normal noise.

With x = T(e), e ~ N(0, I): log q(x) = log N(e; 0, I) - log |det dT/de|. The wider version t of such a family is the
image of a Student-t distribution under the same map.
"""

from abc import abstractmethod
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln

from bbvi.distributions.base import Array, Distribution
from bbvi.distributions.mean_field import LOG_2PI

NODES = 4096  # draws behind moments that have no closed form


class Pushforward(Distribution):
    """The distribution of T(e), e ~ N(0, I), with T invertible and differentiable."""

    @abstractmethod
    def forward_one(self, noise: Array) -> tuple[Array, Array]:
        """T(e) `(dim,)` of e `(dim,)`, and log |det dT/de|, a scalar."""

    @abstractmethod
    def inverse_one(self, x: Array) -> tuple[Array, Array]:
        """The e `(dim,)` with T(e) = x, and log |det dT/de| there, a scalar."""

    @property
    def noise_dim(self) -> int:
        return self.dim

    def push_one(self, noise: Array) -> Array:
        return self.forward_one(noise)[0]

    def log_prob_one(self, x: Array) -> Array:
        noise, log_det = self.inverse_one(x)
        return -0.5 * jnp.sum(noise**2) - 0.5 * self.dim * LOG_2PI - log_det

    def log_prob_wide(self, x: Array, degrees_of_freedom: float) -> Array:
        def one(x: Array) -> Array:
            noise, log_det = self.inverse_one(x)
            return log_student_t(noise, degrees_of_freedom) - log_det

        return jnp.vectorize(one, signature="(d)->()")(x)

    def to_numpyro(self) -> Any:
        import numpyro.distributions as dist

        zeros = jnp.zeros(self.dim, dtype_of(self))
        base = dist.Normal(zeros, jnp.ones_like(zeros)).to_event(1)
        return dist.TransformedDistribution(base, _transform(self))


def _transform(q: Pushforward) -> Any:
    """T as a numpyro transform."""
    from numpyro.distributions import constraints, transforms

    members = {
        "domain": constraints.real_vector,
        "codomain": constraints.real_vector,
        "__call__": lambda self, noise: q.push(noise),
        "_inverse": lambda self, x: jnp.vectorize(lambda x: q.inverse_one(x)[0], signature="(d)->(d)")(x),
        "log_abs_det_jacobian": lambda self, noise, x, intermediates=None: jnp.vectorize(
            lambda noise: q.forward_one(noise)[1], signature="(d)->()"
        )(noise),
        "tree_flatten": lambda self: ((), ((), {})),
    }
    return type("Pushed", (transforms.Transform,), members)()


def log_student_t(z: Array, degrees_of_freedom: float) -> Array:
    """Log density of the standard multivariate Student-t distribution at z `(dim,)`."""
    nu, dim = degrees_of_freedom, z.shape[-1]
    constant = gammaln((nu + dim) / 2) - gammaln(nu / 2) - 0.5 * dim * jnp.log(nu * jnp.pi)
    return constant - 0.5 * (nu + dim) * jnp.log1p(jnp.sum(z**2) / nu)


@lru_cache(maxsize=8)
def nodes(dim: int) -> np.ndarray:
    """Standard normal vectors `(NODES, dim)` that are always the same, in antithetic pairs, for averages over noise."""
    half = np.random.default_rng(0).standard_normal((NODES // 2, dim))
    draws = np.concatenate([half, -half])
    return draws / np.sqrt(np.mean(draws**2, axis=0))


@jax.jit
def moments(q: Pushforward) -> tuple[Array, Array, Array]:
    """Mean `(dim,)`, standard deviations `(dim,)` and E[log |det dT/de|], as averages over `nodes`."""
    x, log_det = jax.vmap(q.forward_one)(jnp.asarray(nodes(q.dim), dtype_of(q)))
    return x.mean(axis=0), x.std(axis=0), log_det.mean()


def dtype_of(q: Any) -> Any:
    """The floating point type of a distribution's arrays."""
    return jnp.result_type(*jax.tree.leaves(q))
