"""Trials: what every check says of an approximation whose error is known, and would say with other thresholds."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import NamedTuple

import bbvi.fitting.stages
from bbvi.diagnostics.checks import CHECKS
from bbvi.diagnostics.checks.base import Check, Evidence
from bbvi.diagnostics.checks.no_density import NoDensity
from bbvi.diagnostics.checks.ran_off import RanOff
from bbvi.diagnostics.verdict import Diagnosis
from bbvi.draws.lazy import LazyDraws
from bbvi.draws.pareto import resample
from bbvi.outcome import Finding, Status
from bbvi.runtime.precision import scope
from benchmarks.record.judging import judge
from benchmarks.record.posteriors import Subject
from benchmarks.record.provenance import commit

FACTORS = (0.5, 0.7, 1.4, 2.0)  # of a threshold
SILENT = "reliable"  # the status that a check allows which finds nothing
DRAWS = 10_000  # by which an approximation is judged
ENDING = (NoDensity, RanOff)  # after which the others could say nothing of use


@dataclass(frozen=True, kw_only=True)
class Trial:
    """An approximation of a posterior, its error, and what is said of it; a status is the best that is allowed."""

    posterior: str
    kind: str
    method: str
    stage: int  # of the method
    commit: str
    chains: bool  # whether the draws are of chains
    error: float  # the larger one of means, in sd, and of sds, relative, beyond two standard errors of the reference
    beside: str  # by what is no check: limits of the verdict, and what the algorithm has to say
    found: dict[str, str]  # by each check
    varied: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)  # by check, threshold, factor: if other


class Seen(NamedTuple):
    """Evidence, and the verdict on it."""

    evidence: Evidence
    diagnosis: Diagnosis


@contextmanager
def watching() -> Iterator[list[Seen]]:
    """The list fills with everything that fits judge within."""
    seen: list[Seen] = []
    diagnose = bbvi.fitting.stages.diagnose

    def keep(evidence: Evidence) -> Diagnosis:
        seen.append(Seen(evidence, diagnose(evidence)))
        return seen[-1].diagnosis

    bbvi.fitting.stages.diagnose = keep
    try:
        yield seen
    finally:
        bbvi.fitting.stages.diagnose = diagnose


def try_all(subject: Subject, kind: str, method: str, seed: int = 0) -> list[Trial]:
    """Fit, and put every approximation that was judged on trial."""
    case = subject.case
    with watching() as seen:
        bbvi.fit(case.logprob, case.shapes, data=case.data, constraints=case.constraints, method=method, seed=seed)
    with scope(double=True):
        return [
            _trial(subject, kind, method, stage, each)
            for stage, each in enumerate(seen)
            if not isinstance(each.evidence.draws.x, LazyDraws)
        ]


def _trial(subject: Subject, kind: str, method: str, stage: int, seen: Seen) -> Trial:
    evidence = seen.evidence
    found, varied = {}, {}
    for check in CHECKS:
        name, status = type(check).__name__, _status([check(evidence)])
        found[name] = status
        if isinstance(check, ENDING) and status != SILENT:
            break
        others = {threshold: _varied(evidence, check, threshold, status) for threshold in thresholds(check)}
        varied[name] = {threshold: statuses for threshold, statuses in others.items() if statuses}
    return Trial(
        posterior=subject.case.name,
        kind=kind,
        method=method,
        stage=stage,
        commit=commit(),
        chains=evidence.chains is not None,
        error=_error(subject, evidence),
        beside=_status([*evidence.limits, *evidence.remarks]),
        found=found,
        varied={name: each for name, each in varied.items() if each},
    )


def thresholds(check: Check) -> list[str]:
    """The names of the numbers of a check."""
    return [each.name for each in fields(check)]


def _varied(evidence: Evidence, check: Check, threshold: str, status: str) -> dict[str, str]:
    """By factor, the statuses that differ from the present one."""
    value, found = getattr(check, threshold), {}
    for factor in FACTORS:
        scaled = type(value)(factor * value)
        there = _status([replace(check, **{threshold: scaled})(evidence)]) if scaled else status
        if there != status:
            found[f"{factor:g}"] = there
    return found


def _status(findings: list[Finding | None]) -> str:
    """The best that findings allow."""
    ranks = list(Status)
    worst = max((ranks.index(each.status) for each in findings if each is not None), default=0)
    return ranks[worst].name.lower()


def _error(subject: Subject, evidence: Evidence) -> float:
    """That of the weighted draws; infinite where none has a weight."""
    if not evidence.finite.any():
        return float("inf")
    chosen = resample(evidence.rng(), evidence.log_weights, DRAWS)
    values = subject.values(evidence.problem.parameters.structure(evidence.draws.x[chosen]))
    told = judge(subject.reference(), values)
    return max(told.mean.beyond, told.sd.beyond)


def write(path: Path, trials: list[Trial]) -> None:
    """Add lines of JSON to the file."""
    with path.open("a") as file:
        file.writelines(json.dumps(asdict(trial)) + "\n" for trial in trials)


def read(path: Path) -> list[Trial]:
    """The trials of the file."""
    return [Trial(**json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
