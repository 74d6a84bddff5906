"""What speaks against a posterior besides its importance weights.

Each check is a function that returns a `Finding` or None.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from bbvi.diagnostics.pareto import k_hat_of_square, smooth
from bbvi.diagnostics.reach import PROPER, mass_beyond
from bbvi.distributions import Distribution
from bbvi.evaluation import Draws, log_densities, pieces
from bbvi.outcome import Finding, Status
from bbvi.parameters import label
from bbvi.problem import Problem
from bbvi.start import Start, polish

Array = Any
RIVAL = 7.0  # nats by which another mode's ELBO may fall short and still matter: its weight is then e^-7
SUSPECT = 30.0  # the same before the other mode has been polished
FAR = 1e30  # a draw beyond which q has run off
LATE = 100  # steps in the last quarter of a run, from which a rising ELBO is judged
TOO_NARROW = 4.0  # weighted variance, over that of q, from which q counts as too narrow,
MANY = 20  # when that many draws contribute to it;
MAYBE_NARROW = 2.0  # and from which the density along the direction is looked at, if they do not,
LINE = 12.0  # to so many standard deviations of q on both sides
ENOUGH = 1000  # effective draws from which standard deviations are looked at
VAGUE = 0.03  # relative standard error of a standard deviation, from which its tails are looked at;
HEAVY = 0.7  # k-hat of the squared deviations, from which there may be no such error, nor a standard deviation
OUTSIDE = 0.5  # standard deviations beyond the furthest draw, from which a point counts as outside


def examine(problem: Problem, q: Distribution, start: Start, pool: Draws, elbo: np.ndarray) -> list[Finding]:
    """Concerns about posteriors that are improper, modes missed, draws without density and rounding.

    Arguments:
        elbo: estimates at each step, `(steps,)`.
    """
    of_q = pool.take(pool.from_q)
    ran_off = _ran_off(of_q, elbo)
    if ran_off is not None:
        return [ran_off]
    log_weights = smooth(pool.log_p - pool.log_r).log_weights
    found = (
        _missed_mode(problem, start, of_q),
        _too_narrow(problem, q, pool, log_weights),
        mass_beyond(problem, start, pool, log_weights),
        _non_finite(problem, of_q),
        _rounding(of_q),
        _vague_scale(problem, pool, log_weights),
    )
    return [finding for finding in found if finding is not None]


def _ran_off(pool: Draws, elbo: np.ndarray) -> Finding | None:
    """A posterior that is improper lets q grow, or travel, for ever."""
    if not max(np.abs(piece).max(initial=0) for piece in pieces(pool.x)) < FAR:
        return Finding(Status.UNRELIABLE, "the approximation has run off to infinity, or grown without bound", PROPER)
    quarter = len(elbo) // 4
    if quarter < LATE:
        return None
    before, last = elbo[-2 * quarter : -quarter], elbo[-quarter:]
    gain = last.mean() - before.mean()
    if gain > max(1.0, 5 * (before.std() + last.std()) / quarter**0.5):
        return Finding(
            Status.UNRELIABLE, f"the ELBO was still rising, by {gain:.3g} nats, when optimisation ended", PROPER
        )
    return None


def _missed_mode(problem: Problem, start: Start, pool: Draws) -> Finding | None:
    good = np.isfinite(pool.log_p)
    if not good.any() or not len(pool.x) or problem.is_long:  # then there is but one path
        return None
    elbo = np.mean(pool.log_p[good] - pool.log_q[good])
    whiten = _whitening(pool.x)
    reach = np.linalg.norm(whiten(pool.x), axis=1).max() + OUTSIDE
    for loc, scale, path_elbo in zip(start.path_locs, start.path_scales, start.path_elbos, strict=True):
        if path_elbo < elbo - SUSPECT:
            break  # the best path comes first
        if np.linalg.norm(whiten(loc)) > reach and scale.ndim == 2 and not start.sampled:
            polished = polish(problem, loc, scale, np.random.default_rng(0))
            loc, path_elbo = polished.loc, polished.elbo
        if np.linalg.norm(whiten(loc)) > reach and path_elbo > elbo - RIVAL:
            centre, spread = pool.x.mean(axis=0), pool.x.std(axis=0)
            coordinate = int(np.argmax(np.abs(loc - centre) / spread))
            name = problem.parameters.coordinate_names()[coordinate]
            return Finding(
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
    eigenvalues, vectors = np.linalg.eigh(np.atleast_2d(np.corrcoef(x.T)))
    inverse = vectors / np.sqrt(np.maximum(eigenvalues, 1e-12))
    return lambda points: (points - centre) / spread @ inverse


def _too_narrow(problem: Problem, q: Distribution, pool: Draws, log_weights: Array) -> Finding | None:
    """A posterior much wider than q along some direction may go on beyond the reach of any draw."""
    nearest = np.asarray(q.nearest(pool.x))
    for component in np.unique(nearest):
        part = pool.take(nearest == component)
        weights = np.exp(log_weights[nearest == component])
        if not weights.sum() > 0 or part.from_q.sum() < 10 * problem.dim:
            continue
        weights = weights / weights.sum()
        enough = 1 / np.sum(weights**2) / max(20, 2 * problem.dim)
        z = _whitening(part.x[part.from_q])(part.x)
        z = z - weights @ z
        variances, vectors = np.linalg.eigh((weights[:, None] * z).T @ z)
        if enough < 1 or variances[-1] < MAYBE_NARROW:
            continue
        parts = weights * (z @ vectors[:, -1]) ** 2
        certain = variances[-1] > TOO_NARROW and 1 / np.sum((parts / parts.sum()) ** 2) > MANY
        if not certain and not _wide_along(problem, part.x, weights, z @ vectors[:, -1]):
            continue
        spread = part.x[part.from_q].std(axis=0)
        along = np.abs((weights * (z @ vectors[:, -1])) @ (part.x / spread))
        name = problem.parameters.coordinate_names()[int(np.argmax(along))]
        return Finding(
            Status.UNRELIABLE,
            f"the weighted draws are {variances[-1] ** 0.5:.1f} times as wide as q along a direction, mostly {name} "
            "(unconstrained): the posterior may reach further than any draw",
            'use method="newton" or "advi", which widen q until it fits, or a richer family',
        )
    return None


def _wide_along(problem: Problem, x: Array, weights: Array, along: Array) -> bool:
    """Whether the posterior is wide along a line: that on which draws with a coordinate `along` `(n,)` lie on average.

    Arguments:
        x: draws `(n, dim)`.
        weights: theirs, `(n,)`, which sum to 1.
        along: a linear function of x with weighted mean 0, in standard deviations of q.
    """
    slope = (weights * along) @ x / (weights @ along**2)
    steps = np.linspace(-LINE, LINE, 64)
    values = np.asarray(log_densities(problem, (weights @ x + steps[:, None] * slope).astype(x.dtype)))
    mass = np.exp(np.nan_to_num(values - np.nanmax(values), nan=-np.inf))
    mean = np.average(steps, weights=mass)
    return bool(np.average((steps - mean) ** 2, weights=mass) > TOO_NARROW)


def _non_finite(problem: Problem, pool: Draws) -> Finding | None:
    bad = ~np.isfinite(pool.log_p)
    if not bad.any() or bad.all() or not len(pool.x):
        return None
    good_x, bad_x = pool.x[~bad], pool.x[bad]
    apart = (bad_x.mean(axis=0) - good_x.mean(axis=0)) / np.maximum(good_x.std(axis=0), 1e-300)
    coordinate = int(np.argmax(np.abs(apart)))
    name = problem.parameters.coordinate_names()[coordinate]
    side = "low" if apart[coordinate] < 0 else "high"
    return Finding(
        Status.USABLE,
        f"the log density was not finite at {100 * bad.mean():.2g} % of the draws, first of all where {name} "
        f"(unconstrained) is {side}, around {bad_x[:, coordinate].mean():.3g}",
        f"constrain {name.split('[')[0]} to where the density is defined, or write it so that it is finite there",
    )


def _rounding(pool: Draws) -> Finding | None:
    finite = pool.log_p[np.isfinite(pool.log_p)]
    if not len(finite):
        return None
    error = float(np.finfo(pool.x.dtype).eps * np.abs(finite).max())
    if error < 0.05:
        return None
    single = pool.x.dtype == np.float32
    return Finding(
        Status.USABLE if error < 0.5 else Status.UNRELIABLE,
        f"in {'single' if single else 'double'} precision the log density is rounded to about {error:.1g} nats",
        'use precision="double"' if single else "subtract a constant from the log density, or rescale it",
    )


def _vague_scale(problem: Problem, pool: Draws, log_weights: Array) -> Finding | None:
    """A standard deviation that rests on few far draws, as that of a parameter with heavy tails does."""
    weights = np.exp(log_weights)
    few = 1 / np.sum(weights**2) < ENOUGH if np.isfinite(log_weights).any() else True
    if few:  # then the weights say enough by themselves
        return None
    kept = weights > 0
    weights = weights[kept] / weights[kept].sum()
    found = (HEAVY, "")
    parameters = replace(problem.parameters, turns=False)
    for name, values in parameters.named(parameters.structure(pool.x[kept])).items():
        columns = np.reshape(values, (len(weights), -1)).astype(float)
        with np.errstate(all="ignore"):  # a draw that overflows makes an error that is not a number
            squares = (columns - weights @ columns) ** 2
            variances = weights @ squares
            errors = np.sqrt(weights**2 @ (squares - variances) ** 2) / np.maximum(2 * variances, 1e-300)
        for i in np.flatnonzero(~(errors <= VAGUE)):
            scalar = label(name, np.unravel_index(i, values.shape[1:]))
            found = max(found, (k_hat_of_square(np.log(weights), columns[:, i]), scalar))
    k_hat, name = found
    if not name:
        return None
    positive = bool((parameters.named(parameters.structure(pool.x[kept]))[name.split("[")[0]] > 0).all())
    return Finding(
        Status.USABLE,
        f"the standard deviation of {name} rests on few far draws: k-hat of its square {k_hat:.2f}",
        f"describe {name} by quantiles" + (", or by the moments of its logarithm" if positive else ""),
        inherent=True,
    )
