"""Interrupted runs go on where they were: the driver's state in one file, replaced atomically."""

import os
import time
import zipfile
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bbvi.driver import History, Run

INTERVAL = 10.0  # seconds between writes


class Checkpoint:
    """Reads and writes the state of a run.

    Arguments:
        path: of the file.
        fingerprint: identifies the run; a file with another one is refused.
    """

    def __init__(self, path: str | Path, fingerprint: str) -> None:
        if not isinstance(path, str | Path):
            raise TypeError(f"checkpoint={path!r} must be the path of a file.")
        self._path = Path(path)
        self._fingerprint = fingerprint
        self._written = time.perf_counter()
        if not self._path.parent.is_dir():
            raise ValueError(f"checkpoint={str(path)!r}: the folder {str(self._path.parent)!r} does not exist.")

    def restore(self, like: Any) -> tuple[Any, History] | None:
        """State (in the structure of `like`) and history, or None when there is no file yet."""
        if not self._path.exists():
            return None
        try:
            with open(self._path, "rb") as file:
                arrays = dict(np.load(file, allow_pickle=False))
            fingerprint = str(arrays["fingerprint"])
            leaves = [arrays[f"state{i}"] for i in range(len(jax.tree.leaves(like)))]
            history = History(*(arrays[name] for name in History._fields))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"checkpoint={str(self._path)!r} cannot be read ({error}). Delete it to start afresh."
            ) from error
        if fingerprint != self._fingerprint:
            raise ValueError(
                f"checkpoint={str(self._path)!r} belongs to a run with other arguments or data. Give another path, or "
                "delete it to start afresh."
            )
        return jax.tree.unflatten(jax.tree.structure(like), leaves), history

    def save(self, run: Run) -> None:
        """Write when the last write is old enough; called between blocks."""
        if time.perf_counter() - self._written >= INTERVAL:
            self.write(run)

    def write(self, run: Run) -> None:
        """Write now."""
        arrays = {f"state{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(run.state))}
        temporary = self._path.with_name(self._path.name + ".partial")
        with open(temporary, "wb") as file:
            np.savez(file, fingerprint=np.array(self._fingerprint), **arrays, **run.history._asdict())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self._path)
        self._written = time.perf_counter()
