"""Hyper-parameters, without which the other coordinates fall into small blocks."""

from collections.abc import Sequence

import numpy as np
from scipy.sparse.csgraph import connected_components, reverse_cuthill_mckee

from bbvi.runtime.types import Sparse

MOST_HYPER = 64  # hyper-parameters
LARGE_BLOCK = 20  # coordinates, from which zeros within a block are looked at
WORTH = 4  # times cheaper has to be what needs more hyper-parameters and still leaves a large block
LARGE_PATTERN = 100_000  # entries, from which not every number of hyper-parameters is tried


def partition(
    pattern: Sparse, hyper: Sequence[int] | np.ndarray, most: int = MOST_HYPER
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Hyper-parameters, and the blocks into which the others fall.

    To those that are given the k coordinates with the most neighbours are added, and of all k the one is taken with the
    least s^3 + sum b^3, with s hyper-parameters and blocks of b coordinates; of equals the smallest. A large block
    counts with three times the multiplications of an envelope method, which are few for a chain. None are added where
    they would leave one small block only. There are no more of them than `most` and half of the coordinates, unless
    more are given.

    Arguments:
        pattern: of the Hessian, `(dim, dim)`, symmetric.
        hyper: coordinates that are hyper-parameters, whatever their neighbours.
        most: hyper-parameters.

    Returns:
        Coordinates of the hyper-parameters in order; and those of each block, by the first coordinate of each.
    """
    dim = pattern.shape[0]
    given = np.unique(np.asarray(hyper, int))
    ranked = by_degree(pattern, given)
    room = max(0, min(most, dim // 2, dim - 1) - len(given))
    best: tuple[float, np.ndarray, np.ndarray] | None = None
    for k in _numbers(room, contiguous=pattern.nnz <= LARGE_PATTERN):
        count = len(given) + k
        if best is not None and float(count) ** 3 >= best[0]:
            break
        rest = np.setdiff1d(np.arange(dim), [*given, *ranked[:k]], assume_unique=True)
        labels = _components(pattern, rest)
        if k and labels.max(initial=0) == 0 and len(rest) <= LARGE_BLOCK:
            continue
        is_large = np.bincount(labels).max(initial=0) > LARGE_BLOCK
        cost = float(count) ** 3 + _cost(pattern, rest, labels)
        if best is None or cost * (WORTH if is_large else 1) < best[0]:
            best = cost, rest, labels
    assert best is not None
    _, rest, labels = best
    return np.setdiff1d(np.arange(dim), rest, assume_unique=True), _blocks(rest, labels)


def components(pattern: Sparse, coordinates: np.ndarray) -> list[np.ndarray]:
    """The connected parts of some coordinates, given all others."""
    return _blocks(coordinates, _components(pattern, coordinates))


def by_degree(pattern: Sparse, without: np.ndarray) -> np.ndarray:
    """All coordinates but those `without`, by how many neighbours they have beside these, the most first."""
    dim = pattern.shape[0]
    rest = np.setdiff1d(np.arange(dim), without, assume_unique=True)
    inner = pattern[rest][:, rest]
    degree = np.diff(inner.indptr) - (inner.diagonal() != 0)
    return rest[np.argsort(-degree, kind="stable")]


def _cost(pattern: Sparse, coordinates: np.ndarray, labels: np.ndarray) -> float:
    """About the multiplications in a factorisation of the blocks."""
    sizes = np.bincount(labels)
    large = sizes > LARGE_BLOCK
    cost = float(np.sum(sizes[~large].astype(float) ** 3))
    if large.any():
        some = coordinates[large[labels]]
        inner = pattern[some][:, some]
        order = reverse_cuthill_mckee(inner, symmetric_mode=True)
        inner = inner[order][:, order].tocoo()
        first = np.arange(len(some))
        np.minimum.at(first, inner.row, inner.col)
        envelope = 3 * float(np.sum((np.arange(len(some)) - first + 1.0) ** 2))
        cost += min(envelope, float(np.sum(sizes[large].astype(float) ** 3)))
    return cost


def _numbers(room: int, contiguous: bool) -> list[int]:
    """The numbers of hyper-parameters to try: all, or fewer the larger they are."""
    dense = MOST_HYPER if contiguous else 8
    spread = [*range(dense), *np.unique(np.geomspace(dense, max(room, dense), 24).astype(int))]
    return [k for k in spread if k <= room]


def _components(pattern: Sparse, coordinates: np.ndarray) -> np.ndarray:
    """For each of some coordinates the number of the connected part it is in."""
    return connected_components(pattern[coordinates][:, coordinates], directed=False)[1]


def _blocks(coordinates: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
    """Coordinates by their label; parts in order of their first coordinate."""
    if not len(coordinates):
        return []
    order = np.argsort(labels, kind="stable")
    ends = np.cumsum(np.bincount(labels))[:-1]
    return sorted(np.split(coordinates[order], ends), key=lambda block: block[0])
