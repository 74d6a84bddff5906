"""What an algorithm is: hyper-parameters in a frozen dataclass, everything that evolves in a NamedTuple of arrays.

The driver calls, in compiled blocks,

    state = init(problem, q, draws)
    for each step i:    state, info = step(noise_i, problem, state)
    when due:           state = adapt(problem, state)
    until done(state)   ->   finish(problem, state)

The random numbers noise_i depend on the seed, on i and on shapes alone, so they are drawn for many steps at once. The
problem of a step is that of a minibatch where the algorithm wants one.
Those that stay the same throughout a run are `draws`.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.compiling import program
from bbvi.distributions import Distribution, FullRank, MeanField
from bbvi.estimators import Estimate
from bbvi.outcome import Finding
from bbvi.problem import Problem
from bbvi.random import Random

Array = Any
State = TypeVar("State", bound=NamedTuple)
FULL_RANK_UP_TO = 100  # coordinates, when no family is named
NEVER = np.iinfo(np.int32).max  # steps


class Begin(enum.Enum):
    """Where an algorithm begins, and what is spent on it."""

    POINT = "the first of a few points at which the density is finite"
    MODE = "the best end of a few quasi-Newton paths, and the curvature seen there"
    BULK = "that; or the best Gaussian on the paths, by ELBO, where the mode is a spike that holds little density"
    POLISHED = "that Gaussian after Newton steps"


class Info(NamedTuple):
    """What one step reports: an estimate of the ELBO, and what it evaluated."""

    elbo: Array  # () in nats
    standard_error: Array  # ()
    non_finite: Array | int  # () draws at which the log density or its gradient was not finite
    log_densities: Array | int  # () evaluations without gradient
    gradients: Array | int  # () evaluations of log density and gradient together
    hessian_vector_products: Array | int  # ()

    @classmethod
    def of(
        cls, estimate: Estimate, log_densities: int = 0, gradients: int = 0, hessian_vector_products: int = 0
    ) -> "Info":
        """From an estimate of the ELBO and the numbers of evaluations behind it."""
        return cls(
            estimate.value,
            estimate.standard_error,
            estimate.non_finite,
            log_densities,
            gradients,
            hessian_vector_products,
        )


class Result(NamedTuple):
    """What an algorithm ends with."""

    candidates: Sequence[Distribution]  # the check chooses among them
    findings: Sequence[Finding] = ()  # what the algorithm itself has to say
    gradients: int = 0  # evaluated to make the candidates
    hessian_vector_products: int = 0
    converged: bool = True  # False when it is done because it could not go on


class Algorithm(ABC, Generic[State]):
    """A way to fit a variational distribution; subclasses are frozen dataclasses."""

    name: ClassVar[str]
    families: ClassVar[tuple[type[Distribution], ...] | None] = None  # that it fits; None for all

    @property
    def begins(self) -> Begin:
        """What it begins from."""
        return Begin.BULK

    @property
    def uses_gradients(self) -> bool:
        """Whether it differentiates the log density."""
        return True

    def derivatives(self, q: Distribution) -> int:
        """Derivatives of the log density that it takes to fit a `q`, at most 2."""
        return 1

    @property
    def rows_per_step(self) -> int | None:
        """Rows of the data in each step, a minibatch; None for all of them."""
        return None

    def default_family(self, dim: int) -> type[Distribution] | Distribution:
        """The family fitted when none is named, or a member that gives its structure."""
        return FullRank if dim <= FULL_RANK_UP_TO else MeanField

    def draws(self, rng: np.random.Generator, dim: int) -> Any:
        """Random numbers that stay the same throughout a run, a pytree of arrays."""
        return None

    @abstractmethod
    def init(self, problem: Problem, q: Distribution, draws: Any) -> State:
        """State before the first step, from the distribution to start at."""

    def noise(self, random: Random, problem: Problem, state: State, steps: int) -> Any:
        """The random numbers of some steps: a pytree of arrays with a leading axis of length `steps`."""
        return np.zeros((steps, 0))

    @abstractmethod
    def step(self, noise: Any, problem: Problem, state: State) -> tuple[State, Info]:
        """One step."""

    def steps_to_adapt(self, state: State) -> Array:
        """How many steps to take before `adapt` is due, a scalar integer."""
        return jnp.asarray(NEVER, int)

    def adapt(self, problem: Problem, state: State) -> State:
        """What is done between steps now and then: judge progress, change step size or coordinates."""
        return state

    @abstractmethod
    def done(self, state: State) -> Array:
        """Whether to stop, a scalar bool."""

    @abstractmethod
    def extract(self, state: State) -> Distribution:
        """The best distribution so far, in the problem's coordinates."""

    def finish(self, problem: Problem, state: State) -> Result:
        """What to make of the last state; called once, on the host."""
        return Result((jax.device_get(extract(self, state)),))


@program(static_argnames="algorithm")
def extract(algorithm: Algorithm, state: Any) -> Distribution:
    """`algorithm.extract(state)`, compiled."""
    return algorithm.extract(state)
