"""The posteriors of the record, of four kinds, each with its log density, its quantities and its reference."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from bbvi.outcome import Value
from benchmarks import posteriordb, yardsticks
from benchmarks.posteriordb.database import Case, has_draws
from benchmarks.posteriordb.reference import compute_quantities, flatten
from benchmarks.record import references
from benchmarks.record.answers import ANSWERS
from benchmarks.record.evidence import read_evidence
from benchmarks.record.references import Reference
from benchmarks.shapes import shapes
from benchmarks.yardsticks import bugs, gym

KINDS = ("posteriordb", "bugs", "gym", "shapes")


class Folders(NamedTuple):
    """Where answers lie; None leaves out the posteriors that need the folder."""

    posteriordb: str | None  # it holds posterior_database/
    yardsticks: str | None  # it holds bugs/ and gym/
    references: str  # for what NUTS found where there are no draws, and for evidence: it is filled as needed


class Entry(NamedTuple):
    """A posterior by its name."""

    name: str
    kind: str


class Subject(NamedTuple):
    """A posterior, ready to be fitted and to be judged."""

    case: Case
    values: Callable[[Any], np.ndarray]  # of draws of the parameters, (n, quantities)
    reference: Callable[[], Reference]
    log_evidence: Callable[[], Value | None]  # that of the reference


def entries(folders: Folders, sample: bool = False) -> list[Entry]:
    """All posteriors whose answers are there; with `sample` also those of which NUTS is to find them first."""
    found: list[Entry] = []
    if folders.posteriordb is not None:
        for name in posteriordb.names(folders.posteriordb):
            if sample or has_draws(folders.posteriordb, name) or (Path(folders.references) / f"{name}.npz").exists():
                found.append(Entry(name, "posteriordb"))
    if folders.yardsticks is not None:
        found += [Entry(name, "bugs") for name in bugs.MODELS] + [Entry(name, "gym") for name in gym.MODELS]
    return found + [Entry(name, "shapes") for name in ANSWERS]


def choose(found: Sequence[Entry], names: Sequence[str]) -> list[Entry]:
    """Those of the names, in their order.

    Raises:
        ValueError: when one is not there.
    """
    by_name = {entry.name: entry for entry in found}
    if missing := [name for name in names if name not in by_name]:
        raise ValueError(f"There is no {', '.join(missing)}, or no answer to it. There are {', '.join(by_name)}.")
    return [by_name[name] for name in names]


def open_subject(entry: Entry, folders: Folders) -> Subject:
    """The posterior of an entry."""
    name, opened = entry.name, {"posteriordb": _of_posteriordb, "shapes": _of_shapes}
    return opened.get(entry.kind, _of_yardsticks)(name, folders)


def _of_posteriordb(name: str, folders: Folders) -> Subject:
    folder, kept = str(folders.posteriordb), folders.references
    case = posteriordb.load(folder, name)
    return Subject(
        case,
        lambda draws: flatten(compute_quantities(case, draws)),
        lambda: references.of_posteriordb(folder, name, kept),
        lambda: read_evidence(folder, name, kept),
    )


def _of_yardsticks(name: str, folders: Folders) -> Subject:
    folder = str(folders.yardsticks)
    case = yardsticks.load(folder, name)

    def values(draws: Any) -> np.ndarray:
        found = yardsticks.compute_quantities(case, draws)
        order = yardsticks.read_reference(folder, name)
        return np.concatenate([found[key].reshape(len(found[key]), -1) for key in order], axis=1)

    return Subject(case, values, lambda: references.of_yardstick(folder, name), lambda: None)


def _of_shapes(name: str, folders: Folders) -> Subject:
    with jax.enable_x64(True):  # some moments are found on a grid
        shape = shapes()[name]
    case, known = Case(name, shape.logprob, shape.dim, None, None), ANSWERS[name].log_evidence
    return Subject(
        case,
        lambda draws: shape.quantities(np.asarray(draws, float)),
        lambda: references.of_shape(name, shape),
        lambda: None if known is None else Value(known, 0.0),
    )
