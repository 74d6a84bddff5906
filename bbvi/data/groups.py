"""Rows of data that belong to groups, as rows of a sum over groups.

Where filling up all groups to the largest makes few more rows, they are arrays whose leading axis counts the groups.
Where it would make many, rows stay one after the other; a sum over all groups takes them class by class, of at most
four classes of sizes, each filled up to its own largest; and a minibatch is filled up to the largest of all.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.data.factorized import Factorized
from bbvi.data.source import IndexedSource
from bbvi.data.sums import sum_over_rows
from bbvi.runtime.types import Array

MOST_FILLED = 1.5  # times as many rows as there are, after groups were filled up, where more classes can avoid it
SIZE_CLASSES = 4  # of sizes: each is compiled by itself


class Grouped(NamedTuple):
    """The rows of groups, or of one of them."""

    rows: Any  # a pytree of arrays (groups, m, ...), or (m, ...) of one group
    used: Any  # bool (groups, m), or (m,): which rows are the group's own, rather than filled up; None for all


class Members(NamedTuple):
    """The groups of a class of sizes."""

    groups: Any  # (k,) their numbers
    places: Any  # (m,) from 0 on: as many as the largest of them has rows


class Ragged(NamedTuple):
    """The rows of groups of very different sizes."""

    rows: Any  # a pytree of arrays (rows, ...), group after group
    first: Any  # (groups,) the first row of each
    size: Any  # (groups,) how many rows each has
    members: tuple[Members, ...]  # classes of sizes

    def take(self, groups: Any, width: int | None = None) -> Grouped:
        """Some groups, filled up to `width`, or the largest of all, by rows of their own, which do not count."""
        place = max((each.places for each in self.members), key=len) if width is None else np.arange(width)
        used = place < self.size[groups][:, None]
        at = self.first[groups][:, None] + place * used.astype(place.dtype)
        return Grouped(jax.tree.map(lambda leaf: leaf[at], self.rows), used)

    @property
    def classes(self) -> list[Grouped]:
        """All groups, class by class."""
        return [self.take(each.groups, len(each.places)) for each in self.members]


@dataclass(frozen=True, eq=False)
class RaggedRows(IndexedSource):
    """Groups of very different sizes, as rows."""

    groups: Ragged

    @property
    def num_rows(self) -> int:
        return len(self.groups.first)

    @property
    def num_numbers(self) -> int:
        return sum(map(np.size, jax.tree.leaves(self.groups.rows)))

    @property
    def num_chunks(self) -> int:
        return 1

    def take(self, batch: Array) -> Grouped:
        return jax.tree.map(jnp.asarray, self.groups).take(batch)


@dataclass(frozen=True)
class SumOverGroups(Factorized):
    """A log density as prior plus likelihood of groups: `log_likelihood(values, groups)`, one number for each.

    Arguments:
        finer: the same log density with better integrals over the groups' own parameters; None where these are good.
    """

    finer: "SumOverGroups | None" = None

    def source(self, data: Any) -> Any:
        return RaggedRows(data) if isinstance(data, Ragged) else super().source(data)

    def of_groups(self, values: Any, data: Any) -> Array:
        """The log likelihood of each group, in order, `(groups,)`."""
        if not isinstance(data, Ragged):
            return self.log_likelihood(values, data)
        parts = [self.log_likelihood(values, each) for each in data.classes]
        order = jnp.concatenate([jnp.asarray(each.groups) for each in data.members])
        return jnp.zeros(len(order), parts[0].dtype).at[order].set(jnp.concatenate(parts))

    def estimate(self, values: Any, data: Any, weight: Array | float, at_once: bool) -> Array:
        if not isinstance(data, Ragged):
            return super().estimate(values, data, weight, at_once)
        add_up = (
            (lambda part: jnp.sum(self.log_likelihood(values, part)))
            if at_once
            else (lambda part: sum_over_rows(self.log_likelihood, values, part))
        )
        return self.log_prior(values) + weight * sum(map(add_up, data.classes))


def key_of(group: Grouped) -> Array:
    """A key made of the bits of a group's rows, whatever fills it up: random numbers of its own, the same each time."""
    seen = [_mixed(leaf, group.used) for leaf in jax.tree.leaves(group.rows)]
    return jax.random.key(sum(seen, start=jnp.zeros((), jnp.uint32)))


def _mixed(rows: Array, used: Any) -> Array:
    bits = jax.lax.bitcast_convert_type(jnp.asarray(rows, jnp.float32), jnp.uint32).reshape(len(rows), -1)
    bits = (bits ^ (bits >> 15)) * jnp.asarray(0x2C1B3C6D, jnp.uint32)  # so that sums of rows differ
    bits = jnp.sum(bits ^ (bits >> 12), axis=1, dtype=jnp.uint32)
    return jnp.sum(bits if used is None else jnp.where(used, bits, 0), dtype=jnp.uint32)


def read_groups(data: Any, group: Any) -> tuple[list[Any], Grouped | Ragged]:
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
    return labels.tolist(), _in_memory(data, number)


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


def _in_memory(data: Any, number: np.ndarray) -> Grouped | Ragged:
    """Groups filled up to the largest where that takes few rows; else in classes by their sizes."""
    order, sizes = np.argsort(number, kind="stable"), np.bincount(number)
    members = _size_classes(sizes)
    ragged = Ragged(
        rows=jax.tree.map(lambda leaf: np.asarray(leaf)[order], data),
        first=np.cumsum(sizes) - sizes,
        size=sizes,
        members=tuple(Members(groups, np.arange(sizes[groups].max())) for groups in members),
    )
    if len(members) > 1:
        return ragged
    filled = ragged.take(np.arange(len(sizes)), int(sizes.max()))
    return Grouped(filled.rows, None) if filled.used.all() else filled


def _size_classes(sizes: np.ndarray) -> list[np.ndarray]:
    """The groups in few classes, such that filling each up to its largest one makes few rows more."""
    classes = [np.argsort(sizes, kind="stable")]
    while (
        len(classes) < SIZE_CLASSES and sum(len(each) * sizes[each[-1]] for each in classes) > MOST_FILLED * sizes.sum()
    ):
        cuts = [_best_cut(sizes[each]) for each in classes]
        widest = int(np.argmax([saved for saved, _ in cuts]))
        at = cuts[widest][1]
        classes[widest : widest + 1] = [classes[widest][:at], classes[widest][at:]]
    return [np.sort(each) for each in classes]


def _best_cut(sizes: np.ndarray) -> tuple[int, int]:
    """Where to cut a class with these sizes, in order, and how many rows that saves."""
    at = np.arange(1, len(sizes))
    if not len(at):
        return 0, 0
    saved = at * (sizes[-1] - sizes[:-1])
    return int(saved.max()), int(at[np.argmax(saved)])


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
