"""A stream of rows, as a user describes it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Stream:
    """Data that are read from beginning to end, again and again, and are never in memory as a whole.

    Arguments:
        batches: `batches()` returns a fresh iterator over pytrees of arrays, the structure that the likelihood
            receives; the leading axis of each array counts rows. How many rows come at a time is free. The order is
            that of the iterator, so it should shuffle, or the source be in random order.
        num_rows: rows that each iterator gives in all.

    Raises:
        TypeError, ValueError: when `batches` is no function or `num_rows` no positive integer.

    Example:
        >>> y = np.random.default_rng(0).normal(1.0, 1.0, 5000)
        >>> stream = bbvi.Stream(lambda: ({"y": y[i : i + 1000]} for i in range(0, 5000, 1000)), num_rows=5000)
        >>> density = bbvi.Factorized(lambda m: -0.5 * m @ m, lambda m, rows: -0.5 * (rows["y"] - m[0]) ** 2)
        >>> posterior = bbvi.fit(density, 1, data=stream, method="ivon", batch_size=500)
        >>> bool(abs(posterior.mean()[0] - y.sum() / 5001) < 0.005)
        True
    """

    batches: Callable[[], Iterable[Any]]
    num_rows: int

    def __post_init__(self) -> None:
        if not callable(self.batches):
            raise TypeError(f"batches={self.batches!r} must be a function that returns a fresh iterator.")
        if isinstance(self.num_rows, bool) or not isinstance(self.num_rows, int | np.integer) or self.num_rows < 1:
            raise ValueError(f"num_rows={self.num_rows!r} must be a positive integer.")
