"""Stochastic steps that choose their own size and know when to stop.

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

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from bbvi.algorithms.base import Adaptive, Info, status
from bbvi.distributions import Distribution
from bbvi.distributions.affine import Affine
from bbvi.policy import Regime
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

STATIONARY = 1.2  # R-hat below which the iterates count as stationary
TRAVELLING = 2.0  # R-hat above which they move steadily; it is 2.6 for motion in a straight line


class Half(NamedTuple):
    """Sums from the first step of half a round on, in single precision for a long q."""

    total: Distribution  # sum of the iterates
    elbo: Array  # () sum of the ELBO estimates


class StochasticState(NamedTuple):
    """State of an algorithm that works in rounds."""

    q: Distribution  # in standardised coordinates
    coordinates: Affine  # x as a function of what q is a distribution of
    aux: Any  # what else the algorithm carries from step to step of a round
    damping: Array  # () factor of the steps
    taken: Array  # () steps taken in this half
    half: Array  # () steps in a half of this round
    previous: Half  # of this round, during the second half
    current: Half
    squares: Distribution  # sum of the squares of the iterates of this round, likewise
    judging: Array  # () bool, whether this is the second half
    error: Array  # () of the last round, in posterior standard deviations
    bias: Array  # () likewise
    converged: Array  # () bool


@dataclass(frozen=True, kw_only=True)
class Stochastic(Adaptive[StochasticState]):
    """What stochastic algorithms share; each adds `update`, one step of q in standardised coordinates.

    Arguments:
        tolerance: stop when error and bias of the averaged parameters are below, in posterior standard deviations.
            0 never stops early.
    """

    tolerance: float = 0.05
    first_half: ClassVar[int] = 50  # steps in a half of the first round

    def init_aux(self, q: Distribution) -> Any:
        """What `update` carries from step to step, at the start of a round."""
        return None

    @abstractmethod
    def update(
        self, noise: Any, problem: Problem, q: Distribution, aux: Any, damping: Array
    ) -> tuple[Distribution, Any, Info]:
        """One step of q and of what is carried along, where both q and problem are in standardised coordinates."""

    def init(self, problem: Problem, q: Distribution, draws: Any) -> StochasticState:
        coordinates, local = q.standardise()
        dtype = coordinates.loc.dtype
        scalar = lambda value: jnp.full((), value, dtype)
        return StochasticState(
            q=local,
            coordinates=coordinates,
            aux=self.init_aux(local),
            damping=scalar(1),
            taken=jnp.zeros((), int),
            half=jnp.full((), self.first_half, int),
            previous=_empty(local),
            current=_empty(local),
            squares=_zeros(local),
            judging=jnp.zeros((), bool),
            error=scalar(jnp.inf),
            bias=scalar(jnp.inf),
            converged=jnp.zeros((), bool),
        )

    def step(self, noise: Any, problem: Problem, state: StochasticState) -> tuple[StochasticState, Info]:
        local = problem.in_coordinates(state.coordinates)
        q, aux, info = self.update(noise, local, state.q, state.aux, state.damping)
        first = state.taken == 0
        add = lambda first: lambda total, new: jnp.where(first, 0, total) + new.astype(total.dtype)
        current = jax.tree.map(add(first), state.current, Half(q, info.elbo))
        squares = jax.tree.map(add(first & ~state.judging), state.squares, jax.tree.map(jnp.square, q))
        return state._replace(q=q, aux=aux, taken=state.taken + 1, current=current, squares=squares), info

    def steps_to_adapt(self, state: StochasticState) -> Array:
        return state.half - state.taken

    def adapt(self, problem: Problem, state: StochasticState) -> StochasticState:
        halfway = state._replace(
            taken=jnp.zeros_like(state.taken),
            previous=state.current,
            judging=jnp.ones_like(state.judging),
        )
        judged = self._judge(problem, state)
        # What both leave as it is, is not copied: of a long q that would take its memory once more.
        return jax.tree.map(lambda a, b: a if a is b else jnp.where(state.judging, a, b), judged, halfway)

    def _judge(self, problem: Problem, state: StochasticState) -> StochasticState:
        sums = (state.half, state.previous, state.current, state.squares)
        n, first, second, squares = jax.tree.map(lambda leaf: leaf.astype(state.coordinates.loc.dtype), sums)
        gap = jax.tree.map(lambda a, b: jnp.abs(a - b) / n, first.total, second.total)
        within = jax.tree.map(  # variance of the iterates about the mean of their half
            lambda a, b, c: jnp.maximum((c - (a**2 + b**2) / n) / (2 * n), 0), first.total, second.total, squares
        )
        error, bias = _largest(gap) / 2, _largest(within)
        r_hat = jnp.sqrt(1 + _largest(jax.tree.map(lambda g, w: g**2 / (2 * w + 1e-12), gap, within)))
        converged = (error < self.tolerance) & (bias < self.tolerance)
        stationary = r_hat < STATIONARY
        too_long = (second.elbo < first.elbo) & (r_hat > TRAVELLING)
        factor = jnp.where(converged, 1.0, jnp.where(stationary, 0.5, jnp.where(too_long, 0.25, 1.0)))

        settled = stationary | (error < self.tolerance)  # then the first half is as good as the second
        average = jax.tree.map(lambda a, b: jnp.where(settled, (a + b) / (2 * n), b / n), first.total, second.total)
        restarted = self.init(problem, average.after(state.coordinates), None)
        return restarted._replace(
            previous=state.previous,
            current=state.current,
            squares=state.squares,
            damping=state.damping * factor,
            half=jnp.where(r_hat > TRAVELLING, 1, 2) * state.half,
            error=error,
            bias=bias,
            converged=converged,
        )

    def status(self, state: StochasticState) -> Array:
        return status(state.converged)

    def extract(self, state: StochasticState) -> Distribution:
        n = jnp.maximum(state.taken, 1).astype(state.coordinates.loc.dtype)
        average = jax.tree.map(
            lambda total, q: jnp.where(state.taken > 0, total.astype(q.dtype) / n, q),
            state.current.total,
            state.q,
        )
        return average.after(state.coordinates)


def _zeros(q: Distribution) -> Distribution:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32 if Regime.of(q.dim).long else leaf.dtype), q)


def _empty(q: Distribution) -> Half:
    return Half(_zeros(q), jnp.zeros((), jnp.result_type(q.mean())))


def _largest(tree: Any) -> Array:
    return jnp.max(jnp.stack([leaf.max() for leaf in jax.tree.leaves(tree)]))
