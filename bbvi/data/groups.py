"""Rows of data that belong to groups, as arrays whose leading axis counts the groups."""

from typing import Any, NamedTuple

import jax
import numpy as np

MOST_FILLED = 4.0  # times as many rows as there are, after groups were filled up


class Grouped(NamedTuple):
    """The rows of groups, or of one of them."""

    rows: Any  # a pytree of arrays (groups, m, ...), or (m, ...) of one group
    used: Any  # bool (groups, m), or (m,): which rows are the group's own, rather than filled up; None for all


def read_groups(data: Any, group: Any) -> tuple[list[Any], Grouped]:
    """Labels of the groups, and their rows; memory-mapped arrays stay what they are.

    Raises:
        TypeError, ValueError: naming the argument, what is wrong with it and the remedy.
    """
    numbers_of = _read_labels(group)
    leaves = jax.tree.leaves(data)
    if not leaves or any(np.shape(leaf)[:1] != numbers_of.shape for leaf in leaves):
        shapes = [np.shape(leaf) for leaf in leaves]
        raise ValueError(
            f"data must have the {len(numbers_of)} rows of group as the leading axis of each array; the shapes are "
            f"{shapes}."
        )
    if any(isinstance(leaf, np.memmap) for leaf in leaves):
        return _in_files(data, numbers_of)
    labels, number = np.unique(numbers_of, return_inverse=True)
    _refuse_nan(data, labels, number)
    return labels.tolist(), _filled_up(data, number)


def _read_labels(group: Any) -> np.ndarray:
    group = np.asarray(group)
    if group.ndim != 1 or not len(group):
        raise ValueError(f"group must hold one label for each row, (rows,), and has the shape {group.shape}.")
    if group.dtype.kind not in "biufUS":
        raise TypeError(f"group holds {group.dtype}: give integers or strings as labels.")
    if group.dtype.kind == "f" and not np.isfinite(group).all():
        raise ValueError(
            f"group has no label in row {np.flatnonzero(~np.isfinite(group))[0]}: it is not finite. Drop such rows, or "
            "give them a group."
        )
    return group


def _refuse_nan(data: Any, labels: np.ndarray, number: np.ndarray) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        array = np.asarray(leaf)
        if array.dtype.kind != "f":
            continue
        bad = np.flatnonzero(np.isnan(array).reshape(len(array), -1).any(axis=1))
        if len(bad):
            groups = np.unique(number[bad])
            raise ValueError(
                f"data{jax.tree_util.keystr(path)} holds NaN in {len(bad)} rows, of {len(groups)} of {len(labels)} "
                f"groups; the first is {labels[groups[0]].item()!r}, in row {bad[0]}. Drop those rows."
            )


def _filled_up(data: Any, number: np.ndarray) -> Grouped:
    """Groups filled up to the largest by rows of their own, which do not count."""
    order, sizes = np.argsort(number, kind="stable"), np.bincount(number)
    largest, rows = int(sizes.max()), len(number)
    if (times := largest * len(sizes) / rows) > MOST_FILLED:
        raise ValueError(
            f"group: the largest of {len(sizes)} groups has {largest} rows and the median {int(np.median(sizes))}. "
            f"Groups are filled up to the largest, which would make {times:.0f} times as many rows, and at most "
            f"{MOST_FILLED:.0f} times are worth it. Sum up rows that are alike into one with a count, by which "
            "log_likelihood multiplies; or write one log density, and let fit find its groups."
        )
    first, place = (np.cumsum(sizes) - sizes)[:, None], np.arange(largest)
    used = place < sizes[:, None]
    at = order[first + np.where(used, place, 0)]
    return Grouped(jax.tree.map(lambda leaf: np.asarray(leaf)[at], data), None if used.all() else used)


def _in_files(data: Any, group: np.ndarray) -> tuple[list[Any], Grouped]:
    """Groups whose rows follow one another, as views of the same memory."""
    first = np.flatnonzero(np.concatenate([[True], group[1:] != group[:-1]]))
    labels, size = group[first], len(group) // len(first)
    if len(np.unique(labels)) != len(labels):
        raise ValueError(
            "group: the rows of a group must follow one another where data are memory-mapped, since sorting would read "
            "them all. Write the file sorted by group, or give arrays in memory."
        )
    if not np.array_equal(first, size * np.arange(len(labels))):
        sizes = np.diff(np.append(first, len(group)))
        raise ValueError(
            f"group: where data are memory-mapped all groups must have as many rows, and these have {sizes.min()} to "
            f"{sizes.max()}. Write the file with {sizes.max()} rows for each and a column that is 0 in the rows that "
            "fill up and else 1, by which log_likelihood multiplies; or give arrays in memory."
        )
    return labels.tolist(), Grouped(jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]), data), None)
