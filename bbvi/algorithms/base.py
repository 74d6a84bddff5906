"""What an algorithm is: hyper-parameters in a frozen dataclass, everything that evolves in a NamedTuple of arrays.

The driver calls, in compiled blocks,

    state = init(problem, q)
    for each step i:    state, info = step(noise_i, problem, state)
    when due:           state = adapt(problem, state)
    until done(state)   ->   extract(state)

The random numbers noise_i depend on the seed, on i and on shapes alone, so they are drawn for many steps at once.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Generic, NamedTuple, TypeVar

from bbvi.distributions import Distribution
from bbvi.estimators import Estimate
from bbvi.problem import Problem
from bbvi.random import Random

Array = Any
State = TypeVar("State", bound=NamedTuple)


class Algorithm(ABC, Generic[State]):
    """A way to fit a variational distribution; subclasses are frozen dataclasses."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def uses_gradients(self) -> bool:
        """Whether it differentiates the log density."""

    @abstractmethod
    def init(self, problem: Problem, q: Distribution) -> State:
        """State before the first step, from the distribution to start at."""

    @abstractmethod
    def noise(self, random: Random, problem: Problem, state: State, steps: int) -> Any:
        """The random numbers of some steps: a pytree of arrays with a leading axis of length `steps`."""

    @abstractmethod
    def step(self, noise: Any, problem: Problem, state: State) -> tuple[State, Estimate]:
        """One step, and the ELBO estimate it made on the way."""

    @abstractmethod
    def steps_to_adapt(self, state: State) -> Array:
        """How many steps to take before `adapt` is due, a scalar integer."""

    @abstractmethod
    def adapt(self, problem: Problem, state: State) -> State:
        """What is done between steps now and then: judge progress, change step size or coordinates."""

    @abstractmethod
    def done(self, state: State) -> Array:
        """Whether the algorithm has converged, a scalar bool."""

    @abstractmethod
    def extract(self, state: State) -> Distribution:
        """The best distribution so far, in the problem's coordinates."""

    @abstractmethod
    def evaluations_per_step(self) -> tuple[int, int]:
        """Log density evaluations without and with gradient that one step makes."""
