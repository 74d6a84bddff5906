"""What an evaluation of a log density takes, read off its program (a jaxpr) before any is made."""

from typing import Any

import numpy as np

from bbvi.runtime.lapack import OPERATIONS_OF, work

CALL = 10_000  # operations that take as long as a call of LAPACK for a small matrix, with its derivatives
FEW_ROUNDS = 64  # of a loop that may end earlier: no point takes far longer than others
SLOW = 50  # multiplications that one of these takes in double precision on a CPU, about
TRANSCENDENTAL = ("cos", "digamma", "erf", "exp", "expm1", "lgamma", "log", "log1p", "logistic", "pow", "sin", "tanh")
READS = ("dynamic_slice", "buffer_callback", "pure_callback")  # of rows, which many points share


def largest(jaxpr: Any) -> int:
    """Size of the largest array that the program makes."""
    sizes = [1]
    for equation in jaxpr.eqns:
        inner = _inside(equation)
        sizes += map(largest, inner)
        if not inner and equation.primitive.name not in READS:
            sizes += _sizes(equation.outvars)
    return max(sizes)


def operations(jaxpr: Any) -> int:
    """Multiplications, or operations as costly, that the program makes, about; a loop of unknown length counts once."""
    total = 0
    for equation in jaxpr.eqns:
        name, inner = equation.primitive.name, _inside(equation)
        if inner:
            total += equation.params.get("length", 1) * sum(map(operations, inner))
        elif name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            shape = equation.invars[0].aval.shape
            total += sum(_sizes(equation.outvars)) * int(np.prod([shape[axis] for axis in contracted]))
        elif name in OPERATIONS_OF:
            batch, each = work(equation)
            total += batch * int(each + CALL)
        elif name not in READS:
            each = SLOW if name in TRANSCENDENTAL else 1
            total += each * sum(_sizes(equation.invars if name.startswith("reduce") else equation.outvars))
    return total


def primitives(jaxpr: Any) -> set[str]:
    """Names of all primitives in the program."""
    names = {equation.primitive.name for equation in jaxpr.eqns}
    return names.union(*(primitives(inner) for equation in jaxpr.eqns for inner in _inside(equation)))


def has_open_loop(jaxpr: Any) -> bool:
    """Whether some loop ends when its values say so, rather than after a number of rounds that the program holds."""
    return any(
        (equation.primitive.name == "while" and not _is_counted(equation.params["cond_jaxpr"].jaxpr))
        or any(map(has_open_loop, _inside(equation)))
        for equation in jaxpr.eqns
    )


def _is_counted(condition: Any) -> bool:
    """Whether the condition of a loop is `counter < constant`, or that and another one, where the constant is small."""
    names = [equation.primitive.name for equation in condition.eqns]
    bounds = [v.val for equation in condition.eqns[:1] for v in equation.invars if hasattr(v, "val")]
    return bool(bounds) and (names == ["lt"] or (names == ["lt", "and"] and bounds[-1] <= FEW_ROUNDS))


def _inside(equation: Any) -> list[Any]:
    """The programs that an equation runs."""
    values = [v for value in equation.params.values() for v in (value if isinstance(value, tuple | list) else (value,))]
    return [getattr(value, "jaxpr", value) for value in values if hasattr(getattr(value, "jaxpr", value), "eqns")]


def _sizes(variables: Any) -> list[int]:
    return [variable.aval.size for variable in variables if hasattr(variable.aval, "size")]
