"""Integrals within the log density, such as those over parameters of groups, which are known with errors only."""

from dataclasses import dataclass, replace

import numpy as np

from bbvi.diagnostics.checks.base import Check, Evidence
from bbvi.draws.importance import log_densities_at
from bbvi.draws.pareto import resample
from bbvi.outcome import Finding, Status


@dataclass(frozen=True, kw_only=True)
class Integrals(Check):
    """Whether better integrals would move the posterior.

    A log density may have a `finer` one, with the same integrals by more work. To first order, what the two differ by
    moves a mean by its covariance with the coordinate, and likewise a variance. The check is silent where there is no
    finer one, or where log densities are of some rows only.
    """

    # The finer log density is looked at for this many draws.
    points: int = 128
    # Moments that move by this share of a standard deviation are told.
    usable: float = 0.05
    # An answer that is off by this share of a standard deviation is wrong.
    unreliable: float = 0.2

    def __call__(self, evidence: Evidence) -> Finding | None:
        """The finding about the coordinate whose mean or standard deviation moves most."""
        problem, finer = evidence.problem, getattr(evidence.problem.logprob, "finer", None)
        if finer is None or problem.weight is not None or not evidence.effective_sample_size > 1:
            return None
        draws = evidence.draws.take(resample(evidence.rng(), evidence.log_weights, self.points))
        x = np.asarray(draws.x, float)
        change = log_densities_at(replace(problem, logprob=finer), draws.x) - draws.log_p
        z = (x - x.mean(axis=0)) / x.std(axis=0)
        change = change - change.mean()
        moved = np.maximum(np.abs(change @ z), np.abs(change @ z**2) / 2) / len(z)
        i = int(np.argmax(np.where(np.isnan(moved), np.inf, moved)))
        if moved[i] <= self.usable:
            return None
        return Finding(
            Status.USABLE if moved[i] <= self.unreliable else Status.UNRELIABLE,
            f"better integrals over groups' own parameters would move the mean or sd of {evidence.coordinate_name(i)} "
            f"(unconstrained) by about {moved[i]:.0%} of a standard deviation",
            "train the network for longer or give it more units; or leave amortise out, where it can be",
            inherent=True,
        )
