"""Rows of arrays in memory."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.data.chunks import count_chunks, fits_whole
from bbvi.data.source import IndexedSource
from bbvi.runtime.types import Array


@dataclass(frozen=True, eq=False)
class InMemory(IndexedSource):
    """Rows along the leading axis of arrays, which may be traced."""

    arrays: Any

    @property
    def num_rows(self) -> int:
        return np.shape(jax.tree.leaves(self.arrays)[0])[0]

    @property
    def num_numbers(self) -> int:
        return sum(map(np.size, jax.tree.leaves(self.arrays)))

    @property
    def num_chunks(self) -> int:
        lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(self.arrays)}
        whole = fits_whole(self.num_numbers) or len(lengths) > 1
        return 1 if whole else count_chunks(self.num_rows, self.row_size)

    def take(self, batch: Array) -> Any:
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[batch], self.arrays)

    def chunk(self, number: Array, size: int) -> Any:
        """Chunk `number` of `size` rows; the last one ends with the last row, so that all have the same size."""
        first = jnp.minimum(number * size, self.num_rows - size)
        return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(jnp.asarray(leaf), first, size), self.arrays)
