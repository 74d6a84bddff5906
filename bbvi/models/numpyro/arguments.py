"""What a NumPyro model is called with: arrays are data, the rest is compiled in."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


@dataclass(frozen=True)
class Static:
    """An argument of the model that is compiled in, compared by content where it can be."""

    value: Any

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Static) or type(self.value) is not type(other.value):
            return False
        return self.value is other.value or (not is_array(self.value) and bool(self.value == other.value))

    def __hash__(self) -> int:
        try:
            return hash(self.value)
        except TypeError:
            return id(self.value)


def is_array(leaf: Any) -> bool:
    """Whether an argument is an array of numbers, rather than a key of random numbers or a number of Python."""
    return isinstance(leaf, np.ndarray) or (
        isinstance(leaf, jax.Array) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )


def in_precision(leaf: Any) -> Any:
    """An argument of a model; arrays of floating point numbers in JAX's present precision.

    An array is another view of the same numbers, since JAX remembers by identity what it made of one before.
    """
    if not is_array(leaf):
        return leaf
    dtype = jax.dtypes.canonicalize_dtype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype
    return jnp.asarray(leaf, dtype) if isinstance(leaf, jax.Array) else np.asarray(leaf, dtype).view()
