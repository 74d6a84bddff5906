"""Rows in files."""

from typing import Any

import jax
import numpy as np

from bbvi.data.epochs import EpochShuffle, Reader
from bbvi.data.schema import Schema
from bbvi.data.store import ROW_WINDOW, Store

ROW_BLOCK = 2**14  # numbers in rows that are read together, about


class FileStore(Store):
    """Rows of arrays that support slicing and indexing, such as `np.memmap`."""

    def __init__(self, arrays: Any) -> None:
        super().__init__(Schema.of(arrays, len(jax.tree.leaves(arrays)[0])))
        self._arrays = arrays

    def at(self, indices: np.ndarray) -> Any:
        return self._read(indices, indices[0])

    def in_order(self) -> Reader:
        return self

    def read(self, first: int, count: int) -> Any:
        """Neighbouring rows."""
        return self._read(slice(first, first + count), first)

    def reshuffled(self, seed: int) -> Reader:
        block, window = max(1, ROW_BLOCK // self.schema.row_size), max(1, ROW_WINDOW // self.schema.row_size)
        return EpochShuffle(self.schema.num_rows, seed, self.at, block, window)

    def _read(self, rows: slice | np.ndarray, first: int) -> Any:
        return self.schema.read(jax.tree.map(lambda leaf: leaf[rows], self._arrays), f"the rows read from {first} on")
