"""Gradients of the evidence lower bound without gradients of the log density."""

from dataclasses import dataclass

import jax.numpy as jnp
from jax.lax import stop_gradient

from bbvi.distributions import Distribution
from bbvi.estimators.base import Estimate, Estimator
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem


@dataclass(frozen=True)
class ScoreFunction(Estimator):
    """Score-function gradient with a leave-one-out baseline (VarGrad), for log densities without a gradient.

    With l_s = log p(x_s) - log q(x_s) and the draws held constant:

        grad ELBO = 1/(n-1) sum_s (l_s - mean l) grad log q(x_s)

    Unbiased for n >= 2 independent draws: the division is by n - 1, not n, and antithetic or Sobol draws, whose
    baseline knows the draw that it is subtracted from, are refused. Its variance grows with dim: use many draws, and
    few dimensions. A draw without density counts as the worst of the others.

    References: Ranganath, Gerrish and Blei 2014 (arXiv:1401.0118); Richter et al. 2020 (arXiv:2010.10436).
    """

    name = "score_function"
    starts_polished = False
    derivatives = 0
    independent = True
    default_draws = 100
    min_draws = 2

    def __call__(self, q: Distribution, problem: Problem, noise: Array) -> tuple[Array, Estimate]:
        x = stop_gradient(q.push(noise))
        log_p, log_q = problem.log_densities(x), q.log_prob(x)
        finite = jnp.isfinite(log_p)
        log_ratio = jnp.where(finite, log_p, 0) - stop_gradient(log_q)
        worst = jnp.min(jnp.where(finite, log_ratio, jnp.inf))
        weight = jnp.where(finite, log_ratio, jnp.where(jnp.isfinite(worst), worst, 0))
        loss = -jnp.sum((weight - weight.mean()) * log_q) / (len(x) - 1)
        return loss, self.estimate(log_ratio, finite)
