"""How each primitive of JAX passes dependence on, and what it couples: a table."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.structure.dependence import Couplings, Dependence, pooled, union
from bbvi.structure.known import JOINS, MOVES, known, picked, window
from bbvi.structure.matrices import MOST_TERMS, convolved, decomposed, dot, solved
from bbvi.structure.operands import Values, all_of_all, as_dependences, dependent, everything


def _linear(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    made = union(dependent(values))
    return [Dependence(made.rows, np.broadcast_to(made.of, equation.outvars[0].aval.shape))]


def _nonlinear(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    operands = dependent(values)
    made = operands if len(operands) == 1 else _linear(couplings, equation, values)
    couplings.among(made[0])
    return _linear(couplings, equation, made)


def _absolute(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    is_complex = jnp.issubdtype(equation.invars[0].aval.dtype, jnp.complexfloating)
    return (_nonlinear if is_complex else _linear)(couplings, equation, values)


def _power(couplings: Couplings, equation: Any, values: Values) -> list[Any]:
    if equation.params["y"] == 0:
        return [None]
    return (_linear if equation.params["y"] == 1 else _nonlinear)(couplings, equation, values)


def _multiply(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    operands = dependent(values)
    if len(operands) == 2 and operands[0].is_like(operands[1]):
        couplings.among(operands[0])
    elif len(operands) == 2:
        couplings.between(*operands)
    return _linear(couplings, equation, values)


def _divide(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    if isinstance(values[1], Dependence):
        couplings.among(values[1])
    return _multiply(couplings, equation, values)


def _constant(couplings: Couplings, equation: Any, values: Values) -> list[None]:
    return [None] * len(equation.outvars)


def _moved(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    return [values[0].moved(lambda of: MOVES[equation.primitive.name](equation, of))]


def _kept(couplings: Couplings, equation: Any, values: Values) -> list[Any]:
    return list(values)


def _joined(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    parts = as_dependences(couplings, equation, values)
    return [pooled(parts, lambda *of: JOINS[equation.primitive.name](equation, *of))]


def _selected(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    which = known(values[0])
    if which is None:
        return _linear(couplings, equation, values)
    return [pooled(as_dependences(couplings, equation, values)[1:], lambda *cases: picked(which, cases))]


def _split(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    params = equation.params
    if equation.primitive.name == "unstack":
        pieces = np.moveaxis(values[0].of, params["axis"], 0)
    else:
        pieces = np.split(values[0].of, np.cumsum(params["sizes"])[:-1], axis=params["axis"])
    return [Dependence(values[0].rows, piece) for piece in pieces]


def _gather(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    indices = known(values[1])
    if indices is None:
        return all_of_all(couplings, equation, values)
    params = {**equation.params, "fill_value": -1}

    def move(of: np.ndarray) -> np.ndarray:
        found = equation.primitive.bind(jnp.asarray(of, jnp.int32), jnp.asarray(indices), **params)
        return np.asarray(found, int)

    return [pooled([values[0]], move)]


def _window_taken(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    starts = list(map(known, values[1:]))
    if any(start is None for start in starts):
        return all_of_all(couplings, equation, values)
    of = values[0].of
    return [Dependence(values[0].rows, of[window(starts, equation.params["slice_sizes"], of.shape)])]


def _window_set(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    starts = list(map(known, values[2:]))
    if any(start is None for start in starts):
        return all_of_all(couplings, equation, values)

    def move(of: np.ndarray, update: np.ndarray) -> np.ndarray:
        result = np.array(of)
        result[window(starts, update.shape, of.shape)] = update
        return result

    return [pooled(as_dependences(couplings, equation, values)[:2], move)]


def _scatter(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    name, indices = equation.primitive.name, known(values[1])
    if indices is None or name == "scatter_mul":
        return (everything if name == "scatter_mul" else all_of_all)(couplings, equation, values)
    operand, _, update = as_dependences(couplings, equation, values)
    shape = operand.of.shape
    target = _targets(equation, indices, shape)
    if name == "scatter":

        def move(of: np.ndarray, update: np.ndarray) -> np.ndarray:
            result = np.array(of).ravel()
            result[target[target >= 0]] = update[target >= 0]
            return result.reshape(shape)

        return [pooled([operand, update], move)]
    added = Dependence(update.of_groups(target, operand.of.size), np.arange(operand.of.size).reshape(shape))
    return [union([added, operand]) if isinstance(values[0], Dependence) else added]


def _targets(equation: Any, indices: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The flat index of the element that each update changes, -1 for none."""
    numbers = equation.params["dimension_numbers"]
    collapsed = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    updates = equation.invars[2].aval.shape
    sizes = iter(updates[axis] for axis in numbers.update_window_dims)
    found = jax.lax.gather(
        jnp.arange(int(np.prod(shape)), dtype=jnp.int32).reshape(shape),
        jnp.asarray(indices),
        jax.lax.GatherDimensionNumbers(
            offset_dims=numbers.update_window_dims,
            collapsed_slice_dims=numbers.inserted_window_dims,
            start_index_map=numbers.scatter_dims_to_operand_dims,
            operand_batching_dims=numbers.operand_batching_dims,
            start_indices_batching_dims=numbers.scatter_indices_batching_dims,
        ),
        tuple(1 if axis in collapsed else next(sizes) for axis in range(len(shape))),
        mode=equation.params["mode"],
        fill_value=-1,
    )
    return np.asarray(found, int)


def _reduced(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    (value,), axes, shape = values, equation.params["axes"], equation.outvars[0].aval.shape
    count = int(np.prod(shape))
    group = np.expand_dims(np.arange(count).reshape(shape), tuple(axes))
    return [Dependence(value.of_groups(group, count), np.arange(count).reshape(shape))]


def _cumulated(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    (value,), axis, shape = values, equation.params["axis"], equation.outvars[0].aval.shape
    of = np.moveaxis(value.of, axis, -1)
    length, lanes = shape[axis], of.size // max(shape[axis], 1)
    if lanes * length**2 > 2 * MOST_TERMS:
        return all_of_all(couplings, equation, values)
    later, earlier = np.triu_indices(length) if equation.params["reverse"] else np.tril_indices(length)
    group = np.arange(lanes)[:, None] * length + later
    rows = Dependence(value.rows, of.reshape(lanes, length)[:, earlier]).of_groups(group, lanes * length)
    return [Dependence(rows, np.moveaxis(np.arange(of.size).reshape(of.shape), -1, axis))]


def _and_coupled(rule: Callable[..., list[Dependence]]) -> Callable[..., list[Dependence]]:
    """The rule of a function that depends on the same elements, but not linearly."""

    def coupled(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
        made = rule(couplings, equation, values)
        for each in made:
            couplings.among(each)
        return made

    return coupled


LINEAR = "add add_any sub neg max min rem clamp real imag complex conj nextafter"
NONLINEAR = """exp exp2 expm1 log log1p logistic tanh tan sin cos asin acos atan atan2 sinh cosh asinh acosh atanh sqrt
    rsqrt cbrt square pow lgamma digamma polygamma igamma igammac igamma_grad_a random_gamma_grad bessel_i0e bessel_i1e
    regularized_incomplete_beta zeta erf erfc erf_inv"""
CONSTANT = "stop_gradient floor ceil round is_finite eq ne lt le gt ge argmax argmin"
BATCHED = "cholesky eigh lu qr geqrf svd schur eig hessenberg tridiagonal householder_product"
RULES: dict[str, Callable[[Couplings, Any, Values], list[Any]]] = {
    **dict.fromkeys(LINEAR.split(), _linear),
    **dict.fromkeys(NONLINEAR.split(), _nonlinear),
    **dict.fromkeys(CONSTANT.split(), _constant),
    **dict.fromkeys(MOVES, _moved),
    **dict.fromkeys(JOINS, _joined),
    **dict.fromkeys(("abs", "sign"), _absolute),
    **dict.fromkeys(("split", "unstack"), _split),
    **dict.fromkeys(("reduce_sum", "reduce_max", "reduce_min"), _reduced),
    **dict.fromkeys(("cumsum", "cummax", "cummin"), _cumulated),
    **dict.fromkeys(("cumprod", "cumlogsumexp"), _and_coupled(_cumulated)),
    **dict.fromkeys(("scatter", "scatter_add", "scatter-add", "scatter_min", "scatter_max", "scatter_mul"), _scatter),
    **dict.fromkeys(("sort", "top_k", "fft", "reduce_window_sum", "reduce_window_max"), all_of_all),
    **dict.fromkeys(BATCHED.split(), decomposed),
    "optimization_barrier": _kept,
    "reduce_prod": _and_coupled(_reduced),
    "integer_pow": _power,
    "mul": _multiply,
    "div": _divide,
    "select_n": _selected,
    "gather": _gather,
    "dynamic_slice": _window_taken,
    "dynamic_update_slice": _window_set,
    "triangular_solve": solved,
    "conv_general_dilated": convolved,
    "dot_general": dot,
}
