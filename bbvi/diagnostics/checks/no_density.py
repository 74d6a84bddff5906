"""No density at all: nothing can be known of q where none of its draws has a finite log density."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bbvi.diagnostics.checks.base import Check, Evidence, Topic
from bbvi.outcome import Finding, Status


@dataclass(frozen=True, kw_only=True)
class NoDensity(Check):
    """Whether not a single draw of q has a finite log density, or there was no time to evaluate any."""

    topic: ClassVar[Topic] = Topic.WEIGHTS
    ends: ClassVar[bool] = True

    def __call__(self, evidence: Evidence) -> Finding | None:
        """The finding that nothing can be known of q."""
        if evidence.finite.any():
            return None
        if np.isnan(evidence.draws.log_p).all():
            words = "there was no time to evaluate the log density at any draw: nothing is known of how good this is"
            return Finding(Status.UNRELIABLE, words, "raise the budget")
        words = "the log density is not finite at any of the draws"
        return Finding(Status.FAILED, words, "check logprob and the constraints of its parameters")
