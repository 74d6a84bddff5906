"""Separators: a few coordinates without which a connected part falls into small blocks.

A part is split where a breadth-first search from its rim has a thin level near the middle, and so are its halves, until
all are small: nested dissection, of which only the last level is kept apart. A chain loses a state here and there, a
lattice some rows and columns.

References: George 1973; George and Liu 1978 (level structures).
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from scipy.sparse.csgraph import dijkstra

from bbvi.runtime.types import Sparse
from bbvi.structure.partition import components, partition

MOST_SEPARATORS = 1000
MOST_NUMBERS = 2**21  # in a factor: dozens of them are held side by side
DENSE = 0.5  # share of entries that are not zero, from which a part is left whole
MIDDLE = 0.3, 0.7  # of the part lie before the level that splits it


class Dissection(NamedTuple):
    """Separators in order, and blocks that only touch these."""

    separators: np.ndarray
    blocks: list[np.ndarray]
    touched: int = 0  # separators that a block touches, at most

    @property
    def cost(self) -> float:
        """Multiplications that a factorisation takes, about."""
        size, touched = float(max(map(len, self.blocks))), float(self.touched)
        return len(self.blocks) * size * (size + touched) ** 2 + float(len(self.separators)) ** 3

    @property
    def numbers(self) -> int:
        """Numbers that a factor and what it is made from hold, about."""
        return len(self.blocks) * (max(map(len, self.blocks)) + self.touched) ** 2 + len(self.separators) ** 2


def dissect(pattern: Sparse, coordinates: np.ndarray) -> Dissection | None:
    """The dissection of some coordinates that is cheapest to work with; None where they are best left whole.

    Arguments:
        pattern: of the Hessian, `(dim, dim)`, symmetric.
    """
    inner = pattern[coordinates][:, coordinates]
    if inner.nnz > DENSE * len(coordinates) ** 2:
        return None
    candidates = [_dissection(inner, *partition(inner, [], MOST_SEPARATORS)), *_bisections(inner)]
    best = min(candidates, key=lambda each: each.cost)
    if len(best.separators) > MOST_SEPARATORS or not len(best.separators) or best.numbers > MOST_NUMBERS:
        return None
    return best._replace(separators=coordinates[best.separators], blocks=[coordinates[block] for block in best.blocks])


def _dissection(pattern: Sparse, separators: np.ndarray, blocks: list[np.ndarray]) -> Dissection:
    """With the separators that blocks touch counted."""
    block_of = np.full(pattern.shape[0], -1)
    for number, block in enumerate(blocks):
        block_of[block] = number
    row, column = pattern.nonzero()
    beside = (block_of[row] >= 0) & (block_of[column] < 0)
    pairs = np.unique(block_of[row[beside]] * pattern.shape[0] + column[beside])
    touched = np.bincount(pairs // pattern.shape[0]).max(initial=0)
    return Dissection(separators, blocks, int(touched))


def _bisections(pattern: Sparse) -> Iterator[Dissection]:
    """All coordinates in blocks, from large ones to small ones."""
    dim = pattern.shape[0]
    size, smallest = dim, dim**0.4 / 1.5  # the best for a chain, about, is larger
    parts, separators = components(pattern, np.arange(dim)), [np.zeros(0, int)]
    while size > smallest:
        size = max(map(len, parts)) // 2 + 1
        small: list[np.ndarray] = []
        while parts:
            part = parts.pop()
            if len(part) <= size:
                small.append(part)
                continue
            thin = _thin_level(pattern[part][:, part])
            separators.append(part[thin])
            parts += components(pattern, part[~thin])
        parts = small
        yield _dissection(pattern, np.sort(np.concatenate(separators)), _filled(parts, size))


def _thin_level(pattern: Sparse) -> np.ndarray:
    """Which coordinates of a connected part separate what lies before them from what lies behind, bool."""
    rim = int(np.argmax(_distances(pattern, 0)))
    distance = _distances(pattern, rim)
    row, column = pattern.nonzero()
    before = np.zeros(len(distance), bool)  # of a level, those that the next one touches
    before[row[distance[column] > distance[row]]] = True
    thickness = np.bincount(distance[before])
    lie_before = np.cumsum(np.bincount(distance))[: len(thickness)] / len(distance)
    is_near = (lie_before >= MIDDLE[0]) & (lie_before <= MIDDLE[1])
    off = np.abs(lie_before - 0.5)
    level = np.lexsort([off, thickness, ~is_near])[0] if is_near.any() else np.argmin(off)
    return before & (distance == level)


def _distances(pattern: Sparse, start: int) -> np.ndarray:
    """Steps to each coordinate of a connected part."""
    return dijkstra(pattern, directed=False, indices=start, unweighted=True).astype(int)


def _filled(parts: list[np.ndarray], size: int) -> list[np.ndarray]:
    """Parts of which the smallest are put together, as long as a block is not too large."""
    blocks = [part for part in parts if 4 * len(part) > size]
    rest = [part for part in parts if 4 * len(part) <= size]
    room = 0
    for part in sorted(rest, key=len, reverse=True):
        if len(part) > room:
            blocks.append(part[:0])
            room = size
        blocks[-1] = np.concatenate([blocks[-1], part])
        room -= len(part)
    return [np.sort(block) for block in blocks]
