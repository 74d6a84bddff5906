"""Some draws at which the log density is not finite, because a constraint was forgotten, for example."""

from dataclasses import dataclass

import numpy as np

from bbvi.diagnostics.checks.base import Check, Evidence
from bbvi.outcome import Finding, Status


@dataclass(frozen=True, kw_only=True)
class Support(Check):
    """Whether some draws of q have no finite log density, and on which side of the others they lie."""

    def __call__(self, evidence: Evidence) -> Finding | None:
        """The finding, with the coordinate that tells these draws best from the others."""
        x, good = evidence.tried
        bad = ~good
        if not len(x) or not bad.any() or bad.all():
            return None
        good_x, bad_x = x[good], x[bad]
        apart = (bad_x.mean(axis=0) - good_x.mean(axis=0)) / np.maximum(good_x.std(axis=0), 1e-300)
        coordinate = int(np.argmax(np.abs(apart)))
        name = evidence.coordinate_name(coordinate)
        side = "low" if apart[coordinate] < 0 else "high"
        return Finding(
            Status.USABLE,
            f"the log density was not finite at {100 * bad.mean():.2g} % of the draws, first of all where {name} "
            f"(unconstrained) is {side}, around {bad_x[:, coordinate].mean():.3g}",
            f"constrain {name.split('[')[0]} to where the density is defined, or write it so that it is finite there",
        )
