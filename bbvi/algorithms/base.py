"""What an algorithm is: hyper-parameters in a frozen dataclass, everything that evolves in a NamedTuple of arrays.

The loop (`optimise.py`) calls, in compiled blocks,

    state = init(problem, q, draws)
    for each step i, while status(state) is RUNNING:    state, info = step(noise_i, problem, state)
    result = finish(problem, state)

The random numbers noise_i depend on the seed, on i and on shapes alone, so they are drawn for many steps at once.
`draws` are random numbers that stay the same throughout a run. The problem of a step is that of a minibatch where the
algorithm wants one.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.chains.draws import ChainDraws
from bbvi.distributions import Distribution, Family
from bbvi.draws.random import Random
from bbvi.estimators import Estimate
from bbvi.outcome import Evaluations, Finding
from bbvi.runtime.compiling import program
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

State = TypeVar("State", bound=NamedTuple)
NEVER = np.iinfo(np.int32).max  # steps
RUNNING, CONVERGED, STALLED = 0, 1, 2  # what `status` returns


class Initialisation(enum.Enum):
    """Where an algorithm begins, and what is spent on it."""

    POINT = "the first of a few points at which the density is finite"
    MODE = "the best end of a few quasi-Newton paths, and the curvature seen there"
    BULK = "that; or the best Gaussian on the paths, by ELBO, where the mode is a spike that holds little density"
    POLISHED = "that Gaussian after Newton steps"


def no_draws(rng: np.random.Generator) -> Any:
    """The draws of an algorithm that keeps none."""
    return None


def no_noise(random: Random, problem: Problem, steps: int) -> Array:
    """The noise of an algorithm that has none."""
    return np.zeros((steps, 0))


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What an algorithm asks for.

    Fields:
        family: fitted when none is named; a family, or a member that gives its structure.
        families: all that it fits, each with `holds`; None for any.
        start: where it begins.
        derivatives: of the log density that it takes, 0 to 2.
        rows: of the data in each step, a minibatch; None for all of them.
        draws: from a generator to random numbers that stay the same throughout a run, a pytree of arrays.
        noise: from (random, problem, steps) to the random numbers of some steps, a pytree of arrays with a leading
            axis of length `steps`.
    """

    family: Family | type[Distribution] | Distribution
    families: tuple[Family | type[Distribution], ...] | None = None
    start: Initialisation = Initialisation.BULK
    derivatives: int = 1
    rows: int | None = None
    draws: Callable[[np.random.Generator], Any] = no_draws
    noise: Callable[[Random, Problem, int], Any] = no_noise


class Info(NamedTuple):
    """What one step reports: an estimate of the ELBO, and what it evaluated."""

    elbo: Array  # () in nats
    standard_error: Array  # ()
    non_finite: Array | int  # () draws at which the log density or its gradient was not finite
    evaluations: Evaluations

    @classmethod
    def of(cls, estimate: Estimate, evaluations: Evaluations) -> "Info":
        """From an estimate of the ELBO and what was evaluated for it."""
        return cls(estimate.value, estimate.standard_error, estimate.non_finite, evaluations)


class Result(NamedTuple):
    """What an algorithm ends with."""

    candidates: Sequence[Distribution]  # the check chooses among them
    findings: Sequence[Finding] = ()  # what the algorithm itself has to say
    evaluations: Evaluations = Evaluations()  # made for the candidates
    chains: ChainDraws | None = None  # draws of the posterior itself


class Algorithm(ABC, Generic[State]):
    """A way to fit a variational distribution; subclasses are frozen dataclasses.

    An algorithm has six members to write; `finish` has a default.

    Example:
        >>> from bbvi.ext import CONVERGED, RUNNING, Evaluations, Info, Needs
        >>> class At(NamedTuple):
        ...     q: Any
        ...     count: Any
        >>> @dataclass(frozen=True)
        ... class Ascent(bbvi.Algorithm[At]):  # a hundred steps up the gradient at the mean
        ...     name = "ascent"
        ...     def needs(self, dim, q=None):
        ...         return Needs(family=bbvi.MeanField, families=(bbvi.MeanField,))
        ...     def init(self, problem, q, draws):
        ...         return At(q, 0)
        ...     def step(self, noise, problem, state):
        ...         value, slope = jax.value_and_grad(problem.log_density)(state.q.loc)
        ...         q = bbvi.MeanField(state.q.loc + 0.1 * slope, state.q.scale.log_scale)
        ...         return At(q, state.count + 1), Info(value, 0.0 * value, 0, Evaluations(gradients=1))
        ...     def status(self, state):
        ...         return jnp.where(state.count < 100, RUNNING, CONVERGED)
        ...     def extract(self, state):
        ...         return state.q
        >>> posterior = bbvi.fit(lambda x: -0.5 * jnp.sum((x - 1) ** 2), 2, method=Ascent())
        >>> posterior.distribution.loc.round(2)
        array([1., 1.])
    """

    name: ClassVar[str]

    @abstractmethod
    def needs(self, dim: int, q: Distribution | None = None) -> Needs:
        """What it asks for in so many coordinates, and of a q of this structure once one is chosen."""

    @abstractmethod
    def init(self, problem: Problem, q: Distribution, draws: Any) -> State:
        """State before the first step, from the distribution to start at."""

    @abstractmethod
    def step(self, noise: Any, problem: Problem, state: State) -> tuple[State, Info]:
        """One step."""

    @abstractmethod
    def status(self, state: State) -> Array:
        """RUNNING, CONVERGED, or STALLED where it cannot go on; a scalar integer."""

    @abstractmethod
    def extract(self, state: State) -> Distribution:
        """The best distribution so far, in the problem's coordinates."""

    def finish(self, problem: Problem, state: State) -> Result:
        """What to make of the last state; called once, on the host."""
        return Result((jax.device_get(extract(self, state)),))


class Adaptive(Algorithm[State]):
    """An algorithm that now and then, between steps, judges its progress and changes its step size or coordinates."""

    @abstractmethod
    def steps_to_adapt(self, state: State) -> Array:
        """How many steps to take before `adapt` is due, a scalar integer."""

    @abstractmethod
    def adapt(self, problem: Problem, state: State) -> State:
        """What is done then."""


class Pausing(Algorithm[State]):
    """An algorithm that now and then, between steps, looks at its state on the host."""

    @abstractmethod
    def steps_to_pause(self, state: State) -> Array:
        """How many steps to take before `pause` is due, a scalar integer."""

    @abstractmethod
    def pause(self, state: State) -> State:
        """What is done then, from and to a state of NumPy arrays of the same shapes."""


@program(static_argnames="algorithm")
def extract(algorithm: Algorithm[Any], state: Any) -> Distribution:
    """`algorithm.extract(state)`, compiled."""
    return algorithm.extract(state)


def status(converged: Array, stalled: Array | bool = False) -> Array:
    """The code of a status, of two truth values."""
    return jnp.where(converged, CONVERGED, jnp.where(stalled, STALLED, RUNNING))


def with_entry(rows: Array, i: Array, entry: Array, axis: int = 0) -> jax.Array:
    """An array whose i-th entry along an axis, i >= 0, is another: a write in place, which `.at` compiles to a loop."""
    entry = jnp.asarray(entry, rows.dtype)
    return jax.lax.dynamic_update_index_in_dim(rows, entry, i, axis, allow_negative_indices=False)
