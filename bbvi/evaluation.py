"""Fresh draws of a distribution with their log densities under it and under the target."""

from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from bbvi.distributions import Distribution
from bbvi.problem import Problem
from bbvi.random import stream

Array = Any
POOL = 4096  # draws in one call
WORKING_SET = 2**25  # numbers held at once while the log density is evaluated, about


class Draws(NamedTuple):
    """Draws with their log densities under the target and under q."""

    x: np.ndarray  # (n, dim) unconstrained
    log_p: np.ndarray  # (n,) -inf where the target's log density is not finite
    log_q: np.ndarray  # (n,)

    def __len__(self) -> int:
        return len(self.log_p)

    def take(self, indices: np.ndarray) -> "Draws":
        """The draws with these indices."""
        return Draws(*(field[indices] for field in self))


@partial(jax.jit, static_argnames="batch")
def _draw(problem: Problem, q: Distribution, noise: Array, batch: int) -> tuple[Array, Array, Array]:
    x = q.push(noise)
    if batch < len(noise):  # log densities of a few draws at a time
        log_p = jax.lax.map(problem.log_densities, x.reshape(-1, batch, q.dim)).reshape(len(noise))
    else:
        log_p = problem.log_densities(x)
    return x, log_p, q.log_prob(x)


def draw(problem: Problem, q: Distribution, seed: tuple[int, ...], num: int, width: int, keep: bool = True) -> Draws:
    """At least `num` draws of q.

    Arguments:
        seed: of the draws, integers.
        width: numbers that one evaluation of the log density needs in memory, about.
        keep: False leaves out `x`, for when it would be too large.
    """
    pool = _power_of_two(min(POOL, WORKING_SET // q.dim))
    batch = _power_of_two(min(pool, WORKING_SET // max(width, q.dim)))
    pieces = []
    for block in range(-(-num // pool)):
        noise = stream(*seed, block).normal((pool, q.noise_dim))
        x, log_p, log_q = jax.device_get(_draw(problem, q, noise, batch))
        pieces.append(Draws(x if keep else x[:0], log_p, log_q))
    return Draws(*(np.concatenate(fields) for fields in zip(*pieces, strict=True)))


def _power_of_two(n: int) -> int:
    return 1 << max(n, 1).bit_length() - 1
