"""The verdict: how far a posterior can be trusted, and why.

The spread of the log weights and the importance effective sample size are looked at before k-hat, which Pareto
smoothing can get wrong when the weights are extreme, and which never sees a mode that q does not reach.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from bbvi.diagnostics.pareto import Smoothed, log_sum_exp, smooth
from bbvi.evaluation import Draws
from bbvi.outcome import Finding, Status, Stop

HUGE = 1e9  # nats, from which digits after the point mean nothing


class Value(NamedTuple):
    """An estimate with its Monte Carlo standard error."""

    value: float
    standard_error: float

    def __str__(self) -> str:
        if abs(self.value) > HUGE:
            return f"{self.value:.3g}"
        if not np.isfinite(self.standard_error):
            return f"{self.value:.2f}"
        digits = int(np.clip(1 - np.floor(np.log10(self.standard_error + 1e-12)), 0, 6))
        return f"{self.value:.{digits}f} ± {self.standard_error:.{digits}f}"


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

    @property
    def rank(self) -> tuple[int, float]:
        """What candidates are compared by; smaller is better."""
        return list(Status).index(self.status), self.k_hat

    @property
    def trusted(self) -> bool:
        """Whether importance sampling may be used to correct q."""
        return self.status in (Status.RELIABLE, Status.USABLE)

    def __str__(self) -> str:
        lines = [
            f"Status: {self.status.name.lower()} ({self.status.value.split(': ', 1)[1]})",
            f"  k-hat {self.resampling_k_hat:.2f} for resampled draws, {self.k_hat:.2f} for q alone; "
            f"importance ESS {self.effective_sample_size:.0f} of {self.num_draws} draws",
            f"  ELBO {self.elbo}, log evidence {self.log_evidence}, log-weight sd {self.log_weight_sd:.2f}",
            f"  optimisation {self.stop.value}",
        ]
        lines += [f"  - {reason}" for reason in self.reasons]
        lines += [f"  > {advice}" for advice in self.advice]
        return "\n".join(lines)


GOOD_K, POOR_K = 0.5, 0.7
POOR_SPREAD = 3.0  # nats; Gaussian log weights of sd 2.1 have k = 0.7
FEW, TOO_FEW = 0.05, 100  # effective draws: share for "reliable", number for "usable"
MOST = 0.5  # share of effective draws from which a k-hat below 1 says something of the tails only
EVEN = 10.0  # average draws that the heaviest one may count for, when the shape of the tail does not matter
REMEDIES = {
    Stop.STALLED: "try another method, or give init= a point in the bulk of the posterior",
    Stop.STEPS: "raise num_steps",
    Stop.BUDGET: "raise the budget",
}
RICHER = "fit a richer family, reparameterise the model, or take draws by posterior.to_nuts()"


def diagnose(draws: Draws, stop: Stop, findings: Sequence[Finding] = ()) -> Diagnosis:
    """Judge q by fresh draws."""
    with np.errstate(over="ignore", invalid="ignore"):  # log densities of a q that has run off
        return _diagnose(draws, stop, findings)


def _diagnose(draws: Draws, stop: Stop, findings: Sequence[Finding]) -> Diagnosis:
    n = len(draws)
    log_w = _log_weights(draws.log_p, draws.log_r)
    log_w_q = _log_weights(draws.log_p, draws.log_q)[draws.from_q]
    good = np.isfinite(log_w_q)
    if not good.any():
        if np.isnan(draws.log_p).all():
            reason = "there was no time to evaluate the log density at any draw: nothing is known of how good this is"
            worst = Finding(Status.UNRELIABLE, reason, "raise the budget")
        else:
            reason = "the log density is not finite at any of the draws"
            worst = Finding(Status.FAILED, reason, "check logprob and the constraints of its parameters")
        nothing = Value(-np.inf, np.nan)
        return _verdict(
            [worst, *findings],
            k_hat=np.inf,
            resampling_k_hat=np.inf,
            elbo=nothing,
            log_evidence=nothing,
            effective_sample_size=0.0,
            num_draws=n,
            log_weight_sd=np.nan,
            non_finite=1.0,
            stop=stop,
        )

    smoothed = smooth(log_w)
    ess = effective_sample_size(smoothed.log_weights)
    spread = float(np.std(log_w_q[good]))
    from_weights = _weight_findings(smoothed, ess, spread)
    no_error = any(finding.status is Status.UNRELIABLE for finding in from_weights)  # the variance may be infinite
    evidence_error = np.nan if no_error else max(1 / effective_sample_size(log_w) - 1 / n, 0.0) ** 0.5
    return _verdict(
        [*from_weights, *findings, *_stop_findings(stop)],
        k_hat=smooth(log_w_q).k_hat,
        resampling_k_hat=smoothed.k_hat,
        elbo=Value(float(log_w_q[good].mean()), spread / float(good.sum()) ** 0.5),
        log_evidence=Value(log_sum_exp(log_w) - float(np.log(n)), evidence_error),
        effective_sample_size=ess,
        num_draws=n,
        log_weight_sd=spread,
        non_finite=float(1 - good.mean()),
        stop=stop,
    )


def _log_weights(log_p: np.ndarray, log_q: np.ndarray) -> np.ndarray:
    defined = np.isfinite(log_p) & np.isfinite(log_q)
    return np.where(defined, log_p, -np.inf) - np.where(defined, log_q, 0)


def effective_sample_size(log_weights: np.ndarray) -> float:
    """(sum w)^2 / sum w^2 for log weights `(n,)`, normalised or not."""
    return float(np.exp(2 * log_sum_exp(log_weights) - log_sum_exp(2 * log_weights)))


def _weight_findings(smoothed: Smoothed, ess: float, spread: float) -> list[Finding]:
    k, n = smoothed.k_hat, len(smoothed.log_weights)
    if spread > POOR_SPREAD:
        reason = f"the log weights spread over {spread:.1f} nats (sd): q and the posterior differ in shape"
        return [Finding(Status.UNRELIABLE, reason, RICHER)]
    if ess < TOO_FEW:
        return [Finding(Status.UNRELIABLE, f"only {ess:.0f} effective draws out of {n}", RICHER)]
    if n * np.exp(smoothed.log_weights.max()) < EVEN:
        return []
    if POOR_K <= k < 1 and ess > MOST * n:
        reason = f"k-hat {k:.2f} is above {POOR_K}, but the weights are even: few draws in the tails are heavy"
        return [Finding(Status.USABLE, reason)]
    if k >= POOR_K:
        reason = f"k-hat {k:.2f} is above {POOR_K}: some importance weights are too large to be trusted"
        return [Finding(Status.UNRELIABLE, reason, RICHER)]
    if k >= GOOD_K:
        return [Finding(Status.USABLE, f"k-hat {k:.2f} is between {GOOD_K} and {POOR_K}")]
    if ess < FEW * n:
        return [Finding(Status.USABLE, f"only {ess:.0f} effective draws out of {n}")]
    return []


def _stop_findings(stop: Stop) -> list[Finding]:
    if stop is Stop.CONVERGED:
        return []
    more = REMEDIES.get(stop, "let it run to the end")
    # Weights that pass are proof enough of the fit; that it could still improve is worth a word.
    return [Finding(Status.RELIABLE, f"optimisation {stop.value}", more)]


def _verdict(findings: Sequence[Finding], **fields: Any) -> Diagnosis:
    ranks = list(Status)
    status = ranks[max((ranks.index(finding.status) for finding in findings), default=0)]
    reasons = tuple(finding.message for finding in findings)
    advice = dict.fromkeys(finding.remedy for finding in findings if finding.remedy)
    improvable = any(finding.status is not Status.RELIABLE and not finding.inherent for finding in findings)
    return Diagnosis(status=status, reasons=reasons, advice=tuple(advice), improvable=improvable, **fields)
