"""Rows of a stream."""

from typing import Any

import jax
import numpy as np

from bbvi.data.pieces import cut, join, length
from bbvi.data.schema import Schema
from bbvi.data.store import ROW_WINDOW, Store
from bbvi.data.stream import Stream


class StreamStore(Store):
    """Rows of a `Stream`."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(Schema.of(_first(stream), stream.num_rows))
        self.stream = stream

    def at(self, indices: np.ndarray) -> Any:
        reader, pieces, size = self.in_order(), [], max(1, ROW_WINDOW // self.schema.row_size)
        for first in range(0, self.schema.num_rows, size):
            count = min(size, self.schema.num_rows - first)
            chosen = indices[(indices >= first) & (indices < first + count)] - first
            pieces.append(jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], reader.read(first, count)))
        return join(pieces)

    def in_order(self) -> "StreamReader":
        return StreamReader(self.stream, self.schema)

    def reshuffled(self, seed: int) -> "StreamReader":
        return self.in_order()


class StreamReader:
    """Epochs of a stream one after the other: cheap as long as reads move on, and from the beginning when not."""

    def __init__(self, stream: Stream, schema: Schema) -> None:
        self._stream, self._schema = stream, schema
        self._position = 0  # of the next row to come
        self._held: list[tuple[int, Any]] = []  # rows that came, each batch with the position of its first
        self._batches: Any = None

    def read(self, first: int, count: int) -> Any:
        """Rows `first` to `first + count`; those before them are read and dropped."""
        start, num_rows = self._held[0][0] if self._held else self._position, self._schema.num_rows
        if first < start or first - self._position >= num_rows:
            self._position, self._held, self._batches = first - first % num_rows, [], None
        while self._position < first + count:
            batch = self._read()
            self._held.append((self._position, batch))
            self._position += length(batch)
            self._held = [(at, rows) for at, rows in self._held if at + length(rows) > first]
        return join(
            [
                cut(rows, max(first - at, 0), first + count - max(at, first))
                for at, rows in self._held
                if at < first + count
            ]
        )

    def _read(self) -> Any:
        num_rows = self._schema.num_rows
        place = self._position % num_rows
        if self._batches is None:
            self._batches = _begin(self._stream)
        batch = _next(self._batches, place)
        if batch is None:
            raise ValueError(
                f"data: the stream ended after {place} rows, but num_rows={num_rows}. Correct it, and let batches() "
                "return a fresh iterator at each call."
            )
        batch = self._schema.read(batch, f"the rows that came after {place}")
        extra = place + length(batch) - num_rows
        if extra > 0 or (extra == 0 and _next(self._batches, num_rows) is not None):
            raise ValueError(f"data: the stream gives more rows than num_rows={num_rows}.")
        if extra == 0:
            self._batches = None
        return batch


def _begin(stream: Stream) -> Any:
    try:
        return iter(stream.batches())
    except Exception as error:
        error.add_note("bbvi called the stream's batches(), which must return a fresh iterator.")
        raise


def _next(batches: Any, place: int) -> Any:
    try:
        return next(batches, None)
    except Exception as error:
        error.add_note(f"The iterator of the stream raised this after {place} rows.")
        raise


def _first(stream: Stream) -> Any:
    batch = _next(_begin(stream), 0)
    if batch is None:
        raise ValueError("data: the stream is empty.")
    leaves = jax.tree.leaves(batch)
    if not leaves or any(not hasattr(leaf, "shape") or not len(leaf.shape) for leaf in leaves):
        raise TypeError(f"data: the stream gave {type(batch).__name__}; it must give pytrees of arrays of rows.")
    return batch
