"""Rows that are read when they are needed, as compiled programs see them.

A program is compiled for a schema, not for a file: what it holds of the data is a key, a leaf, by which it finds the
open store on the host while it runs. So other data of the same schema compile nothing anew.
"""

import hashlib
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.experimental.buffer_callback import buffer_callback

from bbvi.data.chunks import count_chunks
from bbvi.data.memory import InMemory
from bbvi.data.sampling import sample_rows
from bbvi.data.schema import Schema
from bbvi.data.source import Batches, Source
from bbvi.data.store import Store
from bbvi.runtime.pytree import pytree, static
from bbvi.runtime.types import Array

_OPEN: weakref.WeakValueDictionary[int, Store] = weakref.WeakValueDictionary()


@pytree
class OutOfCore(Source):
    """Rows that are not in memory.

    Fields:
        key: names the store to what is compiled, () uint32: made of the sample, the same whenever the data are.
        sampled: some rows, at random, in memory.
        store: where all rows are.
    """

    key: Array
    sampled: Any
    store: Store = static()

    @classmethod
    def of(cls, store: Store) -> "OutOfCore":
        """These rows; a sample of them is read."""
        schema = store.schema
        sampled = store.at(sample_rows(schema.num_rows, schema.row_size))
        digest = hashlib.sha256(repr((schema.shapes, schema.num_rows)).encode())
        for leaf in jax.tree.leaves(sampled):
            digest.update(np.ascontiguousarray(leaf).data)
        key = int.from_bytes(digest.digest()[:4], "little")
        _OPEN[key] = store
        return cls(np.asarray(key, np.uint32), sampled, store)

    @property
    def schema(self) -> Schema:
        """Of all rows."""
        return self.store.schema

    @property
    def num_rows(self) -> int:
        return self.schema.num_rows

    @property
    def num_numbers(self) -> int:
        return self.schema.num_rows * self.schema.row_size

    @property
    def num_chunks(self) -> int:
        return count_chunks(self.num_rows, self.row_size)

    @property
    def is_in_memory(self) -> bool:
        return False

    def take(self, batch: Any) -> Any:
        return batch

    def sample(self) -> Any:
        return self.sampled

    def batches(self, size: int, seed: int) -> Batches:
        return Batches(self.store.reshuffled(seed), size, self.row_size)

    def chunk(self, number: Array, size: int) -> Any:
        """Chunk `number` of `size` rows; the last one ends with the last row, so that all have the same size."""
        schema = self.schema
        shapes = zip(schema.shapes, schema.dtypes, strict=True)
        results = tuple(jax.ShapeDtypeStruct((size, *shape), dtype) for shape, dtype in shapes)

        def read(key: Any, number: Any) -> list[np.ndarray]:
            return jax.tree.leaves(_OPEN[int(np.asarray(key))].chunk(int(np.asarray(number)), size))

        def into(_: Any, out: Any, key: Any, number: Any) -> None:
            for buffer, array in zip(out, read(key, number), strict=True):
                np.asarray(buffer)[...] = array

        if jax.default_backend() == "cpu":  # see bbvi/models/external.py on pure_callback
            leaves = buffer_callback(into, results, vmap_method="sequential")(self.key, number)
        else:
            leaves = jax.pure_callback(lambda *a: tuple(read(*a)), results, self.key, number, vmap_method="sequential")
        return jax.tree.unflatten(schema.treedef, leaves)


Rows = InMemory | OutOfCore


def rows_of(data: Any) -> Rows:
    """The rows of data that were read: along the leading axis of arrays, or out of core."""
    return data if isinstance(data, OutOfCore) else InMemory(data)


@contextmanager
def plain_errors(data: Any) -> Generator[None]:
    """Inside, what goes wrong while chunks of rows are read is raised as it was, not as compiled code reports it."""
    store = data.store if isinstance(data, OutOfCore) else None
    del data  # whose arrays need not be kept
    try:
        yield
    except Exception as error:
        cause = None if store is None else store.error
        if store is None or cause is None:
            raise
        store.error = None
        raise cause from error
