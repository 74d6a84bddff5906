"""Where the entries of a Hessian are found in a few products, for latent coordinates in blocks between separators."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from bbvi.distributions.arrow import Arrow
from bbvi.distributions.split import Split
from bbvi.runtime.types import Sparse
from bbvi.structure.colouring import colouring, meeting


class Entries(NamedTuple):
    """Entries of the precision of the latent coordinates."""

    row: np.ndarray  # a place, (n,)
    column: np.ndarray
    at: np.ndarray  # where it is found in products, flattened


def arrange(pattern: Sparse, hyper: np.ndarray, separators: np.ndarray, blocks: np.ndarray, sums: np.ndarray) -> Split:
    """The split of a vector, with a colour for each latent coordinate.

    Entries between blocks and separators are read from the products of the separators, so that columns of blocks may
    share one where they only meet in a separator.

    Arguments:
        pattern: of the Hessian, `(dim, dim)`, symmetric, with the whole diagonal.
        hyper, separators: coordinates.
        blocks: coordinates `(blocks, size)`, filled up with `dim`.
        sums: rows v of terms -v v^T of the Hessian beside the pattern, `(r, dim)`.
    """
    dim, (count, size) = pattern.shape[0], blocks.shape
    latents = np.concatenate([blocks.ravel(), separators])
    place = np.full(dim, -1)
    place[latents[latents < dim]] = np.flatnonzero(latents < dim)
    inside = np.sort(blocks[blocks < dim])
    rest = np.concatenate([inside, separators])
    colour = np.full(dim, -1)
    colour[inside] = colouring(meeting(pattern[inside][:, inside]))
    colour[separators] = colour.max() + 1 + colouring(meeting(pattern[rest][:, separators]))
    inner = pattern[rest][:, rest].tocoo()
    row, column = rest[inner.row], rest[inner.col]
    at = colour[column] * len(latents) + place[row]
    nothing = (colour.max() + 1) * len(latents)
    block_of, within = np.divmod(place, size)
    is_separator = np.isin(np.arange(dim), separators)

    own = ~is_separator[row] & ~is_separator[column]
    of_blocks = np.full((count, size, size), nothing, np.int32)
    of_blocks[block_of[row[own]], within[row[own]], within[column[own]]] = at[own]

    number = np.full(dim, -1)
    number[separators] = np.arange(len(separators))
    beside = ~is_separator[row] & is_separator[column]
    touched, slot = _touched(block_of[row[beside]], number[column[beside]], count, len(separators))
    border = np.full((count, size, touched.shape[1]), nothing, np.int32)
    border[block_of[row[beside]], within[row[beside]], slot] = at[beside]

    both = is_separator[row] & is_separator[column]
    corner = np.full((len(separators),) * 2, nothing, np.int32)
    corner[number[row[both]], number[column[both]]] = at[both]
    entries = Arrow(of_blocks, border, corner, touched)
    of_places = np.append(colour, -1)[latents]
    held = np.pad(sums, ((0, 0), (0, 1)))[:, latents]
    held = held[np.any(held != 0, axis=1)]
    return Split.arranged(hyper, latents, of_places, entries, dim, (count, size), held)


def _touched(block: np.ndarray, separator: np.ndarray, count: int, filler: int) -> tuple[np.ndarray, np.ndarray]:
    """The separators that each of `count` blocks touches, `(count, most)`, and the slot of each pair that is given."""
    pairs, which = np.unique(block * (filler + 1) + separator, return_inverse=True)
    of_block, of_separator = np.divmod(pairs, filler + 1)
    starts = np.searchsorted(of_block, np.arange(count))
    slot = np.arange(len(pairs)) - starts[of_block]
    touched = np.full((count, slot.max(initial=-1) + 1), filler, np.int32)
    touched[of_block, slot] = of_separator
    return touched, slot[which]


def entries_of(split: Split) -> Entries:
    """All entries of the precision that may not be zero."""
    at, (blocks, size) = split.entries, split.shape
    separators = blocks * size + np.arange(at.num_separators + 1)
    of_blocks = np.arange(blocks * size).reshape(blocks, size)
    touched = separators[np.asarray(at.touched)]
    parts = [
        (of_blocks[:, :, None], of_blocks[:, None, :], at.blocks),
        (of_blocks[:, :, None], touched[:, None, :], at.border),
        (touched[:, None, :], of_blocks[:, :, None], at.border),
        (separators[:-1, None], separators[None, :-1], at.corner),
    ]
    row, column, found = (
        np.concatenate(column)
        for column in zip(*(map(np.ravel, np.broadcast_arrays(*map(np.asarray, part))) for part in parts), strict=True)
    )
    known = found < split.num_colours * split.num_places
    return Entries(row[known], column[known], found[known])


def filled_up(blocks: Sequence[np.ndarray], dim: int) -> np.ndarray:
    """Blocks `(blocks, size)`, those smaller than the largest filled up with `dim`."""
    sizes = np.array(list(map(len, blocks)))
    filled = np.full((len(blocks), sizes.max()), dim)
    filled[np.arange(sizes.max()) < sizes[:, None]] = np.concatenate(blocks)
    return filled
