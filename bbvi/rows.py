"""Rows of data that are never in memory as a whole: in files, and in streams."""

import hashlib
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.epochs import STREAM, Ahead, Reader, Reshuffled, cut, join
from bbvi.pytree import pytree, static

Array = Any
Shape = tuple[int, ...]
BLOCK = 2**14  # numbers in rows that are read together, about
WINDOW = 2**23  # numbers in rows that are shuffled together, about
SAMPLE = 2**20  # numbers in the rows that stand for all where a fit starts; more of them up to MANY rows
MANY, LARGE = 10_000, 2**24  # as long as these are no more numbers than LARGE
LEAST = 256  # rows


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


@dataclass(frozen=True)
class Schema:
    """The structure of the data, and the shape and type of each array in one row."""

    treedef: Any
    shapes: tuple[Shape, ...]
    dtypes: tuple[np.dtype, ...]
    num_rows: int

    @classmethod
    def of(cls, rows: Any, num_rows: int) -> "Schema":
        """That of rows `(n, ...)`; floating point ones in the type that is computed in."""
        leaves, treedef = jax.tree.flatten(rows)
        kinds = [float if jnp.issubdtype(leaf.dtype, np.floating) else leaf.dtype for leaf in leaves]
        dtypes = tuple(np.dtype(jax.dtypes.canonicalize_dtype(kind)) for kind in kinds)
        return cls(treedef, tuple(np.shape(leaf)[1:] for leaf in leaves), dtypes, num_rows)

    @property
    def width(self) -> int:
        """Numbers in a row."""
        return sum(int(np.prod(shape)) for shape in self.shapes)

    def read(self, rows: Any, where: str) -> Any:
        """Rows in these types, after a look at their structure and for NaN.

        Raises:
            TypeError, ValueError: naming what differs, and `where`.
        """
        arrays, treedef = jax.tree.flatten(rows)
        if treedef != self.treedef:
            raise TypeError(f"data: {where} have the structure {treedef}; it was {self.treedef} before.")
        found = []
        for array, shape, dtype, name in zip(arrays, self.shapes, self.dtypes, self._names(), strict=True):
            array = np.asarray(array)
            if array.shape[1:] != shape or len(array) != len(arrays[0]):
                raise ValueError(
                    f"data{name}: {where} have the shape {array.shape}, and not ({len(arrays[0])}, "
                    f"{', '.join(map(str, shape))}) as those before. All rows must be alike."
                )
            if array.dtype.kind == "f" and np.isnan(array).any():
                raise ValueError(f"data{name}: {where} hold NaN. Drop those rows, or fill them and give a mask along.")
            if not np.can_cast(array.dtype, dtype, "same_kind"):
                raise TypeError(f"data{name}: {where} are of dtype {array.dtype}; they were {dtype} before.")
            found.append(array.astype(dtype, copy=False))
        return jax.tree.unflatten(treedef, found)

    def _names(self) -> list[str]:
        tree = jax.tree.unflatten(self.treedef, range(len(self.shapes)))
        return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]


class Source(ABC):
    """Rows that are read when they are needed. Two of the same schema are equal: they share what was compiled."""

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.error: BaseException | None = None  # of the last chunk that could not be read
        self._chunks: dict[int, Ahead] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Source) and self.schema == other.schema

    def __hash__(self) -> int:
        return hash(self.schema)

    @abstractmethod
    def sample(self, indices: np.ndarray) -> Any:
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
            self._chunks[size] = Ahead(lambda i: reader.read(min(i * size, rows - size), size), count)
        try:
            return self._chunks[size](number)
        except BaseException as error:
            self.error = error
            raise


class Stored(Source):
    """Rows of arrays that support slicing and indexing, such as `np.memmap`."""

    def __init__(self, arrays: Any) -> None:
        super().__init__(Schema.of(arrays, len(jax.tree.leaves(arrays)[0])))
        self._arrays = arrays

    def sample(self, indices: np.ndarray) -> Any:
        return self._at(indices)

    def in_order(self) -> Reader:
        return self

    def read(self, first: int, count: int) -> Any:
        """Neighbouring rows."""
        return self._at(slice(first, first + count))

    def reshuffled(self, seed: int) -> Reader:
        block, window = max(1, BLOCK // self.schema.width), max(1, WINDOW // self.schema.width)
        return Reshuffled(self.schema.num_rows, seed, self._at, block, window)

    def _at(self, rows: slice | np.ndarray) -> Any:
        first = rows.start if isinstance(rows, slice) else rows[0]
        return self.schema.read(jax.tree.map(lambda leaf: leaf[rows], self._arrays), f"the rows read from {first} on")


class Streamed(Source):
    """Rows of a `Stream`."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(Schema.of(_first(stream), stream.num_rows))
        self.stream = stream

    def sample(self, indices: np.ndarray) -> Any:
        reader, pieces, size = self.in_order(), [], max(1, WINDOW // self.schema.width)
        for first in range(0, self.schema.num_rows, size):
            count = min(size, self.schema.num_rows - first)
            chosen = indices[(indices >= first) & (indices < first + count)] - first
            pieces.append(jax.tree.map(lambda leaf, chosen=chosen: leaf[chosen], reader.read(first, count)))
        return join(pieces)

    def in_order(self) -> "_StreamReader":
        return _StreamReader(self.stream, self.schema)

    def reshuffled(self, seed: int) -> "_StreamReader":
        return self.in_order()


class _StreamReader:
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
            self._position += _length(batch)
            self._held = [(at, rows) for at, rows in self._held if at + _length(rows) > first]
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
        extra = place + _length(batch) - num_rows
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


@pytree
class Elsewhere:
    """Data that are not in memory.

    Fields:
        key: names the source to what is compiled, () uint32: made of the sample, the same whenever the data are.
        sample: some rows, at random, in memory.
        source: where all rows are.
    """

    key: Array
    sample: Any
    source: Source = static()

    @classmethod
    def of(cls, source: Source) -> "Elsewhere":
        """These rows, of which a sample is read."""
        schema = source.schema
        sample = source.sample(sample_rows(schema.num_rows, schema.width))
        digest = hashlib.sha256(repr((schema.shapes, schema.num_rows)).encode())
        for leaf in jax.tree.leaves(sample):
            digest.update(np.ascontiguousarray(leaf).data)
        key = int.from_bytes(digest.digest()[:4], "little")
        _OPEN[key] = source
        return cls(np.uint32(key), sample, source)

    @property
    def schema(self) -> Schema:
        """Of all rows."""
        return self.source.schema


_OPEN: weakref.WeakValueDictionary[int, Source] = weakref.WeakValueDictionary()


def find_source(key: int) -> Source:
    """The source of this key."""
    return _OPEN[key]


@contextmanager
def plain_errors(data: Any) -> Iterator[None]:
    """Inside, what goes wrong while chunks of rows are read is raised as it was, not as compiled code reports it."""
    source = data.source if isinstance(data, Elsewhere) else None
    del data  # of which arrays need not be kept
    try:
        yield
    except Exception as error:
        cause = None if source is None else source.error
        if source is None or cause is None:
            raise
        source.error = None
        raise cause from error


def num_sampled(num_rows: int, width: int) -> int:
    """How many rows stand for all, where a row is `width` numbers."""
    width = max(width, 1)
    return min(num_rows, max(LEAST, SAMPLE // width, min(MANY, LARGE // width)))


def sample_rows(num_rows: int, width: int) -> np.ndarray:
    """Sorted numbers of these rows, chosen at random without replacement."""
    rng = np.random.default_rng(STREAM)
    return np.sort(rng.choice(num_rows, num_sampled(num_rows, width), replace=False, shuffle=False))


def _length(rows: Any) -> int:
    return len(jax.tree.leaves(rows)[0])
