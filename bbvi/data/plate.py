"""The rows of a plate of a model that subsamples it by itself."""

from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from bbvi.data.source import IndexedSource
from bbvi.runtime.types import Array


@dataclass(frozen=True, eq=False)
class Plate(IndexedSource):
    """Rows that a model takes from its arrays, by indices that it finds behind them.

    Fields:
        arrays: all arrays of the model, a tuple.
        size: of the plate, in rows.
    """

    arrays: tuple[Any, ...]
    size: int

    @property
    def num_rows(self) -> int:
        return self.size

    @property
    def num_numbers(self) -> int:
        return sum(map(np.size, jax.tree.leaves(self.arrays)))

    @property
    def num_chunks(self) -> int:
        return 1

    def take(self, batch: Array) -> tuple[Any, ...]:
        return *self.arrays, batch
