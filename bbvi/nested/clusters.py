"""Which latent coordinates are moved together: clusters, in classes of which no two clusters touch each other.

All clusters of a class are independent given everything else. There are two sets of clusters, used in turn, that
overlap: none has the same rim in both.
"""

from collections import deque

import numpy as np

from bbvi.distributions.split import Split
from bbvi.runtime.pytree import pytree
from bbvi.runtime.types import Array
from bbvi.structure.arrangement import Entries, entries_of

SIZE = 16  # coordinates in a cluster, at most
MOST_CLASSES = 12  # in a set; each costs as many gradients as a line integral has nodes


@pytree
class Clusters:
    """Clusters, and where the entries of the precision are found in products `(colours, places)`, flattened.

    Fields:
        beside: the places at which a row of the precision has entries, `(places, most)`; their number as a filler.
        entries: these entries, `(places, most)`.
        members: places of the clusters of each class of both sets, `(2, classes, clusters, size)`; the number of places
            as a filler.
        inner: entries of the precision within each cluster, `(2, classes, clusters, size, size)`.
        position: where each place is found among the members of a class, flattened, `(2, classes, places)`; one beyond
            their end for a place that is not moved.
    """

    beside: Array
    entries: Array
    members: Array
    inner: Array
    position: Array

    @property
    def num_classes(self) -> int:
        """Number of classes in a set."""
        return self.members.shape[1]

    def of_set(self, number: Array) -> "Clusters":
        """With one of the sets only."""
        chosen = (each[number % 2] for each in (self.members, self.inner, self.position))
        return Clusters(self.beside, self.entries, *chosen)


def clusters_of(split: Split) -> Clusters | None:
    """Clusters of the latent coordinates; None where too many of them touch each other."""
    if split.sums.shape[0]:
        return None  # a sum of all is no sum over clusters
    pattern, places = entries_of(split), split.num_places
    near: list[list[int]] = [[] for _ in range(places)]
    for i, j in zip(pattern.row.tolist(), pattern.column.tolist(), strict=True):
        if i != j:
            near[i].append(j)
    latents = np.asarray(split.latents)
    order = np.argsort(latents, kind="stable")[: split.num_latent]
    first = _grown(near, order)
    crosses = np.array([sum(first[i] != first[j] for j in near[i]) for i in range(places)])
    second = _grown(near, order[np.argsort(-crosses[order], kind="stable")])
    sets = [_classes(first, near), _classes(second, near)]
    num_classes, largest = max(map(len, sets)), max(len(clusters) for classes in sets for clusters in classes)
    if num_classes > MOST_CLASSES:
        return None
    members = np.full((2, num_classes, largest, SIZE), places, np.int32)
    for number, classes in enumerate(sets):
        for row, clusters in zip(members[number], classes, strict=False):
            for place, cluster in zip(row, clusters, strict=False):
                place[: len(cluster)] = cluster
    flat = members.reshape(2, num_classes, -1)
    position = np.full((2, num_classes, places + 1), flat.shape[2], np.int32)
    np.put_along_axis(position, flat, np.arange(flat.shape[2])[None, None], axis=2)
    return Clusters(*_rows(pattern, split), members, _inner(pattern, split, members), position[..., :-1])


def _grown(near: list[list[int]], order: np.ndarray) -> np.ndarray:
    """The cluster of each place, -1 without a coordinate: each grows from the first in order that is left."""
    label, current = np.full(len(near), -1), 0
    for seed in order.tolist():
        if label[seed] >= 0:
            continue
        waiting, count = deque([seed]), 0
        while waiting and count < SIZE:
            i = waiting.popleft()
            if label[i] < 0:
                label[i] = current
                count += 1
                waiting.extend(j for j in near[i] if label[j] < 0)
        current += 1
    return label


def _classes(label: np.ndarray, near: list[list[int]]) -> list[list[np.ndarray]]:
    """Clusters, each by its places, in classes of which none touches another."""
    count = label.max() + 1
    touching: list[set[int]] = [set() for _ in range(count)]
    for i, others in enumerate(near):
        touching[label[i]].update(int(label[j]) for j in others if label[j] != label[i])
    colour = np.full(count, -1)
    for g in range(count):
        taken = {int(colour[h]) for h in touching[g]}
        colour[g] = next(c for c in range(count) if c not in taken)
    clusters = [np.flatnonzero(label == g) for g in range(count)]
    return [[clusters[g] for g in np.flatnonzero(colour == c)] for c in range(colour.max() + 1)]


def _rows(pattern: Entries, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """For each place where its row has entries, and where these are found."""
    order = np.argsort(pattern.row, kind="stable")
    row, starts = pattern.row[order], np.searchsorted(pattern.row[order], np.arange(split.num_places))
    slot = np.arange(len(row)) - starts[row]
    beside = np.full((split.num_places, slot.max() + 1), split.num_places, np.int32)
    entries = np.full(beside.shape, split.num_colours * split.num_places, np.int32)
    beside[row, slot], entries[row, slot] = pattern.column[order], pattern.at[order]
    return beside, entries


def _inner(pattern: Entries, split: Split, members: np.ndarray) -> np.ndarray:
    """Where the entries within clusters are found."""
    inner = np.full((*members.shape, SIZE), split.num_colours * split.num_places, np.int32)
    for number in np.ndindex(*members.shape[:2]):
        places, of_class = members[number], inner[number]
        cluster, within = (np.full(split.num_places + 1, -1) for _ in range(2))
        cluster[places] = np.arange(len(places))[:, None]
        within[places] = np.arange(SIZE)
        cluster[-1] = -1
        same = (cluster[pattern.row] >= 0) & (cluster[pattern.row] == cluster[pattern.column])
        row, column = pattern.row[same], pattern.column[same]
        of_class[cluster[row], within[row], within[column]] = pattern.at[same]
    return inner
