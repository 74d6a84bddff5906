"""Running the stages of a fit: begin, step, judge, and on to the next one while the diagnosis asks for more."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from bbvi.algorithms.base import NEVER, Result
from bbvi.algorithms.pages import StepInputs
from bbvi.callbacks.checkpoint import Checkpoint
from bbvi.chains.verdict import judge_agreement
from bbvi.diagnostics.checks.base import Evidence
from bbvi.diagnostics.verdict import Diagnosis, diagnose
from bbvi.distributions import Distribution
from bbvi.draws.importance import Draws
from bbvi.draws.random import RandomStream
from bbvi.fitting.budget import Clock
from bbvi.fitting.schedule import first_stage, next_stage
from bbvi.fitting.stage import Stage, StageResult
from bbvi.fitting.task import Task
from bbvi.nested.verdict import look
from bbvi.optimise import Allowance, Callback, Run, begin, drive
from bbvi.outcome import Evaluations, Finding, Status, Stop
from bbvi.runtime.deadline import OutOfTimeError
from bbvi.start.record import Start
from bbvi.start.subsample import for_verdict
from bbvi.target.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """A fit under way.

    Fields:
        task: what was asked.
        problem: the target.
        start: where the stages begin.
        clock: what the budget leaves.
        callbacks: the user's, and the progress bar.
        checkpoint: where what is reached is kept, or None.
    """

    task: Task
    problem: Problem
    start: Start
    clock: Clock
    callbacks: Sequence[Callback]
    checkpoint: Checkpoint | None

    def run_stages(self, plain: Stage) -> tuple[list[StageResult], Stage | None]:
        """What came of all stages, and the one for which there was no time or budget.

        Arguments:
            plain: the first one, unless the log density has a structure for nested Laplace.

        Raises:
            TimeoutError: when the first one had no result in time.
        """
        results: list[StageResult] = []
        task = self.task
        first = first_stage(self.problem, self.start, plain, task.automatic, task.latents)
        stage: Stage | None = first
        here = self
        while stage is not None:
            spent = sum((result.evaluations for result in results), self.start.evaluations)
            limits = self.clock.left(spent, self.task.num_steps, is_first=not results)
            gradients, seconds = self.problem.layout.broadcast_from_first(limits.gradients, limits.seconds)
            if results and min(gradients, seconds) <= 0:
                break
            try:
                gradients = min(max(0, int(gradients)), stage.gradients or NEVER)
                limits = limits._replace(gradients=gradients, seconds=stage.share * seconds)
                known = [finding for each in results for finding in each.stage.findings]
                here = here if stage.start is None else replace(here, start=stage.start)
                results.append(here._run(stage, limits, [*known, *stage.findings]))
                stage = here._next(results, plain)
            except OutOfTimeError as error:
                if not results:
                    raise TimeoutError(
                        f"budget: {stage.algorithm.name} had no first result in time. Raise it, or give init= a point."
                    ) from error
                break
        return results, stage

    def _next(self, results: Sequence[StageResult], plain: Stage) -> Stage | None:
        if not self.task.automatic:
            return None
        return next_stage(self.problem, self.start, results, plain, self.task.seed)

    def _run(self, stage: Stage, limits: Allowance, known: Sequence[Finding]) -> StageResult:
        """Run one algorithm to its end, and check what it found; `known` is what earlier stages say of it, too."""
        algorithm, problem, kept, seed = stage.algorithm, self.problem, self.checkpoint, self.task.seed
        needs = algorithm.needs(problem.dim, stage.q)
        draws = needs.draws(np.random.default_rng((seed, RandomStream.FIXED)))
        run = Run(begin(algorithm, problem, stage.q, stage.around, draws))
        if kept:
            run = kept.restore(run)
            kept.check_alike(problem.layout)
        writes = kept is not None and problem.layout.is_primary
        run = drive(
            algorithm,
            problem,
            run,
            limits,
            inputs=StepInputs.of(needs, problem, seed),
            callbacks=self.callbacks,
            save=kept.save if kept and writes else None,
        )
        if kept and writes:
            kept.write(run)
        with self.clock.for_check():
            result = algorithm.finish(problem, run.state)
        run = run._replace(state=None)  # whose memory the check may need
        with self.clock.for_check():
            judged = [self._judge(q, run, result, known) for q in result.candidates]
        chosen = min(range(len(judged)), key=lambda i: judged[i].diagnosis.rank)
        looked = sum((each.evaluations for each in judged), Evaluations())
        return StageResult(
            stage=stage,
            q=result.candidates[chosen],
            problem=judged[chosen].problem,
            draws=judged[chosen].draws,
            diagnosis=judged[chosen].diagnosis,
            history=run.history,
            evaluations=stage.spent + run.evaluations + result.evaluations + looked,
        )

    def _judge(self, q: Distribution, run: Run, result: Result, known: Sequence[Finding]) -> "_Judged":
        judged, limits = for_verdict(self.problem, q)
        made = result.chains
        agreed = made is not None and judge_agreement(made) is Status.RELIABLE
        seen = look(judged, q, (self.task.seed, RandomStream.VERDICT), made)
        evidence = Evidence(
            problem=judged,
            q=q,
            start=self.start,
            draws=seen.draws,
            stop=Stop.CONVERGED if agreed else run.stop,
            elbo=run.history.elbo,
            limits=[*limits, *seen.findings],
            remarks=[*known, *result.findings],
            seed=self.task.seed,
            chains=seen.chains,
        )
        return _Judged(judged, seen.pool, diagnose(evidence), seen.evaluations)


class _Judged(NamedTuple):
    """What came of looking at an approximation."""

    problem: Problem
    draws: Draws
    diagnosis: Diagnosis
    evaluations: Evaluations


def with_what_was_left(results: Sequence[StageResult], pending: Stage | None, patience: float) -> StageResult:
    """The best result, whose diagnosis has a word on what there was no time or budget for."""
    best, last = min(results, key=lambda result: result.rank), results[-1]
    if pending is not None:
        left = f"{pending.algorithm.name} ({pending.q.name}) was not tried"
    elif last is not best and last.diagnosis.stop is Stop.BUDGET:
        left = f"{last.stage.algorithm.name} ({last.q.name}) was not finished"
    else:
        return best
    reason = f"{left}: the budget was spent, which is {patience:.0f} seconds unless one is given"
    told = best.diagnosis
    told = replace(told, reasons=(*told.reasons, reason), advice=(*told.advice, "raise the budget"))
    return replace(best, diagnosis=told)
