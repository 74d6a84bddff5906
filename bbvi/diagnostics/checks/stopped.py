"""Optimisation that ended before it converged.

Weights that pass are proof enough of the fit. That it could still improve is worth a word.
"""

from dataclasses import dataclass
from typing import ClassVar

from bbvi.diagnostics.checks.base import Check, Evidence, Topic
from bbvi.outcome import Finding, Status, Stop

REMEDIES = {
    Stop.STALLED: "try another method, or give init= a point in the bulk of the posterior",
    Stop.STEPS: "raise num_steps",
    Stop.BUDGET: "raise the budget",
    Stop.CALLBACK: "let it run to the end",
    Stop.INTERRUPTED: "let it run to the end",
}


@dataclass(frozen=True, kw_only=True)
class Stopped(Check):
    """Whether optimisation ended before it converged; where no draw has a density, that does not matter."""

    topic: ClassVar[Topic] = Topic.RUN

    def __call__(self, evidence: Evidence) -> Finding | None:
        """The finding why it ended, which lowers no status."""
        if evidence.stop is Stop.CONVERGED or not evidence.finite.any():
            return None
        return Finding(Status.RELIABLE, f"optimisation {evidence.stop.value}", REMEDIES[evidence.stop])
