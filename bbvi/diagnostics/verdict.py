"""The verdict: how far a posterior can be trusted, and why.

The spread of the log weights and the importance effective sample size are looked at before k-hat, which Pareto
smoothing can get wrong when the weights are extreme, and which never sees a mode that q does not reach.
"""

import enum
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.special import logsumexp

from bbvi.diagnostics.pareto import Smoothed, smooth
from bbvi.driver import Stop


class Status(enum.Enum):
    """How far to trust a posterior; the value says it in words."""

    RELIABLE = "reliable: the approximation is close enough for importance sampling to correct what is left"
    USABLE = "usable: importance sampling corrects it, with larger Monte Carlo error"
    UNRELIABLE = "unreliable: the approximation differs from the posterior by more than importance sampling can correct"
    FAILED = "failed: no draw of the approximation has a finite log density"


class Value(NamedTuple):
    """An estimate with its Monte Carlo standard error."""

    value: float
    standard_error: float

    def __str__(self) -> str:
        digits = 2 if not np.isfinite(self.standard_error) else int(np.clip(1 - np.floor(np.log10(self.standard_error + 1e-12)), 0, 6))
        return f"{self.value:.{digits}f} ± {self.standard_error:.{digits}f}"


@dataclass(frozen=True)
class Diagnosis:
    """What fresh draws of q say about it.

    Fields:
        status: the verdict.
        k_hat: Pareto shape of the importance weights.
        elbo: evidence lower bound in nats.
        log_evidence: log of the normalising constant in nats, by importance sampling.
        effective_sample_size: of importance sampling, out of `num_draws`.
        num_draws: fresh draws it rests on.
        log_weight_sd: standard deviation of the log importance weights, in nats.
        non_finite: share of draws at which the log density was not finite.
        stop: why optimisation ended.
        reasons, advice: in words.
    """

    status: Status
    k_hat: float
    elbo: Value
    log_evidence: Value
    effective_sample_size: float
    num_draws: int
    log_weight_sd: float
    non_finite: float
    stop: Stop
    reasons: tuple[str, ...]
    advice: tuple[str, ...]

    @property
    def trusted(self) -> bool:
        """Whether importance sampling may be used to correct q."""
        return self.status in (Status.RELIABLE, Status.USABLE)

    def __str__(self) -> str:
        lines = [
            f"Status: {self.status.name.lower()} ({self.status.value.split(': ', 1)[1]})",
            f"  k-hat {self.k_hat:.2f}, importance ESS {self.effective_sample_size:.0f} of {self.num_draws} draws, "
            f"log-weight sd {self.log_weight_sd:.2f}",
            f"  ELBO {self.elbo}, log evidence {self.log_evidence}",
            f"  optimisation {self.stop.value}",
        ]
        lines += [f"  - {reason}" for reason in self.reasons]
        lines += [f"  > {advice}" for advice in self.advice]
        return "\n".join(lines)


class Concern(NamedTuple):
    """Something that speaks against trusting a posterior."""

    worst: Status  # the best status that it allows
    reason: str
    advice: str | None = None


GOOD_K, POOR_K = 0.5, 0.7
POOR_SPREAD = 3.0  # nats; Gaussian log weights of sd 2.1 have k = 0.7
FEW, TOO_FEW = 0.05, 100  # effective draws: share for "reliable", number for "usable"


def diagnose(log_p: np.ndarray, log_q: np.ndarray, stop: Stop, concerns: tuple[Concern, ...] = ()) -> tuple[Diagnosis, Smoothed]:
    """Judge log densities `(n,)` of fresh draws of q; -inf in `log_p` where there is no density."""
    n = len(log_p)
    log_w = log_p - log_q
    good = np.isfinite(log_w)
    if not good.any():
        nothing = Value(-np.inf, np.nan)
        concern = Concern(Status.FAILED, "the log density is not finite at any of the draws", "check logprob and its constraints")
        return _verdict((concern, *concerns), np.inf, nothing, nothing, 0.0, n, np.nan, 1.0, stop), Smoothed(log_w, np.inf)

    smoothed = smooth(log_w)
    ess = float(np.exp(-logsumexp(2 * smoothed.log_weights)))
    spread = float(np.std(log_w[good]))
    elbo = Value(float(log_w[good].mean()), spread / good.sum() ** 0.5)
    raw_ess = float(np.exp(2 * logsumexp(log_w) - logsumexp(2 * log_w)))
    evidence = Value(float(logsumexp(log_w) - np.log(n)), float(np.sqrt(max(1 / raw_ess - 1 / n, 0))))
    non_finite = float(1 - good.mean())
    checks = _weight_concerns(smoothed.k_hat, ess, spread, n) + _stop_concerns(stop)
    return _verdict((*checks, *concerns), smoothed.k_hat, elbo, evidence, ess, n, spread, non_finite, stop), smoothed


def _weight_concerns(k: float, ess: float, spread: float, n: int) -> list[Concern]:
    richer = "fit a richer family (full_rank, or one that can skew), or reparameterise the model"
    if spread > POOR_SPREAD:
        return [Concern(Status.UNRELIABLE, f"the log weights spread over {spread:.1f} nats (sd): q and the posterior differ in shape", richer)]
    if not k < POOR_K:
        return [Concern(Status.UNRELIABLE, f"k-hat {k:.2f} is above {POOR_K}: importance weights have no finite variance", richer)]
    if ess < TOO_FEW:
        return [Concern(Status.UNRELIABLE, f"only {ess:.0f} effective draws out of {n}", richer)]
    if k >= GOOD_K:
        return [Concern(Status.USABLE, f"k-hat {k:.2f} is between {GOOD_K} and {POOR_K}")]
    if ess < FEW * n:
        return [Concern(Status.USABLE, f"only {ess:.0f} effective draws out of {n}")]
    return []


def _stop_concerns(stop: Stop) -> list[Concern]:
    if stop is Stop.CONVERGED:
        return []
    more = {Stop.STEPS: "raise num_steps", Stop.BUDGET: "raise the budget"}.get(stop, "let it run to the end")
    # Weights that pass are proof enough of the fit; that it could still improve is worth a word.
    return [Concern(Status.RELIABLE, f"optimisation {stop.value}", more)]


def _verdict(concerns: tuple[Concern, ...], *fields: object) -> Diagnosis:
    ranks = list(Status)
    status = ranks[max((ranks.index(concern.worst) for concern in concerns), default=0)]
    advice = dict.fromkeys(concern.advice for concern in concerns if concern.advice)
    return Diagnosis(status, *fields, tuple(concern.reason for concern in concerns), tuple(advice))  # type: ignore[arg-type]
