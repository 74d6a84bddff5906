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

from bbvi.algorithms.base import Begin
from bbvi.algorithms.climb import constant
from bbvi.compiling import program
from bbvi.distributions import Distribution
from bbvi.evaluation import FEWEST, affordable, is_costly
from bbvi.outcome import Finding, Status
from bbvi.problem import Problem, Reference, work
from bbvi.start import Prior, Start, Watch, find_start, pairs

Array = Any
DRAWS = 16  # behind the gradient of each step
PASSES = 8  # over all rows, at most
CLOSE = 0.3  # length in standard deviations of a step after which no other is made
APART = 4.0  # a path whose end is further off than draws are, which is about sqrt(dim), by this much is another mode
RIVAL = 30.0  # nats in the sample by which another mode may fall short and still matter


def is_sampled(problem: Problem) -> bool:
    """Whether a fit starts from some of the rows, rather than all."""
    return problem.num_rows is not None and problem.num_sampled < problem.num_rows


def find_tall_start(
    problem: Problem,
    rng: np.random.Generator,
    point: np.ndarray | None,
    begins: Begin,
    prior: Prior,
    watch: Watch,
) -> Start:
    """`find_start` on a sample of the rows, and then steps on all of them.

    Raises:
        FloatingPointError: as `find_start`.
    """
    start = find_start(problem.sampled(), rng, point, begins, prior, watch)
    if begins is Begin.POINT or not is_sampled(problem):
        return start
    noise = pairs(rng, 0 if begins is Begin.MODE else DRAWS, start.loc[None])
    found, passes = [], 0
    for i in _distinct(start, problem):
        loc, scale = (start.path_locs[i], start.path_scales[i]) if i else (start.loc, start.scale)
        loc, elbo, count = _settle(problem, loc, scale, noise)
        found.append((elbo, loc, scale))
        passes += count
    found.sort(key=lambda each: -each[0])
    if not np.isfinite(found[0][0]):  # some row has no density where the sample has most
        return find_start(problem, rng, point, begins, prior, watch)
    elbos, locs, scales = (np.array(column) for column in zip(*found, strict=True))
    gradients = start.gradients + passes * (1 + len(noise))
    return Start(locs[0], scales[0], locs, scales, elbos, start.log_densities, gradients, sampled=True)


def _distinct(start: Start, problem: Problem) -> list[int]:
    """Paths that ended in different modes, the best first."""
    kept, share = [0], problem.num_sampled / (problem.num_rows or 1)
    for i, loc in enumerate(start.path_locs):
        near = any(_distance(start.path_scales[j], loc - start.path_locs[j]) < len(loc) ** 0.5 + APART for j in kept)
        if not near and share * (start.path_elbos[0] - start.path_elbos[i]) < RIVAL:
            kept.append(i)
    return kept


def _distance(scale: np.ndarray, difference: np.ndarray) -> float:
    white = np.linalg.solve(scale, difference) if scale.ndim == 2 else difference / scale
    return float(np.linalg.norm(white))


class _Look(NamedTuple):
    elbo: Array  # () of N(loc, scale scale^T)
    step: Array  # (dim,) in standard deviations


def _settle(problem: Problem, loc: Array, scale: Array, noise: Array) -> tuple[np.ndarray, float, int]:
    """The mean after steps on all rows, its ELBO, and how many times all rows were looked at."""
    here = jax.device_get(_look(problem, loc, scale, noise))
    step, count = here.step, 1
    while np.isfinite(here.elbo) and np.linalg.norm(step) > CLOSE and count < PASSES:
        there = jax.device_get(_look(problem, _moved(loc, scale, step), scale, noise))
        count += 1
        if there.elbo > here.elbo:
            loc, here, step = _moved(loc, scale, step), there, there.step
        else:
            step = step / 4
    near = np.linalg.norm(step) <= CLOSE
    return _moved(loc, scale, step) if near else np.asarray(loc), float(here.elbo), count


def _moved(loc: Array, scale: Array, step: np.ndarray) -> np.ndarray:
    scale = np.asarray(scale)
    return np.asarray(loc) + (scale @ step if scale.ndim == 2 else scale * step)


@program
def _look(problem: Problem, loc: Array, scale: Array, noise: Array) -> _Look:
    local = problem.in_coordinates(loc, scale)
    points = noise if len(noise) else jnp.zeros((1, problem.dim), noise.dtype)
    values, gradients, good = local.values_and_gradients(points)
    elbo = jnp.where(good.all(), values.mean() + constant(noise, problem.dim), -jnp.inf)
    return problem.layout.everywhere(_Look(elbo, gradients.mean(axis=0)))


def with_reference(problem: Problem, point: Array) -> Problem:
    """The same density, whose minibatches have little noise near `point` `(dim,)`: one look at all rows.

    Where the density is not finite there, the problem as it is.
    """
    values, gradients, good = jax.device_get(_value_and_gradient(problem, jnp.asarray(point)[None]))
    return replace(problem, reference=Reference(jnp.asarray(point), values[0], gradients[0])) if good[0] else problem


@program
def _value_and_gradient(problem: Problem, x: Array) -> Any:
    return problem.layout.everywhere(problem.values_and_gradients(x))


def for_verdict(problem: Problem, q: Distribution) -> tuple[Problem, list[Finding]]:
    """The density by which q is judged: of all rows, or where these are too many, of a sample."""
    if not is_sampled(problem) or affordable(problem) >= FEWEST:
        words = f"judged by fewer draws than usual: each takes about {work(problem):.0e} operations"
        return problem, [Finding(Status.RELIABLE, words)] if is_costly(problem) else []
    n, total = problem.num_sampled, problem.num_rows
    reason = (
        f"judged on {n} of {total} rows, with value and gradient of all rows at the mean of q: all rows at each of "
        f"{FEWEST} draws would be too many"
    )
    judged = with_reference(problem, q.mean())
    return judged.sampled(), [Finding(Status.USABLE, reason, inherent=True)]
