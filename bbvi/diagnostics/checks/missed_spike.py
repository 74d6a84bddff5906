"""A narrow peak inside the region that q covers, which holds more than the draws show.

The paths of the start end at the highest density. Where that is a spike, whose neighbourhood seems to hold little, a
fit begins elsewhere; or Newton steps may lead away from it. The ELBO of a Gaussian at the spike says what is there at
least, since it is a lower bound of the log of a mass: where many draws should be, and hardly any is, q has missed it.
"""

from dataclasses import dataclass

import numpy as np

from bbvi.diagnostics.checks.base import Check, Evidence
from bbvi.distributions.affine import Affine
from bbvi.draws.pareto import log_sum_exp
from bbvi.outcome import Finding, Status
from bbvi.start.bulk import narrowed, polish


@dataclass(frozen=True, kw_only=True)
class MissedSpike(Check):
    """Whether the mode at which the fit did not begin, or did not stay, holds mass in which hardly any draw is."""

    # A path whose ELBO falls short of that of q by this many nats is not looked at: curvature along it was far off.
    rival: float = 7.0
    # So many draws should be at the spike, by its ELBO.
    expected: float = 20.0
    # At least this part of the share at the spike has to be among the draws.
    enough: float = 0.1
    # Draws of a Gaussian are about sqrt(dim) standard deviations from its mean, hardly any by so many more.
    near: float = 3.0

    def __call__(self, evidence: Evidence) -> Finding | None:
        """The finding about the spike."""
        problem, start, x, chains = evidence.problem, evidence.start, evidence.draws.x, evidence.chains
        spike = start.spike or next(iter(start.paths), None)
        if spike is None or not spike.is_dense or start.sampled or not evidence.finite.any():
            return None
        elbo = float(np.mean(evidence.raw_log_weights_of_q[evidence.finite]))
        if start.spike is None and (start.elbos[0] < elbo - self.rival or self._near(spike, x).any()):
            return None
        if chains is None:
            log_evidence, independent = log_sum_exp(evidence.raw_log_weights) - np.log(len(x)), len(x)
        else:
            log_evidence, independent = chains.log_evidence.value, chains.effective
        least = np.log(self.expected / independent)
        polished = polish(problem, narrowed(spike), evidence.rng(), aim=log_evidence + least)
        log_mass = polished.elbo - log_evidence
        if not log_mass > least:
            return None
        ratio, held = float(np.exp(log_mass)), np.exp(evidence.log_weights)[self._near(polished.gaussian, x)].sum()
        if held > self.enough * min(ratio, 1.0):
            return None
        where = f"{evidence.coordinate_name(0)} (unconstrained) near {polished.gaussian.loc[0]:.3g}"
        return Finding(
            Status.UNRELIABLE,
            f"a narrow peak, with {where}, holds at least {ratio:.2g} times the mass that the draws show, and "
            f"{held:.1%} of the draws",
            "fit from init= there, and compare the log evidences",
        )

    def _near(self, gaussian: Affine, x: np.ndarray) -> np.ndarray:
        """Which of the draws x `(n, dim)` are where those of a Gaussian would be, `(n,)`."""
        whitened = np.linalg.solve(np.asarray(gaussian.scale.matrix(), float), (x - np.asarray(gaussian.loc)).T)
        return np.linalg.norm(whitened, axis=0) < gaussian.dim**0.5 + self.near
