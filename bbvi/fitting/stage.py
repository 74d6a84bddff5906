"""A stage of a fit, and what came of it."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bbvi.algorithms import Algorithm
from bbvi.diagnostics.verdict import Diagnosis
from bbvi.distributions import Distribution
from bbvi.distributions.affine import Affine
from bbvi.draws.importance import Draws
from bbvi.outcome import NOTHING, Evaluations, Finding, History, StageSummary, Status
from bbvi.start.record import Start
from bbvi.target.problem import Problem

FEW_DRAWS_ERROR = 0.1  # Monte Carlo error in standard deviations, above which a q may be nearer to the posterior,
CLEARLY = 6  # unless it is off by so many of them


class Stage(NamedTuple):
    """An algorithm and where it begins."""

    algorithm: Algorithm[Any]
    q: Distribution  # what it begins with, or its structure only
    around: Affine | None = None  # the Gaussian to begin near, None to begin with q itself
    spent: Evaluations = NOTHING  # on finding out that this is to be done
    share: float = 1.0  # of the time that is left, where others may come after it
    gradients: int | None = None  # at most, where it is a short one
    findings: tuple[Finding, ...] = ()  # what is to be said of its result, and of those of all stages after it
    start: Start | None = None  # which it and all stages after it have in place of the one before


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What came of a stage.

    Fields:
        stage: what was done.
        q: the approximation.
        problem: by which it was judged.
        draws: behind the diagnosis.
        diagnosis: of q.
        history: of the steps.
        evaluations: of all, those for the diagnosis included.
    """

    stage: Stage
    q: Distribution
    problem: Problem
    draws: Draws
    diagnosis: Diagnosis
    history: History
    evaluations: Evaluations

    @property
    def came_to_nothing(self) -> bool:
        """Whether hardly any draw of q has density, so that no later stage should begin there."""
        return not np.isfinite(self.diagnosis.k_hat)

    @property
    def rank(self) -> tuple[int, float, float]:
        """To compare results by: smaller is better.

        Draws of chains are nearer to the posterior than those of a q, unless they are too few to show that it is off.
        """
        diagnosis, chains = self.diagnosis, self.diagnosis.chains
        is_known = chains is not None and (chains.error < FEW_DRAWS_ERROR or chains.off > CLEARLY * chains.error)
        error = chains.error if chains is not None and is_known else np.inf
        return list(Status).index(diagnosis.status), error, -diagnosis.elbo.value


def summarise(result: StageResult) -> StageSummary:
    """What is remembered of a result."""
    diagnosis = result.diagnosis
    return StageSummary(
        method=result.stage.algorithm.name,
        family=result.q.name,
        steps=len(result.history.elbo),
        gradient_equivalents=result.evaluations.gradient_equivalents,
        status=diagnosis.status,
        k_hat=diagnosis.resampling_k_hat,
        elbo=diagnosis.elbo.value,
        reasons=diagnosis.reasons,
    )
