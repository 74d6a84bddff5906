"""optax transformations as hashable hyper-parameters.

An optax transformation is a pair of closures, which Python compares by identity, so that two calls of
`optax.adam(0.01)` differ and whatever was compiled for the first would be compiled again for the second. Here two
transformations are equal when their functions stand at the same place in the source, have the same code and close over
equal values.
"""

import functools
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import jax
import numpy as np


@dataclass(frozen=True)
class Optimizer:
    """An optax transformation, compared by what it does."""

    transformation: Any = field(compare=False, repr=False)
    fingerprint: Any = field(init=False)

    def __post_init__(self) -> None:
        if not all(callable(getattr(self.transformation, method, None)) for method in ("init", "update")):
            raise TypeError(
                f"optimizer={self.transformation!r} is no optax transformation. Use for example optax.adam(0.01), or "
                "leave it out for automatic step sizes."
            )
        object.__setattr__(self, "fingerprint", _fingerprint(self.transformation))


def _fingerprint(value: Any) -> Any:
    if isinstance(value, FunctionType):
        cells = tuple(_fingerprint(cell.cell_contents) for cell in value.__closure__ or ())
        code, extras = value.__code__, (value.__defaults__, tuple(sorted((value.__kwdefaults__ or {}).items())))
        return code.co_filename, code.co_firstlineno, code.co_qualname, code.co_code, cells, _fingerprint(extras)
    if isinstance(value, tuple | list):
        return type(value).__name__, tuple(map(_fingerprint, value))
    if isinstance(value, dict):
        return tuple((key, _fingerprint(item)) for key, item in value.items())
    if isinstance(value, functools.partial):
        return "partial", _fingerprint((value.func, value.args, value.keywords))
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        return array.shape, str(array.dtype), array.tobytes()
    if isinstance(value, int | float | str | bool | type(None)):
        return type(value).__name__, value
    return _Identity(value)  # a class, an object: equal only to itself


@dataclass(frozen=True, eq=False, repr=False)
class _Identity:
    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Identity) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)

    def __repr__(self) -> str:
        return type(self.value).__name__  # the same in every process, for checkpoints
