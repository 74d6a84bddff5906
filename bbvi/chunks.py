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
import numpy as np
from jax.experimental.buffer_callback import buffer_callback

from bbvi.rows import Elsewhere, Schema, find_source

Array = Any
WHOLE = 2**21  # numbers in data that are evaluated as a whole, at most
CHUNK = 2**18  # numbers in a chunk, about


def schema_of(data: Any) -> Schema:
    """The schema of data in memory or elsewhere."""
    return data.schema if isinstance(data, Elsewhere) else Schema.of(data, len(jax.tree.leaves(data)[0]))


def num_chunks(data: Any) -> int:
    """In how many chunks the rows are summed over."""
    if not isinstance(data, Elsewhere):
        leaves = jax.tree.leaves(data)
        if sum(map(np.size, leaves)) <= WHOLE or len({np.shape(leaf)[:1] for leaf in leaves}) > 1:
            return 1
    schema = schema_of(data)
    return -(-schema.num_rows // _chunk_size(schema))


def _chunk_size(schema: Schema) -> int:
    return min(schema.num_rows, max(1, CHUNK // max(schema.width, 1)))


def sum_over_rows(function: Callable[[Any, Any], Array], values: Any, data: Any) -> Array:
    """The sum of `function(values, rows)` `(n,)` over all rows of the data, a scalar.

    Arguments:
        values: what is differentiated by, a pytree of floating point arrays. The data are not.
    """
    if num_chunks(data) == 1 and not isinstance(data, Elsewhere):
        return jnp.sum(function(values, data))
    return _total(function, values, data)


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _total(function: Any, values: Any, data: Any) -> Array:
    return _loop(lambda rows, fresh: _part(function, values, rows, fresh), jnp.zeros((), _dtype(values)), data)


@_total.defjvp
def _(function: Any, primals: Any, tangents: Any) -> tuple[Array, Array]:
    values, data = primals
    both = jax.value_and_grad(lambda values, rows, fresh: _part(function, values, rows, fresh))
    begin = jnp.zeros((), _dtype(values)), jax.tree.map(jnp.zeros_like, values)
    total, gradient = _loop(lambda rows, fresh: both(values, rows, fresh), begin, data)
    products = jax.tree.map(lambda g, t: jnp.sum(g * t), gradient, tangents[0])
    return total, sum(jax.tree.leaves(products), start=jnp.zeros((), total.dtype))


def _dtype(values: Any) -> Any:
    return jnp.result_type(*jax.tree.leaves(values))


@partial(jax.jit, static_argnums=0)  # so that the user's Python runs once
def _part(function: Any, values: Any, rows: Any, fresh: Array) -> Array:
    return jnp.sum(jnp.where(fresh, function(values, rows), 0)).astype(_dtype(values))


def _loop(of_chunk: Callable[[Any, Array], Any], zero: Any, data: Any) -> Any:
    """The sum over all chunks of a pytree `of_chunk(rows, fresh)`, where `fresh` leaves out rows that were counted.

    A loop whose length is not known to JAX is never unrolled backwards, so no rows are kept. The sum is compensated
    (Kahan 1965), lest many chunks add up the rounding of each.
    """
    schema = schema_of(data)
    size, count = _chunk_size(schema), num_chunks(data)

    def body(carry: tuple[Array, Any, Any]) -> tuple[Array, Any, Any]:
        i, total, lost = carry
        first = jnp.minimum(i * size, schema.num_rows - size)
        rows = _fetch(data, i, size) if isinstance(data, Elsewhere) else _slice(data, first, size)
        fresh = first + jnp.arange(size) >= i * size
        term = jax.tree.map(jnp.subtract, of_chunk(rows, fresh), lost)
        new = jax.tree.map(jnp.add, total, term)
        return i + 1, new, jax.tree.map(lambda n, t, d: (n - t) - d, new, total, term)

    return jax.lax.while_loop(lambda carry: carry[0] < count, body, (jnp.zeros((), int), zero, zero))[1]


def _slice(data: Any, first: Array, size: int) -> Any:
    return jax.tree.map(lambda leaf: jax.lax.dynamic_slice_in_dim(jnp.asarray(leaf), first, size), data)


def _fetch(data: Elsewhere, number: Array, size: int) -> Any:
    schema = data.schema
    shapes = zip(schema.shapes, schema.dtypes, strict=True)
    results = tuple(jax.ShapeDtypeStruct((size, *shape), dtype) for shape, dtype in shapes)

    def read(key: Any, number: Any) -> list[np.ndarray]:
        return jax.tree.leaves(find_source(int(np.asarray(key))).chunk(int(np.asarray(number)), size))

    def into(_: Any, out: Any, key: Any, number: Any) -> None:
        for buffer, array in zip(out, read(key, number), strict=True):
            np.asarray(buffer)[...] = array

    if jax.default_backend() == "cpu":  # see bbvi/models/external.py on pure_callback
        leaves = buffer_callback(into, results, vmap_method="sequential")(data.key, number)
    else:
        leaves = jax.pure_callback(lambda *a: tuple(read(*a)), results, data.key, number, vmap_method="sequential")
    return jax.tree.unflatten(schema.treedef, leaves)
