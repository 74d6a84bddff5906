"""Where to start.

A stochastic optimiser that starts far from the posterior, or in units that do not suit it, wastes its steps. So most
fits begin with a few quasi-Newton paths. They cost least when they only look for a mode; where that turns out to be a
spike, whose neighbourhood holds little of the posterior, they are climbed again and judged by ELBO along the way.
"""

import time

import numpy as np

from bbvi.algorithms.base import Initialisation
from bbvi.draws.importance import log_densities
from bbvi.outcome import Evaluations
from bbvi.runtime.deadline import OutOfTimeError
from bbvi.start.bulk import LOOKS, is_spike, polish
from bbvi.start.paths import climb
from bbvi.start.record import Hints, Start, start_at_point
from bbvi.start.search import far_points, first_points, further_points, looks_far
from bbvi.target.problem import Problem


def find_start(problem: Problem, kind: Initialisation, hints: Hints) -> Start:
    """Find a Gaussian from which to optimise.

    Arguments:
        kind: what to find. At a point x it is N(x, I).

    Raises:
        FloatingPointError: when the log density, or its gradient, is finite at no point tried.
        TimeoutError: when time is up before it was.
    """
    xs = first_points(problem, hints)
    try:
        start = _start_from(problem, xs, kind, hints)
        if start is None:
            xs = further_points(problem, hints, len(xs), with_gradient=kind is not Initialisation.POINT)
            start = _start_from(problem, xs, kind, hints)
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


def _start_from(problem: Problem, xs: np.ndarray, kind: Initialisation, hints: Hints) -> Start | None:
    """A start by way of the points `xs` `(n, dim)`, or None where the density is finite at none of them."""
    if kind is Initialisation.POINT:
        finite = np.flatnonzero(np.isfinite(np.asarray(log_densities(problem, xs))))
        return start_at_point(xs[finite[0]], Evaluations(log_densities=len(xs))) if len(finite) else None
    ends, judged, spike = climb(problem, xs, hints, judged=False), False, None
    spent = ends.evaluations
    late = time.perf_counter() > hints.until
    if kind is not Initialisation.MODE and np.isfinite(ends.elbo[0]) and not late:
        spent += Evaluations(gradients=LOOKS)
        if is_spike(problem, ends, hints.rng):
            spike = ends.gaussians[0]
            ends, judged = climb(problem, xs, hints, judged=True), True
            spent += ends.evaluations
    if not np.isfinite(ends.value).any():
        return None
    gaussian = ends.gaussians[0]
    if looks_far(problem, kind, hints) and not late:
        far = climb(problem, far_points(gaussian, len(xs), hints.rng), hints, judged=judged)
        ends, spent = ends.beside(far), spent + far.evaluations
    if kind is Initialisation.POLISHED and gaussian.is_dense and not late:
        polished = polish(problem, gaussian, hints.rng)
        gaussian, spent = polished.gaussian, spent + polished.evaluations
    return Start(gaussian, ends.gaussians, ends.elbo, spent, spike)
