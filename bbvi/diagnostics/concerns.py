"""What speaks against a posterior besides its importance weights.

Each check is a function that returns a `Concern` or None.
"""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bbvi.concern import Concern, Status
from bbvi.diagnostics.pareto import resample, smooth
from bbvi.distributions import Distribution
from bbvi.evaluation import Draws, pool_size
from bbvi.problem import Problem
from bbvi.start import HUGE, LOOKS, Start, log_densities, look_around, polish

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
BEYOND = 30.0  # standard deviations from a draw, from which nothing is left of a posterior that q fits;
FARTHEST = 1e12  # and up to which mass is looked for
DISTINCT = 100  # effective draws from which some of them stand for the posterior; with fewer the weights say enough
SLIGHT = -10.0  # log of a mass, relative to that near the draw, below which there is none
LINES = 128  # directions at most: along coordinates,
AXES = 4  # the last of them along the widest principal axes;
SEEN = 2**22  # and numbers in the points on all lines, at most;
RADII = 32  # distances in a close look
SUSPECTS = 4  # directions at most that are looked at closely,
WITNESSES = 8  # on lines through so many draws
NEAREST = 1e-4  # standard deviations from the draw at which a close look begins
FALLING = 12  # last points, over which p r falls unless the mass is infinite; they span six powers of ten
ELSEWHERE = 0.1  # share of the mass beyond all draws, from which q counts as wrong
PROPER = "check that the posterior is proper: the prior must keep every parameter from running off"


def find_concerns(problem: Problem, q: Distribution, start: Start, pool: Draws, elbo: np.ndarray) -> list[Concern]:
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
        _goes_on(problem, start, pool, log_weights),
        _non_finite(problem, of_q),
        _rounding(of_q),
        _vague_scale(problem, pool, log_weights),
    )
    return [concern for concern in found if concern is not None]


def _ran_off(pool: Draws, elbo: np.ndarray) -> Concern | None:
    """A posterior that is improper lets q grow, or travel, for ever."""
    if not np.abs(pool.x).max(initial=0) < FAR:
        return Concern(Status.UNRELIABLE, "the approximation has run off to infinity, or grown without bound", PROPER)
    quarter = len(elbo) // 4
    if quarter < LATE:
        return None
    before, last = elbo[-2 * quarter : -quarter], elbo[-quarter:]
    gain = last.mean() - before.mean()
    if gain > max(1.0, 5 * (before.std() + last.std()) / quarter**0.5):
        return Concern(
            Status.UNRELIABLE, f"the ELBO was still rising, by {gain:.3g} nats, when optimisation ended", PROPER
        )
    return None


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
        if np.linalg.norm(whiten(loc)) > reach and scale.ndim == 2 and not start.sampled:
            polished = polish(problem, loc, scale, np.random.default_rng(0))
            loc, path_elbo = polished.loc, polished.elbo
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
    eigenvalues, vectors = np.linalg.eigh(np.atleast_2d(np.corrcoef(x.T)))
    inverse = vectors / np.sqrt(np.maximum(eigenvalues, 1e-12))
    return lambda points: (points - centre) / spread @ inverse


def _too_narrow(problem: Problem, q: Distribution, pool: Draws, log_weights: Array) -> Concern | None:
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
        return Concern(
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


@np.errstate(all="ignore")  # far away numbers overflow
def _goes_on(problem: Problem, start: Start, pool: Draws, log_weights: Array) -> Concern | None:
    """Mass too far away for any draw, as an improper posterior has beside a mode.

    It is looked for on lines through draws, along coordinates and principal axes. Nearly every line through a random
    point holds a finite mass if the density is proper, whatever its shape; one through the centre need not, for it may
    follow the neck of a funnel. And by Chebyshev's inequality a share of 1/900 at most, on average over draws, lies
    beyond 30 standard deviations, however heavy the tails.
    """
    costly = 2 * pool.from_q.sum() <= pool_size(problem.dim)
    few = not np.sum(np.exp(2 * log_weights)) < 1 / DISTINCT
    if few or costly or problem.dim > HUGE or problem.weight is not None:
        return None
    x = pool.x[pool.from_q]
    directions = _directions(problem, x)[: max(1, SEEN // (LOOKS * problem.dim))]
    draws = pool.take(resample(np.random.default_rng(0), log_weights, max(len(directions), WITNESSES)))
    look = _Line(problem, start)
    radii = np.array([BEYOND, 1e3, 1e6, FARTHEST])
    far = np.array([look(draws, i, step, radii).max() for i, step in enumerate(directions)])
    for i in np.argsort(-far, kind="stable")[:SUSPECTS]:
        concern = _beyond_draws(problem, look, draws, directions[i], x.std(axis=0)) if far[i] > SLIGHT else None
        if concern is not None:
            return concern
    return None


class _Line:
    """Looks at a log density along lines through draws, by a program that the start has compiled as a rule."""

    def __init__(self, problem: Problem, start: Start) -> None:
        self._problem = problem
        dtype = start.loc.dtype
        whole = start.path_scales.ndim == 3
        self._scale = jax.device_put(np.eye(problem.dim, dtype=dtype) if whole else np.ones(problem.dim, dtype))

    def __call__(self, draws: Draws, i: int, step: np.ndarray, radii: np.ndarray) -> np.ndarray:
        """The log of the mass `(2, n)` near radii `(n,)` times `step` `(dim,)` on both sides of a draw.

        It is p r, in units of one step and of p at the draw.
        """
        offsets = np.concatenate([-radii, radii])
        x = draws.x[i]
        noise = (offsets[:, None] * step).astype(x.dtype)
        parts = [noise[k : k + LOOKS] for k in range(0, len(noise), LOOKS)]
        values = np.concatenate([look_around(self._problem, x, self._scale, part)[0] for part in parts])
        masses = values.astype(float) - draws.log_p[i] + np.log(np.abs(offsets))
        lost = (x + noise == x).all(axis=1)  # steps lost in rounding
        return np.where(lost, -np.inf, masses).reshape(2, -1)


def _directions(problem: Problem, x: Array) -> Array:
    """Standard deviations of draws `x` along coordinates, taken from each parameter in turn, and along principal axes.

    Returns:
        Steps `(m, dim)`.
    """
    (n, dim), spread = x.shape, x.std(axis=0)
    turn = np.concatenate([np.arange(np.prod(shape, dtype=int)) for shape in problem.parameters.free_shapes])
    chosen = np.argsort(turn, kind="stable")[:LINES]
    steps = np.zeros((len(chosen), dim))
    steps[np.arange(len(chosen)), chosen] = spread[chosen]
    if dim == 1 or dim > n // 10:
        return steps
    variances, vectors = np.linalg.eigh(np.cov(x / spread, rowvar=False))
    widest = np.sqrt(variances[-AXES:]) * vectors[:, -AXES:]
    return np.concatenate([steps[: LINES - AXES], widest.T * spread])


def _beyond_draws(problem: Problem, look: _Line, draws: Draws, step: Array, spread: Array) -> Concern | None:
    """The concern if much of the mass on lines through draws lies beyond all of them."""
    radii = np.geomspace(NEAREST, FARTHEST, RADII)
    at = np.array([np.logaddexp(*look(draws, i, step, radii)) for i in range(WITNESSES)])  # (draws, radii)
    within = radii < BEYOND
    centre = np.full((WITNESSES, 1), np.log(2 * NEAREST / np.log(radii[1] / radii[0])))
    near = np.logaddexp.reduce(np.concatenate([at[:, within], centre], axis=1), axis=1)
    far = np.logaddexp.reduce(at[:, ~within], axis=1)
    shares = np.exp(far - np.logaddexp(near, far))
    if not (shares.mean() > ELSEWHERE and np.median(shares) > ELSEWHERE / 2):
        return None
    name = problem.parameters.coordinate_names()[int(np.argmax(np.abs(step) / spread))]
    if np.mean(at[:, -1] >= at[:, -FALLING]) > 0.5:
        return Concern(
            Status.UNRELIABLE,
            f"along a line, mostly {name} (unconstrained), the log density stays level up to {FARTHEST:.0e} standard "
            "deviations: the posterior has infinite mass",
            PROPER,
            inherent=True,
        )
    return Concern(
        Status.UNRELIABLE,
        f"about {100 * shares.mean():.0f} % of the posterior lies more than {BEYOND:.0f} standard deviations of q "
        f"away along a line, mostly {name} (unconstrained)",
        "check that the priors are as narrow as they should be, or give init= a point where the posterior has its mass",
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
        Status.USABLE,
        f"the log density was not finite at {100 * bad.mean():.2g} % of the draws, first of all where {name} "
        f"(unconstrained) is {side}, around {bad_x[:, coordinate].mean():.3g}",
        f"constrain {name.split('[')[0]} to where the density is defined, or write it so that it is finite there",
    )


def _rounding(pool: Draws) -> Concern | None:
    finite = pool.log_p[np.isfinite(pool.log_p)]
    if not len(finite):
        return None
    error = float(np.finfo(pool.x.dtype).eps * np.abs(finite).max())
    if error < 0.05:
        return None
    single = pool.x.dtype == np.float32
    return Concern(
        Status.USABLE if error < 0.5 else Status.UNRELIABLE,
        f"in {'single' if single else 'double'} precision the log density is rounded to about {error:.1g} nats",
        'use precision="double"' if single else "subtract a constant from the log density, or rescale it",
    )


def _vague_scale(problem: Problem, pool: Draws, log_weights: Array) -> Concern | None:
    """A standard deviation that rests on few far draws, as that of a parameter with heavy tails does."""
    weights = np.exp(log_weights)
    few = 1 / np.sum(weights**2) < ENOUGH if np.isfinite(log_weights).any() else True
    if few:  # then the weights say enough by themselves
        return None
    kept = weights > 0
    weights = weights[kept] / weights[kept].sum()
    found = (HEAVY, "")
    for name, values in problem.parameters.named(problem.parameters.structure(pool.x[kept])).items():
        columns = np.reshape(values, (len(weights), -1)).astype(float)
        with np.errstate(all="ignore"):  # a draw that overflows makes an error that is not a number
            squares = (columns - weights @ columns) ** 2
            variances = weights @ squares
            errors = np.sqrt(weights**2 @ (squares - variances) ** 2) / np.maximum(2 * variances, 1e-300)
        for i in np.flatnonzero(~(errors <= VAGUE)):
            index = "".join(f"[{k}]" for k in np.unravel_index(i, values.shape[1:]))
            with np.errstate(all="ignore"):
                k_hat = smooth(np.log(weights * squares[:, i])).k_hat
            found = max(found, (np.inf if np.isnan(k_hat) else k_hat, name + index))
    k_hat, name = found
    if not name:
        return None
    return Concern(
        Status.USABLE,
        f"the standard deviation of {name} rests on few far draws: k-hat of its square {k_hat:.2f}",
        f"describe {name} by quantiles, or by the moments of its logarithm",
        inherent=True,
    )
