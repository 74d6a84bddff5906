"""What an estimator of the evidence lower bound is.

The log density enters through its values and gradients at the draws: the surrogate below has the value `log p(x_s)`
and the gradient `grad log p(x_s)` with respect to `x_s`, so the user's function is differentiated in one place, and a
draw at which it is not finite cannot spread to the others.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from bbvi.distributions import Distribution
from bbvi.draws.random import Random, add_up
from bbvi.estimators.noise import IID, Noise
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

PULL = 2.0  # how hard a draw without density pulls q back, in units of the score of a standard normal


class Estimate(NamedTuple):
    """An estimate of the ELBO in nats."""

    value: Array  # ()
    standard_error: Array  # ()
    non_finite: Array  # () draws at which the log density or its gradient was not finite


@dataclass(frozen=True)
class Estimator(ABC):
    """A pure function of a distribution, a problem and noise.

    Whatever it optimises, the estimate that it returns is of the ELBO, so that histories can be compared.

    Arguments:
        noise: how its draws are made.

    Example:
        >>> from bbvi.ext import differentiable_log_densities
        >>> class Tempered(bbvi.Estimator):  # fits the square root of the density, which is wider
        ...     name = "tempered"
        ...     def __call__(self, q, problem, noise):
        ...         log_p, finite = differentiable_log_densities(problem, q, q.push(noise))
        ...         loss = -(log_p.mean() / 2 + q.entropy())
        ...         return loss, self.estimate(log_p + q.entropy(), finite)
        >>> posterior = bbvi.fit(lambda x: -0.5 * jnp.sum(x**2), 2, estimator=Tempered(), family="mean_field")
        >>> posterior.distribution.sd().round(1)
        array([1.4, 1.4])
    """

    noise: Noise = IID()
    name: ClassVar[str]
    derivatives: ClassVar[int] = 1  # of the log density that it takes, 0 to 2
    additive: ClassVar[bool] = False  # whether its loss is a mean over draws
    starts_polished: ClassVar[bool] = True  # whether gradients may be used to find where to start
    independent: ClassVar[bool] = False  # whether it needs independent draws, each from the whole of q
    default_draws: ClassVar[int] = 10
    min_draws: ClassVar[int] = 1

    def __post_init__(self) -> None:
        if self.independent and not isinstance(self.noise, IID):
            raise ValueError(
                f"noise={self.noise!r}: {type(self).__name__} is biased unless draws are independent. Use IID(), or "
                "StickingTheLanding or ELBO with these draws."
            )

    def check_family(self, q: Distribution) -> None:
        """Raise ValueError when q's draws have no gradient in all of its parameters, as those of a mixture."""
        if not q.is_reparameterised:
            raise ValueError(
                f"{type(self).__name__} is biased for {q.title}: its draws have no gradient in the weights of "
                "the components. Use StickingTheLanding, or a family such as a flow."
            )

    def products(self, num_draws: int, dim: int) -> int:
        """Hessian-vector products in one call."""
        return 0

    @abstractmethod
    def __call__(self, q: Distribution, problem: Problem, noise: Array) -> tuple[Array, Estimate]:
        """A loss whose gradient in `q` estimates that of -ELBO, and the estimate of the ELBO itself.

        Arguments:
            noise: standard normal draws `(n, q.noise_dim)`.
        """

    def gradient(self, q: Distribution, problem: Problem, noise: Array) -> tuple[Distribution, Estimate]:
        """The gradient of the loss in `q`, and the estimate of the ELBO."""
        (_, estimate), gradient = jax.value_and_grad(self, has_aux=True)(q, problem, noise)
        return gradient, estimate

    def gradient_one_by_one(self, q: Distribution, problem: Problem, seeds: Array, n: int) -> tuple[Any, Estimate]:
        """The same from `n` draws, made and used one after the other, of an additive estimator.

        Arguments:
            seeds: one for each set of draws that depend on each other, `(n // noise.together(n), 2)`.
        """
        size = self.noise.together(n)

        def of_set(random: Random) -> tuple[Distribution, Estimate]:
            return self.gradient(q, problem, self.noise(random, 1, size, q.noise_dim)[0])

        total, parts = add_up(of_set, seeds)
        whole = replace(self, noise=IID()).estimate(parts.value, parts.non_finite < size)
        return jax.tree.map(lambda g: g / len(seeds), total), whole._replace(non_finite=parts.non_finite.sum())

    def estimate(self, values: Array, finite: Array, weights: Array | None = None) -> Estimate:
        """The ELBO over the finite draws among `values` `(n,)`, with weights `(n,)` that sum to 1, or equal ones."""
        weights = jnp.where(finite, jnp.full(len(values), 1 / len(values)) if weights is None else weights, 0)
        mean = weights @ jnp.where(finite, values, 0) / jnp.maximum(weights.sum(), jnp.finfo(values.dtype).tiny)
        deviations = jnp.where(finite, weights * len(values) * (values - mean), 0)
        mean, error, bad = stop_gradient((mean, self.noise.standard_error(mean + deviations), jnp.sum(~finite)))
        return Estimate(mean, error, bad)


def differentiable_log_densities(problem: Problem, q: Distribution, x: Array) -> tuple[Array, Array]:
    """Log densities `(n,)` at draws `x` of q `(n, dim)`, differentiable in `x`, and which of them are finite.

    A draw at which the density or its gradient is not finite gets value 0 and pulls q back to the centre of the draws.
    """
    fixed = stop_gradient(x)
    values, gradients, finite = problem.values_and_gradients(fixed)
    centre = fixed.mean(axis=0) if len(x) > 1 else stop_gradient(q.mean())
    gradients = jnp.where(finite[:, None], gradients, -PULL * (fixed - centre))
    return stop_gradient(values) + jnp.sum(stop_gradient(gradients) * (x - fixed), axis=-1), finite
