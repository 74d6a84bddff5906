"""Bounds of the log evidence from powers of the importance weights, with doubly reparameterised gradients.

With n draws, log weights l_s = log p(x_s) - log q(x_s) and a power a,

    F_a = 1/a log( 1/n sum_s w_s^a )

is a lower bound in expectation for a <= 1: the importance-weighted ELBO at a = 1, Rényi's bound of order 1 - a below,
the ELBO in the limit a = 0. For a > 1 its limit for many draws is an upper bound (CUBO). The gradient

    sum_s c_s d/dq [log p(x_s) - log q(x_s)] along the path,   c_s = (1 - a) v_s + a v_s^2,   v = softmax(a l)

with q's own parameters held constant in log q is that of F_a in expectation, with far less noise than differentiating
F_a as it stands. Sticking the landing inside the logarithm would be biased.

References: Burda, Grosse and Salakhutdinov 2016 (arXiv:1509.00519); Li and Turner 2016 (arXiv:1602.02311); Dieng et al.
2017 (arXiv:1611.00328); Tucker, Lawson, Gu and Maddison 2019 (arXiv:1810.04152).
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jax.scipy.special import logsumexp

from bbvi.distributions import Distribution
from bbvi.estimators.base import Estimate, Estimator, differentiable_log_densities
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem


@dataclass(frozen=True)
class PowerBound(Estimator):
    """What the bounds of this family have in common; a draw without density has weight zero."""

    sign: ClassVar[float] = 1.0  # of what is maximised: F_a, or -F_a
    independent = True

    @property
    @abstractmethod
    def power(self) -> float:
        """a."""

    def __call__(self, q: Distribution, problem: Problem, noise: Array) -> tuple[Array, Estimate]:
        self.check_family(q)
        x = q.push(noise)
        log_p, finite = differentiable_log_densities(problem, q, x)
        log_ratio = log_p - stop_gradient(q).log_prob(x)
        a = self.power
        weights = jnp.where(finite, jax.nn.softmax(jnp.where(finite, a * stop_gradient(log_ratio), -jnp.inf)), 0)
        # Draws without density have no weight, but pull q back, as they do in the ELBO.
        c = jnp.where(finite, (1 - a) * weights + a * weights**2, self.sign / len(x))
        return -self.sign * jnp.sum(c * log_ratio), self.estimate(log_ratio, finite)

    def bound(self, log_weights: Array) -> Array:
        """F_a from log weights `(n,)`, in nats, a scalar."""
        return (logsumexp(self.power * log_weights) - jnp.log(len(log_weights))) / self.power


@dataclass(frozen=True)
class ImportanceWeighted(PowerBound):
    """The importance-weighted ELBO of all the draws of a step: F_1, a lower bound in expectation.

    The more draws, the closer it is to the log evidence and the less it says about q: it fits a q whose importance
    samples are finite, which is wider than the q of largest ELBO.
    """

    name = "importance_weighted"

    @property
    def power(self) -> float:
        return 1.0


@dataclass(frozen=True)
class Renyi(PowerBound):
    """Rényi's bound of order alpha: F_a with a = 1 - alpha, a lower bound for alpha in (0, 1).

    Arguments:
        alpha: between 0, the importance-weighted ELBO, and 1, the ELBO; both ends excluded. Smaller values cover more
            of the mass.

    Example:
        >>> log_weights = jnp.log(jnp.array([1.0, 4.0]))
        >>> print(f"{jnp.exp(bbvi.Renyi(alpha=0.5).bound(log_weights)):.2f}")  # (mean of square roots)^2
        2.25
    """

    alpha: float = 0.5
    name = "renyi"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.alpha < 1:
            raise ValueError(
                f"alpha={self.alpha} must lie between 0 and 1. At 1 it is StickingTheLanding, at 0 ImportanceWeighted; "
                "for alpha < 0 use CUBO, whose gradient has the right sign; for alpha > 1 its variance has no bound."
            )

    @property
    def power(self) -> float:
        return 1.0 - self.alpha


@dataclass(frozen=True)
class CUBO(PowerBound):
    """The chi-squared upper bound: F_a for a > 1, minimised.

    From few draws it is too low, being the logarithm of an average, so that it bounds the evidence from above only in
    the limit. In more than about 20 dimensions single draws carry its gradient: use it there for looking, not fitting.

    Arguments:
        order: a, above 1.

    Reference: Geffner and Domke 2021 (arXiv:2010.09541) for its limits.
    """

    order: float = 2.0
    name = "cubo"
    sign = -1.0
    default_draws = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.order > 1:
            raise ValueError(f"order={self.order} must be above 1. Below, it is a lower bound: Renyi(1 - order).")

    @property
    def power(self) -> float:
        return self.order
