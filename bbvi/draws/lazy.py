"""Draws of very many coordinates, that are made again from their seeds whenever they are looked at."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.distributions import Distribution
from bbvi.draws.random import stream
from bbvi.runtime.precision import scope
from bbvi.runtime.types import Array


class Sets(NamedTuple):
    """The random numbers behind sets of draws, in blocks of `at_once` draws."""

    seed: tuple[int, ...]
    size: int  # draws of q in a set, which come first
    wide: int  # draws of the wider version of q in a set
    at_once: int

    @property
    def per_set(self) -> int:
        """Blocks in a set."""
        return (self.size + self.wide) // self.at_once

    def block(self, number: int, q: Distribution) -> tuple[Array, Array]:
        """Noise for the draws of q in a block `(k, noise_dim)`, and for those of its wider version, `(m, ...)`."""
        index, place = divmod(number, self.per_set)
        first = place * self.at_once
        narrow = min(max(self.size - first, 0), self.at_once)
        random = stream(*self.seed, index, first) if self.per_set > 1 else stream(*self.seed, index)
        wide_dim = jax.eval_shape(_widened, q).noise_dim
        return random.normal((narrow, q.noise_dim)), random.normal((self.at_once - narrow, wide_dim))


class LazyDraws:
    """Draws that are made again whenever they are looked at; otherwise like an array `(n, dim)`.

    Taking some of the rows makes none of them. As an array it makes all of them; `pieces` makes a few at a time.
    """

    def __init__(self, q: Distribution, sets: Sets, rows: np.ndarray) -> None:
        self._q, self._sets, self._rows = q, sets, rows
        self.shape, self.size = (len(rows), q.dim), len(rows) * q.dim
        self.dtype = np.dtype(jax.tree.leaves(q)[0].dtype)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, rows: Any) -> "LazyDraws":
        return LazyDraws(self._q, self._sets, self._rows[rows])

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
                x = np.asarray(push(self._q, *self._sets.block(int(number), self._q)))
            yield x[[int(row) % at_once for row in rows]]


def pieces(x: np.ndarray | LazyDraws) -> Iterator[np.ndarray]:
    """Draws `(n, dim)` as arrays of some of them, in order: an array is one piece."""
    return x.pieces() if isinstance(x, LazyDraws) else iter([x])


def _widened(q: Distribution) -> Any:
    """A function of its own, so that JAX remembers its shapes."""
    return q.widened()


@jax.jit
def push(q: Distribution, narrow: Array, wide: Array) -> Array:
    """Draws of q and of its wider version, from noise for both."""
    parts = [q.push(narrow)] if len(narrow) else []
    parts += [q.widened().push(jnp.asarray(wide))] if len(wide) else []
    return jnp.concatenate(parts)
