"""A climb to the mode of the hyper-parameters, one at a time: for hierarchies so large that each of them is dear.

BFGS within a trust region, from one mode of the latent coordinates to the next. It ends where little is left to gain,
and its inverse Hessian is the covariance to begin with. A mode may be a spike that holds little of the posterior, so
that the climb only counts where the mass beneath its end, by Laplace's method, is more than at its beginning.

Reference: Nocedal and Wright 2006, chapters 4 and 6.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np

from bbvi.distributions.affine import Affine
from bbvi.distributions.hierarchical import Hierarchical
from bbvi.distributions.scales import Triangular
from bbvi.nested.marginal import log_marginal
from bbvi.outcome import Evaluations
from bbvi.runtime.compiling import program
from bbvi.runtime.deadline import OutOfTimeError
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

MOST_VISITS = 60
LITTLE_GAIN = 0.02  # nats of the predicted gain, at which a climb ends


class _Visit(NamedTuple):
    """What is found at some hyper-parameters."""

    value: Array  # () log marginal density
    slope: Array  # (k,)
    found: Array  # () bool, whether there is a mode of the others
    z: Array  # (places,) that mode
    rounds: Array  # () Newton steps

    @property
    def is_good(self) -> bool:
        return bool(self.found and np.isfinite(self.value) and np.isfinite(self.slope).all())


def climb(problem: Problem, q: Hierarchical) -> tuple[Hierarchical, Evaluations]:
    """q with the hyper-parameters near the mode of their marginal density, and the others at their mode given these."""
    here, sd = np.asarray(q.hyper.loc), np.asarray(q.hyper.scale.sd())
    rounds, visits = 0, 0

    def visit(phi: np.ndarray, z: Array) -> _Visit:
        nonlocal rounds, visits
        made = jax.device_get(_visit(problem, q, phi, z))
        rounds, visits = rounds + int(made.rounds), visits + 1
        return made

    inverse, radius = np.diag(sd**2), 1.0
    try:
        first = now = visit(here, q.centre)
        while now.is_good and visits < MOST_VISITS:
            step = inverse @ now.slope
            length = float(np.linalg.norm(step / sd))
            is_known = visits > len(here)  # what the standard deviations of a start say may be far off
            if length == 0 or (is_known and step @ now.slope < LITTLE_GAIN):
                break
            step = step * (min(1.0, radius / length) if is_known else radius / length)
            there = visit(here + step, now.z)
            if there.is_good:
                inverse = _updated(inverse, step, now.slope - there.slope, is_first=visits == 2)
            if there.is_good and there.value > now.value:
                radius = max(radius, 2 * min(length, radius))
                here, now = here + step, there
            else:
                radius = min(length, radius) / 4
    except OutOfTimeError:
        if not visits:
            return q, Evaluations()
    spent = Evaluations(visits, rounds + 2 * visits, q.split.num_colours * (rounds + visits))
    root = np.linalg.cholesky(inverse)
    if not (now.is_good and _mass(now, root) > _mass(first, np.diag(sd))):
        return q, spent
    return replace(q, hyper=Affine(here, Triangular.of_factor(root)), centre=now.z), spent


def _updated(inverse: np.ndarray, step: np.ndarray, change: np.ndarray, is_first: bool) -> np.ndarray:
    """The inverse Hessian after a step and the change of the negative gradient; as it was where that is not convex."""
    curvature = step @ change
    if curvature <= 1e-8 * np.linalg.norm(step) * np.linalg.norm(change):
        return inverse
    if is_first:
        inverse = inverse * curvature / (change @ inverse @ change)
    left = np.eye(len(step)) - np.outer(step, change) / curvature
    return left @ inverse @ left.T + np.outer(step, step) / curvature


def _mass(visit: _Visit, root: np.ndarray) -> float:
    """Log of the mass of a Gaussian of this height and scale, up to a constant."""
    return float(visit.value) + float(np.log(np.diag(root)).sum())


@program
def _visit(problem: Problem, q: Hierarchical, phi: Array, z: Array) -> _Visit:
    value, slope, mode = log_marginal(phi, problem, q.split, z)
    return _Visit(value, slope, mode.found, mode.z, mode.rounds)
