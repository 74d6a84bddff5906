"""Reparameterisation gradients of the evidence lower bound."""

from abc import abstractmethod
from dataclasses import dataclass

from jax.lax import stop_gradient

from bbvi.distributions import Distribution
from bbvi.estimators.base import Estimate, Estimator, differentiable_log_densities
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem


class PathwiseELBO(Estimator):
    """ELBO = mean_s [log p(x_s) - log q(x_s)], x_s = push(noise_s), differentiated along the path of the draws.

    What its kinds differ in is the entropy: how -log q is estimated, and what of it is differentiated.
    """

    additive = True

    @abstractmethod
    def minus_log_q(self, q: Distribution, x: Array) -> Array:
        """-log q at draws x `(n, dim)`, `(n,)`; or its mean, a scalar."""

    def __call__(self, q: Distribution, problem: Problem, noise: Array) -> tuple[Array, Estimate]:
        x, weights = q.weighted_draws(noise)
        log_p, finite = differentiable_log_densities(problem, q, x)
        log_ratio = log_p + self.minus_log_q(q, x)
        return -(weights @ log_ratio), self.estimate(log_ratio, finite, weights)


@dataclass(frozen=True)
class ELBO(PathwiseELBO):
    """Closed-form entropy: ELBO = H[q] + mean_s log p(x_s), x_s = push(noise_s).

    Unbiased. Its gradient stays noisy at the optimum, even when q = p; it is the safer choice when the log density
    itself is noisy.

    References: Titsias and Lazaro-Gredilla 2014; Kingma and Welling 2014 (arXiv:1312.6114); Kucukelbir et al. 2017
    (arXiv:1603.00788).
    """

    name = "elbo"

    def minus_log_q(self, q: Distribution, x: Array) -> Array:
        return q.entropy()


@dataclass(frozen=True)
class MonteCarloEntropy(PathwiseELBO):
    """Total derivative: ELBO = mean_s [log p(x_s) - log q(x_s)], differentiated as it stands.

    Unbiased. It is `StickingTheLanding` plus a term of mean zero; for a Gaussian, whose log density at a draw does not
    depend on where it lies, its gradient is that of `ELBO`. Use it for a family that has no entropy in closed form and
    whose log density cannot be evaluated with its parameters held constant.
    """

    name = "monte_carlo_entropy"

    def minus_log_q(self, q: Distribution, x: Array) -> Array:
        return -q.log_prob(x)


@dataclass(frozen=True)
class StickingTheLanding(PathwiseELBO):
    """Path derivative: ELBO = mean_s [log p(x_s) - log q(x_s)] with q's own parameters held constant in log q.

    Unbiased, and exactly zero for every draw when q = p, so that optimisation comes to rest.

    Reference: Roeder, Wu and Duvenaud 2017 (arXiv:1703.09194).
    """

    name = "sticking_the_landing"

    def minus_log_q(self, q: Distribution, x: Array) -> Array:
        return -stop_gradient(q).log_prob(x)
