"""A mode that q does not cover, of which the paths of the start know.

Importance weights see only where q has draws. What may betray another mode is a path of the start that ended elsewhere,
with a Gaussian of comparable ELBO.
"""

from dataclasses import dataclass

import numpy as np

from bbvi.diagnostics.checks.base import Check, Evidence
from bbvi.diagnostics.modes import BARRIER, barrier
from bbvi.draws.importance import log_densities_at
from bbvi.outcome import Finding, Status
from bbvi.start.bulk import polish


@dataclass(frozen=True, kw_only=True)
class MissedMode(Check):
    """Whether a path of the start ended outside all draws of q, at a comparable ELBO."""

    # The ELBO of another mode may fall short of that of q by this many nats, and the mode still matters: its weight is
    # then e^-7.
    rival: float = 7.0
    # Before the Gaussian at the other mode has been polished its ELBO may fall short by this many nats. As curvature
    # seen along a path can be far off, it may do so by more where the log density there does not, beyond a barrier.
    suspect: float = 30.0
    # A point is outside when it is further from the mean than the furthest draw, by this many standard deviations.
    outside: float = 0.5

    def __call__(self, evidence: Evidence) -> Finding | None:
        """The finding about the best path that ended elsewhere."""
        problem, start, of_q = evidence.problem, evidence.start, evidence.of_q
        finite = np.isfinite(of_q.log_p)
        if not finite.any() or not len(of_q.x) or problem.is_long:  # of a long vector there is but one path
            return None
        elbo = float(np.mean(of_q.log_p[finite] - of_q.log_q[finite]))
        top, highest = of_q.log_p[finite].max(), of_q.x[finite][of_q.log_p[finite].argmax()]
        whiten = evidence.whiten
        reach = np.linalg.norm(whiten(of_q.x), axis=1).max() + self.outside
        outside = [i for i, path in enumerate(start.paths) if np.linalg.norm(whiten(np.asarray(path.loc))) > reach]
        if not outside:
            return None
        heights = log_densities_at(problem, np.stack([np.asarray(start.paths[i].loc) for i in outside]))
        for i, height in zip(outside, heights, strict=True):
            path, loc, path_elbo = start.paths[i], np.asarray(start.paths[i].loc), start.elbos[i]
            low = path_elbo < elbo - self.suspect
            if low and (height < top - self.suspect or barrier(problem, loc, highest) < BARRIER):
                continue
            if path.is_dense and not start.sampled:
                polished = polish(problem, path, evidence.rng(), elbo - self.rival, within=self.suspect)
                loc, path_elbo = np.asarray(polished.gaussian.loc), polished.elbo
            if np.linalg.norm(whiten(loc)) > reach and path_elbo > elbo - self.rival:
                return _another_mode(evidence, loc)
        return None


def _another_mode(evidence: Evidence, loc: np.ndarray) -> Finding:
    x = evidence.of_q.x
    centre, spread = x.mean(axis=0), x.std(axis=0)
    coordinate = int(np.argmax(np.abs(loc - centre) / spread))
    return Finding(
        Status.UNRELIABLE,
        "another start ended in a different region of comparable density, with "
        f"{evidence.coordinate_name(coordinate)} (unconstrained) near {loc[coordinate]:.3g} instead of "
        f"{centre[coordinate]:.3g}: there are several modes, or a funnel",
        "compare fits from several init= points, break a symmetry with ordered constraints, or reparameterise",
    )
