"""Large batches of matrices are factorised in pieces, since jaxlib before 0.12 may hang on them.

On a CPU those versions spread a large batch of LAPACK calls over the threads that run the program, and wait for them
on one of these threads. A program with several such batches can have every thread wait, for ever: seen with three on
two cores. A small batch is never spread: one of less than 200 000 operations, by jaxlib's own count, on any number of
cores. So bbvi's programs are rewritten before they are compiled: a batch near that becomes a loop over pieces.
This comes after differentiation and vectorisation, so it sees all batches, also those that the user's function makes.
"""

import math
from collections.abc import Callable
from functools import cache, wraps
from typing import Any

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.extend import core
from jaxlib.version import __version__

PIECE_OPERATIONS = 180_000  # at most
OPERATIONS_OF = {  # on a matrix (m, n), by primitive; the second operand of a triangular solve is (m, n)
    "cholesky": lambda m, n: n**3 / 3,
    "triangular_solve": lambda m, n: m * n * max(m, n),
    "lu": lambda m, n: m * n * max(m, n),
    "geqrf": lambda m, n: 4 / 3 * m * n * max(m, n),
    "qr": lambda m, n: 4 / 3 * m * n * max(m, n),
    "geqp3": lambda m, n: 4 / 3 * m * n * max(m, n),
    "householder_product": lambda m, n: 4 / 3 * m * n * max(m, n),
    "eigh": lambda m, n: 12 * n**3,
    "svd": lambda m, n: 10 * m * n * max(m, n),
    "eig": lambda m, n: 10 * n**3,
    "schur": lambda m, n: 10 * n**3,
    "hessenberg": lambda m, n: 10 * n**3,
    "tridiagonal_solve": lambda m, n: 10 * m * n,
    "tridiagonal": lambda m, n: 10 * n**3,
}
INLINED = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")  # no derivative is taken any more


@cache
def is_needed() -> bool:
    """Whether this version of jaxlib may hang on the present device."""
    return jax.default_backend() == "cpu" and tuple(map(int, __version__.split(".")[:2])) < (0, 12)


def in_pieces(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, for `jax.jit`, with its large batches of LAPACK calls in pieces where that is needed."""

    @wraps(function)
    def rewritten(*args: Any, **kwargs: Any) -> Any:
        if not is_needed():
            return function(*args, **kwargs)
        leaves, treedef = jax.tree.flatten((args, kwargs))
        traced = [isinstance(leaf, Tracer) for leaf in leaves]  # the others are static

        def of_traced(*given: Any) -> Any:
            rest = iter(given)
            args, kwargs = jax.tree.unflatten(
                treedef, [next(rest) if is_traced else leaf for leaf, is_traced in zip(leaves, traced, strict=True)]
            )
            return function(*args, **kwargs)

        inputs = [leaf for leaf, is_traced in zip(leaves, traced, strict=True) if is_traced]
        program, shapes = jax.make_jaxpr(of_traced, return_shape=True)(*inputs)
        return jax.tree.unflatten(jax.tree.structure(shapes), _run(program, inputs))

    return rewritten


def _run(program: Any, inputs: Any) -> list[Any]:
    """The outputs of a closed jaxpr, computed by its primitives one after the other, large batches in pieces."""
    jaxpr = program.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*program.consts, *inputs], strict=True))
    read = lambda v: v.val if isinstance(v, core.Literal) else values[v]
    for equation in jaxpr.eqns:
        made = _apply(equation, list(map(read, equation.invars)))
        values.update(zip(equation.outvars, made, strict=True))
    return list(map(read, jaxpr.outvars))


def _apply(equation: Any, operands: list[Any]) -> list[Any]:
    primitive, params = equation.primitive, equation.params
    if size := _piece(equation):
        return _split(lambda *each: primitive.bind(*each, **params), operands, size)
    if _is_concerned(params):
        if primitive.name in INLINED:
            return _run(params.get("call_jaxpr", params.get("fun_jaxpr")), operands)
        params = {name: _rewritten(value) for name, value in params.items()}
    with equation.ctx.manager:
        made = primitive.bind(*operands, **primitive.get_bind_params(params))
    return list(made) if primitive.multiple_results else [made]


def _piece(equation: Any) -> int | None:
    """How many matrices a piece may have, or None for an equation that needs no pieces."""
    if equation.primitive.name not in OPERATIONS_OF:
        return None
    batch, operations = work(equation)
    size = max(1, int(PIECE_OPERATIONS // max(operations, 1)))
    return size if batch > size else None


def work(equation: Any) -> tuple[int, float]:
    """The number of matrices in the batch of an equation, one of `OPERATIONS_OF`, and the operations for each."""
    aval = equation.invars[-1].aval
    *batch, m, n = aval.shape
    operations = OPERATIONS_OF[equation.primitive.name](m, n)
    if equation.primitive.name == "triangular_solve":
        operations = m * n * equation.invars[0].aval.shape[-1]
    complex_ones = jnp.issubdtype(aval.dtype, jnp.complexfloating)
    return math.prod(batch), operations * (3 if complex_ones else 1)


def _split(function: Callable[..., Any], operands: list[Any], size: int) -> list[Any]:
    """`function` of matrices `(..., m, n)`, of `size` of them at a time."""
    batch = operands[-1].shape[:-2]
    flat = [jnp.reshape(each, (-1, *each.shape[len(batch) :])) for each in operands]
    count = math.prod(batch)
    pieces, whole = [each[: count - count % size] for each in flat], count - count % size
    stacked = [jnp.reshape(each, (whole // size, size, *each.shape[1:])) for each in pieces]
    listed = lambda *each: made if isinstance(made := function(*each), list | tuple) else [made]
    made = [jnp.reshape(each, (whole, *each.shape[2:])) for each in jax.lax.map(lambda each: listed(*each), stacked)]
    if count > whole:
        last = listed(*(each[whole:] for each in flat))
        made = [jnp.concatenate(pair) for pair in zip(made, last, strict=True)]
    return [jnp.reshape(each, (*batch, *each.shape[1:])) for each in made]


def _is_concerned(value: Any) -> bool:
    """Whether a program somewhere in the parameters of an equation has a batch that needs pieces."""
    if isinstance(value, dict):
        return any(map(_is_concerned, value.values()))
    if isinstance(value, tuple | list):
        return any(map(_is_concerned, value))
    jaxpr = value.jaxpr if isinstance(value, core.ClosedJaxpr) else value
    if not isinstance(jaxpr, core.Jaxpr):
        return False
    return any(_piece(equation) or _is_concerned(equation.params) for equation in jaxpr.eqns)


def _rewritten(value: Any) -> Any:
    """A parameter with the programs in it rewritten."""
    if not _is_concerned(value):
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_rewritten, value))
    if isinstance(value, tuple | list):
        return type(value)(map(_rewritten, value))
    closed = value if isinstance(value, core.ClosedJaxpr) else core.ClosedJaxpr(value, ())
    shapes = [jax.ShapeDtypeStruct(v.shape, v.dtype, weak_type=v.weak_type) for v in closed.in_avals]
    made = jax.make_jaxpr(lambda *inputs: _run(closed, inputs))(*shapes)
    return made if value is closed else made.jaxpr
