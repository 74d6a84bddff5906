"""What Laplace's approximation has to say of itself."""

from collections.abc import Sequence

import numpy as np

from bbvi.algorithms.curvature_at_mode import Curved
from bbvi.algorithms.numerics.trust_region import ESCAPED
from bbvi.outcome import Finding, Status
from bbvi.runtime.types import Array

NOISY = 0.2  # relative error of the diagonal by probes, from which it is worth a word


def about_mode(converged: bool, y: Array, radius: Array, count: Array) -> Sequence[Finding]:
    """Where a search ended that did not converge: at y, with a trust region of this radius, after `count` steps."""
    if converged:
        return ()
    far = float(np.abs(y).max())
    if far > ESCAPED or (far > 100 and radius < 1e-6):
        return (
            Finding(
                Status.UNRELIABLE,
                "the mode has run off: the density keeps rising towards the edge of what can be computed",
                'use method="newton" or "advi", which look at mass rather than height; a non-centred parameterisation '
                "often has a mode",
            ),
        )
    return (
        Finding(
            Status.USABLE,
            f"the search for the mode ended before it converged, after {int(count)} steps",
            "give init= a point near the mode, or look for kinks and discontinuities in the log density",
        ),
    )


def about_noise(noise: float) -> Sequence[Finding]:
    """A diagonal by random probes with this relative error."""
    if noise < NOISY:
        return ()
    reason = f"random probes leave a relative error of up to {noise:.2g} in the diagonal of the curvature"
    return (Finding(Status.USABLE, reason, "use the family Spiked with a larger rank, or 'full_rank'"),)


def about_repair(names: Sequence[str], found: Curved) -> Sequence[Finding]:
    """Directions whose curvature was not positive, by the names of the coordinates."""
    bad, directions = found.repaired, found.directions
    count = int(np.sum(bad))
    if not count:
        return ()
    if directions.size:
        words = [in_words(direction, names) for direction in directions[bad][:3]]
    else:
        words = [str(names[int(i)]) for i in np.flatnonzero(bad)[:3]]
    return (
        Finding(
            Status.USABLE,
            f"the curvature is not positive along {count} direction{'s' * (count > 1)} and was repaired: "
            + "; ".join(words)
            + ("; ..." if count > len(words) else ""),
            "a direction without curvature has no proper posterior, or the point is a saddle: check priors along it",
        ),
    )


def in_words(direction: np.ndarray, names: Sequence[str]) -> str:
    """A vector `(dim,)` as a combination of its largest coordinates, such as "0.98 mu - 0.17 tau"."""
    if not np.isfinite(direction).all():
        return "a direction that is not finite"
    unit = direction / np.abs(direction).max()
    largest = [i for i in np.argsort(-np.abs(unit))[:3] if abs(unit[i]) > 0.05]
    signs = ["" if unit[largest[0]] > 0 else "-", *(" + " if unit[i] > 0 else " - " for i in largest[1:])]
    return "".join(f"{sign}{abs(unit[i]):.2g} {names[i]}" for sign, i in zip(signs, largest, strict=True))
