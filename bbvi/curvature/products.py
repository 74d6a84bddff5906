"""Products of a Hessian with a vector, without the Hessian."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

_PRODUCTS = {
    "forward_over_reverse": lambda gradient, x, v: jax.jvp(gradient, (x,), (v,))[1],
    "reverse_over_reverse": lambda gradient, x, v: jax.vjp(gradient, x)[1](v)[0],
}


def hvp(fun: Callable[[Any], Array], x: Any, v: Any, mode: str = "forward_over_reverse") -> Any:
    """Product `H v` of the Hessian of `fun` at `x` with `v`, in O(dim) memory.

    Arguments:
        fun: `fun(x)`, a scalar.
        x: a pytree of floating point arrays.
        v: likewise, with the structure and shapes of `x`; taken to its dtypes.
        mode: "forward_over_reverse", the directional derivative of the gradient along v; or "reverse_over_reverse",
            the gradient of `grad f(x) . v`, for functions without forward derivatives of their gradient.

    Returns:
        `H v` with the structure, shapes and dtypes of `x`.

    Raises:
        ValueError: for another mode, or when `v` does not match `x`.

    Example:
        >>> bbvi.curvature.hvp(lambda x: jnp.sum(x**3), jnp.array([1.0, 2.0]), jnp.ones(2))  # 6 x v
        Array([ 6., 12.], dtype=float32)

    Reference: Pearlmutter 1994.
    """
    if mode not in _PRODUCTS:
        raise ValueError(f"mode must be one of {list(_PRODUCTS)}; got {mode!r}.")
    expected, given = (jax.tree.map(jnp.shape, tree) for tree in (x, v))
    if expected != given:
        raise ValueError(f"v must have the structure and shapes of x, {expected}; it has {given}.")
    x = jax.tree.map(jnp.asarray, x)
    v = jax.tree.map(lambda x, v: jnp.asarray(v, x.dtype), x, v)
    return _PRODUCTS[mode](jax.grad(fun), x, v)
