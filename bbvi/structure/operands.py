"""Operands of primitives, of which something is known or which depend on x."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bbvi.structure.dependence import Couplings, Dependence, nothing, union

Values = Sequence[Any]  # of the operands: what is known of them, or a `Dependence`


def dependent(values: Values) -> list[Dependence]:
    """Those of the operands that depend on x."""
    return [value for value in values if isinstance(value, Dependence)]


def as_dependence(value: Any, shape: tuple[int, ...], dim: int) -> Dependence:
    """The dependence of an operand, of whatever kind."""
    return value if isinstance(value, Dependence) else nothing(shape, dim)


def everything(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    """Each element of the results depends on all elements of the operands, and couples them."""
    made = all_of_all(couplings, equation, values)
    couplings.among(made[0])
    return made


def all_of_all(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    """Each element of the results depends on all elements of the operands, and has no curvature."""
    rows = union([_in_one(value) for value in dependent(values)]).rows
    return [Dependence(rows, np.zeros(variable.aval.shape, int)) for variable in equation.outvars]


def _in_one(value: Dependence) -> Dependence:
    """The union of all elements, as of one number."""
    zero = np.zeros((), int)
    return Dependence(value.of_groups(zero, 1), zero)


def as_dependences(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    """The dependence of all operands."""
    pairs = zip(values, equation.invars, strict=True)
    return [as_dependence(value, variable.aval.shape, couplings.dim) for value, variable in pairs]
