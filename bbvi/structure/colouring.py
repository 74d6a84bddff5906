"""Columns of a sparse matrix that may share a product: the colours of a graph."""

import numpy as np

from bbvi.runtime.types import Sparse

MOST_IN_ORDER = 20_000  # columns that are coloured one by one


def colouring(conflicts: Sparse) -> np.ndarray:
    """A colour for each column, of which those of one colour have no conflict, `(n,)`.

    Columns are coloured many at once, those with the most conflicts first, and one by one in their order, which is best
    for chains; the fewer colours are taken.

    Arguments:
        conflicts: between columns, `(n, n)`, symmetric, each with itself.
    """
    many = _many_at_once(conflicts)
    if conflicts.shape[0] > MOST_IN_ORDER or many.max(initial=0) == 0:
        return many
    one_by_one = _in_order(conflicts)
    return one_by_one if one_by_one.max() < many.max() else many


def _in_order(conflicts: Sparse) -> np.ndarray:
    """Each column gets the first colour that none before it in conflict has."""
    starts, others = conflicts.indptr.tolist(), conflicts.indices.tolist()
    colour = [-1] * conflicts.shape[0]
    for i in range(len(colour)):
        taken = {colour[j] for j in others[starts[i] : starts[i + 1]]}
        colour[i] = next(c for c in range(len(taken) + 1) if c not in taken)
    return np.array(colour)


def _many_at_once(conflicts: Sparse) -> np.ndarray:
    """One colour after the other goes to as many columns as can have it."""
    dim = conflicts.shape[0]
    colour = np.full(dim, -1)
    if not dim:
        return colour
    degree = np.diff(conflicts.indptr)
    rank = np.empty(dim, int)  # from 1; of equals in random order, so that many are chosen at once
    rank[np.lexsort([np.random.default_rng(0).permutation(dim), degree])] = np.arange(1, dim + 1)
    current = 0
    while (free := colour < 0).any():
        while free.any():
            ranks = np.where(free, rank, 0)
            chosen = free & (np.maximum.reduceat(ranks[conflicts.indices], conflicts.indptr[:-1]) == rank)
            colour[chosen] = current
            free &= np.maximum.reduceat(chosen[conflicts.indices], conflicts.indptr[:-1]) == 0
        current += 1
    return colour


def meeting(pattern: Sparse) -> Sparse:
    """Which columns of a pattern `(m, n)` have an entry in the same row, `(n, n)`."""
    counts = pattern.astype(np.int32)
    met = (counts.T @ counts).tocsr()
    met.sort_indices()
    return met
