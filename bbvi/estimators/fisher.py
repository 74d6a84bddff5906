"""Score matching: the Fisher divergence, pulled back to the noise."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from bbvi.distributions import Distribution
from bbvi.estimators.base import PULL, Estimate, Estimator
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem


@dataclass(frozen=True)
class FisherDivergence(Estimator):
    """Minimises the mean of |d/d noise [log p(x) - log q(x)]|^2, x = push(noise).

    It is zero if and only if q = p, and does not depend on p's normaliser. For a Gaussian q it is
    E_q |grad log q - grad log p|^2 in the metric of q's covariance, which no affine map of the parameters changes. It
    is blind to the weights of modes that lie apart. Needs second derivatives. Unbiased.

    Reference: Cai et al. 2024 (arXiv:2402.14758) for the metric; Hyvärinen 2005 for score matching.
    """

    name = "fisher"
    derivatives = 2

    def products(self, num_draws: int, dim: int) -> int:
        return num_draws

    def __call__(self, q: Distribution, problem: Problem, noise: Array) -> tuple[Array, Estimate]:
        self.check_family(q)

        def log_ratio(one: Array) -> Array:
            x = q.push_one(one)
            return problem.log_density(x) - q.log_prob_one(x)

        values, gradients = jax.vmap(jax.value_and_grad(log_ratio))(jnp.asarray(noise))
        finite = jnp.isfinite(values) & jnp.isfinite(gradients).all(axis=-1)
        squares = jnp.sum(jnp.where(finite[:, None], gradients, 0) ** 2, axis=-1)
        x = q.push(noise)
        pull = PULL * jnp.sum((x - stop_gradient(x.mean(axis=0))) ** 2, axis=-1)
        return jnp.where(finite, squares, pull).mean(), self.estimate(
            stop_gradient(jnp.where(finite, values, 0)), finite
        )
