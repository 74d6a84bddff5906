"""Interrupted runs go on where they were: what the driver has reached, in one file that is replaced atomically.

The file holds the state and the history of each method that was tried, those that ended and the one under way. So a
method that "auto" had finished is restored, not run again, and what is stored of one always follows from the ones
before it.
"""

import hashlib
import re
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bbvi.optimise import Run
from bbvi.outcome import History
from bbvi.runtime.sharding import Layout
from bbvi.runtime.storage import read_arrays, read_path, write_arrays

INTERVAL = 10.0  # seconds between writes
FRESH = "Delete it to start afresh, or give another path."
SAME_DENSITY = 0.4  # power of the rounding unit, up to which log densities are the same on another machine


class Checkpoint:
    """The file of one fit.

    Arguments:
        path: of the file.
        writes: whether this process writes it; of several that run the same fit, one does.

    Raises:
        TypeError, ValueError, OSError: here and in all methods, naming the argument, when the file cannot be read or
            written, or belongs to another run.
    """

    def __init__(self, path: str | Path, writes: bool = True) -> None:
        self._path = read_path("checkpoint", path)
        if not self._path.parent.is_dir():
            raise ValueError(f"checkpoint={str(path)!r}: the folder {str(self._path.parent)!r} does not exist.")
        self._writes, self._written = writes, time.perf_counter()
        self._format = f"checkpoint of bbvi {version('bbvi')}, format 3"
        self._arrays = self._read() if self._path.exists() else {"format": np.array(self._format)}
        self._method = 0  # under way, counted from 1

    def claim(self, fingerprint: str) -> None:
        """Refuse a file of a run with another fingerprint, and write: better now than after hours of work."""
        if str(self._arrays.setdefault("fingerprint", np.array(fingerprint))) != fingerprint:
            raise ValueError(f"checkpoint={str(self._path)!r} belongs to a run with other arguments or data. {FRESH}")
        self._write(self._arrays)

    def compare(self, xs: np.ndarray, log_densities: Callable[[np.ndarray], Any]) -> None:
        """Refuse a file of a run with another log density, judged at a few points.

        Arguments:
            xs: where, in a run that has just begun, `(n, dim)`; afterwards the points in the file count.
            log_densities: a function of such points, `(n,)`.
        """
        now = np.asarray(log_densities(self._arrays.setdefault("xs", xs)))
        then = self._arrays.setdefault("log_densities", now)
        rounding = np.finfo(now.dtype).eps ** SAME_DENSITY
        same = np.isclose(now, then, rounding, rounding, equal_nan=True)
        if not same.all():
            raise ValueError(
                f"checkpoint={str(self._path)!r} belongs to a run with another logprob: at a point where it was "
                f"{then[~same][0]:.6g} it is now {now[~same][0]:.6g}. {FRESH}"
            )

    def restore(self, begun: Run) -> Run:
        """The run of the next method as far as it came, which is `begun` where there is none yet."""
        self._method += 1
        if f"{self._method}.kind" not in self._arrays:
            return begun
        if str(self._arrays[f"{self._method}.kind"]) != _kind(begun.state):
            raise ValueError(
                f"checkpoint={str(self._path)!r} does not fit: the {self._method}. method tried was another, as on "
                f"another machine or with another version of a package. {FRESH}"
            )
        leaves = [self._arrays[f"{self._method}.state.{i}"] for i in range(len(jax.tree.leaves(begun.state)))]
        history = History(*(self._arrays[f"{self._method}.{name}"] for name in History._fields))
        state = jax.tree.unflatten(jax.tree.structure(begun.state), leaves)
        return Run(state, (history,) if len(history.elbo) else ())

    def check_alike(self, layout: Layout) -> None:
        """Refuse to go on when several processes have restored different states."""
        reached = len(self._arrays.get(f"{self._method}.elbo", ()))
        if len(set(layout.gather(reached))) > 1:
            raise ValueError(
                f"checkpoint={str(self._path)!r}: the processes read different files. Give a path in a folder that all "
                "of them share."
            )

    def save(self, run: Run) -> None:
        """Write when the last write is old enough; called between blocks."""
        if time.perf_counter() - self._written >= INTERVAL:
            self.write(run)

    def write(self, run: Run) -> None:
        """Write now, without what there was of later methods, unless the file has just this already."""
        method = self._method
        if f"{method}.kind" in self._arrays and len(self._arrays[f"{method}.elbo"]) == run.step:
            return
        kept = {name: array for name, array in self._arrays.items() if not _is_from(name, method)}
        state = {f"{method}.state.{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(run.state))}
        history = {f"{method}.{name}": column for name, column in run.history._asdict().items()}
        self._write({**kept, f"{method}.kind": np.array(_kind(run.state)), **state, **history})

    def _read(self) -> dict[str, np.ndarray]:
        try:
            arrays = read_arrays(self._path)
        except (OSError, ValueError) as error:
            raise ValueError(f"checkpoint={str(self._path)!r} cannot be read: {error}. {FRESH}") from error
        if str(arrays.get("format")) != self._format:
            found = str(arrays.get("format", "of another kind"))
            older = "of an older version" if found.startswith("checkpoint of bbvi") else "no checkpoint of bbvi"
            raise ValueError(
                f"checkpoint={str(self._path)!r} is {older} ({found}), and this is {self._format}: a fit cannot go on "
                f"from there. {FRESH}"
            )
        return arrays

    def _write(self, arrays: dict[str, np.ndarray]) -> None:
        try:
            if self._writes:
                write_arrays(self._path, arrays)
        except OSError as error:
            raise OSError(
                f"checkpoint={str(self._path)!r} cannot be written: {error}. Make room, or give a path that can be "
                "written to. The same call goes on from what was written last."
            ) from error
        self._arrays, self._written = arrays, time.perf_counter()


def fingerprint(*parts: Any) -> str:
    """A digest of pytrees of arrays, and of anything whose `repr` says what it is; addresses do not count."""
    digest = hashlib.sha256()
    for part in parts:
        leaves, structure = jax.tree.flatten(part)
        digest.update(_text(structure).encode())
        for leaf in leaves:
            if isinstance(leaf, np.ndarray | np.generic | jax.Array | int | float):
                array = np.asarray(leaf)
                digest.update(f"{array.shape} {array.dtype} ".encode() + array.tobytes())
            else:
                digest.update(_text(leaf).encode())
    return digest.hexdigest()


def _kind(state: Any) -> str:
    leaves, structure = jax.tree.flatten(state)
    return _text((structure, [(np.shape(leaf), str(np.asarray(leaf).dtype)) for leaf in leaves]))


def _text(value: Any) -> str:
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def _is_from(name: str, method: int) -> bool:
    """Whether an array belongs to the `method`-th method or to one after it."""
    number = name.partition(".")[0]
    return number.isdigit() and int(number) >= method
