"""Columns of a sparse matrix that may share a product: the colours of a graph."""

import numpy as np

from bbvi.runtime.types import Sparse


def colouring(conflicts: Sparse) -> np.ndarray:
    """A colour for each column, of which those of one colour have no conflict, `(n,)`.

    One colour after the other goes to as many columns as can have it, those with the most conflicts first.

    Arguments:
        conflicts: between columns, `(n, n)`, symmetric, each with itself.
    """
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
