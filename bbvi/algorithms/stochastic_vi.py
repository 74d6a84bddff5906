"""Stochastic gradients of the ELBO, by any estimator and any optax transformation."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from bbvi.algorithms.base import Info, Initialisation, Needs
from bbvi.algorithms.optimizer import Optimizer
from bbvi.algorithms.stochastic import Stochastic
from bbvi.distributions import Distribution, FullRank, MeanField
from bbvi.draws.random import Random
from bbvi.estimators import Estimator, StickingTheLanding
from bbvi.outcome import Evaluations
from bbvi.policy import Regime
from bbvi.runtime.precision import lenient_promotion
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem


@dataclass(frozen=True, kw_only=True)
class StochasticVI(Stochastic):
    """Stochastic gradients of the ELBO by reparameterisation, as ADVI has them, in standardised coordinates.

    Arguments:
        estimator: of the gradient.
        optimizer: None for plain gradient steps of automatic size, or any optax transformation (made to minimise);
            its updates apply to standardised coordinates and are halved whenever the iterates have become stationary.
        num_draws: of the estimator in each step; None for 10, or 100 when the estimator uses no gradients.
        batch_size: rows of the data in each step, each row once in an epoch, or None for all of them.
        tolerance: stop when error and bias of the averaged parameters are below, in posterior standard deviations.
            0 never stops early.

    Reference: Kucukelbir et al. 2017 (arXiv:1603.00788).
    """

    estimator: Estimator = StickingTheLanding()
    optimizer: Optimizer | None = None
    num_draws: int | None = None
    batch_size: int | None = None
    name = "advi"

    def __post_init__(self) -> None:
        if self.optimizer is not None and not isinstance(self.optimizer, Optimizer):
            object.__setattr__(self, "optimizer", Optimizer(self.optimizer))
        if not isinstance(self.estimator, Estimator):
            raise TypeError(f"estimator={self.estimator!r} is no Estimator. Use for example bbvi.ELBO().")
        if self.draws_per_step < self.estimator.min_draws:
            raise ValueError(
                f"num_draws={self.draws_per_step}: {type(self.estimator).__name__} needs at least "
                f"{self.estimator.min_draws}."
            )
        self.estimator.noise.check(self.draws_per_step)

    def needs(self, dim: int, q: Distribution | None = None) -> Needs:
        def noise(random: Random, problem: Problem, steps: int) -> Array:
            n, scheme = self.draws_per_step, self.estimator.noise
            if self._one_by_one(problem):
                return random.bits((steps, n // scheme.together(n), 2))
            assert q is not None
            return scheme(random, steps, n, q.noise_dim)

        return Needs(
            family=FullRank if Regime.of(dim).full_rank else MeanField,
            start=Initialisation.POLISHED if self.estimator.starts_polished else Initialisation.POINT,
            derivatives=self.estimator.derivatives,
            rows=self.batch_size,
            noise=noise,
        )

    @property
    def draws_per_step(self) -> int:
        """Draws in each step."""
        return self.estimator.default_draws if self.num_draws is None else self.num_draws

    def init_aux(self, q: Distribution) -> Any:
        return self._optimizer(q).init(q)

    def update(
        self, noise: Array, problem: Problem, q: Distribution, aux: Any, damping: Array
    ) -> tuple[Distribution, Any, Info]:
        n = self.draws_per_step
        if self._one_by_one(problem):
            gradient, estimate = self.estimator.gradient_one_by_one(q, problem, noise, n)
        else:
            gradient, estimate = self.estimator.gradient(q, problem, noise)
        with lenient_promotion():
            updates, aux = self._optimizer(q).update(gradient, aux, q)
        # An update that is not finite is not made.
        damping = jnp.where(jnp.isfinite(optax.tree.norm(updates)), damping, 0)
        q = jax.tree.map(lambda p, u: p + damping * jnp.where(damping > 0, u, 0), q, updates)
        if not self.estimator.derivatives:
            return q, aux, Info.of(estimate, Evaluations(log_densities=n))
        products = self.estimator.products(n, problem.dim)
        return q, aux, Info.of(estimate, Evaluations(gradients=n, hessian_vector_products=products))

    def _one_by_one(self, problem: Problem) -> bool:
        return problem.one_by_one and self.estimator.additive

    def _optimizer(self, q: Distribution) -> Any:
        if self.optimizer is not None:
            return self.optimizer.transformation
        # Gradients are noisier the more parameters share a draw, and no step may move q by more than its own width.
        crowding = sum(leaf.size for leaf in jax.tree.leaves(q)) / (q.dim * self.draws_per_step)
        return optax.chain(optax.clip_by_global_norm(q.dim**0.5), optax.sgd(0.2 / (1 + 0.2 * crowding)))
