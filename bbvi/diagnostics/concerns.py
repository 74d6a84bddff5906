"""What speaks against a posterior besides its importance weights."""

from collections.abc import Callable

import numpy as np

from bbvi.algorithms.polish import polish
from bbvi.algorithms.start import Start
from bbvi.diagnostics.verdict import Concern, Status
from bbvi.evaluation import Draws
from bbvi.problem import Problem

RIVAL = 7.0  # nats by which another mode's ELBO may fall short and still matter: its weight is then e^-7
SUSPECT = 30.0  # the same before the other mode has been polished
OUTSIDE = 0.5  # standard deviations beyond the furthest draw, from which a point counts as outside


def find_concerns(problem: Problem, start: Start, pool: Draws, double: bool) -> list[Concern]:
    """Concerns about modes missed, draws without density and rounding."""
    pool = pool.take(pool.from_q)
    found = (_missed_mode(problem, start, pool), _non_finite(problem, pool), _rounding(pool, double))
    return [concern for concern in found if concern is not None]


def _missed_mode(problem: Problem, start: Start, pool: Draws) -> Concern | None:
    good = np.isfinite(pool.log_p)
    if not good.any() or not len(pool.x):
        return None
    elbo = np.mean(pool.log_p[good] - pool.log_q[good])
    whiten = _whitening(pool.x)
    reach = np.linalg.norm(whiten(pool.x), axis=1).max() + OUTSIDE
    for loc, scale, path_elbo in zip(start.path_locs, start.path_scales, start.path_elbos, strict=True):
        if path_elbo < elbo - SUSPECT:
            break  # the best path comes first
        if np.linalg.norm(whiten(loc)) > reach and scale.ndim == 2:
            polished = polish(problem, loc, scale, np.random.default_rng(0))
            loc, path_elbo = np.asarray(polished.loc), float(polished.elbo)
        if np.linalg.norm(whiten(loc)) > reach and path_elbo > elbo - RIVAL:
            centre, spread = pool.x.mean(axis=0), pool.x.std(axis=0)
            coordinate = int(np.argmax(np.abs(loc - centre) / spread))
            name = problem.parameters.coordinate_names()[coordinate]
            return Concern(
                Status.UNRELIABLE,
                f"another start ended in a different region of comparable density, with {name} (unconstrained) near "
                f"{loc[coordinate]:.3g} instead of {centre[coordinate]:.3g}: there are several modes, or a funnel",
                "compare fits from several init= points, break a symmetry with ordered constraints, or reparameterise",
            )
    return None


def _whitening(x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A map to coordinates in which the draws `x` `(n, dim)` have unit variances, and no correlations if n allows."""
    centre, spread = x.mean(axis=0), x.std(axis=0)
    n, dim = x.shape
    if dim > n // 10:
        return lambda points: (points - centre) / spread
    inverse = np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.corrcoef(x.T))))
    return lambda points: (points - centre) / spread @ inverse.T


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
        Status.USABLE,
        f"the log density was not finite at {100 * bad.mean():.2g} % of the draws, first of all where {name} "
        f"(unconstrained) is {side}, around {bad_x[:, coordinate].mean():.3g}",
        f"constrain {name.split('[')[0]} to where the density is defined, or write it so that it is finite there",
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
