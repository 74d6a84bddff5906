"""Fresh draws with their log densities, for judging a distribution and for correcting it.

Importance sampling from q alone fails where the posterior has heavier tails than q, as a log standard deviation has.
So a fifth of the draws comes from a wider version t of q: a Student-t distribution with q's centre and shape. Weights
against the mixture r = 0.8 q + 0.2 t are at most 1.25 times those against q, and stay bounded in the tails.

Reference: defensive importance sampling (Hesterberg 1995; Owen and Zhou 2000).
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.distributions import Distribution
from bbvi.problem import Problem, work
from bbvi.random import stream

Array = Any
POOL = 4096  # draws of q in one set
WIDE = POOL // 4  # draws of t in one set
DEGREES_OF_FREEDOM = 5  # of t
KEPT = 2**25  # numbers in a set of draws, at most
LARGE = 2**24  # numbers in a set of draws, above which they are made a few at a time
BUDGET = {"cpu": 2**36}  # multiplications that a set of draws may take, about: a few seconds on two cores
FASTER = 2**40  # the same on any other device
FEWEST = 256  # draws of q in a set, whatever they cost
WORKING_SET = 2**20  # numbers held at once while the log density is evaluated, about: what fits into caches


class Draws(NamedTuple):
    """Draws, some of q and some of t, with their log densities."""

    x: np.ndarray  # (n, dim) unconstrained
    log_p: np.ndarray  # (n,) of the target, -inf where it is not finite
    log_q: np.ndarray  # (n,) of q
    log_r: np.ndarray  # (n,) of the mixture that they come from as a whole
    from_q: np.ndarray  # (n,) bool, whether a draw is of q

    def __len__(self) -> int:
        return len(self.log_p)

    def take(self, indices: np.ndarray | slice) -> "Draws":
        """The draws with these indices."""
        return Draws(*(field[indices] for field in self))


def pool_size(dim: int) -> int:
    """Draws of q to judge it by: `POOL`, or as many as fit in memory above 8192 coordinates."""
    return max(16, min(POOL, KEPT // dim))


def affordable(problem: Problem) -> int:
    """Draws at which all of a log density can be evaluated in reasonable time, judged by its operations."""
    return BUDGET.get(jax.default_backend(), FASTER) // max(work(problem), 1)


def is_costly(problem: Problem) -> bool:
    """Whether a set of draws is smaller for the cost of the log density."""
    return affordable(problem) < pool_size(problem.dim)


def draw(problem: Problem, q: Distribution, seed: tuple[int, ...], num: int, width: int) -> Draws:
    """Sets of `POOL` draws of q and a quarter as many of t, at least `num` draws of q in all.

    A set has fewer draws above 8192 coordinates (`pool_size`) and where they cost too much (`affordable`).

    Arguments:
        seed: of the draws, integers.
        width: numbers that one evaluation of the log density needs in memory, about.
    """
    size = _power_of_two(min(pool_size(q.dim), max(FEWEST, affordable(problem))))
    wide = size * WIDE // POOL
    batch = min(wide, _power_of_two(WORKING_SET // max(width, q.dim)))
    if (size + wide) * max(width, q.dim) <= 2 * WORKING_SET:  # all at once: rows are looked at once
        batch = wide
    at_once = batch if size * q.dim > LARGE else size + wide  # draws that a call of the program makes
    sets = []
    for index in range(-(-num // size)):
        random = stream(*seed, index)
        chi2 = (random.normal((wide, DEGREES_OF_FREEDOM)) ** 2).sum(axis=1, keepdims=True)
        stretch = (DEGREES_OF_FREEDOM / chi2) ** 0.5
        for first in range(0, size + wide, at_once):
            noise = random.normal((at_once, q.noise_dim))
            of_t = stretch[max(first - size, 0) : max(first + at_once - size, 0)]
            fields = jax.device_get(evaluate(problem, q, noise, of_t, at_once if batch == wide else batch))
            sets.append(Draws(*fields, from_q=np.arange(first, first + at_once) < size))
    return Draws(*(np.concatenate(fields) for fields in zip(*sets, strict=True)))


@partial(jax.jit, static_argnames="batch")
def evaluate(
    problem: Problem, q: Distribution, noise: Array, stretch: Array, batch: int
) -> tuple[Array, Array, Array, Array]:
    """Draws `(n, dim)` with log_p, log_q and log_r, each `(n,)`, from noise whose last rows, for t, have a `stretch`.

    Arguments:
        batch: draws at which the log density is evaluated at a time; it divides n.
    """
    narrow = len(noise) - len(stretch)
    parts = [q.push(noise[:narrow])] if narrow else []
    parts += [q.push_wide(jnp.asarray(noise[narrow:]), stretch)] if len(stretch) else []
    x = jnp.concatenate(parts)
    if batch < len(noise):  # log densities of a few draws at a time
        log_p = jax.lax.map(problem.log_densities, x.reshape(-1, batch, q.dim)).reshape(len(noise))
    else:
        log_p = problem.log_densities(x)
    log_q = q.log_prob(x)
    share = WIDE / (POOL + WIDE)
    log_wide = q.log_prob_wide(x, float(DEGREES_OF_FREEDOM))
    log_r = jnp.logaddexp(jnp.log1p(-share) + log_q, jnp.log(share) + log_wide)
    return problem.layout.everywhere((x, log_p, log_q, log_r))


def _power_of_two(n: int) -> int:
    return 1 << max(n, 1).bit_length() - 1
