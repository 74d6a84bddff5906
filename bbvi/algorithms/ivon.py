"""Natural gradients for very many coordinates, at the cost of Adam."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bbvi.algorithms.base import Info, Needs
from bbvi.algorithms.numerics.draws import check_pairs
from bbvi.algorithms.stochastic import Stochastic
from bbvi.distributions import Distribution, LocationScale, MeanField
from bbvi.distributions.scales import Diagonal
from bbvi.draws.random import Random, add_up
from bbvi.estimators import StickingTheLanding
from bbvi.outcome import Evaluations
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

MOMENTUM = 0.9
LEARNING_RATE = 0.2
FORGETTING = 0.05  # 1 - beta_2
LONGEST = 1.0  # standard deviations that a coordinate may move in one step


class Momentum(NamedTuple):
    """Running mean of the gradients."""

    total: Array  # (dim,)
    weight: Array  # () sum of its weights


@dataclass(frozen=True, kw_only=True)
class IVON(Stochastic):
    """Improved variational online Newton for mean-field Gaussians, from gradients alone.

    With q = N(m, 1/h), draws m + e / sqrt(h) in antithetic pairs and g the gradients of -log p there, each step is

        h^  = h + mean[(g / sqrt(h) - e) e] h                by Price's and Stein's lemmas
        h  <- h + r (h^ - h) + r^2 (h^ - h)^2 / (2 h)        positive for any h^
        m  <- m - a (running mean of g) / h                  at most one standard deviation

    with r = 0.05 and a = 0.2 times the damping of the rounds, in standardised coordinates, where h begins near 1.

    Arguments:
        num_draws: in each step, an even number.
        batch_size: rows of the data in each step, each row once in an epoch, or None for all of them.

    Reference: Shen et al. 2024 (arXiv:2402.17641), here without weight decay, for a log density that need not be a sum
    over data, and averaged.
    """

    num_draws: int = 4
    batch_size: int | None = None
    name = "ivon"

    def __post_init__(self) -> None:
        check_pairs(self.num_draws)

    def needs(self, dim: int, q: Distribution | None = None) -> Needs:
        return Needs(family=MeanField, families=(MeanField,), rows=self.batch_size, noise=self._noise)

    def init_aux(self, q: Distribution) -> Momentum:
        return Momentum(jnp.zeros_like(q.mean()), jnp.zeros((), q.mean().dtype))

    def _noise(self, random: Random, problem: Problem, steps: int) -> Array:
        if problem.one_by_one:
            return random.bits((steps, self.num_draws // 2, 2))
        return _pairs(random, (steps, self.num_draws // 2, problem.dim))

    def update(
        self, noise: Array, problem: Problem, q: Distribution, aux: Momentum, damping: Array
    ) -> tuple[Distribution, Any, Info]:
        assert isinstance(q, LocationScale)
        assert isinstance(q.scale, Diagonal)
        look = partial(_look, problem, q)
        if problem.one_by_one:
            (slope, excess), (log_ratios, finite) = add_up(lambda random: look(_pairs(random, (1, 1, q.dim))[0]), noise)
        else:
            (slope, excess), (log_ratios, finite) = look(noise)
        count = jnp.maximum(jnp.sum(finite, dtype=slope.dtype), 1)
        gradient, seen = -slope / count, 1 - excess / count  # h^ / h
        log_scale = q.scale.log_scale - 0.5 * jnp.log(new_curvature(seen, FORGETTING * damping))
        aux = Momentum(MOMENTUM * aux.total + (1 - MOMENTUM) * gradient, MOMENTUM * aux.weight + 1 - MOMENTUM)
        sd = jnp.exp(log_scale)
        move = LEARNING_RATE * damping * sd * aux.total / aux.weight
        new = MeanField(q.loc - sd * jnp.clip(move, -LONGEST, LONGEST), log_scale)
        usable = finite.all()  # half of a pair says nothing of the curvature
        q = jax.tree.map(lambda new, old: jnp.where(usable, new, old), new, q)
        estimate = StickingTheLanding().estimate(log_ratios.ravel(), finite.ravel())
        return q, aux, Info.of(estimate, Evaluations(gradients=self.num_draws))


def _pairs(random: Random, shape: tuple[int, int, int]) -> Array:
    half = random.normal(shape)
    return random.xp.concatenate([half, -half], axis=1)


def _look(problem: Problem, q: LocationScale, noise: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Sums over the finite draws of grad f and of (grad f / sqrt(h) + e) e, without noise where h is right.

    And for each draw the log density over that of q, and whether it is finite.
    """
    x = q.push(noise)
    values, gradients, finite = problem.values_and_gradients(x)
    weights = finite.astype(values.dtype)
    white = gradients * q.scale.sd()
    return (weights @ gradients, weights @ ((white + noise) * noise)), (values - q.log_prob(x), finite)


def new_curvature(seen: Array, rate: Array) -> Array:
    """h' / h from h^ / h: at least 1/2 for any h^."""
    return 1 + rate * (seen - 1) + 0.5 * (rate * (seen - 1)) ** 2
