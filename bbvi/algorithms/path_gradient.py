"""Adam steps up the ELBO, for families that are not Gaussian.

The parameters of a flow have no natural scale and no unique optimum, so what says how a run is going is the ELBO
alone. By sticking the landing its estimate loses its noise as q comes close to p, down to small fractions of a nat.
Steps come in rounds. Within one the rate falls linearly from `rate` to nothing, and the noise of the steps with it. The
mean ELBO over the last steps of a round is compared with that of the round before:

    the spread of the log weights is below `tolerance`, or
    the ELBO rose by less than half its square    done: that is the divergence left at such a spread
    else                                          another round, twice as long

Whenever the ELBO falls far below the best, the run goes back to the best, and divides the rate by four.

Reference: Kingma and Ba 2015 (arXiv:1412.6980) for the steps; Agrawal, Sheldon and Domke 2020 (arXiv:2006.10343) for
flows by path gradients; linear decay in rounds that double is this library's.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree

from bbvi.algorithms.base import Adaptive, Info, Needs, status
from bbvi.distributions import Distribution, RealNVP
from bbvi.distributions.affine import Affine
from bbvi.draws.random import Random
from bbvi.estimators import StickingTheLanding
from bbvi.outcome import Evaluations
from bbvi.runtime.precision import lenient_promotion
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

AVERAGED = 100  # steps over which the ELBO is averaged
FIRST_ROUND = 4  # windows in the first round
LOWEST_RATE = 0.01  # of the rate, below which it does not fall in a round
DROP = 1.0  # nats below the best, and 10 standard errors, from which the best is gone back to
SLOWEST = 1e-3  # of the rate at first: a run that falls again and again ends there
ADAM: Any = optax.chain(optax.clip_by_global_norm(100.0), optax.scale_by_adam())


class PathGradientState(NamedTuple):
    """State of `PathGradient`."""

    q: Distribution  # in the coordinates of the start
    coordinates: Affine  # x as a function of what q is a distribution of
    moments: Any  # of Adam, over the parameters in one vector
    rate: Array  # () at the beginning of a round
    length: Array  # () of this round, in steps
    taken: Array  # () steps taken in it
    sums: Array  # (3,) of the ELBO estimates, their squares and their squared standard errors, in this window
    elbo: Array  # () at the end of the round before, or at the start
    best: tuple[Array, Distribution]  # ELBO of the best window, or at the start, and q there
    finished: Array  # () bool


@dataclass(frozen=True, kw_only=True)
class PathGradient(Adaptive[PathGradientState]):
    """Adam on the ELBO's path gradient, at a rate that falls to zero in rounds of doubling length.

    Arguments:
        num_draws: in each step.
        rate: of the first steps of a round.
        tolerance: spread (standard deviation) of the log weights at which to stop, in nats. With 0 it
            goes on until a round no longer raises the ELBO.
    """

    num_draws: int = 128
    rate: float = 1e-2
    tolerance: float = 0.2
    name = "adam"

    def __post_init__(self) -> None:
        if self.num_draws < 2:
            raise ValueError(f"num_draws={self.num_draws} must be at least 2: the noise of the ELBO must be seen.")

    def needs(self, dim: int, q: Distribution | None = None) -> Needs:
        def noise(random: Random, problem: Problem, steps: int) -> Array:
            assert q is not None
            return random.normal((steps, self.num_draws, q.noise_dim))

        return Needs(family=RealNVP, noise=noise)

    def init(self, problem: Problem, q: Distribution, draws: Any) -> PathGradientState:
        coordinates, local = q.standardise()
        dtype = coordinates.loc.dtype
        nothing = jnp.array(-jnp.inf, dtype)
        return PathGradientState(
            q=local,
            coordinates=coordinates,
            moments=ADAM.init(ravel_pytree(local)[0]),
            rate=jnp.full((), self.rate, dtype),
            length=jnp.full((), FIRST_ROUND * AVERAGED, int),
            taken=jnp.zeros((), int),
            sums=jnp.zeros(3, dtype),
            elbo=nothing,
            best=(nothing, local),
            finished=jnp.array(False),
        )

    def step(self, noise: Array, problem: Problem, state: PathGradientState) -> tuple[PathGradientState, Info]:
        local = problem.in_coordinates(state.coordinates)
        loss = StickingTheLanding()
        (_, estimate), gradient = jax.value_and_grad(loss, has_aux=True)(state.q, local, noise)
        parameters, restore = ravel_pytree(state.q)
        with lenient_promotion():
            updates, moments = ADAM.update(ravel_pytree(gradient)[0], state.moments)
        usable = jnp.isfinite(optax.tree.norm(updates)) & jnp.isfinite(estimate.value)
        keep = lambda new, old: jnp.where(usable, new, old)
        done = state.taken / state.length
        rate = state.rate * jnp.maximum(1 - done, LOWEST_RATE)
        seen = jnp.stack([estimate.value, estimate.value**2, estimate.standard_error**2])
        known = jnp.isfinite(state.best[0])
        start = (jnp.where(jnp.isfinite(estimate.value), estimate.value, -jnp.inf), state.q)
        state = state._replace(
            q=restore(keep(parameters - rate * updates, parameters)),
            moments=jax.tree.map(keep, moments, state.moments),
            taken=state.taken + 1,
            sums=state.sums + seen,
            elbo=jnp.where(known, state.elbo, start[0]),
            best=jax.tree.map(lambda old, new: jnp.where(known, old, new), state.best, start),
        )
        return state, Info.of(estimate, Evaluations(gradients=self.num_draws))

    def steps_to_adapt(self, state: PathGradientState) -> Array:
        return AVERAGED - state.taken % AVERAGED

    def adapt(self, problem: Problem, state: PathGradientState) -> PathGradientState:
        elbo, square, variance = state.sums / AVERAGED
        error = jnp.sqrt(jnp.maximum(square - elbo**2, 0) / AVERAGED)
        over = state.taken == state.length
        fell = ~(elbo > state.best[0] - DROP - 10 * error)
        even = jnp.sqrt(variance * self.num_draws) < self.tolerance
        rose = elbo > state.elbo + 0.5 * self.tolerance**2
        better = elbo > state.best[0]
        choose = lambda condition, new, old: jax.tree.map(lambda a, b: jnp.where(condition, a, b), new, old)
        best = choose(better, (elbo, state.q), state.best)
        rate = jnp.where(fell, state.rate / 4, state.rate)
        return state._replace(
            q=choose(fell, best[1], state.q),
            moments=choose(over | fell, jax.tree.map(jnp.zeros_like, state.moments), state.moments),
            rate=rate,
            length=jnp.where(over & ~fell, 2, 1) * state.length,
            taken=jnp.where(over | fell, 0, state.taken),
            sums=jnp.zeros_like(state.sums),
            elbo=jnp.where(over & ~fell, elbo, state.elbo),
            best=best,
            finished=(over & (even | ~(rose | fell))) | (rate < SLOWEST * self.rate),
        )

    def status(self, state: PathGradientState) -> Array:
        return status(state.finished)

    def extract(self, state: PathGradientState) -> Distribution:
        return state.best[1].after(state.coordinates)
