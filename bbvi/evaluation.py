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
from jax.scipy.special import gammaln

from bbvi.distributions import Distribution
from bbvi.problem import Problem
from bbvi.random import Random, stream

Array = Any
POOL = 4096  # draws of q in one set
WIDE = POOL // 4  # draws of t in one set
DEGREES_OF_FREEDOM = 5  # of t
KEPT = 2**25  # numbers in a set of draws, at most
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


def draw(problem: Problem, q: Distribution, seed: tuple[int, ...], num: int, width: int) -> Draws:
    """Sets of `POOL` draws of q and a quarter as many of t (see `pool_size`), at least `num` draws of q in all.

    Arguments:
        seed: of the draws, integers.
        width: numbers that one evaluation of the log density needs in memory, about.
    """
    size = _power_of_two(pool_size(q.dim))
    wide = size * WIDE // POOL
    batch = min(wide, _power_of_two(WORKING_SET // max(width, q.dim)))
    sets = []
    for index in range(-(-num // size)):
        noise = _noise(stream(*seed, index), size, wide, q.noise_dim)
        fields = jax.device_get(_evaluate(problem, q, noise, size + wide if batch == wide else batch))
        sets.append(Draws(*fields, from_q=np.arange(size + wide) < size))
    return Draws(*(np.concatenate(fields) for fields in zip(*sets, strict=True)))


def _noise(random: Random, size: int, wide: int, dim: int) -> Array:
    chi2 = (random.normal((wide, DEGREES_OF_FREEDOM)) ** 2).sum(axis=1, keepdims=True)
    stretched = random.normal((wide, dim)) * (DEGREES_OF_FREEDOM / chi2) ** 0.5
    return random.xp.concatenate([random.normal((size, dim)), stretched])


@partial(jax.jit, static_argnames="batch")
def _evaluate(problem: Problem, q: Distribution, noise: Array, batch: int) -> tuple[Array, Array, Array, Array]:
    x = q.push(noise)
    if batch < len(noise):  # log densities of a few draws at a time
        log_p = jax.lax.map(problem.log_densities, x.reshape(-1, batch, q.dim)).reshape(len(noise))
    else:
        log_p = problem.log_densities(x)
    log_q = q.log_prob(x)
    share = WIDE / (POOL + WIDE)
    log_r = jnp.logaddexp(jnp.log1p(-share) + log_q, jnp.log(share) + _log_wide(q, log_q))
    return x, log_p, log_q, log_r


def _log_wide(q: Distribution, log_q: Array) -> Array:
    """Log density of t where that of q is `log_q`: both depend on x through its distance from the centre alone."""
    nu, dim, top = float(DEGREES_OF_FREEDOM), q.dim, q.log_prob(q.mean())
    distance = 2 * (top - log_q)  # Mahalanobis, squared
    constant = gammaln((nu + dim) / 2) - gammaln(nu / 2) - 0.5 * dim * jnp.log(nu / 2)
    return top + constant - 0.5 * (nu + dim) * jnp.log1p(jnp.maximum(distance, 0) / nu)


def _power_of_two(n: int) -> int:
    return 1 << max(n, 1).bit_length() - 1
