"""The order in which minibatches take rows of data.

Minibatches take their rows from an endless sequence of epochs. Step i takes rows i B to (i + 1) B of that sequence,
across the end of an epoch where B does not divide the number of rows. So each row is used once in each epoch, and
what a step gets depends on the seed and its number alone.

Arrays in memory are shuffled as a whole. Files are shuffled by blocks, which reads better: blocks of neighbouring rows
are permuted, as many of them as fit in memory make a window, and the rows of a window are permuted. A stream has the
order in which it comes.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import numpy as np

from bbvi.data.pieces import cut, join

ROW_STREAM = 11  # sets these random numbers apart from others with the same seed


class Reader(Protocol):
    """An endless sequence of rows."""

    def read(self, first: int, count: int) -> Any:
        """Rows `first` to `first + count`, a pytree of arrays `(count, ...)`."""
        ...


class EpochShuffle:
    """Endless epochs of rows, each in a fresh random order.

    Arguments:
        take: from sorted row numbers `(n,)` to these rows, a pytree of arrays `(n, ...)`.
        block: neighbouring rows that stay together when blocks are permuted.
        window: rows that are shuffled together, and held in memory; None for all.
    """

    def __init__(
        self, num_rows: int, seed: int, take: Callable[[np.ndarray], Any], block: int = 1, window: int | None = None
    ) -> None:
        self._num_rows, self._seed, self._take, self._block = num_rows, seed, take, block
        self._num_blocks = -(-num_rows // block)
        self._per_window = self._num_blocks if window is None else min(max(1, window // block), self._num_blocks)
        self._epoch, self._order, self._ends = -1, np.zeros(0, int), np.zeros(0, int)
        self._held: tuple[tuple[int, int] | None, Any] = (None, None)

    def read(self, first: int, count: int) -> Any:
        """Rows `first` to `first + count`, a pytree of arrays `(count, ...)`."""
        pieces = []
        while count:
            epoch, place = divmod(first, self._num_rows)
            start, stop, rows = self._window(epoch, place)
            taken = min(count, stop - place)
            pieces.append(cut(rows, place - start, taken))
            first, count = first + taken, count - taken
        return join(pieces)

    def _window(self, epoch: int, place: int) -> tuple[int, int, Any]:
        """The window around a place in an epoch: where it starts and stops, and its rows."""
        if epoch != self._epoch:
            self._begin(epoch)
        index = int(np.searchsorted(self._ends, place, side="right"))
        start, stop = int(self._ends[index - 1]) if index else 0, int(self._ends[index])
        if self._held[0] != (epoch, index):
            blocks = np.sort(self._order[index * self._per_window : (index + 1) * self._per_window])
            rows = (blocks[:, None] * self._block + np.arange(self._block)).ravel()
            rows = rows[rows < self._num_rows]
            shuffle = np.random.default_rng((self._seed, ROW_STREAM, epoch, index)).permutation(len(rows))
            self._held = (None, None)  # one window at a time
            self._held = (epoch, index), jax.tree.map(lambda leaf: leaf[shuffle], self._take(rows))
        return start, stop, self._held[1]

    def _begin(self, epoch: int) -> None:
        number, self._epoch = self._num_blocks, epoch
        whole = self._per_window == number  # then the order of blocks is lost in that of rows
        rng = np.random.default_rng((self._seed, ROW_STREAM, epoch))
        self._order = np.arange(number) if whole else rng.permutation(number)
        sizes = np.where(self._order == number - 1, self._num_rows - (number - 1) * self._block, self._block)
        ends = np.cumsum(sizes)
        self._ends = np.append(ends[self._per_window - 1 : -1 : self._per_window], self._num_rows)
