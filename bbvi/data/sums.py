"""Sums over many rows of data, a chunk of rows at a time, differentiable as any other function.

Chunks fit into caches, so that many draws are evaluated at each as a product of matrices; and rows that are not in
memory are read a chunk at a time, once for all draws. Value and gradient come from one pass. Derivatives of the
gradient are taken forward, through the loop.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bbvi.data.chunks import chunk_size
from bbvi.data.out_of_core import rows_of
from bbvi.runtime.types import Array


def sum_over_rows(function: Callable[[Any, Any], Array], values: Any, data: Any) -> Array:
    """The sum of `function(values, rows)` `(n,)` over all rows of the data, a scalar.

    Arguments:
        values: what is differentiated by, a pytree of floating point arrays. The data are not.
    """
    rows = rows_of(data)
    if rows.is_in_memory and rows.num_chunks == 1:
        return jnp.sum(function(values, data))
    return _total(function, values, data)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _total(function: Any, values: Any, data: Any) -> Array:
    return _fold(lambda rows, fresh: _part(function, values, rows, fresh), jnp.zeros((), _dtype(values)), data)


@_total.defjvp
def _(function: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    values, data = primals
    both = jax.value_and_grad(lambda values, rows, fresh: _part(function, values, rows, fresh))
    begin = jnp.zeros((), _dtype(values)), jax.tree.map(jnp.zeros_like, values)
    total, gradient = _fold(lambda rows, fresh: both(values, rows, fresh), begin, data)
    products = jax.tree.map(lambda g, t: jnp.sum(g * t), gradient, tangents[0])
    return total, sum(jax.tree.leaves(products), start=jnp.zeros((), total.dtype))


def _dtype(values: Any) -> Any:
    return jnp.result_type(*jax.tree.leaves(values))


@partial(jax.jit, static_argnums=0)  # so that the user's Python runs once
def _part(function: Any, values: Any, rows: Any, fresh: Array) -> Array:
    return jnp.sum(jnp.where(fresh, function(values, rows), 0)).astype(_dtype(values))


def _fold(of_chunk: Callable[[Any, Array], Any], zero: Any, data: Any) -> Any:
    """The sum over all chunks of a pytree `of_chunk(rows, fresh)`, where `fresh` leaves out rows that were counted.

    A loop whose length is not known to JAX is never unrolled backwards, so no rows are kept. The sum is compensated
    (Kahan 1965), lest many chunks add up the rounding of each.
    """
    source = rows_of(data)
    size, count = chunk_size(source.num_rows, source.row_size), source.num_chunks

    def body(carry: tuple[Array, Any, Any]) -> tuple[Array, Any, Any]:
        i, total, lost = carry
        first = jnp.minimum(i * size, source.num_rows - size)
        fresh = first + jnp.arange(size) >= i * size
        term = jax.tree.map(jnp.subtract, of_chunk(source.chunk(i, size), fresh), lost)
        new = jax.tree.map(jnp.add, total, term)
        return i + 1, new, jax.tree.map(lambda n, t, d: (n - t) - d, new, total, term)

    return jax.lax.while_loop(lambda carry: carry[0] < count, body, (jnp.zeros((), int), zero, zero))[1]
