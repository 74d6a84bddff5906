"""Log densities so large that floating-point numbers cannot tell their differences."""

from dataclasses import dataclass

import numpy as np

from bbvi.diagnostics.checks.base import Check, Evidence
from bbvi.outcome import Finding, Status


@dataclass(frozen=True, kw_only=True)
class Rounding(Check):
    """Whether the log density is rounded to more than a few hundredths of a nat."""

    # A rounding error of the log density is told when it has this many nats.
    usable: float = 0.05
    # The log weights mean nothing when the rounding error has this many nats.
    unreliable: float = 0.5

    def __call__(self, evidence: Evidence) -> Finding | None:
        """The finding, with a remedy that depends on the precision."""
        of_q = evidence.of_q
        finite = of_q.log_p[np.isfinite(of_q.log_p)]
        if not len(finite):
            return None
        error = float(np.finfo(of_q.x.dtype).eps * np.abs(finite).max())
        if error < self.usable:
            return None
        single = of_q.x.dtype == np.float32
        return Finding(
            Status.USABLE if error < self.unreliable else Status.UNRELIABLE,
            f"in {'single' if single else 'double'} precision the log density is rounded to about {error:.1g} nats",
            'use precision="double"' if single else "subtract a constant from the log density, or rescale it",
        )
