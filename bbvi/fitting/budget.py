"""What a fit may take, and the clock that runs beside it."""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from bbvi.algorithms.base import NEVER
from bbvi.optimise import Allowance
from bbvi.outcome import Evaluations
from bbvi.runtime import timing
from bbvi.runtime.deadline import deadline

GRACE = 6.0  # seconds after the end of a budget for a program that does not come back,
CHECKS_TIME = 3.0  # and after that for the verdict
ONE_CALL, VERDICT_TIME = 120.0, 30.0  # without a budget, where a point may take for ever: for some steps, for a verdict
PATIENCE = 60.0  # seconds after which "auto" begins nothing new, and ends what is under way, when no budget is given


@dataclass(frozen=True)
class Budget:
    """A limit on what a fit may take; the best result so far comes back.

    Arguments:
        seconds: of wall time, compiling included.
        gradients: evaluations of the log density with its gradient; a Hessian-vector product counts as two. Looked at
            before each step, which is taken while one like the last could be taken: the start, one step, and what a
            method does at the end are not cut short.

    Example:
        >>> bbvi.Budget(seconds=60, gradients=100_000)  # whichever comes first
        Budget(seconds=60, gradients=100000)
    """

    seconds: float | None = None
    gradients: int | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "gradients"):
            value = getattr(self, name)
            number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
            if value is not None and not (number and value > 0):
                raise ValueError(f"budget: {name}={value!r} must be a positive number.")


class Stopwatch:
    """Seconds since it was made, those spent on compiling apart."""

    def __init__(self) -> None:
        self.began, self._compiled = time.perf_counter(), timing.compile_seconds()

    @property
    def elapsed(self) -> float:
        """Seconds in all."""
        return time.perf_counter() - self.began

    @property
    def compiling(self) -> float:
        """Seconds spent on tracing and compiling."""
        return timing.compile_seconds() - self._compiled


@dataclass(frozen=True)
class Clock:
    """A budget under way. Steps end on time by themselves; `GRACE` is for a program that does not come back.

    Fields:
        watch: that began with the fit.
        budget: of the fit.
        is_irregular: whether a point of the log density may take for ever.
        is_one_process: whether this process runs alone; several have to run the same programs.
        patience: seconds after which nothing new is begun where there is no budget.
    """

    watch: Stopwatch
    budget: Budget
    is_irregular: bool
    is_one_process: bool
    patience: float

    @property
    def until(self) -> float:
        """When the budget is spent, by `time.perf_counter()`."""
        return np.inf if self.budget.seconds is None else self.watch.began + self.budget.seconds

    def left(self, spent: Evaluations, num_steps: int, *, is_first: bool) -> Allowance:
        """What the next stage may take, after so many evaluations."""
        gradients, seconds = float(NEVER), np.inf
        if self.budget.gradients is not None:
            gradients = self.budget.gradients - spent.gradient_equivalents
        if self.budget.seconds is not None:
            seconds = self.budget.seconds - self.watch.elapsed
        elif not is_first and self.budget.gradients is None:
            seconds = self.patience - self.watch.elapsed
        return Allowance(num_steps, int(min(gradients, NEVER)), seconds)

    def for_steps(self) -> AbstractContextManager[None]:
        """The wait for the start and for steps."""
        watched = self.is_one_process and (self.budget.seconds is not None or self.is_irregular)
        return deadline(self.until + GRACE if watched else None, ONE_CALL if self.is_irregular else np.inf)

    def for_check(self) -> AbstractContextManager[None]:
        """The wait for a verdict, which has to come of what is known by then."""
        if not self.is_one_process:
            return deadline(None)
        if self.budget.seconds is not None:
            return deadline(max(self.until + GRACE, time.perf_counter()) + CHECKS_TIME)
        return deadline(time.perf_counter() + VERDICT_TIME if self.is_irregular else None)
