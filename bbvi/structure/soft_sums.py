"""Sums of many coordinates that the log density holds near a value, as soft constraints do: sum(x) ~ N(0, 0.01).

Such a term couples all coordinates with one another, though all it adds to the Hessian is -v v^T. It is left out of the
pattern, and v is found from columns of the Hessian, at rows that have no entry of the pattern there.
"""

from collections.abc import Sequence

import numpy as np

from bbvi.runtime.types import Sparse

MOST_SUMS = 8
SAME_COLUMN = 1e-4  # relative difference between two points, below which a column counts as constant


def probes(pattern: Sparse, sets: Sequence[np.ndarray]) -> np.ndarray:
    """Two coordinates of each set that have the fewest rows of the pattern in common, `(r, 2)`."""
    degree = np.diff(pattern.indptr)
    chosen = []
    for members in sets:
        first = members[np.argmin(degree[members])]
        seen = pattern[:, [first]].toarray().ravel() > 0
        overlap = np.asarray(pattern[members].astype(int) @ (seen & _holds(members, len(seen))).astype(int))
        others = members[~seen[members]]
        chosen.append((first, others[np.argmin(overlap[~seen[members]])] if len(others) else first))
    return np.array(chosen, int).reshape(-1, 2)


def distinct(wide: Sequence[np.ndarray]) -> list[np.ndarray] | None:
    """The sets of coordinates behind sums, each once; None where they are many or have coordinates in common."""
    sets = list({members.tobytes(): members for members in wide}.values())
    members = [i for each in sets for i in each]
    if len(sets) > MOST_SUMS or len(set(members)) < len(members):
        return None
    return sets


def soft_sums(
    columns: np.ndarray, pattern: Sparse, sets: Sequence[np.ndarray], chosen: np.ndarray
) -> np.ndarray | None:
    """v of each set, `(r, dim)`; None where a sum is not held by a constant, or not from both sides.

    Arguments:
        columns: of the Hessian, those of `probes` at some points, `(points, r, 2, dim)`.
        pattern: of the Hessian without the sums.
        sets: coordinates that each sum depends on.
        chosen: by `probes`.
    """
    made = []
    for members, pair, column in zip(sets, chosen, np.moveaxis(columns, 1, 0), strict=True):
        free = (pattern[:, pair].toarray() == 0).T & _holds(members, columns.shape[-1])
        vector = _vector(column, free, pair)
        if vector is None or (free.any(axis=0) < _holds(members, len(vector))).any():
            return None
        made.append(vector)
    return np.array(made)


def _vector(columns: np.ndarray, free: np.ndarray, pair: np.ndarray) -> np.ndarray | None:
    """v `(dim,)`, of two columns `(points, 2, dim)`, at rows that are free of the pattern in one of them `(2, dim)`."""
    change = np.abs(np.ptp(columns, axis=0)[free]).max(initial=0)
    if not change <= SAME_COLUMN * np.abs(columns).max() or not free[0, pair[1]]:
        return None
    first, second = np.where(free, -columns[-1], 0)  # v_i v_j of every i, with j of the pair
    strongest = np.argmax(np.abs(first * second))
    if second[strongest] == 0 or not (square := first[pair[1]] * first[strongest] / second[strongest]) > 0:
        return None
    of_first = np.sqrt(square)
    return np.where(free[0], first / of_first, second * of_first / first[pair[1]])


def _holds(members: np.ndarray, dim: int) -> np.ndarray:
    """Which coordinates are members, `(dim,)` bool."""
    return np.isin(np.arange(dim), members)
