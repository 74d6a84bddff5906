"""Frozen dataclasses that JAX can trace through."""

import dataclasses
from typing import Any, TypeVar, dataclass_transform

import jax

T = TypeVar("T")


def static(**kwargs: Any) -> Any:
    """A dataclass field that is part of the tree's structure (hashed, compiled in), not a leaf."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


@dataclass_transform(frozen_default=True, field_specifiers=(static, dataclasses.field))
def pytree(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass whose fields are leaves, except those declared with `static()`.

    It prints its fields, unless it or a class that it inherits from prints something else.
    """
    # eq=False: leaves are arrays, which have no single truth value; identity is what is meant.
    prints = cls.__repr__ is object.__repr__
    return jax.tree_util.register_dataclass(dataclasses.dataclass(frozen=True, eq=False, repr=prints)(cls))
