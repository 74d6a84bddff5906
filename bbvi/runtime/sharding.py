"""Where arrays lie on several devices or hosts.

The devices form a mesh with two directions. Along "data" the rows of the data are split, along "draw" the draws at
which the log density is evaluated; parameters lie on every device. Programs are written as for one device, and XLA adds
the sums over devices, so a result is that of one device up to rounding. Nothing here knows of methods or families: the
rows are placed once, when a fit begins, and draws are split in the one place where log densities are evaluated
(`problem.py`).

Where the devices belong to several processes, each of them runs the same program. What depends on a clock or a callback
would differ between them, so they do what the first one says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

DRAW, DATA = "draw", "data"
SHARDED_ROWS = 2**16  # numbers in the rows, from which they are split rather than the draws


@dataclass(frozen=True)
class Layout:
    """How arrays are spread over a mesh with the directions "draw" and "data"; without one, they are on one device."""

    mesh: Mesh | None = None

    def device_put(self, tree: Any, shard: bool = False) -> Any:
        """Arrays of the host, whole on every device; or in shards of their leading axis, where that divides evenly."""
        if self.mesh is None:
            return jax.device_put(tree)
        parts = self.mesh.shape[DATA]

        def put(leaf: Any) -> jax.Array:
            leaf = np.asarray(leaf)
            leaf = leaf.astype(jax.dtypes.canonicalize_dtype(leaf.dtype), copy=False)
            sharding = self._sharding(*([DATA] if shard and _divides(parts, leaf) else []))
            return jax.make_array_from_callback(leaf.shape, sharding, lambda index: leaf[index])

        return jax.tree.map(put, tree)

    def shard(self, tree: Any, axis: str = DRAW) -> Any:
        """Arrays `(n, ...)` in a compiled program, split over their leading axis where n is enough for all devices.

        It need not divide evenly here, inside a program.
        """
        if self.mesh is None or (parts := self.mesh.shape[axis]) == 1:
            return tree

        def put(leaf: Any) -> Any:
            enough = leaf.ndim > 0 and len(leaf) >= parts
            return jax.lax.with_sharding_constraint(leaf, self._sharding(axis)) if enough else leaf

        return jax.tree.map(put, tree)

    def replicate(self, tree: Any) -> Any:
        """Arrays in a compiled program, whole on every device: what it returns, so that every host can read it."""
        if self.mesh is None:
            return tree
        return jax.tree.map(lambda leaf: jax.lax.with_sharding_constraint(leaf, self._sharding()), tree)

    def broadcast_from_first(self, *numbers: float) -> tuple[float, ...]:
        """These numbers as the first process has them."""
        if self._is_one_process:
            return numbers
        from jax.experimental.multihost_utils import broadcast_one_to_all

        return tuple(map(float, broadcast_one_to_all(np.asarray(numbers, jax.dtypes.canonicalize_dtype(float)))))

    def gather(self, number: int) -> list[int]:
        """This number as each process has it."""
        if self._is_one_process:
            return [number]
        from jax.experimental.multihost_utils import process_allgather

        return np.asarray(process_allgather(np.asarray(number))).tolist()

    @property
    def _is_one_process(self) -> bool:
        return self.mesh is None or len(_processes(self.mesh.devices)) == 1

    @property
    def is_primary(self) -> bool:
        """Whether this process writes files."""
        return self.mesh is None or jax.process_index() == min(_processes(self.mesh.devices))

    def _sharding(self, *axes: str) -> NamedSharding:
        assert self.mesh is not None
        return NamedSharding(self.mesh, PartitionSpec(*axes))


def make_layout(devices: Sequence[Any] | Mesh | None, data: Any) -> Layout:
    """Read `fit`'s argument `devices`.

    A sequence becomes a mesh in one direction: "data" where the arrays of `data` whose leading axis divides by the
    number of devices are large, else "draw".

    Raises:
        TypeError, ValueError: when it is no sequence of devices, or no mesh in these directions.
    """
    if devices is None:
        return Layout()
    if isinstance(devices, Mesh):
        names = devices.axis_names
        if not names or not set(names) <= {DRAW, DATA}:
            raise ValueError(
                f"devices: the axes of the mesh are {names}; they must be {DRAW!r} and {DATA!r}, or one of them, "
                'as in jax.make_mesh((2, 4), ("draw", "data")): they say what is split over them.'
            )
        array = devices.devices if names[0] == DRAW else devices.devices.T
        array = array.reshape(devices.shape.get(DRAW, 1), devices.shape.get(DATA, 1))
    else:
        array = np.asarray(_read(devices), object)
        rows = sum(leaf.size for leaf in jax.tree.leaves(data) if _divides(array.size, leaf))
        array = array.reshape((1, -1) if rows >= SHARDED_ROWS else (-1, 1))
    processes = _processes(array)
    if processes not in ({jax.process_index()}, set(range(jax.process_count()))):
        raise ValueError(
            f"devices belong to the processes {sorted(processes)}, and this is process {jax.process_index()} of "
            f"{jax.process_count()}. Give jax.devices(), those of all, or jax.local_devices(), those of this one alone."
        )
    return Layout(Mesh(array, (DRAW, DATA)))


def _read(devices: Any) -> list[Any]:
    found: list[Any]
    try:
        found = list(devices)
    except TypeError:
        found = [devices, None]
    if not all(isinstance(each, jax.Device) for each in found):
        raise TypeError(
            f"devices={devices!r} must be a sequence of JAX devices, such as jax.devices(), or a jax.sharding.Mesh."
        )
    if not found or len(set(found)) < len(found):
        raise ValueError(f"devices={devices!r} must name at least one device, and none twice.")
    if len(kinds := {each.platform for each in found}) > 1:
        raise ValueError(f"devices are of several kinds, {sorted(kinds)}. One program runs on one kind: choose.")
    return found


def _divides(parts: int, leaf: Any) -> bool:
    return leaf.ndim > 0 and len(leaf) > 0 and len(leaf) % parts == 0


def _processes(devices: np.ndarray) -> set[int]:
    return {device.process_index for device in devices.flat}
