"""Mass too far away for any draw, as an improper posterior has beside a mode.

It is looked for on lines through draws, along coordinates and principal axes. Nearly every line through a random point
holds a finite mass if the density is proper, whatever its shape; one through the centre need not, for it may follow the
neck of a funnel. And by Chebyshev's inequality a share of 1/900 at most, on average over draws, lies beyond 30 standard
deviations, however heavy the tails.
"""

from typing import Any

import jax
import numpy as np

from bbvi.diagnostics.pareto import resample
from bbvi.evaluation import Draws, log_densities, pool_size
from bbvi.outcome import Finding, Status
from bbvi.problem import Problem
from bbvi.start import LOOKS, Start, look_around

Array = Any
BEYOND = 30.0  # standard deviations from a draw, from which nothing is left of a posterior that q fits;
FARTHEST = 1e12  # and up to which mass is looked for
DISTINCT = 100  # effective draws from which some of them stand for the posterior; with fewer the weights say enough
SLIGHT = -10.0  # log of a mass, relative to that near the draw, below which there is none
LINES = 64  # directions at most: along coordinates,
AXES = 4  # the last of them along the widest principal axes;
SEEN = 2**22  # and numbers in the points on all lines, at most;
RADII = 32  # distances in a close look
SUSPECTS = 4  # directions at most that are looked at closely,
WITNESSES = 8  # on lines through so many draws
NEAREST = 1e-4  # standard deviations from the draw at which a close look begins
FALLING = 12  # last points, over which p r falls unless the mass is infinite; they span six powers of ten
ELSEWHERE = 0.1  # share of the mass beyond all draws, from which q counts as wrong
PROPER = "check that the posterior is proper: the prior must keep every parameter from running off"


@np.errstate(all="ignore")  # far away numbers overflow
def mass_beyond(problem: Problem, start: Start, pool: Draws, log_weights: Array) -> Finding | None:
    """The finding if much mass lies too far away for any draw."""
    costly = 2 * pool.from_q.sum() <= pool_size(problem.dim)
    few = not np.sum(np.exp(2 * log_weights)) < 1 / DISTINCT
    if few or costly or problem.is_long or problem.is_irregular or problem.weight is not None:
        return None
    x = pool.x[pool.from_q]
    directions = _directions(problem, x)[: max(1, SEEN // (LOOKS * problem.dim))]
    draws = pool.take(resample(np.random.default_rng(0), log_weights, max(len(directions), WITNESSES)))
    look = _Line(problem, start)
    radii = np.array([BEYOND, 1e3, 1e6, FARTHEST])
    far = np.array([look(draws, i, step, radii).max() for i, step in enumerate(directions)])
    for i in np.argsort(-far, kind="stable")[:SUSPECTS]:
        finding = _beyond_draws(problem, look, draws, directions[i], x.std(axis=0)) if far[i] > SLIGHT else None
        if finding is not None:
            return finding
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


def _repeats(problem: Problem, draws: Draws, coordinate: int) -> bool:
    """Whether the density is the same one turn of a coordinate further, at several draws."""
    x = np.array(draws.x[:WITNESSES])
    further = x.copy()
    further[:, coordinate] += 2 * np.pi
    here, there = (np.asarray(log_densities(problem, points)) for points in (x, further))
    return bool(np.allclose(here, there, rtol=1e-4, atol=1e-3))


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


def _beyond_draws(problem: Problem, look: _Line, draws: Draws, step: Array, spread: Array) -> Finding | None:
    """The finding if much of the mass on lines through draws lies beyond all of them."""
    radii = np.geomspace(NEAREST, FARTHEST, RADII)
    at = np.array([np.logaddexp(*look(draws, i, step, radii)) for i in range(WITNESSES)])  # (draws, radii)
    within = radii < BEYOND
    centre = np.full((WITNESSES, 1), np.log(2 * NEAREST / np.log(radii[1] / radii[0])))
    near = np.logaddexp.reduce(np.concatenate([at[:, within], centre], axis=1), axis=1)
    far = np.logaddexp.reduce(at[:, ~within], axis=1)
    shares = np.exp(far - np.logaddexp(near, far))
    if not (shares.mean() > ELSEWHERE and np.median(shares) > ELSEWHERE / 2):
        return None
    coordinate = int(np.argmax(np.abs(step) / spread))
    name = problem.parameters.coordinate_names()[coordinate]
    if _repeats(problem, draws, coordinate):
        return Finding(
            Status.UNRELIABLE,
            f"the log density repeats itself with every turn of 2 pi of {name} (unconstrained)",
            f"say that {name.split('[')[0]} is an angle: numpyro.distributions.constraints.circular in constraints=",
            inherent=True,
        )
    if np.mean(at[:, -1] >= at[:, -FALLING]) > 0.5:
        return Finding(
            Status.UNRELIABLE,
            f"along a line, mostly {name} (unconstrained), the log density stays level up to {FARTHEST:.0e} standard "
            "deviations: the posterior has infinite mass",
            PROPER,
            inherent=True,
        )
    return Finding(
        Status.UNRELIABLE,
        f"about {100 * shares.mean():.0f} % of the posterior lies more than {BEYOND:.0f} standard deviations of q "
        f"away along a line, mostly {name} (unconstrained)",
        "check that the priors are as narrow as they should be, or give init= a point where the posterior has its mass",
    )
