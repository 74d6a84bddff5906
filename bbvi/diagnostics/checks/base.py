"""What a verdict rests on, and what a check of it is.

A check looks at the evidence and returns what it finds, or None. It knows nothing of the other checks. Evidence is put
together once for each approximation; what several checks need is derived from it once.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import ClassVar

import numpy as np

from bbvi.chains.verdict import Chained
from bbvi.diagnostics.checks.whitening import Whitening, whitening
from bbvi.distributions import Distribution
from bbvi.draws.importance import Draws
from bbvi.draws.pareto import Smoothed, effective_sample_size, smooth
from bbvi.draws.random import RandomStream
from bbvi.outcome import Finding, Stop
from bbvi.start.record import Start
from bbvi.target.parameters import label
from bbvi.target.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that is known of an approximation q when it is judged.

    Fields:
        problem: the log density by which it is judged.
        q: the approximation.
        start: where the fit began, with the ends of all paths.
        draws: fresh draws of q and of its wider version, with their log densities; of very many coordinates x is not an
            array, but made again when it is looked at.
        stop: why optimisation ended.
        elbo: estimates at each step, in nats, `(steps,)`.
        limits: what limits the verdict itself, such as a density that is too costly to look at all rows.
        remarks: what the algorithm has to say of its result.
        seed: of random numbers that a check may need.
        chains: what is known of the draws where they are of chains, of equal weight, rather than of q.
    """

    problem: Problem
    q: Distribution
    start: Start
    draws: Draws
    stop: Stop
    elbo: np.ndarray = field(default_factory=lambda: np.zeros(0))
    limits: Sequence[Finding] = ()
    remarks: Sequence[Finding] = ()
    seed: int = 0
    chains: Chained | None = None

    @cached_property
    def of_q(self) -> Draws:
        """The draws of q itself."""
        return self.draws.take(self.draws.from_q)

    @cached_property
    def whiten(self) -> Whitening:
        """A map of points `(n, dim)` to coordinates in which the draws of q are white."""
        return whitening(self.of_q.x)

    @cached_property
    def tried(self) -> tuple[np.ndarray, np.ndarray]:
        """Draws of q itself `(m, dim)`, also where chains began at them, and whether they have a log density `(m,)`."""
        if self.chains is None or self.chains.x_of_q is None:
            return self.of_q.x, np.isfinite(self.of_q.log_p)
        return self.chains.x_of_q, np.isfinite(self.chains.log_ratio_of_q)

    @cached_property
    def raw_log_weights(self) -> np.ndarray:
        """log p - log r of all draws `(n,)`, in nats, -inf for a draw without density."""
        return _log_ratio(self.draws.log_p, self.draws.log_r)

    @cached_property
    def raw_log_weights_of_q(self) -> np.ndarray:
        """log p - log q of the draws of q `(m,)`, in nats, -inf for a draw without density."""
        return _log_ratio(self.draws.log_p, self.draws.log_q)[self.draws.from_q]

    @cached_property
    def smoothed(self) -> Smoothed:
        """The weights of all draws, normalised, with the shape of their tail."""
        with _run_off():
            return smooth(self.raw_log_weights)

    @property
    def log_weights(self) -> np.ndarray:
        """Logarithms of the smoothed, normalised weights of all draws `(n,)`."""
        return self.smoothed.log_weights

    @cached_property
    def effective_sample_size(self) -> float:
        """The number of independent draws of p that the weighted draws are worth; 0 where none has a density."""
        if not np.isfinite(self.log_weights).any():
            return 0.0
        with _run_off():
            return float(effective_sample_size(self.log_weights))

    @cached_property
    def finite(self) -> np.ndarray:
        """Whether a draw of q has a finite log density `(m,)`."""
        return np.isfinite(self.raw_log_weights_of_q)

    @cached_property
    def log_weight_sd(self) -> float:
        """Standard deviation of log p - log q over the draws of q that have a density, in nats."""
        with _run_off():
            return float(np.std(self.raw_log_weights_of_q[self.finite]))

    def rng(self) -> np.random.Generator:
        """Random numbers for a check, the same at each call."""
        return np.random.default_rng((self.seed, RandomStream.CHECKS))

    def scalars(self, x: np.ndarray) -> tuple[list[str], np.ndarray]:
        """Labels of the k scalar parameters, and their constrained values `(n, k)` at draws x `(n, dim)`."""
        parameters = replace(self.problem.parameters, turns=False)  # angles as numbers, not modulo 2 pi
        labels, columns = [], []
        for name, values in parameters.named(parameters.structure(x)).items():
            labels += [label(name, index) for index in np.ndindex(values.shape[1:])]
            columns.append(np.reshape(values, (len(values), -1)).astype(float))
        return labels, np.concatenate(columns, axis=1)

    def coordinate_name(self, i: int) -> str:
        """The name of the i-th unconstrained coordinate."""
        return self.problem.parameters.coordinate_names()[i]


class Topic(enum.Enum):
    """What checks are about, in the order in which a verdict tells it."""

    WEIGHTS = "the importance weights"
    POSTERIOR = "the posterior, near the draws and far from them"
    RUN = "the run that led to q"


class Check(ABC):
    """Something that may speak against an approximation.

    A subclass is a frozen dataclass whose fields are its thresholds. It returns a `Finding` where it has something to
    say, and None where it has not.

    Example:
        >>> from dataclasses import dataclass
        >>> from bbvi.diagnostics.checks.base import Check, Evidence
        >>> from bbvi.outcome import Finding, Status
        >>> from bbvi.start.record import start_at
        >>> @dataclass(frozen=True, kw_only=True)
        ... class Implausible(Check):
        ...     '''Draws may lie where nobody expects a parameter.'''
        ...
        ...     # A coordinate is implausible when its absolute value is larger, in its own unit.
        ...     largest: float = 100.0
        ...
        ...     def __call__(self, evidence):
        ...         share = np.mean(np.abs(evidence.of_q.x) > self.largest)
        ...         return Finding(Status.USABLE, f"{100 * share:.0f} % are implausible") if share else None
        >>> posterior = bbvi.fit(lambda x: -0.5 * jnp.sum((x / 100) ** 2), 2)
        >>> q = posterior.distribution
        >>> evidence = Evidence(
        ...     problem=posterior.problem,
        ...     q=q,
        ...     start=start_at(q.affine),
        ...     draws=posterior.pool,
        ...     stop=posterior.diagnosis.stop,
        ... )
        >>> Implausible()(evidence).message
        '31 % are implausible'
        >>> print(Implausible(largest=1e6)(evidence))
        None
    """

    topic: ClassVar[Topic] = Topic.POSTERIOR
    ends: ClassVar[bool] = False  # whether a finding makes all further checks of the same topic meaningless

    @abstractmethod
    def __call__(self, evidence: Evidence) -> Finding | None:
        """What speaks against the approximation, if anything does."""


def _run_off() -> np.errstate:
    """Silence about the log densities of a q that has run off, which overflow."""
    return np.errstate(over="ignore", invalid="ignore")


def _log_ratio(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    defined = np.isfinite(log_p) & np.isfinite(log_q)
    return np.where(defined, log_p, -np.inf) - np.where(defined, log_q, 0)
