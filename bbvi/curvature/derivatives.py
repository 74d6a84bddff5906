"""Derivatives of functions: Jacobians, and any order of derivative of a function of one number."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

_JACOBIANS = {"forward": jax.jacfwd, "reverse": jax.jacrev}


def jacobian(fun: Callable[[Any], Any], mode: str = "auto") -> Callable[[Any], Any]:
    """A function of x that returns the Jacobian of `fun` there.

    Arguments:
        fun: of one pytree of floating point arrays, returning a pytree of them.
        mode: "forward" makes the columns, one Jacobian-vector product per input; "reverse" makes the rows, one
            vector-Jacobian product per output; "auto" takes "reverse" when there are fewer outputs than inputs.

    Returns:
        A function whose result has the structure of the output with the structure of x in place of each leaf; leaves
        are `(*output_shape, *input_shape)`.

    Raises:
        ValueError: for another mode.

    Example:
        >>> bbvi.curvature.jacobian(lambda x: x**2)(jnp.array([1.0, 3.0]))
        Array([[2., 0.],
               [0., 6.]], dtype=float32)

    Reference: Griewank and Walther 2008, ch. 3.
    """
    if mode in _JACOBIANS:
        return _JACOBIANS[mode](fun)
    if mode != "auto":
        raise ValueError(f"mode must be one of {['auto', *_JACOBIANS]}; got {mode!r}.")

    def cheaper(x: Any) -> Any:
        shapes = jax.eval_shape(lambda x: (x, fun(x)), x)
        inputs, outputs = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in shapes)
        return _JACOBIANS["reverse" if outputs < inputs else "forward"](fun)(x)

    return cheaper


def derivative(fun: Callable[[Array], Array], order: int = 1) -> Callable[[Array], Array]:
    """The derivative of a scalar function of one number, of any order, by nested forward differentiation.

    Arguments:
        fun: `fun(t)`, a number for a number.
        order: 0 for the function itself. What is traced grows about threefold with each order.

    Returns:
        A function of numbers or floating point arrays, applied to each element.

    Raises:
        ValueError: for a negative order.

    Example:
        >>> print(f"{bbvi.curvature.derivative(jnp.exp, 3)(0.0):.1f}")
        1.0
    """
    if order < 0:
        raise ValueError(f"order must be 0 or more; got {order}.")
    for _ in range(order):
        fun = _slope(fun)
    return jnp.vectorize(fun)


def _slope(fun: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda t: jax.jvp(fun, (t,), (jnp.ones_like(t),))[1]
