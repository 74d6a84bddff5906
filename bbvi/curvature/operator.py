"""A Hessian as a linear operator."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree


class HessianOperator:
    """The Hessian of `fun` at `x` as a linear operator on flat vectors: linearised once, applied many times.

    The linearisation keeps what one gradient computes on its way, and each product reads it. `matvec` is what
    `jax.scipy.sparse.linalg.cg` and `lanczos` take, and the operator what `scipy.sparse.linalg.aslinearoperator` takes.

    Arguments:
        fun: `fun(x)`, a scalar.
        x: a pytree of floating point arrays, dim numbers in all.

    Fields:
        shape: `(dim, dim)`.
        dtype: of x, and of the products.
        gradient: of `fun` at `x`, `(dim,)`; it comes with the linearisation.
        unravel: maps a flat vector `(dim,)` to the structure of x.

    Example:
        >>> operator = bbvi.curvature.HessianOperator(lambda x: jnp.sum(x**3), jnp.array([1.0, 2.0]))
        >>> operator @ jnp.ones(2)  # 6 x
        Array([ 6., 12.], dtype=float32)
    """

    def __init__(self, fun: Callable[[Any], Array], x: Any):
        flat, unravel = ravel_pytree(x)
        # Jitted so that the linear part is one program too, run as a whole by each product.
        gradient = jax.jit(jax.grad(lambda flat: fun(unravel(flat))))
        self.gradient, self._product = jax.linearize(gradient, flat)
        self.unravel, self.shape, self.dtype = unravel, (flat.size, flat.size), flat.dtype

    def matvec(self, v: Array) -> Array:
        """`H v` for v `(dim,)`, or `(dim, 1)` as SciPy may have it; in the shape of v.

        Raises:
            ValueError: for another shape.
        """
        dim = len(self.gradient)
        if jnp.shape(v) not in {(dim,), (dim, 1)}:
            raise ValueError(f"v must have shape {(dim,)}; it has {jnp.shape(v)}. Flatten a pytree with ravel_pytree.")
        return self._product(jnp.asarray(v, self.dtype).reshape(dim)).reshape(jnp.shape(v))

    def matmat(self, V: Array) -> Array:
        """`H V` `(dim, k)` for the columns of V `(dim, k)`, in memory for k products.

        Raises:
            ValueError: for another shape.
        """
        if jnp.ndim(V) != 2 or len(V) != len(self.gradient):
            raise ValueError(f"V must have shape {(len(self.gradient), 'k')}; it has {jnp.shape(V)}.")
        return jax.vmap(self._product, in_axes=1, out_axes=1)(jnp.asarray(V, self.dtype))

    def __matmul__(self, other: Array) -> Array:
        return self.matmat(other) if jnp.ndim(other) == 2 else self.matvec(other)
