"""Fits to data with very many rows: the start from a sample of them, and what a verdict can afford.

A sample of n of N rows, each counted N/n times, has a posterior of about the right shape and width, off by sqrt(N/n)
standard deviations. So paths are climbed and Newton steps are made on the sample, and then a few steps

    m <- m + C C^T mean_s grad f(m + C e_s)

with the gradient of all rows and the curvature of the sample bring the mean home: the error shrinks each time by the
relative error of the curvature, which is small.

The verdict evaluates all rows at fewer draws than usual where draws times rows are too many. Where even few are too
many, it evaluates the sample, corrected by value and gradient of all rows at the mean of q (`Problem.minibatch`), and
says so.

Reference: Bardenet, Doucet and Holmes 2017 (JMLR 18:47) on tall data.
"""

from dataclasses import replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.algorithms.base import Initialisation
from bbvi.algorithms.numerics.draws import antithetic
from bbvi.algorithms.numerics.paths import missing_entropy
from bbvi.distributions import Distribution
from bbvi.distributions.affine import Affine
from bbvi.draws.importance import affordable, is_costly
from bbvi.outcome import Evaluations, Finding, Status
from bbvi.policy import FEWEST_VERDICT_DRAWS
from bbvi.runtime.compiling import program
from bbvi.runtime.types import Array
from bbvi.start.find import find_start
from bbvi.start.record import Hints, Start
from bbvi.target.problem import Problem, Reference

STEP_DRAWS = 16  # behind the gradient of each step
PASSES = 8  # over all rows, at most
SHORT = 0.3  # length in standard deviations of a step after which no other is made
APART = 4.0  # a path whose end is further off than draws are, which is about sqrt(dim), by this much is another mode
RIVAL_ON_SAMPLE = 30.0  # nats in the sample by which another mode may fall short and still matter


def is_sampled(problem: Problem) -> bool:
    """Whether a fit starts from some of the rows, rather than all."""
    return problem.num_rows is not None and problem.num_sampled < problem.num_rows


def find_start_by_sample(problem: Problem, kind: Initialisation, hints: Hints) -> Start:
    """`find_start` on a sample of the rows, and then steps on all of them.

    Raises:
        FloatingPointError: as `find_start`.
    """
    start = find_start(problem.sampled(), kind, hints)
    if kind is Initialisation.POINT or not is_sampled(problem):
        return start
    noise = antithetic(hints.rng, 0 if kind is Initialisation.MODE else STEP_DRAWS, problem.dim)
    found, passes = [], 0
    for i in _distinct(start, problem):
        gaussian, elbo, count = _settle(problem, start.paths[i] if i else start.gaussian, noise)
        found.append((elbo, gaussian))
        passes += count
    found.sort(key=lambda each: -each[0])
    elbos, gaussians = np.array([elbo for elbo, _ in found]), tuple(gaussian for _, gaussian in found)
    if not np.isfinite(elbos[0]):  # some row has no density where the sample has most
        return find_start(problem, kind, hints)
    spent = start.evaluations + Evaluations(gradients=passes * (1 + len(noise)))
    return Start(gaussians[0], gaussians, elbos, spent, sampled=True)


def _distinct(start: Start, problem: Problem) -> list[int]:
    """Paths that ended in different modes, the best first."""
    kept, share = [0], problem.num_sampled / (problem.num_rows or 1)
    for i, path in enumerate(start.paths):
        near = any(start.paths[j].distance(path.loc) < path.dim**0.5 + APART for j in kept)
        if not near and share * (start.elbos[0] - start.elbos[i]) < RIVAL_ON_SAMPLE:
            kept.append(i)
    return kept


class _Look(NamedTuple):
    elbo: Array  # () of the Gaussian
    step: Array  # (dim,) in standard deviations


def _settle(problem: Problem, gaussian: Affine, noise: Array) -> tuple[Affine, float, int]:
    """The Gaussian after steps on all rows, its ELBO, and how many times all rows were looked at.

    It is not one program, since each look may read all rows from files: the host is there between.
    """
    here = jax.device_get(_look(problem, gaussian, noise))
    step, count = here.step, 1
    while np.isfinite(here.elbo) and np.linalg.norm(step) > SHORT and count < PASSES:
        there = jax.device_get(_look(problem, _moved(gaussian, step), noise))
        count += 1
        if there.elbo > here.elbo:
            gaussian, here, step = _moved(gaussian, step), there, there.step
        else:
            step = step / 4
    near = np.linalg.norm(step) <= SHORT
    return _moved(gaussian, step) if near else gaussian, float(here.elbo), count


def _moved(gaussian: Affine, step: np.ndarray) -> Affine:
    return replace(gaussian, loc=np.asarray(gaussian(step)))


@program
def _look(problem: Problem, gaussian: Affine, noise: Array) -> _Look:
    local = problem.in_coordinates(gaussian)
    points = noise if len(noise) else jnp.zeros((1, problem.dim), noise.dtype)
    values, gradients, finite = local.values_and_gradients(points)
    elbo = jnp.where(finite.all(), values.mean() + missing_entropy(noise, problem.dim), -jnp.inf)
    return problem.layout.replicate(_Look(elbo, gradients.mean(axis=0)))


def with_reference(problem: Problem, point: Array) -> Problem:
    """The same density, whose minibatches have little noise near `point` `(dim,)`: one look at all rows.

    Where the density is not finite there, the problem as it is.
    """
    values, gradients, finite = jax.device_get(_value_and_gradient(problem, jnp.asarray(point)[None]))
    return replace(problem, reference=Reference(jnp.asarray(point), values[0], gradients[0])) if finite[0] else problem


@program
def _value_and_gradient(problem: Problem, x: Array) -> Any:
    return problem.layout.replicate(problem.values_and_gradients(x))


def for_verdict(problem: Problem, q: Distribution) -> tuple[Problem, list[Finding]]:
    """The density by which q is judged: of all rows, or where these are too many, of a sample."""
    if not is_sampled(problem) or affordable(problem) >= FEWEST_VERDICT_DRAWS:
        words = f"judged by fewer draws than usual: each takes about {problem.operations:.0e} operations"
        return problem, [Finding(Status.RELIABLE, words)] if is_costly(problem) else []
    n, total = problem.num_sampled, problem.num_rows
    reason = (
        f"judged on {n} of {total} rows, with value and gradient of all rows at the mean of q: all rows at each of "
        f"{FEWEST_VERDICT_DRAWS} draws would be too many"
    )
    judged = with_reference(problem, q.mean())
    return judged.sampled(), [Finding(Status.USABLE, reason, inherent=True)]
