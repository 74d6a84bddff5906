"""The pattern of a Hessian, read off the program of the function (a jaxpr): it holds at every point.

Each array of the program is represented by the coordinates of x that its elements depend on. Where a function of
elements is not linear, the coordinates behind them are coupled: their mixed second derivative may differ from zero.

Reference: Griewank and Walther 2008, ch. 7; Walther 2008 (sparsity patterns of Hessians by propagation).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core
from jax.interpreters import partial_eval
from scipy.sparse import csr_array, eye_array

from bbvi.runtime.types import Sparse
from bbvi.structure.dependence import Couplings, Dependence, NoPatternError, pooled, union
from bbvi.structure.known import constant, evaluated, known
from bbvi.structure.operands import all_of_all, as_dependence, dependent, everything
from bbvi.structure.rules import RULES

LONGEST_UNROLLED = 200  # rounds of a scan
CALLS = (  # primitives that run one program on their operands
    *("jit", "pjit", "closed_call", "core_call", "remat", "remat2", "checkpoint"),
    *("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"),
)


def hessian_pattern(
    function: Callable[[Any], Any], x: Any, seconds: float = 1.0, wide: list[np.ndarray] | None = None
) -> Sparse | None:
    """The entries of the Hessian of a scalar function that may differ from zero at some point, `(dim, dim)` of bool.

    Arguments:
        function: of a vector `(dim,)`.
        x: such a vector, or its shape and type.
        seconds: of processor time that it may take, about.
        wide: a list to which the coordinates `(n,)` behind a single sum of many are added, where that is not linear;
            they are then left out of the pattern.

    Returns:
        A symmetric matrix; None where it takes longer or is plainly dense.
    """
    (dim,) = x.shape
    couplings = Couplings(dim, seconds, wide)
    program = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((dim,), x.dtype))
    jaxpr, _ = partial_eval.dce_jaxpr(program.jaxpr, [True], instantiate=True)
    start = Dependence(csr_array(eye_array(dim, dtype=bool, format="csr")), np.arange(dim))
    try:
        _run(couplings, jaxpr, program.consts, [start])
        return couplings.pattern()
    except NoPatternError:
        return None


def _run(couplings: Couplings, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Any]) -> list[Any]:
    """What is known of the outputs of a program, or their dependence; its couplings are collected."""
    env = dict(zip(jaxpr.invars, inputs, strict=True))
    for variable, value in zip(jaxpr.constvars, constants, strict=True):
        env[variable] = constant(value, variable.aval)

    def read(variable: Any) -> Any:
        return constant(variable.val, variable.aval) if isinstance(variable, core.Literal) else env[variable]

    for equation in jaxpr.eqns:
        made = _outputs(couplings, equation, list(map(read, equation.invars)))
        made = [_of_type(value, variable.aval) for value, variable in zip(made, equation.outvars, strict=True)]
        couplings.check(made)
        env.update(zip(equation.outvars, made, strict=True))
    return list(map(read, jaxpr.outvars))


def _of_type(value: Any, aval: Any) -> Any:
    """Integers have no derivative; and what depends on no coordinate is as good as a number not known."""
    if isinstance(value, Dependence) and not (jnp.issubdtype(aval.dtype, jnp.inexact) and value.rows.nnz):
        return None
    return value


def _outputs(couplings: Couplings, equation: Any, values: Sequence[Any]) -> list[Any]:
    name = equation.primitive.name
    if name in CALLS:
        inner = next(equation.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in equation.params)
        return _call(couplings, inner, values)
    if not dependent(values):
        return evaluated(equation, values)
    if name == "custom_linear_solve":
        return _linear_solve(couplings, equation, values)
    if name == "cond":
        return _branches(couplings, equation, values)
    if name == "scan" and 0 < equation.params["length"] <= LONGEST_UNROLLED:
        return _rounds(couplings, equation, values)
    return RULES.get(name, everything)(couplings, equation, values)


def _call(couplings: Couplings, inner: Any, values: Sequence[Any]) -> list[Any]:
    return _run(couplings, getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), values)


def _linear_solve(couplings: Couplings, equation: Any, values: Sequence[Any]) -> list[Any]:
    """A solution depends on its right-hand side as the solver says, and on the whole matrix by a rule of its own."""
    lengths = equation.params["const_lengths"]
    before = lengths.matvec + lengths.vecmat
    given = [*values[before : before + lengths.solve], *values[sum(lengths) :]]
    made = _call(couplings, equation.params["jaxprs"].solve, given)
    matrix = dependent(values[: lengths.matvec])
    if not matrix:
        return made
    of_matrix = all_of_all(couplings, equation, matrix)
    shapes = [variable.aval.shape for variable in equation.outvars]
    of_right = [as_dependence(each, shape, couplings.dim) for each, shape in zip(made, shapes, strict=True)]
    solutions = [union(pair) for pair in zip(of_right, of_matrix, strict=True)]
    for each in solutions:
        couplings.among(each)
    return solutions


def _branches(couplings: Couplings, equation: Any, values: Sequence[Any]) -> list[Any]:
    branches, which = equation.params["branches"], known(values[0])
    if which is not None:
        branches = [branches[int(np.clip(which, 0, len(branches) - 1))]]
    made = [_call(couplings, branch, values[1:]) for branch in branches]
    if which is not None:
        return made[0]
    return [union(found) if (found := dependent(each)) else None for each in zip(*made, strict=True)]


def _rounds(couplings: Couplings, equation: Any, values: Sequence[Any]) -> list[Any]:
    """A scan, round by round."""
    params = equation.params
    first, last = params["num_consts"], params["num_consts"] + params["num_carry"]
    constants, carry, rows = values[:first], values[first:last], values[last:]
    length = params["length"]
    made = []
    for i in reversed(range(length)) if params["reverse"] else range(length):
        outputs = _call(couplings, params["jaxpr"], [*constants, *carry, *(_row(each, i) for each in rows)])
        carry, result = outputs[: len(carry)], outputs[len(carry) :]
        made.append(result)
    made = made[::-1] if params["reverse"] else made
    shapes = [variable.aval.shape[1:] for variable in equation.outvars[len(carry) :]]
    stacks = zip(zip(*made, strict=True), shapes, strict=True)
    return [*carry, *(_stacked(each, shape, couplings.dim) for each, shape in stacks)]


def _row(value: Any, i: int) -> Any:
    if isinstance(value, Dependence):
        return Dependence(value.rows, value.of[i])
    value = known(value)
    return None if value is None else np.asarray(value[i])


def _stacked(values: Sequence[Any], shape: tuple[int, ...], dim: int) -> Any:
    if dependent(values):
        return pooled([as_dependence(value, shape, dim) for value in values], lambda *of: np.stack(of))
    found = [known(value) for value in values]
    kept = [value for value in found if value is not None]
    return np.stack(kept) if len(kept) == len(found) else None
