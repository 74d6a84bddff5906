"""Which coordinates of x each element of an array depends on, and which of them a function couples."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from scipy.sparse import csr_array, vstack

from bbvi.runtime.types import Sparse

MOST_STORED = 30_000_000  # entries of one array's dependence
SMALL_DIM = 200  # coordinates, up to which a dense pattern is of use
WIDE, FEW = 6, 4  # coordinates behind a sum of many, from which it may be left out; elements of an array of such sums
COUPLED_IN_A_SECOND = 100_000_000  # pairs, about


class NoPatternError(Exception):
    """The pattern is dense, or takes too long to find."""


@dataclass(frozen=True, eq=False)
class Dependence:
    """On which coordinates each element of an array depends, as far as its derivative sees them.

    Elements that depend on the same coordinates may share a row, so that moving elements moves only numbers of rows.

    Fields:
        rows: sets of coordinates, `(m, dim)` of bool.
        of: the row of each element, in the shape of the array.
    """

    rows: Sparse
    of: np.ndarray

    def is_like(self, other: "Dependence") -> bool:
        """Whether elements depend on the same coordinates, plainly."""
        return self.rows is other.rows and np.array_equal(self.of, other.of)

    def moved(self, move: Callable[[np.ndarray], np.ndarray]) -> "Dependence":
        """That of the elements that `move` takes from the array."""
        return Dependence(self.rows, move(self.of))

    def of_groups(self, group: np.ndarray, count: int) -> Sparse:
        """The coordinates `(count, dim)` on which any element of a group depends; groups are counted from 0."""
        group, of = np.broadcast_arrays(group, self.of)
        return _united(self.rows, group.ravel(), of.ravel(), count)


def nothing(shape: tuple[int, ...], dim: int) -> Dependence:
    """That of an array which depends on no coordinate."""
    return Dependence(csr_array((1, dim), dtype=bool), np.zeros(shape, int))


def pooled(parts: Sequence[Dependence], move: Callable[..., np.ndarray]) -> Dependence:
    """That of an array whose elements `move` takes from several arrays; negative numbers stand for a constant."""
    distinct = {id(part.rows): part.rows for part in parts}
    starts = dict(zip(distinct, accumulate([0, *(rows.shape[0] for rows in distinct.values())]), strict=False))
    of = move(*(part.of + starts[id(part.rows)] for part in parts))
    rows = list(distinct.values())
    if (of < 0).any():
        of = np.where(of < 0, sum(each.shape[0] for each in rows), of)
        rows.append(csr_array((1, rows[0].shape[1]), dtype=bool))
    return Dependence(rows[0] if len(rows) == 1 else vstack(rows, format="csr"), of)


def union(parts: Sequence[Dependence]) -> Dependence:
    """That of a function, element by element, of several arrays."""
    first, *rest = parts
    for other in rest:
        left, right, of = _paired(first, other)
        before, beside = _taken(first.rows, left), _taken(other.rows, right)
        rows = before + beside
        # The same object where nothing is added: what it couples need not be found twice.
        rows = next((each for each in (before, beside) if each.nnz == rows.nnz), rows)
        first = Dependence(rows, of)
    return first


def compact(rows: Sparse, of: np.ndarray) -> Dependence:
    """Dependence in which equal rows are one row."""
    marks = np.random.default_rng(0).integers(2**63, size=rows.shape[1], dtype=np.uint64)
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(marks[rows.indices], dtype=np.uint64)])
    marked = sums[rows.indptr[1:]] - sums[rows.indptr[:-1]]  # equal rows have equal sums, and hardly any others do
    _, first, which = np.unique(marked, return_index=True, return_inverse=True)
    return Dependence(rows[first], which[of])


class Couplings:
    """Pairs of coordinates whose mixed second derivative may differ from zero, collected until a deadline.

    Arguments:
        wide: where given, it collects the coordinates behind single sums of many, whose pairs are left out.
    """

    def __init__(self, dim: int, seconds: float, wide: list[np.ndarray] | None = None):
        self.dim, self._deadline, self._wide = dim, time.thread_time() + seconds, wide
        self._pairs: list[np.ndarray] = []
        self._seen: dict[int, Any] = {}  # rows of which each was coupled with itself; kept, so that ids stay theirs

    @property
    def seconds_left(self) -> float:
        """Seconds of this thread to the deadline, so that a loaded machine finds the same."""
        return self._deadline - time.thread_time()

    def check(self, made: Sequence[Any] = ()) -> None:
        """Look at the clock, and at how much is stored for arrays that were made."""
        if self.seconds_left < 0 or any(isinstance(each, Dependence) and each.rows.nnz > MOST_STORED for each in made):
            raise NoPatternError

    def among(self, dependence: Dependence) -> None:
        """All coordinates on which an element depends, coupled with each other."""
        rows = dependence.rows
        used = _used(dependence.of, rows.shape[0])
        if len(used) == rows.shape[0]:
            if id(rows) in self._seen:
                return
            self._seen[id(rows)] = rows
        rows = _taken(rows, used)
        if self._wide is not None and dependence.of.size <= FEW:
            is_wide = np.diff(rows.indptr) > WIDE
            self._wide.extend(np.sort(rows[[i]].indices) for i in np.flatnonzero(is_wide))
            rows = rows[~is_wide]
        if self.dim > SMALL_DIM and np.diff(rows.indptr).max(initial=0) > max(50, self.dim // 2):
            raise NoPatternError
        if rows.nnz > 100_000:
            rows = compact(rows, np.arange(rows.shape[0])).rows
        self.between_rows(rows, rows)

    def between(self, left: Dependence, right: Dependence) -> None:
        """Coordinates of an element of one array, coupled with those of the element of the other."""
        first, second, _ = _paired(left, right)
        self.between_rows(_taken(left.rows, first), _taken(right.rows, second))

    def between_rows(self, left: Sparse, right: Sparse) -> None:
        """Coordinates of a row `(m, dim)`, coupled with those of the row beside it."""
        work = np.dot(np.diff(left.indptr).astype(float), np.diff(right.indptr).astype(float))
        if work > COUPLED_IN_A_SECOND * max(self.seconds_left, 0.0):
            raise NoPatternError
        product = left.T.tocsr() @ right
        row = np.repeat(np.arange(self.dim, dtype=np.int64), np.diff(product.indptr))
        self._pairs.append(row * self.dim + product.indices)
        if sum(map(len, self._pairs)) > MOST_STORED:
            self._pairs = [np.unique(np.concatenate(self._pairs))]
            if len(self._pairs[0]) > MOST_STORED // 2:
                raise NoPatternError

    def pattern(self) -> Sparse:
        """All pairs, `(dim, dim)` of bool, symmetric."""
        pairs = np.unique(np.concatenate([np.zeros(0, np.int64), *self._pairs]))
        entries = np.ones(len(pairs), bool), (pairs // self.dim, pairs % self.dim)
        half = csr_array(entries, shape=(self.dim, self.dim))
        whole = csr_array(half + half.T)
        whole.sort_indices()
        return whole


def _used(of: np.ndarray, count: int) -> np.ndarray:
    """Which of so many rows some element has."""
    return np.unique(of) if of.size < count else np.flatnonzero(np.bincount(of.ravel(), minlength=count))


def _taken(rows: Sparse, which: np.ndarray) -> Sparse:
    """Some rows; the same object where it is all of them in their order."""
    if len(which) == rows.shape[0] and np.array_equal(which, np.arange(len(which))):
        return rows
    return rows[which]


def _paired(left: Dependence, right: Dependence) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of two arrays that meet in an element, `(k,)` each, and which of these pairs each element has."""
    first, second = np.broadcast_arrays(left.of, right.of)
    wide = right.rows.shape[0]
    if left.rows.shape[0] * wide > 4 * first.size:
        return first.ravel(), second.ravel(), np.arange(first.size).reshape(first.shape)
    key = first * wide + second
    number = np.zeros(left.rows.shape[0] * wide, int)
    number[key.ravel()] = 1
    met = np.flatnonzero(number)
    number[met] = np.arange(len(met))
    return met // wide, met % wide, number[key]


def _united(rows: Sparse, group: np.ndarray, of: np.ndarray, count: int) -> Sparse:
    """The unions `(count, dim)` of the rows that go to each group; a negative number goes to none."""
    keep = group >= 0
    if not keep.all():
        group, of = group[keep], of[keep]
    members = csr_array((np.ones(len(group), bool), (group, of)), shape=(count, rows.shape[0]))
    return members @ rows
