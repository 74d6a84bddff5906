"""Types of the entries of arrays."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def dtype_of(value: Any) -> Any:
    """The type of the entries of an array, or of what NumPy makes one of."""
    return value.dtype if isinstance(value, jax.Array) else np.asarray(value).dtype


def is_numeric(dtype: Any) -> bool:
    """Whether entries of this type are numbers or truth values; dates, keys and objects are not."""
    number = jnp.issubdtype(dtype, np.number) and not jnp.issubdtype(dtype, np.timedelta64)
    return number or jnp.issubdtype(dtype, np.bool_)
