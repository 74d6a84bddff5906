"""Quasi-Newton paths to where a fit starts: Pathfinder, driven in blocks until it ends or time is up."""

import time
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import jax
import numpy as np

from bbvi.algorithms.numerics.draws import antithetic
from bbvi.algorithms.numerics.paths import missing_entropy
from bbvi.algorithms.numerics.quasi_newton import Dense, Limited
from bbvi.algorithms.pathfinder import Pathfinder, PathfinderState
from bbvi.distributions.affine import Affine
from bbvi.optimise import Allowance, Callback, Progress, Run, drive
from bbvi.outcome import Evaluations, Stop
from bbvi.policy import Regime
from bbvi.runtime.deadline import OutOfTimeError, shorter
from bbvi.start.record import Hints
from bbvi.target.problem import Problem

ITERATIONS = 300  # of a path at most
JUDGES = 4  # draws behind each ELBO along a path
WAIT = 20.0  # seconds for a few iterations of one path, or a few draws, where a point may take for ever


class Ends(NamedTuple):
    """What paths found; arrays of NumPy."""

    gaussians: tuple[Affine, ...]  # the best on each
    elbo: np.ndarray  # (paths,) of these, -inf for none
    value: np.ndarray  # (paths,) log density at the end of the path
    evaluations: Evaluations

    def best_first(self) -> "Ends":
        """The same paths by falling ELBO."""
        order = np.lexsort((-self.value, -self.elbo))
        gaussians = tuple(self.gaussians[i] for i in order)
        return Ends(gaussians, self.elbo[order], self.value[order], self.evaluations)

    def beside(self, other: "Ends") -> "Ends":
        """The paths of both, the best first."""
        elbo, value = np.concatenate([self.elbo, other.elbo]), np.concatenate([self.value, other.value])
        spent = self.evaluations + other.evaluations
        return Ends((*self.gaussians, *other.gaussians), elbo, value, spent).best_first()


def climb(problem: Problem, xs: np.ndarray, hints: Hints, *, judged: bool) -> Ends:
    """Paths from each of the points `xs` `(paths, dim)`, the best first.

    Each goes by itself where one may come to a point that takes for ever, which the others do without. One program
    serves for both kinds of paths.

    Arguments:
        judged: whether paths are judged by ELBO. Otherwise they end at the mode, and ELBOs are Laplace's estimates.
    """
    dim = problem.dim
    noise = antithetic(hints.rng, JUDGES, dim) if judged else np.zeros_like(xs, shape=(JUDGES, dim))
    if problem.is_long and not judged:
        noise = noise[:0]  # such vectors are not to be kept for nothing
    if not problem.is_irregular or problem.is_long:
        return _climb(problem, xs, noise, hints, judged).best_first()
    found, late = [], None
    for i in range(len(xs)):
        share = (hints.until - time.perf_counter()) / (len(xs) - i)
        try:
            with patience(problem, max(share, WAIT / 2)):  # the first one compiles
                found.append(_climb(problem, xs[i : i + 1], noise, hints, judged))
        except OutOfTimeError as error:
            late = error
        if found and time.perf_counter() > hints.until:
            break
    if late is not None and not found:
        raise late
    gaussians = tuple(ends.gaussians[0] for ends in found)
    elbo, value = (np.concatenate([getattr(ends, name) for ends in found]) for name in ("elbo", "value"))
    return Ends(gaussians, elbo, value, sum((ends.evaluations for ends in found), Evaluations())).best_first()


def patience(problem: Problem, seconds: float = WAIT) -> AbstractContextManager[None]:
    """Inside, a program is not waited for longer, where a point may take for ever."""
    return shorter(min(seconds, WAIT)) if problem.is_irregular else nullcontext()


def _climb(problem: Problem, xs: np.ndarray, noise: np.ndarray, hints: Hints, judged: bool) -> Ends:
    pathfinder = Pathfinder(num_paths=len(xs), num_draws=len(noise))
    kind = Dense if Regime.of(problem.dim).dense_start else Limited
    limits = Allowance(ITERATIONS, seconds=hints.until - time.perf_counter())
    told = [_as_start(each) for each in hints.callbacks]
    run = drive(pathfinder, problem, Run(pathfinder.from_points(xs, noise, kind, judged)), limits, callbacks=told)
    if run.stop is Stop.INTERRUPTED:
        raise KeyboardInterrupt
    if not run.step:
        raise OutOfTimeError("no iteration of a path was done by the deadline")
    return _ends(run, noise, problem.dim)


def _as_start(callback: Callback) -> Callback:
    def told(progress: Progress) -> None:
        callback(progress._replace(method="start", state=None))

    return told


def _ends(run: Run, noise: np.ndarray, dim: int) -> Ends:
    state: PathfinderState = jax.device_get(run.state)
    paths = state.paths
    elbo, locs, curvatures = paths.best if state.judged else (None, paths.x, paths.curvature)
    scales = [jax.tree.map(lambda leaf, i=i: leaf[i], curvatures).scale() for i in range(len(locs))]
    heights = paths.value + np.array([scale.log_det() for scale in scales]) if elbo is None else elbo
    gaussians = tuple(Affine(loc, scale) for loc, scale in zip(locs, scales, strict=True))
    return Ends(gaussians, np.asarray(heights) + missing_entropy(noise, dim), np.asarray(paths.value), run.evaluations)
