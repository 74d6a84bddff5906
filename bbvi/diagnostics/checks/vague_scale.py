"""A standard deviation that rests on few far draws, as that of a parameter with heavy tails does.

On the constrained scale a parameter may have no variance although the importance weights are even. Then no
approximation helps, and quantiles describe the parameter better.
"""

from dataclasses import dataclass

import numpy as np

from bbvi.diagnostics.checks.base import Check, Evidence
from bbvi.draws.pareto import k_hat_of_square
from bbvi.outcome import Finding, Status


@dataclass(frozen=True, kw_only=True)
class VagueScale(Check):
    """Whether the standard deviation of a parameter, on the constrained scale, rests on few draws."""

    # Standard deviations are looked at when the draws are worth this many independent ones; where they are worth
    # fewer, the weights say enough by themselves.
    effective: int = 1000
    # The tails of a parameter are looked at when its standard deviation has a larger relative standard error.
    vague: float = 0.03
    # There may be no such error, nor a standard deviation, when k-hat of the squared deviations is larger.
    heavy: float = 0.7

    def __call__(self, evidence: Evidence) -> Finding | None:
        """The finding about the scalar parameter with the heaviest tails."""
        if evidence.effective_sample_size < self.effective:
            return None
        weights = np.exp(evidence.log_weights)
        kept = weights > 0
        weights = weights[kept] / weights[kept].sum()
        labels, columns = evidence.scalars(evidence.draws.x[kept])
        vague = np.flatnonzero(~(_relative_errors(columns, weights) <= self.vague))
        tails = [(k_hat_of_square(np.log(weights), columns[:, i]), labels[i], i) for i in vague]
        k_hat, name, i = max(tails, default=(0.0, "", 0))
        if k_hat <= self.heavy:
            return None
        positive = bool((columns[:, i] > 0).all())
        return Finding(
            Status.USABLE,
            f"the standard deviation of {name} rests on few far draws: k-hat of its square {k_hat:.2f}",
            f"describe {name} by quantiles" + (", or by the moments of its logarithm" if positive else ""),
            inherent=True,
        )


@np.errstate(all="ignore")  # a draw that overflows makes an error that is not a number
def _relative_errors(columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Relative standard errors `(k,)` of the standard deviations of weighted draws `(n, k)`."""
    squares = (columns - weights @ columns) ** 2
    variances = weights @ squares
    return np.sqrt(weights**2 @ (squares - variances) ** 2) / np.maximum(2 * variances, 1e-300)
