"""Pieces of rows: pytrees of arrays that share their leading axis."""

from typing import Any

import jax
import numpy as np


def length(rows: Any) -> int:
    """How many rows there are."""
    return len(jax.tree.leaves(rows)[0])


def cut(rows: Any, first: int, count: int) -> Any:
    """Rows `first` to `first + count`."""
    return jax.tree.map(lambda leaf: leaf[first : first + count], rows)


def join(pieces: list[Any]) -> Any:
    """Pieces of rows as one."""
    return pieces[0] if len(pieces) == 1 else jax.tree.map(lambda *leaves: np.concatenate(leaves), *pieces)
