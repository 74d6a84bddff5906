"""What all rows of data have in common."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Schema:
    """The structure of the data, and the shape and type of each array in one row."""

    treedef: Any
    shapes: tuple[Shape, ...]
    dtypes: tuple[np.dtype, ...]
    num_rows: int

    @classmethod
    def of(cls, rows: Any, num_rows: int) -> "Schema":
        """That of rows `(n, ...)`; floating point ones in the type that is computed in."""
        leaves, treedef = jax.tree.flatten(rows)
        kinds = [float if jnp.issubdtype(leaf.dtype, np.floating) else leaf.dtype for leaf in leaves]
        dtypes = tuple(np.dtype(jax.dtypes.canonicalize_dtype(kind)) for kind in kinds)
        return cls(treedef, tuple(np.shape(leaf)[1:] for leaf in leaves), dtypes, num_rows)

    @property
    def row_size(self) -> int:
        """Numbers in a row."""
        return sum(int(np.prod(shape)) for shape in self.shapes)

    def read(self, rows: Any, where: str) -> Any:
        """Rows in these types, after a look at their structure and for NaN.

        Raises:
            TypeError, ValueError: naming what differs, and `where`.
        """
        arrays, treedef = jax.tree.flatten(rows)
        if treedef != self.treedef:
            raise TypeError(f"data: {where} have the structure {treedef}; it was {self.treedef} before.")
        found = []
        for array, shape, dtype, name in zip(arrays, self.shapes, self.dtypes, self._names(), strict=True):
            array = np.asarray(array)
            if array.shape[1:] != shape or len(array) != len(arrays[0]):
                raise ValueError(
                    f"data{name}: {where} have the shape {array.shape}, and not ({len(arrays[0])}, "
                    f"{', '.join(map(str, shape))}) as those before. All rows must be alike."
                )
            if array.dtype.kind == "f" and np.isnan(array).any():
                raise ValueError(f"data{name}: {where} hold NaN. Drop those rows, or fill them and give a mask along.")
            if not np.can_cast(array.dtype, dtype, "same_kind"):
                raise TypeError(f"data{name}: {where} are of dtype {array.dtype}; they were {dtype} before.")
            found.append(array.astype(dtype, copy=False))
        return jax.tree.unflatten(treedef, found)

    def _names(self) -> list[str]:
        tree = jax.tree.unflatten(self.treedef, range(len(self.shapes)))
        return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
