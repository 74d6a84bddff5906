"""Where rows lie that are read when they are needed, as the host sees it."""

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from bbvi.data.epochs import Reader
from bbvi.data.prefetch import Prefetch
from bbvi.data.schema import Schema

ROW_WINDOW = 2**23  # numbers in rows that are held together to be shuffled or sampled, about


class Store(ABC):
    """Rows that are read when they are needed. Two of the same schema are equal: they share what was compiled."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.error: BaseException | None = None  # of the last chunk that could not be read
        self._chunks: dict[int, Prefetch] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and self.schema == other.schema

    def __hash__(self) -> int:
        return hash(self.schema)

    @abstractmethod
    def at(self, indices: np.ndarray) -> Any:
        """The rows with these sorted indices."""

    @abstractmethod
    def in_order(self) -> Reader:
        """All rows in their own order, again and again."""

    @abstractmethod
    def reshuffled(self, seed: int) -> Reader:
        """All rows in an order for minibatches, again and again."""

    def chunk(self, number: int, size: int) -> Any:
        """Chunk `number` of `size` rows; the last one ends with the last row, so that all have the same size."""
        if size not in self._chunks:
            rows, reader = self.schema.num_rows, self.in_order()
            count = -(-rows // size)
            self._chunks[size] = Prefetch(lambda i: reader.read(min(i * size, rows - size), size), count)
        try:
            return self._chunks[size](number)
        except BaseException as error:
            self.error = error
            raise
