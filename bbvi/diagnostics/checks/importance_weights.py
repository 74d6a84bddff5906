"""The importance weights: how evenly the draws of q and t stand for the posterior.

The spread of the log weights and the importance effective sample size are looked at before k-hat, which Pareto
smoothing can get wrong when the weights are extreme, and which never sees a mode that q does not reach.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bbvi.diagnostics.checks.base import Check, Evidence, Topic
from bbvi.outcome import Finding, Status

RICHER = "fit a richer family, reparameterise the model, or take draws by posterior.to_nuts()"


@dataclass(frozen=True, kw_only=True)
class ImportanceWeights(Check):
    """Whether importance sampling can correct what is left between q and the posterior."""

    topic: ClassVar[Topic] = Topic.WEIGHTS

    # The weights are not trusted when the log weights of draws of q spread over more nats than this (sd). Gaussian log
    # weights with a standard deviation of 2.1 nats have k = 0.7.
    spread: float = 3.0
    # Nor are they trusted when the draws are worth fewer independent ones than this.
    effective: int = 100
    # The shape of the tail does not matter when the heaviest draw counts for fewer average draws than this.
    even: float = 10.0
    # The weights are not trusted when k-hat is this large.
    poor_k: float = 0.7
    # They are trusted all the same when k-hat is below 1 and the effective draws are more than this share of all: then
    # few draws stand for the tails of the posterior only.
    tails: float = 0.5
    # Importance sampling corrects q with a larger error when k-hat is this large.
    good_k: float = 0.5
    # It does so, too, when the effective draws are fewer than this share of all.
    share: float = 0.05

    def __call__(self, evidence: Evidence) -> Finding | None:
        """The first rule that the weights break."""
        k, n, spread = evidence.smoothed.k_hat, len(evidence.draws), evidence.log_weight_sd
        ess = evidence.effective_sample_size
        if spread > self.spread:
            words = f"the log weights spread over {spread:.1f} nats (sd): q and the posterior differ in shape"
            return Finding(Status.UNRELIABLE, words, RICHER)
        if ess < self.effective:
            return Finding(Status.UNRELIABLE, f"only {ess:.0f} effective draws out of {n}", RICHER)
        if n * np.exp(evidence.log_weights.max()) < self.even:
            return None
        if self.poor_k <= k < 1 and ess > self.tails * n:
            words = f"k-hat {k:.2f} is above {self.poor_k}, but the weights are even: few draws in the tails are heavy"
            return Finding(Status.USABLE, words)
        if k >= self.poor_k:
            words = f"k-hat {k:.2f} is above {self.poor_k}: some importance weights are too large to be trusted"
            return Finding(Status.UNRELIABLE, words, RICHER)
        if k >= self.good_k:
            return Finding(Status.USABLE, f"k-hat {k:.2f} is between {self.good_k} and {self.poor_k}")
        if ess < self.share * n:
            return Finding(Status.USABLE, f"only {ess:.0f} effective draws out of {n}")
        return None
