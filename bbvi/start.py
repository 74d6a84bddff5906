"""Where to start.

A stochastic optimiser that starts far from the posterior, or in units that do not suit it, wastes its steps. So most
fits begin with a few quasi-Newton paths. They cost least when they only look for a mode; where that turns out to be a
spike, whose neighbourhood holds little of the posterior, they are climbed again and judged by ELBO along the way.

Paths begin at the origin and at a few random points. Where the density is finite at none of these, many more are tried,
draws of the prior first where a model knows it: a value costs little, and the best ones begin the paths.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from bbvi.algorithms.base import Begin
from bbvi.algorithms.climb import MAX_ITERATIONS, NUM_DRAWS, Climb, Paths, climb, constant, set_out
from bbvi.algorithms.newton import Newton
from bbvi.compiling import program
from bbvi.deadline import OutOfTimeError, shorter
from bbvi.distributions import FullRank
from bbvi.driver import LOOK, Callback, Progress, begin, drive
from bbvi.evaluation import log_densities
from bbvi.outcome import Stop
from bbvi.problem import LONG, Problem

Array = Any
Prior = Callable[[int], np.ndarray | None]  # draws of the prior, `(n, dim)` for n, or None where it is not known
NUM_PATHS = 4  # one where vectors are long: each path remembers a dozen
POLISH = 40  # Newton steps at most
SET, SETS = 128, 10  # further points tried at once, and how often, before giving up
NUMBERS = 2**22  # in such a set, at most
RADII = (2.0, 0.5, 0.125, 8.0, 32.0)  # of the boxes in which they lie, one after the other
NEAR = 0.5  # half-width of the largest box around a point that is given
WAIT = 20.0  # seconds for a few iterations of one path, or a few draws, where a point may take for ever
NAMED = 5  # parameters named at most
LOOKS = 8  # draws that tell a mode from a spike
SPIKE, SPIKE_PER_DIM = 3.0, 0.1  # nats by which the ELBO at a spike falls short of Laplace's estimate, at least


@dataclass(frozen=True)
class Watch:
    """What is looked at between blocks of iterations.

    Fields:
        until: time of `time.perf_counter()`, in seconds, at which to stop with what there is.
        show: told how far the paths have come.
    """

    until: float = np.inf
    show: Sequence[Callback] = ()


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


def find_start(
    problem: Problem,
    rng: np.random.Generator,
    point: np.ndarray | None,
    begins: Begin,
    prior: Prior = lambda num: None,
    watch: Watch = Watch(),
) -> Start:
    """Find a Gaussian from which to optimise.

    Arguments:
        point: where to look, `(dim,)`, or None for the origin and random points in [-2, 2]^dim.
        begins: what to find. At a point x it is N(x, I).
        prior: further points to try. They come first where far out a point may take for ever.

    Raises:
        FloatingPointError: when the log density, or its gradient, is finite at no point tried.
        TimeoutError: when time is up before it was.
    """
    xs = _first_points(problem, rng, point, prior)
    try:
        start = _start_from(problem, rng, xs, begins, watch)
        if start is None:
            xs = _search(problem, rng, point, begins, prior, watch, len(xs))
            start = _start_from(problem, rng, xs, begins, watch)
    except OutOfTimeError as error:
        raise TimeoutError(
            "budget: not one point to start at was evaluated in time. Raise it, give init= a point where the log "
            "density is cheap, or let its loops end after a number of rounds."
        ) from error
    if start is None:
        raise FloatingPointError(
            "logprob is finite where paths begin, but nowhere along them. Give init= another point."
        )
    return start


def _start_from(
    problem: Problem, rng: np.random.Generator, xs: np.ndarray, begins: Begin, watch: Watch
) -> Start | None:
    """A start by way of the points `xs` `(n, dim)`, or None where the density is finite at none of them."""
    dim = problem.dim
    if begins is Begin.POINT:
        finite = np.flatnonzero(np.isfinite(np.asarray(log_densities(problem, xs))))
        return Start(xs[finite[0]], np.ones(dim, xs.dtype), *_no_paths(dim), len(xs), 0) if len(finite) else None
    paths = _best_first(_climb_apart(problem, xs, pairs(rng, 0, xs), watch))
    evaluations = int(paths.evaluations)
    late = time.perf_counter() > watch.until
    if begins is not Begin.MODE and np.isfinite(paths.elbo[0]) and not late:
        evaluations += LOOKS
        if _is_spike(problem, paths, rng):
            paths = _best_first(_climb_apart(problem, xs, pairs(rng, NUM_DRAWS, xs), watch))
            evaluations += int(paths.evaluations)
    if not np.isfinite(paths.value).any():
        return None
    loc, scale, elbo = paths.loc, paths.scale, paths.elbo
    if begins is not Begin.POLISHED or scale.ndim == 2 or late:
        return Start(loc[0], scale[0], loc, scale, elbo, 0, evaluations)
    polished = polish(problem, loc[0], scale[0], rng)
    return Start(polished.loc, polished.scale, loc, scale, elbo, 0, evaluations + polished.gradients)


def _patience(problem: Problem, seconds: float = WAIT) -> AbstractContextManager[None]:
    """Inside, a program is not waited for longer, where a point may take for ever."""
    return shorter(min(seconds, WAIT)) if problem.is_irregular else nullcontext()


def _climb_apart(problem: Problem, xs: np.ndarray, noise: np.ndarray, watch: Watch) -> Paths:
    """`_climb`; each path by itself where one may come to a point that takes for ever, which the others do without."""
    if not problem.is_irregular or problem.is_long:
        return _climb(problem, xs, noise, watch)
    found, late = [], None
    for i in range(len(xs)):
        share = (watch.until - time.perf_counter()) / (len(xs) - i)
        try:
            with _patience(problem, max(share, WAIT / 2)):  # the first one compiles
                found.append(_climb(problem, xs[i : i + 1], noise, watch))
        except OutOfTimeError as error:
            late = error
        if found and time.perf_counter() > watch.until:
            break
    if late is not None and not found:
        raise late
    columns = zip(*map(jax.device_get, found), strict=True)
    *rows, evaluations = ([np.asarray(each) for each in column] for column in columns)
    return Paths(*map(np.concatenate, rows), evaluations=np.sum(evaluations))


def _climb(problem: Problem, xs: np.ndarray, noise: np.ndarray, watch: Watch) -> Paths:
    """`climb` to its end, or as far as time allows, in blocks."""
    began, limit = time.perf_counter(), MAX_ITERATIONS if problem.is_long else 1
    under_way = None if problem.is_long else _nothing(xs.shape, xs.dtype, len(noise) > 0)
    found, unfinished, count = None, True, 0
    while unfinished and (found is None or time.perf_counter() < watch.until):
        tick = time.perf_counter()
        try:
            under_way, paths, more = _some_of_climb(problem, xs, noise, under_way, limit)
            found, unfinished = paths, bool(more)
        except OutOfTimeError:
            if found is None:
                raise
            break
        now = time.perf_counter()
        done, count = int(under_way.count) - count, int(under_way.count)
        limit = min(max(2, int(LOOK * done / max(now - tick, 1e-9))), 8 * limit)
        height = float(np.max(np.asarray(found.elbo)))
        for each in watch.show:
            each(Progress(count, MAX_ITERATIONS, height, np.nan, now - began, 0, None, "start"))
    assert found is not None
    return found


_some_of_climb = program(climb)


@cache
def _nothing(shape: tuple[int, int], dtype: Any, judged: bool) -> Climb:
    """In the shape of paths under way."""
    shapes = jax.eval_shape(partial(set_out, judged=judged), jax.ShapeDtypeStruct(shape, dtype))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def _first_points(problem: Problem, rng: np.random.Generator, point: np.ndarray | None, prior: Prior) -> np.ndarray:
    """The given point; or the origin and a few random ones, `(n, dim)`."""
    dtype = jax.dtypes.canonicalize_dtype(float)
    xs = _box(rng, NUM_PATHS if problem.dim <= LONG else 1, problem.dim, RADII[0])
    if point is not None:
        return point[None].astype(dtype)
    if len(xs) > 1:
        xs[1] = -xs[2]  # opposite starts are likelier to end in different modes
    xs[0] = 0
    drawn = prior(SET) if problem.is_irregular else None
    return (xs if drawn is None else drawn[: len(xs)]).astype(dtype)


def _box(rng: np.random.Generator, num: int, dim: int, radius: float) -> np.ndarray:
    return rng.uniform(-radius, radius, (num, dim))


def _search(
    problem: Problem,
    rng: np.random.Generator,
    point: np.ndarray | None,
    begins: Begin,
    prior: Prior,
    watch: Watch,
    seen: int,
) -> np.ndarray:
    """The best of many points, as many as there are paths, `(n, dim)`.

    Arguments:
        seen: points tried before.

    Raises:
        FloatingPointError: when the density is finite at none of them, or its gradient is at none of those.
    """
    wanted = 1 if begins is Begin.POINT or problem.dim > LONG else NUM_PATHS
    good, values, finite = np.zeros((0, problem.dim)), np.zeros(0), np.zeros((0, problem.dim))
    drawn = None if point is not None else prior(SET)
    for xs in _further_points(rng, problem.dim, point, drawn):
        try:
            with _patience(problem):
                here = np.asarray(log_densities(problem, xs))
        except OutOfTimeError:
            if not problem.is_irregular or time.perf_counter() > watch.until:
                raise
            continue
        seen, finite = seen + len(xs), np.concatenate([finite, xs[np.isfinite(here)]])
        if np.isfinite(here).any():
            kept = np.isfinite(here)
            if begins is not Begin.POINT:
                kept &= np.isfinite(np.asarray(_gradients(problem, xs))).all(axis=1)
            good, values = np.concatenate([good, xs[kept]]), np.concatenate([values, here[kept]])
        if len(good) >= wanted or time.perf_counter() > watch.until:
            break
    if not len(good):
        where = "near the given init" if point is not None else "at the origin or at random points around it"
        raise _not_finite(problem, finite, seen, where if drawn is None else where + " and draws of the prior")
    best = np.argsort(-values, kind="stable")
    return good[np.resize(best, wanted)].astype(jax.dtypes.canonicalize_dtype(float))


def _further_points(
    rng: np.random.Generator, dim: int, point: np.ndarray | None, drawn: np.ndarray | None
) -> Iterator[np.ndarray]:
    """Points to try, a set of them at a time: `drawn` ones, then in boxes around the origin or the given point."""
    size, dtype = int(np.clip(NUMBERS // dim, NUM_PATHS, SET)), jax.dtypes.canonicalize_dtype(float)
    if drawn is not None:
        yield drawn[:size].astype(dtype)
    for i in range(SETS):
        centre, radius = (0.0, RADII[i % len(RADII)]) if point is None else (point, NEAR * 0.5**i)
        yield (centre + _box(rng, size, dim, radius)).astype(dtype)


@program
def _gradients(problem: Problem, xs: Array) -> Array:
    """Gradients `(n, dim)` as they are, NaN where they are NaN."""
    return problem.layout.everywhere(jax.lax.map(jax.grad(problem.log_density), xs))


def _not_finite(problem: Problem, finite: np.ndarray, seen: int, where: str) -> FloatingPointError:
    """What to say when nothing can begin at any of the `seen` points, of which `finite` `(n, dim)` have a value."""
    if not len(finite):
        return FloatingPointError(
            f"logprob is not finite at any of the {seen} starting points tried {where}. Check the constraints of the "
            "parameters, or give init= a point at which it is finite."
        )
    gradients = np.asarray(_gradients(problem, finite[:SET].astype(jax.dtypes.canonicalize_dtype(float))))
    bad = (~np.isfinite(gradients)).mean(axis=0)
    names = [name for name, share in zip(problem.parameters.coordinate_names(), bad, strict=True) if share == bad.max()]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    kind = "NaN" if np.isnan(gradients).any() else "infinite"
    return FloatingPointError(
        f"logprob has a value at {len(finite)} starting points tried {where}, but its derivative with respect to "
        f"{', '.join(names[:NAMED])}{more} is {kind} at all of them. The usual cause is 0 log 0, sqrt(0) or 0 / 0 in a "
        "branch that jnp.where does not take: the gradient goes through both. Put the jnp.where around the argument, "
        "as in jnp.log(jnp.where(x > 0, x, 1.0))."
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
    """Whether draws around the best mode have far less density than its curvature promises, as far as time tells."""
    loc, scale = paths.loc[0], paths.scale[0]
    at_once = 2 if problem.is_long else LOOKS
    sets = (pairs(rng, at_once, paths.loc) for _ in range(LOOKS // at_once))
    try:
        with _patience(problem):
            elbo = np.mean([look_around(problem, loc, scale, noise)[1] for noise in sets])
    except OutOfTimeError:
        return False
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
