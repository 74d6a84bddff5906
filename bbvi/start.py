"""Where to start.

A stochastic optimiser that starts far from the posterior, or in units that do not suit it, wastes its steps. So most
fits begin with a few quasi-Newton paths. They cost least when they only look for a mode; where that turns out to be a
spike, whose neighbourhood holds little of the posterior, they are climbed again and judged by ELBO along the way.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from bbvi.algorithms.base import Begin
from bbvi.algorithms.climb import NUM_DRAWS, Paths, climb, constant
from bbvi.algorithms.newton import Newton
from bbvi.compiling import program
from bbvi.distributions import FullRank
from bbvi.driver import Stop, begin, drive
from bbvi.problem import LONG, Problem

Array = Any
NUM_PATHS = 4  # one where vectors are long: each path remembers a dozen
POLISH = 40  # Newton steps at most
ATTEMPTS = 5  # sets of starting points tried before giving up
LOOKS = 8  # draws that tell a mode from a spike
SPIKE, SPIKE_PER_DIM = 3.0, 0.1  # nats by which the ELBO at a spike falls short of Laplace's estimate, at least


class Start(NamedTuple):
    """A Gaussian to start from, and what else was seen."""

    loc: Array  # (dim,)
    scale: Array  # (dim, dim) lower triangular, or (dim,) for a diagonal
    path_locs: np.ndarray  # (paths, dim) best mean on each path
    path_scales: np.ndarray  # (paths, dim, dim) or (paths, dim) its scale
    path_elbos: np.ndarray  # (paths,) its ELBO, descending, -inf for a path that failed
    log_densities: int  # evaluations without gradient
    gradients: int  # evaluations with gradient
    sampled: bool = False  # whether the paths have seen some rows of the data only

    def around(self, num: int) -> np.ndarray:
        """The mean and draws of the Gaussian, always the same, `(num, dim)`."""
        loc, scale = np.asarray(self.loc), np.asarray(self.scale)
        noise = np.random.default_rng(0).standard_normal((num, len(loc))).astype(loc.dtype)
        noise[0] = 0
        return loc + (noise @ scale.T if scale.ndim == 2 else noise * scale)


def find_start(problem: Problem, rng: np.random.Generator, point: np.ndarray | None, begins: Begin) -> Start:
    """Find a Gaussian from which to optimise.

    Arguments:
        point: where to look, `(dim,)`, or None for the origin and random points in [-2, 2]^dim.
        begins: what to find. At a point x it is N(x, I).

    Raises:
        FloatingPointError: when the log density is finite at no point tried.
    """
    dim, seen, evaluations = problem.dim, 0, 0
    for attempt in range(ATTEMPTS):
        xs = _starting_points(rng, dim, point, attempt)
        seen += len(xs)
        if begins is Begin.POINT:
            values = np.asarray(log_densities(problem, xs))
            finite = np.flatnonzero(np.isfinite(values))
            if len(finite):
                return Start(xs[finite[0]], np.ones(dim, xs.dtype), *_no_paths(dim), seen, 0)
            continue
        paths = _best_first(climb(problem, xs, pairs(rng, 0, xs)))
        evaluations += int(paths.evaluations)
        if begins is not Begin.MODE and np.isfinite(paths.elbo[0]):
            evaluations += LOOKS
            if _is_spike(problem, paths, rng):
                paths = _best_first(climb(problem, xs, pairs(rng, NUM_DRAWS, xs)))
                evaluations += int(paths.evaluations)
        if not np.isfinite(paths.value).any():
            continue
        loc, scale, elbo = paths.loc, paths.scale, paths.elbo
        if begins is not Begin.POLISHED or scale.ndim == 2:
            return Start(loc[0], scale[0], loc, scale, elbo, 0, evaluations)
        polished = polish(problem, loc[0], scale[0], rng)
        return Start(polished.loc, polished.scale, loc, scale, elbo, 0, evaluations + polished.gradients)
    where = "near the given init" if point is not None else "at the origin or at random points around it"
    raise FloatingPointError(
        f"logprob is not finite at any of the {seen} starting points tried {where}. Check the constraints of the "
        "parameters, or give init= a point at which it is finite."
    )


def pairs(rng: np.random.Generator, num: int, like: np.ndarray) -> np.ndarray:
    """Standard normal draws `(num, dim)` in antithetic pairs, for points like `(n, dim)`."""
    half = rng.standard_normal((num // 2, like.shape[1])).astype(like.dtype)
    return np.concatenate([half, -half])


def _best_first(paths: Paths) -> Paths:
    loc, scale, elbo, value, evaluations = jax.device_get(paths)
    order = np.lexsort((-value, -elbo))
    return Paths(loc[order], scale[order], elbo[order], value[order], evaluations)


def _is_spike(problem: Problem, paths: Paths, rng: np.random.Generator) -> bool:
    """Whether draws around the best mode have far less density than its curvature promises."""
    loc, scale = paths.loc[0], paths.scale[0]
    at_once = 2 if problem.is_long else LOOKS
    sets = (pairs(rng, at_once, paths.loc) for _ in range(LOOKS // at_once))
    elbo = np.mean([look_around(problem, loc, scale, noise)[1] for noise in sets])
    return not elbo > paths.elbo[0] - SPIKE - SPIKE_PER_DIM * problem.dim


@program
def look_around(problem: Problem, loc: Array, scale: Array, noise: Array) -> tuple[Array, Array]:
    """Log densities `(n,)` at loc + scale noise, in units of |scale|, and the ELBO of N(loc, scale scale^T).

    A draw without density makes either -inf.
    """
    values = problem.in_coordinates(loc, scale).log_densities(noise)
    return problem.layout.everywhere((values, values.mean() + constant(noise, problem.dim)))


class Polished(NamedTuple):
    """A Gaussian after Newton steps."""

    loc: Array  # (dim,)
    scale: Array  # (dim, dim) lower triangular
    elbo: float  # in nats, on the draws
    gradients: int  # evaluated


def polish(problem: Problem, loc: Array, scale: Array, rng: np.random.Generator) -> Polished:
    """The best Gaussian that Newton steps find from N(loc, scale scale^T), on draws made by `rng`."""
    newton = Newton()
    structure = FullRank(np.zeros_like(loc), np.zeros_like(scale))
    state = begin(newton, problem, structure, (loc, scale), newton.draws(rng, problem.dim))
    run = drive(newton, problem, state, 0, num_steps=POLISH)
    if run.stop is Stop.INTERRUPTED:
        raise KeyboardInterrupt
    gradients = int(run.history.gradients.sum())
    return Polished(np.asarray(run.state.loc), np.asarray(run.state.scale), float(run.state.elbo), gradients)


def start_at(loc: Array, scale: Array) -> Start:
    """A start that is known."""
    return Start(loc, scale, *_no_paths(len(loc)), 0, 0)


def _no_paths(dim: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.zeros((0, dim)), np.zeros((0, dim)), np.zeros(0)


def _starting_points(rng: np.random.Generator, dim: int, point: np.ndarray | None, attempt: int) -> np.ndarray:
    radius = 2.0 * 4.0 ** -(attempt % 3) if attempt < 3 else 2.0 * 4.0 ** (attempt - 2)
    xs = rng.uniform(-radius, radius, (NUM_PATHS if dim <= LONG else 1, dim))
    if len(xs) > 1:
        xs[1] = -xs[2]  # opposite starts are likelier to end in different modes
    if attempt == 0:
        xs[0] = 0
    if point is not None:
        xs = point + (0 if attempt == 0 else 0.01 * 4.0**attempt) * xs
        xs = xs[:1] if attempt == 0 else xs
    return xs.astype(jax.dtypes.canonicalize_dtype(float))


@program
def log_densities(problem: Problem, xs: Array) -> Array:
    """`problem.log_densities`, compiled."""
    return problem.layout.everywhere(problem.log_densities(xs))
