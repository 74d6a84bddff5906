"""What speaks against a posterior besides its importance weights."""

import numpy as np

from bbvi.algorithms.start import Start
from bbvi.diagnostics.verdict import Concern, Status
from bbvi.evaluation import Draws
from bbvi.problem import Problem

RIVAL = 10.0  # nats by which another mode's ELBO may fall short and still matter
OUTSIDE = 3.0  # nats of log q below the least likely draw, from which a point counts as outside q


def concerns(problem: Problem, start: Start, pool: Draws, double: bool) -> tuple[Concern, ...]:
    """Concerns about modes missed, draws without density and rounding."""
    found = (_missed_modes(problem, start, pool), _non_finite(problem, pool), _rounding(pool, double))
    return tuple(concern for concern in found if concern is not None)


def _missed_modes(problem: Problem, start: Start, pool: Draws) -> Concern | None:
    rivals = start.path_elbos > np.mean(pool.log_p[np.isfinite(pool.log_p)] - pool.log_q[np.isfinite(pool.log_p)]) - RIVAL
    if not rivals.any() or not len(pool.x):
        return None
    # Outside: further from the draws than they are from each other, in the draws' own metric.
    centre, spread = pool.x.mean(axis=0), pool.x.std(axis=0)
    far = np.abs((start.path_locs - centre) / spread).max(axis=1) > np.abs((pool.x - centre) / spread).max() + OUTSIDE
    missed = rivals & far
    if not missed.any():
        return None
    at = start.path_locs[np.argmax(missed)]
    coordinate = int(np.argmax(np.abs(at - centre) / spread))
    name = problem.parameters.coordinate_names()[coordinate]
    return Concern(
        Status.UNRELIABLE,
        f"another start ended in a different region of comparable density, with {name} (unconstrained) near {at[coordinate]:.3g} "
        f"instead of {centre[coordinate]:.3g}: the posterior may have several modes",
        "compare fits from several init= points, or break the symmetry with ordered constraints",
    )


def _non_finite(problem: Problem, pool: Draws) -> Concern | None:
    bad = ~np.isfinite(pool.log_p)
    if not bad.any() or bad.all() or not len(pool.x):
        return None
    good_x, bad_x = pool.x[~bad], pool.x[bad]
    apart = (bad_x.mean(axis=0) - good_x.mean(axis=0)) / np.maximum(good_x.std(axis=0), 1e-300)
    coordinate = int(np.argmax(np.abs(apart)))
    name = problem.parameters.coordinate_names()[coordinate]
    side = "low" if apart[coordinate] < 0 else "high"
    return Concern(
        Status.USABLE if bad.mean() < 0.5 else Status.UNRELIABLE,
        f"the log density was not finite at {100 * bad.mean():.2g} % of the draws, first of all where {name} "
        f"(unconstrained) is {side}, around {bad_x[:, coordinate].mean():.3g}",
        f"constrain {name.split('[')[0]} to where the density is defined, or write the density so that it is finite there",
    )


def _rounding(pool: Draws, double: bool) -> Concern | None:
    finite = pool.log_p[np.isfinite(pool.log_p)]
    if double or not len(finite):
        return None
    error = float(np.finfo(np.float32).eps * np.abs(finite).max())
    if error < 0.05:
        return None
    return Concern(
        Status.USABLE if error < 0.5 else Status.UNRELIABLE,
        f"in single precision the log density is rounded to about {error:.1g} nats",
        'use precision="double"',
    )
