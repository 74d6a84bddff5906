"""Separators: a few coordinates without which a connected part falls into small blocks.

A part is split where a breadth-first search from its rim has a thin level near the middle, and so are its halves, until
all are small: nested dissection, of which only the last level is kept apart. A chain loses a state here and there, a
lattice some rows and columns.

References: George 1973; George and Liu 1978 (level structures).
"""

from typing import NamedTuple

import numpy as np
from scipy.sparse.csgraph import dijkstra

from bbvi.runtime.types import Sparse
from bbvi.structure.partition import components, partition

BLOCK_SIZES = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)  # that are tried
MOST_SEPARATORS = 1000
MIDDLE = 0.3, 0.7  # of the part lie before the level that splits it


class Dissection(NamedTuple):
    """Separators in order, and blocks that only touch these."""

    separators: np.ndarray
    blocks: list[np.ndarray]

    @property
    def cost(self) -> float:
        """Multiplications that a factorisation takes, about."""
        size = float(max(map(len, self.blocks)))
        return len(self.blocks) * size**3 + float(len(self.separators)) ** 3


def dissect(pattern: Sparse, coordinates: np.ndarray) -> Dissection | None:
    """The dissection of some coordinates that is cheapest to work with; None where they are best left whole.

    Arguments:
        pattern: of the Hessian, `(dim, dim)`, symmetric.
    """
    inner = pattern[coordinates][:, coordinates]
    hubs, rest = partition(inner, [], MOST_SEPARATORS)
    candidates = [Dissection(hubs, rest)]
    candidates += [_bisected(inner, size) for size in BLOCK_SIZES if size < len(coordinates)]
    best = min(candidates, key=lambda each: each.cost)
    if len(best.separators) > MOST_SEPARATORS or not len(best.separators):
        return None
    return Dissection(coordinates[best.separators], [coordinates[block] for block in best.blocks])


def _bisected(pattern: Sparse, size: int) -> Dissection:
    """All coordinates in blocks of at most that size."""
    separators: list[np.ndarray] = []
    small: list[np.ndarray] = []
    waiting = [np.arange(pattern.shape[0])]
    while waiting:
        for part in components(pattern, waiting.pop()):
            if len(part) <= size:
                small.append(part)
                continue
            thin = _thin_level(pattern[part][:, part])
            separators.append(part[thin])
            waiting.append(part[~thin])
    chosen = np.sort(np.concatenate([np.zeros(0, int), *separators]))
    return Dissection(chosen, _filled(small, size))


def _thin_level(pattern: Sparse) -> np.ndarray:
    """Which coordinates of a connected part separate what lies before them from what lies behind, bool."""
    rim = np.argmax(_distances(pattern, 0))
    distance = _distances(pattern, int(rim))
    order = np.argsort(distance, kind="stable")
    below, above = (distance[order[int(share * (len(order) - 1))]] for share in MIDDLE)
    best = None
    for level in range(below, max(below, min(above, distance.max() - 1)) + 1):
        behind = pattern[distance == level + 1].sum(axis=0) > 0
        rim_of_level = (distance == level) & np.asarray(behind).ravel()
        if best is None or rim_of_level.sum() < best.sum():
            best = rim_of_level
    return best if best is not None and best.any() else distance == below


def _distances(pattern: Sparse, start: int) -> np.ndarray:
    """Steps to each coordinate of a connected part."""
    return dijkstra(pattern, directed=False, indices=start, unweighted=True).astype(int)


def _filled(parts: list[np.ndarray], size: int) -> list[np.ndarray]:
    """Parts put together, the largest first, as long as a block is not too large."""
    blocks: list[list[np.ndarray]] = []
    room = 0
    for part in sorted(parts, key=len, reverse=True):
        if len(part) > room:
            blocks.append([])
            room = size
        blocks[-1].append(part)
        room -= len(part)
    return [np.sort(np.concatenate(block)) for block in blocks]
