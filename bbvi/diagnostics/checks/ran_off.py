"""A posterior that is improper lets q grow, or travel, for ever."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bbvi.diagnostics.checks.base import Check, Evidence
from bbvi.draws.lazy import pieces
from bbvi.outcome import Finding, Status

PROPER = "check that the posterior is proper: the prior must keep every parameter from running off"


@dataclass(frozen=True, kw_only=True)
class RanOff(Check):
    """Whether q has run off, or its ELBO was still rising in the last quarter of the steps.

    Where it has, the draws are of no region that another check could say something about.
    """

    ends: ClassVar[bool] = True

    # q has run off when an unconstrained coordinate of a draw is beyond this.
    far: float = 1e30
    # The rise of the ELBO is looked at when a quarter of the run has this many steps.
    steps: int = 100
    # An ELBO that has risen by fewer nats than this between the last two quarters of the run is not rising.
    rise: float = 1.0
    # Nor is one that has risen by less than this many times the sum of the standard errors of its two means.
    standard_errors: float = 5.0

    def __call__(self, evidence: Evidence) -> Finding | None:
        """The finding that the posterior may be improper."""
        if not max(np.abs(piece).max(initial=0) for piece in pieces(evidence.of_q.x)) < self.far:
            words = "the approximation has run off to infinity, or grown without bound"
            return Finding(Status.UNRELIABLE, words, PROPER)
        quarter = len(evidence.elbo) // 4
        if quarter < self.steps:
            return None
        before, last = evidence.elbo[-2 * quarter : -quarter], evidence.elbo[-quarter:]
        gain = last.mean() - before.mean()
        if gain > max(self.rise, self.standard_errors * (before.std() + last.std()) / quarter**0.5):
            words = f"the ELBO was still rising, by {gain:.3g} nats, when optimisation ended"
            return Finding(Status.UNRELIABLE, words, PROPER)
        return None
