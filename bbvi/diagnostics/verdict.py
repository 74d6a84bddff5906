"""The verdict: how far a posterior can be trusted, and why.

Its status is the worst that any finding allows. Findings are told in this order: what the weights say, what limits the
verdict itself, what the checks find about the posterior, what the algorithm has to say, and why the run stopped.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bbvi.chains.verdict import Chained
from bbvi.diagnostics.checks import CHECKS, examine
from bbvi.diagnostics.checks.base import Check, Evidence, Topic
from bbvi.draws.pareto import effective_sample_size, log_sum_exp, smooth
from bbvi.outcome import ChainSummary, Status, Stop, Value

NOTHING_KNOWN = Value(-np.inf, np.nan)


@dataclass(frozen=True)
class Diagnosis:
    """What fresh draws of q say about it.

    Fields:
        status: the verdict.
        k_hat: Pareto shape of the importance weights of q.
        resampling_k_hat: the same for the wider mixture from which importance sampling draws.
        elbo: evidence lower bound in nats.
        log_evidence: log of the normalising constant in nats, by importance sampling.
        effective_sample_size: of importance sampling, out of `num_draws`.
        num_draws: fresh draws it rests on, four fifths of them of q.
        log_weight_sd: standard deviation of the log importance weights, in nats.
        non_finite: share of draws at which the log density was not finite.
        stop: why optimisation ended.
        reasons, advice: in words.
        improvable: whether a better approximation would have a better status.
        chains: what is known of the draws where they are of chains, which begin at q; then the draws and their
            effective number are those of the chains, and the log weights those of q.
    """

    status: Status
    k_hat: float
    resampling_k_hat: float
    elbo: Value
    log_evidence: Value
    effective_sample_size: float
    num_draws: int
    log_weight_sd: float
    non_finite: float
    stop: Stop
    reasons: tuple[str, ...]
    advice: tuple[str, ...]
    improvable: bool
    chains: ChainSummary | None = None

    @property
    def rank(self) -> tuple[int, float]:
        """What candidates are compared by; smaller is better."""
        return list(Status).index(self.status), self.k_hat

    @property
    def trusted(self) -> bool:
        """Whether importance sampling may be used to correct q."""
        return self.status in (Status.RELIABLE, Status.USABLE)

    @property
    def words(self) -> str:
        """The status in words."""
        if self.chains is not None and self.status is not Status.FAILED:
            return str(self.chains)
        return self.status.value.split(": ", 1)[1]

    def __str__(self) -> str:
        of_weights = (
            f"k-hat {self.resampling_k_hat:.2f} for resampled draws, {self.k_hat:.2f} for q alone; importance ESS"
        )
        drawn = of_weights if self.chains is None else f"k-hat {self.k_hat:.2f} for q alone; ESS"
        lines = [
            f"Status: {self.status.name.lower()} ({self.words})",
            f"  {drawn} {self.effective_sample_size:.0f} of {self.num_draws} draws",
            f"  ELBO {self.elbo}, log evidence {self.log_evidence}, log-weight sd {self.log_weight_sd:.2f}",
            f"  optimisation {self.stop.value}",
        ]
        lines += [f"  - {reason}" for reason in self.reasons]
        lines += [f"  > {advice}" for advice in self.advice]
        return "\n".join(lines)


def diagnose(evidence: Evidence, checks: Sequence[Check] = CHECKS) -> Diagnosis:
    """Judge q: what the checks find, what limits the verdict and what the algorithm says, with the numbers."""
    of_weights = examine(evidence, checks, [Topic.WEIGHTS])
    findings = [
        *of_weights,
        *evidence.limits,
        *examine(evidence, checks, [Topic.POSTERIOR]),
        *evidence.remarks,
        *examine(evidence, checks, [Topic.RUN]),
    ]
    ranks, no_error = list(Status), any(finding.status is Status.UNRELIABLE for finding in of_weights)
    status = ranks[max((ranks.index(finding.status) for finding in findings), default=0)]
    advice = dict.fromkeys(finding.remedy for finding in findings if finding.remedy)
    return Diagnosis(
        status=status,
        stop=evidence.stop,
        reasons=tuple(finding.message for finding in findings),
        advice=tuple(advice),
        improvable=any(finding.status is not Status.RELIABLE and not finding.inherent for finding in findings),
        **(_numbers(evidence, no_error) if evidence.chains is None else _numbers_of_chains(evidence.chains)),
    )


@np.errstate(over="ignore", invalid="ignore")  # log densities of a q that has run off
def _numbers(evidence: Evidence, no_error: bool) -> dict[str, Any]:
    """What the draws say.

    Arguments:
        no_error: whether the evidence has no standard error, since the variance of the weights may be infinite.
    """
    finite, n = evidence.finite, len(evidence.draws)
    if not finite.any():
        return {
            "num_draws": n,
            "k_hat": np.inf,
            "resampling_k_hat": np.inf,
            "elbo": NOTHING_KNOWN,
            "log_evidence": NOTHING_KNOWN,
            "effective_sample_size": 0.0,
            "log_weight_sd": np.nan,
            "non_finite": 1.0,
        }
    raw, of_q, spread = evidence.raw_log_weights, evidence.raw_log_weights_of_q, evidence.log_weight_sd
    evidence_error = np.nan if no_error else float(max(1 / effective_sample_size(raw) - 1 / n, 0.0)) ** 0.5
    return {
        "num_draws": n,
        "k_hat": float(smooth(of_q).k_hat),
        "resampling_k_hat": float(evidence.smoothed.k_hat),
        "elbo": Value(float(of_q[finite].mean()), spread / float(finite.sum()) ** 0.5),
        "log_evidence": Value(float(log_sum_exp(raw) - np.log(n)), evidence_error),
        "effective_sample_size": evidence.effective_sample_size,
        "log_weight_sd": spread,
        "non_finite": float(1 - finite.mean()),
    }


@np.errstate(over="ignore", invalid="ignore")
def _numbers_of_chains(chains: Chained) -> dict[str, Any]:
    """What chains say, and the draws of q among which they began."""
    ratios = chains.log_ratio_of_q
    finite, k_hat = np.isfinite(ratios), float(smooth(ratios).k_hat)
    spread = float(np.std(ratios[finite])) if finite.any() else np.nan
    elbo = Value(float(ratios[finite].mean()), spread / float(finite.sum()) ** 0.5) if finite.any() else NOTHING_KNOWN
    return {
        "num_draws": chains.num_draws,
        "k_hat": k_hat,
        "resampling_k_hat": k_hat,
        "elbo": elbo,
        "log_evidence": chains.log_evidence,
        "effective_sample_size": chains.effective,
        "log_weight_sd": spread,
        "non_finite": float(1 - finite.mean()),
        "chains": chains.summary,
    }
