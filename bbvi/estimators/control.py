"""A control variate from curvature."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from bbvi.distributions import Distribution, LocationScale
from bbvi.distributions.bases import Normal
from bbvi.estimators.base import Estimate, Estimator
from bbvi.estimators.elbo import ELBO
from bbvi.policy import LIMITS, Regime
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem


@dataclass(frozen=True)
class HessianControl(Estimator):
    """The ELBO with closed-form entropy, less what a quadratic model of the log density does, plus its mean:

        f(x) = b (x - m) + 1/2 (x - m)^T H (x - m),   gradient b and Hessian H of log p at q's mean m, held constant
        loss + mean_s f(x_s) - E_q f

    The difference has mean zero for any b and H, so the gradient stays unbiased; where log p is nearly quadratic over
    q, most of its noise is gone. It costs one Hessian, dim Hessian-vector products, in each step: worth it for few
    draws, or an expensive log density. Without a Hessian, antithetic or Sobol draws take away most of the same noise.

    Arguments:
        estimator: `ELBO`, with its own noise.

    References: Miller, Foti, D'Amour and Adams 2017 (arXiv:1705.07880); Geffner and Domke 2020 (arXiv:2007.14634).
    """

    estimator: Estimator = ELBO()
    name = "hessian_control"
    derivatives = 2

    def __post_init__(self) -> None:
        if not isinstance(self.estimator, ELBO):
            raise ValueError(
                f"estimator={self.estimator!r}: a control variate for log p would bias it, or bring back noise that it "
                "loses by holding log p against log q. Use ELBO()."
            )
        object.__setattr__(self, "noise", self.estimator.noise)

    def products(self, num_draws: int, dim: int) -> int:
        return dim

    def __call__(self, q: Distribution, problem: Problem, noise: Array) -> tuple[Array, Estimate]:
        gaussian = isinstance(q, LocationScale) and isinstance(q.base, Normal)
        if not gaussian or not Regime.of(q.dim).dense_response:
            raise ValueError(
                f"HessianControl needs a Gaussian, whose quadratic moments are known, of at most "
                f"{LIMITS.dense_response} coordinates; this is {q.title} of {q.dim}. Use antithetic or Sobol draws."
            )
        loss, estimate = self.estimator(q, problem, noise)
        centre = stop_gradient(q.mean())
        slope = jax.grad(problem.log_density)(centre)
        eye = jnp.eye(q.dim, dtype=centre.dtype)
        hessian = problem.hessian_vector_products(jnp.broadcast_to(centre, eye.shape), eye)
        known = jnp.isfinite(slope).all() & jnp.isfinite(hessian).all()
        slope, hessian = jax.tree.map(lambda a: stop_gradient(jnp.where(known, a, 0)), (slope, hessian))

        away = q.push(noise) - centre
        sampled = jnp.mean(away @ slope + 0.5 * jnp.sum(away @ hessian * away, axis=-1))
        factor = jax.jacobian(q.push_one)(jnp.zeros(q.noise_dim, centre.dtype))  # of q's covariance
        moved = q.mean() - centre
        expected = slope @ moved + 0.5 * (moved @ hessian @ moved + jnp.sum(hessian @ factor * factor))
        return loss + sampled - expected, estimate
