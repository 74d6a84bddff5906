"""Stochastic gradient ascent of the ELBO that chooses its own step size and knows when to stop.

The steps are taken in standardised coordinates, in which q is close to N(0, I): there every parameter is measured in
posterior standard deviations and one step size fits all problems. Steps come in rounds of two halves. At the end of a
round the averages of the iterates over the halves, m_1 and m_2, and the variance w of the iterates within them say
what goes on:

    error = max |m_1 - m_2| / 2      Monte Carlo standard error of the average
    R-hat = max sqrt(1 + (m_1 - m_2)^2 / (2 w))
    bias  ~ max w                    constant steps are biased in proportion to the variance of the iterates

Small error and small bias: converged. R-hat near one: the iterates are stationary and only noisy, so the steps are
halved. R-hat large: q is still travelling, or, if the ELBO fell, thrown about by steps that are too long. The next
round starts from the average, in coordinates standardised anew, and is twice as long unless q is travelling.

References: Dhaka et al. 2020 (arXiv:2009.00666) and Welandawe et al. 2022 (arXiv:2203.15945) for stopping by R-hat
and Monte Carlo error and for step sizes that decrease when stationary. This rule departs from theirs in using
standardised coordinates, two halves instead of a search over windows, and the variance of the iterates for the bias.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bbvi.algorithms.base import Algorithm
from bbvi.algorithms.optimizer import Optimizer
from bbvi.distributions import Distribution
from bbvi.estimators import Estimate, Estimator, StickingTheLanding
from bbvi.precision import lenient_promotion
from bbvi.problem import Problem
from bbvi.random import Random

Array = Any
FIRST_HALF = 50  # steps in a half of the first round
STATIONARY = 1.2  # R-hat below which the iterates count as stationary
TRAVELLING = 2.0  # R-hat above which they move steadily; it is 2.6 for motion in a straight line


class Half(NamedTuple):
    """Sums over half a round."""

    total: Distribution  # sum of the iterates
    squares: Distribution  # sum of their squares
    elbo: Array  # () sum of the ELBO estimates


class ADVIState(NamedTuple):
    """State of `ADVI`."""

    q: Distribution  # in standardised coordinates
    loc: Array  # (dim,) of the coordinates
    scale: Array  # (dim,) or (dim, dim)
    optimizer: Any  # optax state
    damping: Array  # () factor of the steps
    count: Array  # () steps taken in this half
    half: Array  # () steps in a half of this round
    previous: Half  # all zero during the first half of a round
    current: Half
    judging: Array  # () bool, whether this is the second half
    error: Array  # () of the last round, in posterior standard deviations
    bias: Array  # () likewise
    converged: Array  # () bool


@dataclass(frozen=True)
class ADVI(Algorithm[ADVIState]):
    """Automatic differentiation variational inference: stochastic gradients of the ELBO.

    Arguments:
        estimator: of the gradient.
        optimizer: None for plain gradient steps of automatic size, or any optax transformation (made to minimise);
            its updates apply to standardised coordinates and are halved whenever the iterates have become stationary.
        num_draws: of the estimator in each step; None for 10, or 100 when the estimator uses no gradients.
        batch_size: rows of the data in each step, drawn with replacement, or None for all of them.
        tolerance: stop when error and bias of the averaged parameters are below, in posterior standard deviations.
            0 never stops early.
    """

    estimator: Estimator = StickingTheLanding()
    optimizer: Optimizer | None = None
    num_draws: int | None = None
    batch_size: int | None = None
    tolerance: float = 0.05
    name = "advi"

    def __post_init__(self) -> None:
        if self.optimizer is not None and not isinstance(self.optimizer, Optimizer):
            object.__setattr__(self, "optimizer", Optimizer(self.optimizer))
        if not isinstance(self.estimator, Estimator):
            raise TypeError(f"estimator={self.estimator!r} is no Estimator. Use for example bbvi.ELBO().")
        if self.draws < self.estimator.min_draws:
            raise ValueError(
                f"num_draws={self.draws}: {type(self.estimator).__name__} needs at least {self.estimator.min_draws}."
            )
        self.estimator.noise.check(self.draws)

    @property
    def uses_gradients(self) -> bool:
        return self.estimator.uses_gradients

    @property
    def draws(self) -> int:
        """Draws in each step."""
        return self.estimator.default_draws if self.num_draws is None else self.num_draws

    def init(self, problem: Problem, q: Distribution) -> ADVIState:
        loc, scale, local = q.standardise()
        zero = jnp.zeros((), loc.dtype)
        return ADVIState(
            local,
            loc,
            scale,
            self._optimizer(local).init(local),
            zero + 1,
            jnp.zeros((), int),
            jnp.full((), FIRST_HALF, int),
            _empty(local),
            _empty(local),
            jnp.zeros((), bool),
            zero + jnp.inf,
            zero + jnp.inf,
            jnp.zeros((), bool),
        )

    def noise(self, random: Random, problem: Problem, state: ADVIState, steps: int) -> tuple[Array, Array | None]:
        draws = self.estimator.noise(random, steps, self.draws, state.q.noise_dim)
        if self.batch_size is None:
            return draws, None
        return draws, random.integers(problem.num_rows, (steps, self.batch_size))

    def step(self, noise: tuple[Array, Array | None], problem: Problem, state: ADVIState) -> tuple[ADVIState, Estimate]:
        draws, rows = noise
        local = (problem if rows is None else problem.minibatch(rows)).in_coordinates(state.loc, state.scale)
        (_, estimate), gradient = jax.value_and_grad(self.estimator, has_aux=True)(state.q, local, draws)
        with lenient_promotion():
            updates, optimizer = self._optimizer(state.q).update(gradient, state.optimizer, state.q)
        # An update that is not finite is not made.
        damping = jnp.where(jnp.isfinite(optax.tree.norm(updates)), state.damping, 0)
        q = jax.tree.map(lambda p, u: p + damping * jnp.where(damping > 0, u, 0), state.q, updates)
        current = jax.tree.map(jnp.add, state.current, Half(q, jax.tree.map(jnp.square, q), estimate.value))
        return state._replace(q=q, optimizer=optimizer, count=state.count + 1, current=current), estimate

    def steps_to_adapt(self, state: ADVIState) -> Array:
        return state.half - state.count

    def adapt(self, problem: Problem, state: ADVIState) -> ADVIState:
        halfway = state._replace(
            count=jnp.zeros_like(state.count),
            previous=state.current,
            current=_empty(state.q),
            judging=jnp.ones_like(state.judging),
        )
        judged = self._judge(problem, state)
        return jax.tree.map(lambda a, b: jnp.where(state.judging, a, b), judged, halfway)

    def _judge(self, problem: Problem, state: ADVIState) -> ADVIState:
        n, first, second = state.half.astype(state.loc.dtype), state.previous, state.current
        gap = jax.tree.map(lambda a, b: jnp.abs(a - b) / n, first.total, second.total)
        squares = jax.tree.map(jnp.add, first.squares, second.squares)
        within = jax.tree.map(  # variance of the iterates about the mean of their half
            lambda a, b, aabb: jnp.maximum((aabb - (a**2 + b**2) / n) / (2 * n), 0), first.total, second.total, squares
        )
        error, bias = _largest(gap) / 2, _largest(within)
        r_hat = jnp.sqrt(1 + _largest(jax.tree.map(lambda g, w: g**2 / (2 * w + 1e-12), gap, within)))
        converged = (error < self.tolerance) & (bias < self.tolerance)
        stationary = r_hat < STATIONARY
        too_long = (second.elbo < first.elbo) & (r_hat > TRAVELLING)
        factor = jnp.where(converged, 1.0, jnp.where(stationary, 0.5, jnp.where(too_long, 0.25, 1.0)))

        settled = stationary | (error < self.tolerance)  # then the first half is as good as the second
        average = jax.tree.map(lambda a, b: jnp.where(settled, (a + b) / (2 * n), b / n), first.total, second.total)
        restarted = self.init(problem, average.affine(state.loc, state.scale))
        return restarted._replace(
            damping=state.damping * factor,
            half=jnp.where(r_hat > TRAVELLING, 1, 2) * state.half,
            error=error,
            bias=bias,
            converged=converged,
        )

    def done(self, state: ADVIState) -> Array:
        return state.converged

    def extract(self, state: ADVIState) -> Distribution:
        n = jnp.maximum(state.count, 1).astype(state.loc.dtype)
        average = jax.tree.map(
            lambda total, q: jnp.where(state.count > 0, total / n, q),
            state.current.total,
            state.q,
        )
        return average.affine(state.loc, state.scale)

    def evaluations_per_step(self) -> tuple[int, int]:
        return (0, self.draws) if self.estimator.uses_gradients else (self.draws, 0)

    def _optimizer(self, q: Distribution) -> Any:
        if self.optimizer is not None:
            return self.optimizer.transformation
        # Gradients are noisier the more parameters share a draw, and no step may move q by more than its own width.
        crowding = sum(leaf.size for leaf in jax.tree.leaves(q)) / (q.dim * self.draws)
        return optax.chain(optax.clip_by_global_norm(q.dim**0.5), optax.sgd(0.2 / (1 + 0.2 * crowding)))


def _empty(q: Distribution) -> Half:
    zeros = jax.tree.map(jnp.zeros_like, q)
    return Half(zeros, zeros, jnp.zeros((), jnp.result_type(q.mean())))


def _largest(tree: Any) -> Array:
    return jnp.max(jnp.stack([leaf.max() for leaf in jax.tree.leaves(tree)]))
