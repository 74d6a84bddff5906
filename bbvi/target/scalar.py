"""A look at what a log density returns."""

from typing import Any

import jax.numpy as jnp

from bbvi.runtime.dtypes import dtype_of, is_numeric
from bbvi.runtime.types import Array


def real_scalar(value: Any) -> Array:
    """One real number, as an array.

    Raises:
        TypeError, ValueError: when it is anything else.
    """
    if not hasattr(value, "dtype") and not isinstance(value, int | float | complex):
        raise TypeError(f"logprob returned {value!r}, a {type(value).__name__}. It must return one real number.")
    if not is_numeric(dtype := dtype_of(value)):
        raise TypeError(f"logprob returned {type(value).__name__} of dtype {dtype}. It must return one real number.")
    array = jnp.asarray(value)
    if array.ndim:
        raise ValueError(
            f"logprob returned an array of shape {array.shape}. It must return one number for one point: sum the terms "
            "with jnp.sum."
        )
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"logprob returned a complex number ({array.dtype}). It must return a real one: take jnp.real.")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"logprob returned {array.dtype}, which has no gradient. It must return a floating point number that "
            "depends on the parameters."
        )
    return array
