"""Fresh draws with their log densities, for judging a distribution and for correcting it.

Importance sampling from q alone fails where the posterior has heavier tails than q, as a log standard deviation has.
So a fifth of the draws comes from a wider version t of q: a Student-t distribution with q's centre and shape. Weights
against the mixture r = 0.8 q + 0.2 t are at most 1.25 times those against q, and stay bounded in the tails.

Draws of very many coordinates are not kept, but made again from their seeds when they are looked at.

Reference: defensive importance sampling (Hesterberg 1995; Owen and Zhou 2000).
"""

from collections.abc import Iterator
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.compiling import program
from bbvi.deadline import OutOfTimeError, deadline
from bbvi.distributions import Distribution
from bbvi.precision import scope
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
FEWEST = 256  # draws of q in a set, whatever they take
PIECE = 80  # draws evaluated in one call where a point may take for ever
WORKING_SET = 2**20  # numbers held at once while the log density is evaluated, about: what fits into caches


class Sets(NamedTuple):
    """The random numbers behind sets of draws, in blocks of `at_once` draws."""

    seed: tuple[int, ...]
    size: int  # draws of q in a set, which come first
    wide: int  # draws of t in a set
    at_once: int

    @property
    def per_set(self) -> int:
        """Blocks in a set."""
        return (self.size + self.wide) // self.at_once

    def block(self, number: int, noise_dim: int) -> tuple[Array, Array]:
        """Noise `(at_once, noise_dim)`, and a stretch for the last rows of it, which are for t, `(k, 1)`."""
        index, place = divmod(number, self.per_set)
        random, first = stream(*self.seed, index), place * self.at_once
        chi2 = (random.normal((self.wide, DEGREES_OF_FREEDOM)) ** 2).sum(axis=1, keepdims=True)
        stretch = (DEGREES_OF_FREEDOM / chi2) ** 0.5
        if self.per_set > 1:
            random = stream(*self.seed, index, first)
        of_t = stretch[max(first - self.size, 0) : max(first + self.at_once - self.size, 0)]
        return random.normal((self.at_once, noise_dim)), of_t


class Remade:
    """Draws that are made again whenever they are looked at; otherwise like an array `(n, dim)`.

    Taking some of the rows makes none of them. As an array it makes all of them; `pieces` makes a few at a time.
    """

    def __init__(self, q: Distribution, sets: Sets, rows: np.ndarray) -> None:
        self._q, self._sets, self._rows = q, sets, rows
        self.shape, self.size = (len(rows), q.dim), len(rows) * q.dim
        self.dtype = np.dtype(jax.tree.leaves(q)[0].dtype)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Any) -> "Remade":
        return Remade(self._q, self._sets, self._rows[rows])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        made = np.empty(self.shape, self.dtype if dtype is None else dtype)
        first = 0
        for piece in self.pieces():
            made[first : first + len(piece)] = piece
            first += len(piece)
        return made

    def pieces(self) -> Iterator[np.ndarray]:
        """The rows in order, a few at a time."""
        at_once = self._sets.at_once
        for number, rows in groupby(self._rows, lambda row: row // at_once):
            with scope(self.dtype == np.float64):
                x = np.asarray(_push(self._q, *self._sets.block(int(number), self._q.noise_dim)))
            yield x[[int(row) % at_once for row in rows]]


def pieces(x: np.ndarray | Remade) -> Iterator[np.ndarray]:
    """Draws `(n, dim)` as arrays of some of them, in order: an array is one piece."""
    return x.pieces() if isinstance(x, Remade) else iter([x])


class Draws(NamedTuple):
    """Draws, some of q and some of t, with their log densities."""

    x: Any  # (n, dim) unconstrained: a numpy array, or `Remade`
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
        """Some of the draws, the same share of q's and of t's, where all of them would be a burden to work with."""
        return self.take(slice(None, None, -(-self.x.size // (KEPT + KEPT // 4))))


def pool_size(dim: int) -> int:
    """Draws of q to judge it by: `POOL`, or as many as fit in memory above 8192 coordinates, at least `FEWEST`."""
    return max(FEWEST, min(POOL, KEPT // dim))


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
    sets, num_sets = Sets(seed, size, wide, at_once), -(-num // size)
    found, irregular = [], problem.is_irregular
    look = _evaluate_in_pieces if irregular else partial(evaluate, batch=at_once if batch == wide else batch)
    try:
        for number in range(num_sets * sets.per_set):
            fields = look(problem, q, *sets.block(number, q.noise_dim))
            found.append(jax.device_get(fields[1:] if problem.is_long else fields))
    except OutOfTimeError:
        if not found:
            return _unevaluated(q, sets)
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    rows = np.arange(len(columns[-1]))
    if problem.is_long:
        columns = [Remade(jax.device_get(q), sets, rows), *columns]
    draws = Draws(*columns, from_q=rows % (size + wide) < size)
    return draws.take(~np.isnan(draws.log_p)) if irregular else draws


def _unevaluated(q: Distribution, sets: Sets) -> Draws:
    """Draws that there was no time to evaluate: their log densities are NaN."""
    with deadline(None):
        x, log_q, log_r = jax.device_get(_propose(q, *sets.block(0, q.noise_dim)))
    return Draws(x, np.full(len(x), np.nan), log_q, log_r, from_q=np.arange(len(x)) < sets.size)


def _evaluate_in_pieces(problem: Problem, q: Distribution, noise: Array, stretch: Array) -> tuple[Array, ...]:
    """`evaluate`, as far as time allows: log_p is NaN at the draws for which there was none.

    Each piece has draws of q and of t in the proportion of the whole.
    """
    x, log_q, log_r = jax.device_get(_propose(q, noise, stretch))
    log_p, parts = np.full(len(x), np.nan), max(1, len(x) // PIECE)
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
    return problem.layout.everywhere(problem.log_densities(xs))


@program(static_argnames="batch")
def evaluate(
    problem: Problem, q: Distribution, noise: Array, stretch: Array, batch: int
) -> tuple[Array, Array, Array, Array]:
    """Draws `(n, dim)` with log_p, log_q and log_r, each `(n,)`, from noise whose last rows, for t, have a `stretch`.

    Arguments:
        batch: draws at which the log density is evaluated at a time; it divides n.
    """
    x, log_q, log_r = _proposed(q, noise, stretch)
    if batch < len(noise):  # log densities of a few draws at a time
        log_p = jax.lax.map(problem.log_densities, x.reshape(-1, batch, q.dim)).reshape(len(noise))
    else:
        log_p = problem.log_densities(x)
    return problem.layout.everywhere((x, log_p, log_q, log_r))


def _proposed(q: Distribution, noise: Array, stretch: Array) -> tuple[Array, Array, Array]:
    x = _push(q, noise, stretch)
    log_q = q.log_prob(x)
    share = WIDE / (POOL + WIDE)
    log_wide = q.log_prob_wide(x, float(DEGREES_OF_FREEDOM))
    return x, log_q, jnp.logaddexp(jnp.log1p(-share) + log_q, jnp.log(share) + log_wide)


_propose = program(_proposed)


@jax.jit
def _push(q: Distribution, noise: Array, stretch: Array) -> Array:
    narrow = len(noise) - len(stretch)
    parts = [q.push(noise[:narrow])] if narrow else []
    parts += [q.push_wide(jnp.asarray(noise[narrow:]), stretch)] if len(stretch) else []
    return jnp.concatenate(parts)


def _power_of_two(n: int) -> int:
    return 1 << max(n, 1).bit_length() - 1
