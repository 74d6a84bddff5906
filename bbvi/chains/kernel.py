"""The moves of an ensemble of chains, each of which leaves the density in y as it is.

    trajectory    some leapfrog steps of Hamiltonian dynamics, accepted by the change of energy. All chains of a step
                  take the same number of them, so that none waits. Step sizes vary between chains and steps: half are
                  near the one that adaptation found, and half below, for places where the density is narrow
    leap          a draw of q's wider version, accepted as in importance sampling: it goes from one mode of a mixture to
                  another, and into heavy tails

Velocities are S p with p ~ N(0, I), and S symmetric: S S is the covariance in y as far as it is known.

References: Neal 2011 (arXiv:1206.1901) for trajectories and the jitter of their step size; Tierney 1994 for leaps.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from bbvi.chains.frame import Frame
from bbvi.policy import Regime
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

HALVES = 2  # of an ensemble: what is known of one moves the other
USUAL, LEAST_USUAL = 0.5, 0.6  # share of the steps that are between this share of the step size and all of it
SMALLEST = 0.03  # share of the step size that others have at least, evenly on a log scale


class Places(NamedTuple):
    """Where chains are."""

    y: Array  # (chains, dim)
    value: Array  # (chains,) log density in y
    gradient: Array  # (chains, dim) of it
    log_wide: Array  # (chains,) log density of q's wider version in y


class Chance(NamedTuple):
    """The random numbers of a step."""

    momentum: Array  # (chains, dim) standard normal
    leap: Array  # (chains, noise) standard normal
    uniform: Array  # (chains, 4) of trajectory, leap, and step size (2)
    of_all: Array  # () for the length


class Moved(NamedTuple):
    """What a step did."""

    places: Places
    distances: Array  # (2 dim,) mean squares of how far trajectories went, in y and in its squares
    acceptance: Array  # (chains,) probabilities of the trajectories, NaN where the step size was far below the usual
    lost: Array  # () trajectories that ended where the density is not finite


def step(
    problem: Problem, frame: Frame, places: Places, root: Array, size: Array, length: Array, chance: Chance
) -> Moved:
    """A trajectory and a leap of each chain.

    Arguments:
        root: S of each half, `(2, dim, dim)`, or its diagonal `(2, dim)`.
        size: of a leapfrog step, a scalar.
        length: leapfrog steps, a scalar.
    """
    usual = chance.uniform[:, 2] < USUAL
    share = jnp.where(usual, LEAST_USUAL + (1 - LEAST_USUAL) * chance.uniform[:, 3], SMALLEST ** chance.uniform[:, 3])
    there, p = _trajectory(problem, frame, places, root, share * size, length, chance.momentum)
    gain = there.value - places.value - 0.5 * (jnp.sum(p**2, axis=1) - jnp.sum(chance.momentum**2, axis=1))
    acceptance = jnp.exp(jnp.minimum(jnp.where(jnp.isnan(gain), -jnp.inf, gain), 0))
    after = choose(chance.uniform[:, 0] < acceptance, there, places)
    distances = jnp.mean(jnp.concatenate([after.y - places.y, after.y**2 - places.y**2], axis=1) ** 2, axis=0)
    lost = jnp.sum(~jnp.isfinite(there.value))
    return Moved(_leap(problem, frame, after, chance), distances, jnp.where(usual, acceptance, jnp.nan), lost)


def choose(which: Array, new: Places, old: Places) -> Places:
    """The new places of some of the chains `(chains,)`, and the old ones of the others."""
    return jax.tree.map(lambda a, b: jnp.where(which.reshape(-1, *[1] * (a.ndim - 1)), a, b), new, old)


def arrive(problem: Problem, frame: Frame, y: Array) -> Places:
    """The places at points `(chains, dim)`."""
    value, gradient = frame.values_and_gradients(problem, y)
    return Places(y, value, gradient, frame.wide.log_prob(y))


def _trajectory(
    problem: Problem, frame: Frame, places: Places, root: Array, sizes: Array, length: Array, momentum: Array
) -> tuple[Places, Array]:
    """The ends of trajectories, and the momenta there."""
    sizes, dense = sizes[:, None], Regime.of(problem.dim).dense_start

    def scaled(v: Array) -> Array:
        halves = v.reshape(HALVES, -1, v.shape[-1])
        return sizes * (halves @ root if dense else halves * root[:, None]).reshape(v.shape)

    def body(_: int, now: tuple[Places, Array, Array]) -> tuple[Places, Array, Array]:
        place, p, kick = now
        p = p + 0.5 * kick
        y = place.y + scaled(p)
        value, gradient = frame.values_and_gradients(problem, y)
        kick = scaled(gradient)
        return place._replace(y=y, value=value, gradient=gradient), p + 0.5 * kick, kick

    there, p, _ = jax.lax.fori_loop(0, length, body, (places, momentum, scaled(places.gradient)))
    return there._replace(log_wide=frame.wide.log_prob(there.y)), p


def _leap(problem: Problem, frame: Frame, places: Places, chance: Chance) -> Places:
    there = arrive(problem, frame, frame.wide.push(chance.leap))
    gain = (there.value - there.log_wide) - (places.value - places.log_wide)
    return choose(jnp.log(chance.uniform[:, 1]) < gain, there, places)
