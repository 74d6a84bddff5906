"""A climb to the mode of the hyper-parameters, one at a time: for hierarchies so large that each of them is dear.

BFGS within a trust region, from one mode of the latent coordinates to the next. It ends where little is left to gain,
and its inverse Hessian is the covariance to begin with. A mode may be a spike that holds little of the posterior, so
that the climb only counts where the mass beneath its end, by Laplace's method, is more than at its beginning.

Reference: Nocedal and Wright 2006, chapters 4 and 6.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

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
NO_CURVATURE = 1e-8  # cosine of the angle between a step and the change of the gradient, at which there is no curvature


class _Visit(NamedTuple):
    """What is found at some hyper-parameters."""

    phi: Any  # (k,)
    value: Any  # () log marginal density
    slope: Any  # (k,)
    found: Any  # () bool, whether there is a mode of the others
    z: Any  # (places,) that mode
    rounds: Any  # () Newton steps

    @property
    def is_good(self) -> bool:
        """Whether a climb may go on from here."""
        return bool(self.found and np.isfinite(self.value) and np.isfinite(self.slope).all())

    def mass(self, root: np.ndarray) -> float:
        """Log of the mass of a Gaussian of this height and scale, up to a constant."""
        return float(self.value) + float(np.log(np.diag(root)).sum())


def climb(problem: Problem, q: Hierarchical) -> tuple[Hierarchical, Evaluations]:
    """q with the hyper-parameters near the mode of their marginal density, and the others at their mode given these.

    It is q as it was where that has more mass, or where there was no time.
    """
    visits: list[_Visit] = []

    def visit(phi: np.ndarray, z: Any) -> _Visit:
        visits.append(jax.device_get(_visit(problem, q, phi, z)))
        return visits[-1]

    sd = np.asarray(q.hyper.scale.sd())
    try:
        first = visit(np.asarray(q.hyper.loc), q.centre)
        if not first.is_good:  # a spike of all coordinates may be so narrow that others are not found from there
            sd = np.ones_like(sd)
            first = visit(np.zeros_like(first.phi), np.zeros_like(first.z))
    except OutOfTimeError:
        return q, Evaluations()
    end, inverse = _ascend(visit, first, sd)
    rounds = sum(int(each.rounds) for each in visits)
    gradients, products = rounds + 2 * len(visits), q.split.num_colours * (rounds + len(visits))
    spent = Evaluations(len(visits), gradients, products)
    root = np.linalg.cholesky(inverse)
    if not (end.is_good and end.mass(root) > first.mass(np.diag(sd))):
        return q, spent
    return replace(q, hyper=Affine(end.phi, Triangular.of_factor(root)), centre=end.z), spent


def _ascend(visit: Callable[[np.ndarray, Any], _Visit], first: _Visit, sd: np.ndarray) -> tuple[_Visit, np.ndarray]:
    """The last of the visits that went up, and the inverse Hessian there."""
    now, inverse, radius = first, np.diag(sd**2), 1.0
    for number in range(MOST_VISITS):
        is_known = number >= len(sd)  # what the standard deviations of a start say may be far off
        step = inverse @ now.slope
        length = float(np.linalg.norm(step / sd))
        if not now.is_good or length == 0 or (is_known and step @ now.slope < LITTLE_GAIN):
            break
        step = step * (min(1.0, radius / length) if is_known else radius / length)
        try:
            there = visit(now.phi + step, now.z)
        except OutOfTimeError:
            break
        if there.is_good:
            inverse = _updated(inverse, step, now.slope - there.slope, is_first=number == 0)
        if there.is_good and there.value > now.value:
            now, radius = there, max(radius, 2 * min(length, radius))
        else:
            radius = min(length, radius) / 4
    return now, inverse


def _updated(inverse: np.ndarray, step: np.ndarray, change: np.ndarray, *, is_first: bool) -> np.ndarray:
    """The inverse Hessian after a step and the change of the negative gradient; as it was where that is not convex."""
    curvature = step @ change
    if curvature <= NO_CURVATURE * np.linalg.norm(step) * np.linalg.norm(change):
        return inverse
    if is_first:
        inverse = inverse * curvature / (change @ inverse @ change)
    left = np.eye(len(step)) - np.outer(step, change) / curvature
    return left @ inverse @ left.T + np.outer(step, step) / curvature


@program
def _visit(problem: Problem, q: Hierarchical, phi: Array, z: Array) -> _Visit:
    value, slope, mode = log_marginal(phi, problem, q.split, z)
    return _Visit(phi, value, slope, mode.found, mode.z, mode.rounds)
