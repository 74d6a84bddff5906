"""NumPy arrays that a user's function closes over.

JAX remembers, for as long as a program that uses it lives, in which precision a NumPy array was first used
(`_canonicalize_ndarray_dtype`, to JAX 0.12 at least). Used again in the other precision, the array has the wrong type,
and a jitted function that receives it fails. A fit in double precision must not do this to what the user runs in single
precision afterwards. So programs keep other views of the arrays, which nobody else uses; and where JAX already
remembers the other precision, its caches are emptied once.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import jax
import numpy as np
from jax.extend import core

Returned = TypeVar("Returned")
SIGNS = (  # of an array remembered in the other precision
    "RuntimeProgramInputMismatch",
    "operand type mismatch",
    "requires arguments to have the same dtypes",
)


def detached(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of pytrees of arrays, whose programs keep views of the arrays that it closes over."""

    @wraps(function)
    def traced(*args: Any) -> Any:
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        views = [_view(each) for each in closed.consts]
        made = core.jaxpr_as_fun(core.ClosedJaxpr(closed.jaxpr, views))(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(shapes), made)

    return traced


def _view(array: Any) -> Any:
    if not isinstance(array, np.ndarray):
        return array
    base = array.base
    fits = isinstance(base, np.ndarray) and base.shape == array.shape and base.dtype == array.dtype
    return base.view() if fits and type(base) is np.ndarray else np.array(array)


def with_clean_caches(function: Callable[[], Returned]) -> Returned:
    """What `function` returns; called again after emptying JAX's caches where they hold the other precision."""
    try:
        return function()
    except (jax.errors.JaxRuntimeError, TypeError, ValueError) as error:
        if not any(sign in str(error) for sign in SIGNS):
            raise
    jax.clear_caches()
    return function()
