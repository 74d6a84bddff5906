"""A posterior that is much wider than q along some direction, and may go on beyond the reach of any draw.

The direction is the one along which the weighted draws vary most, compared with the draws of q; for a mixture, it is
looked for near each component by itself. Where few draws contribute to that variance, the density along the direction
has to say the same.
"""

from dataclasses import dataclass

import numpy as np

from bbvi.diagnostics.checks.base import Check, Evidence
from bbvi.diagnostics.checks.whitening import whitening
from bbvi.draws.importance import Draws, log_densities_at
from bbvi.outcome import Finding, Status
from bbvi.target.problem import Problem


@dataclass(frozen=True, kw_only=True)
class TooNarrow(Check):
    """Whether the weighted draws are much wider than q along a direction."""

    # q is too narrow when the weighted variance along the direction exceeds this many times its own.
    too_wide: float = 4.0
    # That variance is certain when more draws than this contribute to it.
    contributors: int = 20
    # Where it is not, the density along the direction is looked at if the variance is at least this many times q's.
    suspicious: float = 2.0
    # The density is looked at up to this many standard deviations of q on both sides.
    line: float = 12.0
    # The density is evaluated at this many points along the direction.
    points: int = 64
    # A component with fewer draws of q for each coordinate is not looked at.
    draws_per_coordinate: int = 10
    # Nor is one whose weighted draws are worth fewer independent ones.
    effective: int = 20
    # Nor is one whose weighted draws are worth fewer independent ones for each coordinate.
    effective_per_coordinate: int = 2

    def __call__(self, evidence: Evidence) -> Finding | None:
        """The finding about the first component of q that is too narrow."""
        draws, log_weights = evidence.draws, evidence.log_weights
        nearest = np.asarray(evidence.q.nearest(draws.x))
        components = np.unique(nearest)
        for component in components:
            of_it = nearest == component
            alone = len(components) == 1
            finding = self._component(evidence, draws.take(of_it), np.exp(log_weights[of_it]), alone=alone)
            if finding is not None:
                return finding
        return None

    def _component(self, evidence: Evidence, draws: Draws, weights: np.ndarray, *, alone: bool) -> Finding | None:
        """The finding about draws that are nearest to one component, with their weights `(n,)`."""
        problem = evidence.problem
        if not weights.sum() > 0 or draws.from_q.sum() < self.draws_per_coordinate * problem.dim:
            return None
        weights = weights / weights.sum()
        enough = 1 / np.sum(weights**2) / max(self.effective, self.effective_per_coordinate * problem.dim)
        z = (evidence.whiten if alone else whitening(draws.x[draws.from_q]))(draws.x)
        z = z - weights @ z
        covariance = (weights[:, None] * z).T @ z
        if enough < 1 or not np.isfinite(covariance).all():  # a q that has run off overflows
            return None
        variances, vectors = np.linalg.eigh(covariance)
        if variances[-1] < self.suspicious:
            return None
        along = z @ vectors[:, -1]
        if np.var(along) > variances[-1]:
            return None  # the draws, before they are weighted, are wider than the posterior
        parts = weights * along**2
        certain = variances[-1] > self.too_wide and 1 / np.sum((parts / parts.sum()) ** 2) > self.contributors
        if not certain and not self._is_wide_along(problem, draws.x, weights, along):
            return None
        spread = draws.x[draws.from_q].std(axis=0)
        name = evidence.coordinate_name(int(np.argmax(np.abs((weights * along) @ (draws.x / spread)))))
        return Finding(
            Status.UNRELIABLE,
            f"the weighted draws are {variances[-1] ** 0.5:.1f} times as wide as q along a direction, mostly {name} "
            "(unconstrained): the posterior may reach further than any draw",
            'use method="newton" or "advi", which widen q until it fits, or a richer family',
        )

    def _is_wide_along(self, problem: Problem, x: np.ndarray, weights: np.ndarray, along: np.ndarray) -> bool:
        """Whether the posterior is wide along a line: that on which draws with a coordinate `along` lie on average.

        Arguments:
            x: draws `(n, dim)`.
            weights: theirs, `(n,)`, which sum to 1.
            along: a linear function of x `(n,)` with weighted mean 0, in standard deviations of q.
        """
        slope = (weights * along) @ x / (weights @ along**2)
        steps = np.linspace(-self.line, self.line, self.points)
        values = log_densities_at(problem, (weights @ x + steps[:, None] * slope).astype(x.dtype))
        mass = np.exp(np.nan_to_num(values - np.nanmax(values), nan=-np.inf))
        mean = np.average(steps, weights=mass)
        return bool(np.average((steps - mean) ** 2, weights=mass) > self.too_wide)
