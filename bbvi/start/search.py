"""Points at which a fit can begin.

Paths begin at the origin and at a few random points. Where the density is finite at none of these, many more are tried,
draws of the prior first where a model knows it: a value costs little, and the best ones begin the paths.
"""

import time
from collections.abc import Iterator

import jax
import numpy as np

from bbvi.algorithms.base import Initialisation
from bbvi.distributions.affine import Affine
from bbvi.draws.importance import affordable, log_densities
from bbvi.policy import CHAIN_EVALUATIONS, Regime
from bbvi.runtime.compiling import program
from bbvi.runtime.deadline import OutOfTimeError
from bbvi.runtime.types import Array
from bbvi.start.paths import patience
from bbvi.start.record import Hints
from bbvi.target.problem import Problem

NUM_PATHS = 4  # one where vectors are not short
POINTS, SETS = 128, 10  # further points tried at once, and how often, before giving up
POINT_NUMBERS = 2**22  # in such a set, at most
BOXES = (2.0, 0.5, 0.125, 8.0, 32.0)  # half-widths of the boxes in which they lie, one after the other
FAR = (8.0, 16.0, 32.0, 64.0)  # standard deviations beyond the usual draw, at which other modes are sought
AROUND = 0.5  # half-width of the largest box around a point that is given
NAMED = 5  # parameters named at most


def first_points(problem: Problem, hints: Hints) -> np.ndarray:
    """The given point; or the origin and a few random ones, `(n, dim)`."""
    dtype = jax.dtypes.canonicalize_dtype(float)
    xs = _box(hints.rng, NUM_PATHS if Regime.of(problem.dim).several_paths else 1, problem.dim, BOXES[0])
    if hints.point is not None:
        return hints.point[None].astype(dtype)
    if len(xs) > 1:
        xs[1] = -xs[2]  # opposite starts are likelier to end in different modes
    xs[0] = 0
    drawn = hints.prior(POINTS) if problem.is_irregular else None
    return (xs if drawn is None else drawn[: len(xs)]).astype(dtype)


def looks_far(problem: Problem, kind: Initialisation, hints: Hints) -> bool:
    """Whether paths are to begin far from the mode that was found, in search of others."""
    usual = kind in (Initialisation.BULK, Initialisation.POLISHED) and hints.point is None
    regular = not problem.is_irregular and problem.weight is None and affordable(problem) >= CHAIN_EVALUATIONS
    return usual and regular and Regime.of(problem.dim).dense_start


def far_points(gaussian: Affine, num: int, rng: np.random.Generator) -> np.ndarray:
    """Points in random directions, at several distances from the mean of a Gaussian, `(num, dim)`."""
    direction = rng.standard_normal((num, gaussian.dim))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    radius = np.resize(FAR, num) + gaussian.dim**0.5
    return np.asarray(gaussian.draws((radius[:, None] * direction).astype(gaussian.loc.dtype)))


def further_points(problem: Problem, hints: Hints, seen: int, *, with_gradient: bool) -> np.ndarray:
    """The best of many points, as many as there are paths, `(n, dim)`.

    Arguments:
        seen: points tried before.
        with_gradient: whether the gradient has to be finite there, too; without it one point is enough.

    Raises:
        FloatingPointError: when the density is finite at none of them, or its gradient is at none of those.
    """
    dim = problem.dim
    wanted = NUM_PATHS if with_gradient and Regime.of(dim).several_paths else 1
    usable, values, finite = np.zeros((0, dim)), np.zeros(0), np.zeros((0, dim))
    drawn = None if hints.point is not None else hints.prior(POINTS)
    for xs in _sets(hints, dim, drawn):
        try:
            with patience(problem):
                here = np.asarray(log_densities(problem, xs))
        except OutOfTimeError:
            if not problem.is_irregular or time.perf_counter() > hints.until:
                raise
            continue
        seen, kept = seen + len(xs), np.isfinite(here)
        finite = np.concatenate([finite, xs[kept]])
        if kept.any():
            if with_gradient:
                kept &= np.isfinite(np.asarray(_gradients(problem, xs))).all(axis=1)
            usable, values = np.concatenate([usable, xs[kept]]), np.concatenate([values, here[kept]])
        if len(usable) >= wanted or time.perf_counter() > hints.until:
            break
    if not len(usable):
        where = "near the given init" if hints.point is not None else "at the origin or at random points around it"
        where = where if drawn is None else where + " and draws of the prior"
        raise _not_finite(problem, hints, finite, seen, where)
    best = np.argsort(-values, kind="stable")
    return usable[np.resize(best, wanted)].astype(jax.dtypes.canonicalize_dtype(float))


def _box(rng: np.random.Generator, num: int, dim: int, radius: float) -> np.ndarray:
    return rng.uniform(-radius, radius, (num, dim))


def _sets(hints: Hints, dim: int, drawn: np.ndarray | None) -> Iterator[np.ndarray]:
    """Points to try, a set of them at a time: `drawn` ones, then in boxes around the origin or the given point."""
    size, dtype = int(np.clip(POINT_NUMBERS // dim, NUM_PATHS, POINTS)), jax.dtypes.canonicalize_dtype(float)
    if drawn is not None:
        yield drawn[:size].astype(dtype)
    for i in range(SETS):
        given = hints.point is not None
        centre, radius = (hints.point, AROUND * 0.5**i) if given else (0.0, BOXES[i % len(BOXES)])
        yield (centre + _box(hints.rng, size, dim, radius)).astype(dtype)


@program
def _gradients(problem: Problem, xs: Array) -> Array:
    """Gradients `(n, dim)` as they are, NaN where they are NaN."""
    return problem.layout.replicate(jax.lax.map(jax.grad(problem.log_density), xs))


def _not_finite(problem: Problem, hints: Hints, finite: np.ndarray, seen: int, where: str) -> FloatingPointError:
    """What to say when nothing can begin at any of the `seen` points, of which `finite` `(n, dim)` have a value."""
    if not len(finite):
        remedy = "Check the constraints of the parameters, or give init= a point at which it is finite."
        told = hints.why(first_points(problem, hints)) or remedy
        return FloatingPointError(f"logprob is not finite at any of the {seen} starting points tried {where}. {told}")
    gradients = np.asarray(_gradients(problem, finite[:POINTS].astype(jax.dtypes.canonicalize_dtype(float))))
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
