"""Adam steps up the ELBO, for families that are not Gaussian.

The parameters of a flow have no natural scale and no unique optimum, so what says how a run is going is the ELBO
alone. By sticking the landing its estimate loses its noise as q comes close to p, down to small fractions of a nat.
Steps come in windows. After each one the mean ELBO is compared with that of the window before:

    it rose by less than its noise, or than `GAIN`     lower the rate
    it fell far below the best                         go back to the best, and divide the rate by four

The run ends when the rate has fallen to `LAST` of the first one, or when the log weights have hardly any spread left,
so that the importance weights are all but even.

Reference: Kingma and Ba 2015 (arXiv:1412.6980) for the steps; Agrawal, Sheldon and Domke 2020 (arXiv:2006.10343) for
flows by path gradients.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bbvi.algorithms.base import Algorithm, Info
from bbvi.distributions import Distribution, Flow
from bbvi.estimators import StickingTheLanding
from bbvi.precision import lenient_promotion
from bbvi.problem import Problem
from bbvi.random import Random

Array = Any
WINDOW = 100  # steps
GAIN = 0.005  # nats that a window has to gain
DROP = 1.0  # nats below the best window, and 10 standard errors, from which the best is gone back to
EVEN = 0.03  # nats of spread of the log weights at which there is nothing left to gain
LAST = 1 / 100  # of the rate at first, below which a run ends
STEPS: Any = optax.chain(optax.clip_by_global_norm(100.0), optax.scale_by_adam())


class AdamState(NamedTuple):
    """State of `Adam`."""

    q: Distribution  # in the coordinates of the start
    loc: Array  # (dim,) of the coordinates
    scale: Array  # (dim,) or (dim, dim)
    memory: Any  # of Adam
    rate: Array  # ()
    count: Array  # () steps in this window
    sums: Array  # (3,) of the ELBO estimates, their squares and their squared standard errors, in this window
    elbo: Array  # () of the last window
    best: tuple[Array, Distribution]  # ELBO of the best window, and q after it
    even: Array  # () bool, whether the weights have become even


@dataclass(frozen=True, kw_only=True)
class Adam(Algorithm[AdamState]):
    """Adam on the ELBO's path gradient, at a rate that falls until the ELBO no longer rises.

    Arguments:
        num_draws: in each step.
        rate: of the first steps.
    """

    num_draws: int = 128
    rate: float = 1e-2
    name = "adam"

    def __post_init__(self) -> None:
        if self.num_draws < 2:
            raise ValueError(f"num_draws={self.num_draws} must be at least 2: the noise of the ELBO must be seen.")

    def default_family(self, dim: int) -> type[Distribution]:
        return Flow

    def init(self, problem: Problem, q: Distribution, draws: Any) -> AdamState:
        loc, scale, local = q.standardise()
        zero, nothing = jnp.zeros((), loc.dtype), jnp.array(-jnp.inf, loc.dtype)
        return AdamState(
            local,
            loc,
            scale,
            STEPS.init(local),
            zero + self.rate,
            jnp.zeros((), int),
            jnp.zeros(3, loc.dtype),
            nothing,
            (nothing, local),
            jnp.array(False),
        )

    def noise(self, random: Random, problem: Problem, state: AdamState, steps: int) -> Array:
        return random.normal((steps, self.num_draws, state.q.noise_dim))

    def step(self, noise: Array, problem: Problem, state: AdamState) -> tuple[AdamState, Info]:
        local = problem.in_coordinates(state.loc, state.scale)
        loss = StickingTheLanding()
        (_, estimate), gradient = jax.value_and_grad(loss, has_aux=True)(state.q, local, noise)
        with lenient_promotion():
            updates, memory = STEPS.update(gradient, state.memory, state.q)
        usable = jnp.isfinite(optax.tree.norm(updates)) & jnp.isfinite(estimate.value)
        keep = lambda new, old: jnp.where(usable, new, old)
        q = jax.tree.map(lambda p, u: keep(p - state.rate * u, p), state.q, updates)
        seen = jnp.stack([estimate.value, estimate.value**2, estimate.standard_error**2])
        state = state._replace(
            q=q,
            memory=jax.tree.map(keep, memory, state.memory),
            count=state.count + 1,
            sums=state.sums + seen,
        )
        return state, Info.of(estimate, gradients=self.num_draws)

    def steps_to_adapt(self, state: AdamState) -> Array:
        return WINDOW - state.count

    def adapt(self, problem: Problem, state: AdamState) -> AdamState:
        elbo, square, variance = state.sums / WINDOW
        error = jnp.sqrt(jnp.maximum(square - elbo**2, 0) / WINDOW)
        fell = ~(elbo > state.best[0] - DROP - 10 * error)
        rose = elbo > state.elbo + jnp.maximum(GAIN, 2 * error)
        rate = state.rate * jnp.where(fell, 0.25, jnp.where(rose, 1.0, 0.7))
        better = elbo > state.best[0]
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), (elbo, state.q), state.best)
        back = jax.tree.map(lambda new, old: jnp.where(fell, new, old), best[1], state.q)
        memory = jax.tree.map(lambda fresh, old: jnp.where(fell, fresh, old), STEPS.init(state.q), state.memory)
        return state._replace(
            q=back,
            memory=memory,
            rate=rate,
            count=jnp.zeros_like(state.count),
            sums=jnp.zeros_like(state.sums),
            elbo=jnp.where(fell, best[0], elbo),
            best=best,
            even=jnp.sqrt(variance * self.num_draws) < EVEN,
        )

    def done(self, state: AdamState) -> Array:
        return state.even | (state.rate < LAST * self.rate)

    def extract(self, state: AdamState) -> Distribution:
        return state.q.affine(state.loc, state.scale)
