"""Fresh draws with their log densities, for judging a distribution and for correcting it.

Importance sampling from q alone fails where the posterior has heavier tails than q, as a log standard deviation has.
So a fifth of the draws comes from a wider version of q, with Student-t tails. Weights against the mixture
r = 0.8 q + 0.2 wide are at most 1.25 times those against q, and stay bounded in the tails.

Draws of very many coordinates are not kept, but made again from their seeds when they are looked at (`lazy.py`).

Reference: defensive importance sampling (Hesterberg 1995; Owen and Zhou 2000).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.distributions import Distribution
from bbvi.draws.lazy import LazyDraws, Sets, push
from bbvi.policy import FEWEST_VERDICT_DRAWS, KEPT_NUMBERS, Regime
from bbvi.runtime.compiling import program
from bbvi.runtime.deadline import OutOfTimeError, deadline
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

WIDE_SHARE = 4  # draws of q for each of its wider version
MADE_AT_ONCE = 2**24  # numbers in a set of draws, above which they are made a few at a time
AFFORDABLE = {"cpu": 2**36}  # multiplications that a set of draws may take, about: a few seconds on two cores
AFFORDABLE_ELSEWHERE = 2**40  # the same on any other device
PATIENT_PIECE = 80  # draws evaluated in one call where a point may take for ever
WORKING_SET = 2**20  # numbers held at once while the log density is evaluated, about: what fits into caches
FEW_POINTS = 8  # in a call of the program that serves any number of points


class Draws(NamedTuple):
    """Draws, some of q and some of its wider version, with their log densities."""

    x: Any  # (n, dim) unconstrained: a numpy array, or `LazyDraws`
    log_p: np.ndarray  # (n,) of the target, -inf where it is not finite
    log_q: np.ndarray  # (n,) of q
    log_r: np.ndarray  # (n,) of the mixture that they come from as a whole
    from_q: np.ndarray  # (n,) bool, whether a draw is of q

    def __len__(self) -> int:
        return len(self.log_p)

    def take(self, indices: np.ndarray | slice) -> "Draws":
        """The draws with these indices."""
        return Draws(*(field[indices] for field in self))

    def thinned(self) -> "Draws":
        """Some of the draws, the same share of both kinds, where all of them would be a burden to work with."""
        return self.take(slice(None, None, -(-self.x.size // (KEPT_NUMBERS + KEPT_NUMBERS // WIDE_SHARE))))


def affordable(problem: Problem) -> int:
    """Draws at which all of a log density can be evaluated in reasonable time, judged by its operations."""
    return AFFORDABLE.get(jax.default_backend(), AFFORDABLE_ELSEWHERE) // max(problem.operations, 1)


def is_costly(problem: Problem) -> bool:
    """Whether a set of draws is smaller for the cost of the log density."""
    return affordable(problem) < Regime.of(problem.dim).verdict_draws


def draw(problem: Problem, q: Distribution, seed: tuple[int, ...], num: int = 1) -> Draws:
    """Sets of 4096 draws of q and a quarter as many of its wider version, at least `num` draws of q in all.

    A set has fewer draws where they would not fit in memory (`Regime.verdict_draws`) and where they cost too much
    (`affordable`).

    Arguments:
        seed: of the draws, integers.
    """
    size = _power_of_two(min(Regime.of(q.dim).verdict_draws, max(FEWEST_VERDICT_DRAWS, affordable(problem))))
    wide, numbers = size // WIDE_SHARE, max(problem.evaluation_size, q.dim)
    batch = min(wide, _power_of_two(WORKING_SET // numbers))
    if (size + wide) * numbers <= 2 * WORKING_SET:  # all at once
        batch = wide
    at_once = batch if size * q.dim > MADE_AT_ONCE else size + wide  # draws that a call of the program makes
    sets, num_sets = Sets(seed, size, wide, at_once), -(-num // size)
    found, irregular = [], problem.is_irregular
    look = _evaluate_in_pieces if irregular else partial(evaluate, batch=at_once if batch == wide else batch)
    try:
        for number in range(num_sets * sets.per_set):
            fields = look(problem, q, *sets.block(number, q))
            found.append(jax.device_get(fields[1:] if problem.is_long else fields))
    except OutOfTimeError:
        if not found:
            return _unevaluated(q, sets)
    columns: list[Any] = [np.concatenate(column) for column in zip(*found, strict=True)]
    rows = np.arange(len(columns[-1]))
    if problem.is_long:
        columns = [LazyDraws(jax.device_get(q), sets, rows), *columns]
    draws = Draws(*columns, from_q=rows % (size + wide) < size)
    return draws.take(~np.isnan(draws.log_p)) if irregular else draws


def _unevaluated(q: Distribution, sets: Sets) -> Draws:
    """Draws that there was no time to evaluate: their log densities are NaN."""
    with deadline(None):
        x, log_q, log_r = jax.device_get(_propose(q, *sets.block(0, q)))
    return Draws(x, np.full(len(x), np.nan), log_q, log_r, from_q=np.arange(len(x)) < sets.size)


def _evaluate_in_pieces(problem: Problem, q: Distribution, narrow: Array, wide: Array) -> tuple[Array, ...]:
    """`evaluate`, as far as time allows: log_p is NaN at the draws for which there was none.

    Each piece has draws of both kinds in the proportion of the whole.
    """
    x, log_q, log_r = jax.device_get(_propose(q, narrow, wide))
    log_p, parts = np.full(len(x), np.nan), max(1, len(x) // PATIENT_PIECE)
    for part in range(parts):
        try:
            log_p[part::parts] = log_densities(problem, x[part::parts])
        except OutOfTimeError:
            if not part:
                raise
            break
    return x, log_p, log_q, log_r


@program
def log_densities(problem: Problem, xs: Array) -> Array:
    """`problem.log_densities`, compiled."""
    return problem.layout.replicate(problem.log_densities(xs))


def log_densities_at(problem: Problem, xs: np.ndarray) -> np.ndarray:
    """Log densities `(n,)` at some points `(n, dim)`, a few at a time: one program serves any number of them."""
    parts = [xs[i : i + FEW_POINTS] for i in range(0, len(xs), FEW_POINTS)]
    found = [log_densities(problem, np.resize(part, (FEW_POINTS, xs.shape[1]))) for part in parts]
    return np.concatenate(jax.device_get(found))[: len(xs)]


@program(static_argnames="batch")
def evaluate(
    problem: Problem, q: Distribution, narrow: Array, wide: Array, batch: int
) -> tuple[Array, Array, Array, Array]:
    """Draws `(n, dim)` with log_p, log_q and log_r, each `(n,)`, from noise for q and for its wider version.

    Arguments:
        batch: draws at which the log density is evaluated at a time; it divides n.
    """
    x, log_q, log_r = propose(q, narrow, wide)
    if batch < len(x):  # log densities of a few draws at a time
        log_p = jax.lax.map(problem.log_densities, x.reshape(-1, batch, q.dim)).reshape(len(x))
    else:
        log_p = problem.log_densities(x)
    return problem.layout.replicate((x, log_p, log_q, log_r))


def propose(q: Distribution, narrow: Array, wide: Array) -> tuple[Array, Array, Array]:
    """Draws of both kinds `(n, dim)`, with log_q and log_r."""
    x = push(q, narrow, wide)
    return x, *log_densities_of(q, x)


def log_densities_of(q: Distribution, x: Array) -> tuple[Array, Array]:
    """log_q and log_r `(n,)` at x `(n, dim)`."""
    log_q, share = q.log_prob(x), 1 / (1 + WIDE_SHARE)
    return log_q, jnp.logaddexp(jnp.log1p(-share) + log_q, jnp.log(share) + q.widened().log_prob(x))


_propose = program(propose)


def _power_of_two(n: int) -> int:
    return 1 << max(n, 1).bit_length() - 1
