"""How products, solves and decompositions of matrices pass dependence on, and what they couple."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bbvi.structure.dependence import Couplings, Dependence, compact, union
from bbvi.structure.operands import Values, all_of_all, as_dependences, dependent, everything

MOST_TERMS = 20_000_000  # of a product of matrices of which zeros are left out


def solved(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    """A triangular solve: each column of the result depends on its right-hand side and on the whole matrix."""
    matrix, right = as_dependences(couplings, equation, values)
    turned = (lambda of: of) if equation.params["left_side"] else (lambda of: of.swapaxes(-1, -2))
    of = turned(right.of)
    shape = *of.shape[:-2], 1, of.shape[-1]
    column = np.arange(int(np.prod(shape))).reshape(shape)
    made = Dependence(Dependence(right.rows, of).of_groups(_broadcast(column, of), column.size), column)
    if isinstance(values[0], Dependence):
        made = union([made, _by_matrix(matrix)])
        couplings.among(made)
    return [Dependence(made.rows, turned(np.broadcast_to(made.of, of.shape)))]


def decomposed(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    """A decomposition of each matrix of a batch."""
    made = _by_matrix(values[0])
    couplings.among(made)
    each = made.of[..., 0, 0]
    shapes = [variable.aval.shape for variable in equation.outvars]
    spread = [each.reshape(each.shape + (1,) * (len(shape) - each.ndim)) for shape in shapes]
    return [Dependence(made.rows, np.broadcast_to(of, shape)) for of, shape in zip(spread, shapes, strict=True)]


def _by_matrix(value: Dependence) -> Dependence:
    """The union of the elements of each matrix `(..., m, n)`, as of an array `(..., 1, 1)`."""
    shape = *value.of.shape[:-2], 1, 1
    matrix = np.arange(int(np.prod(shape))).reshape(shape)
    return Dependence(value.of_groups(_broadcast(matrix, value.of), matrix.size), matrix)


def _broadcast(group: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.broadcast_to(group, like.shape)


def convolved(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    """A convolution."""
    return (all_of_all if len(dependent(values)) == 1 else everything)(couplings, equation, values)


def dot(couplings: Couplings, equation: Any, values: Values) -> list[Dependence]:
    """A product of matrices: (B, M, K) times (B, N, K), summed over K, with B a batch."""
    contracted, batch = equation.params["dimension_numbers"]
    shapes = [variable.aval.shape for variable in equation.invars]
    made = [_arranged(*each) for each in zip(values, shapes, contracted, batch, strict=True)]
    shape = equation.outvars[0].aval.shape
    if len(dependent(values)) == 1:
        first = isinstance(values[0], Dependence)
        product = _product(*(made if first else made[::-1]))
        return [product.moved(lambda of: (of if first else of.swapaxes(1, 2)).reshape(shape))]
    terms = []
    for side in made:
        batches, _, inner = side.of.shape
        term = np.arange(batches * inner).reshape(batches, 1, inner)
        terms.append(side.of_groups(term, batches * inner))
    couplings.between_rows(*terms)
    left, right = map(_lines, made)
    return [union([left, right.moved(lambda of: of.swapaxes(1, 2))]).moved(lambda of: of.reshape(shape))]


def _arranged(value: Any, shape: tuple[int, ...], contracted: Sequence[int], batch: Sequence[int]) -> Any:
    """An operand of a product with its axes as (batch, others, contracted)."""
    others = [axis for axis in range(len(shape)) if axis not in {*contracted, *batch}]
    sizes = [int(np.prod([shape[axis] for axis in axes])) for axes in (batch, others, contracted)]
    move = lambda array: array.transpose([*batch, *others, *contracted]).reshape(sizes)
    if isinstance(value, Dependence):
        return value.moved(move)
    return move(value) if isinstance(value, np.ndarray) else np.ones((sizes[0], sizes[1], 0), bool)


def _lines(value: Dependence) -> Dependence:
    """The union over the last axis of (B, M, K), as of an array (B, M, 1)."""
    line = np.arange(value.of.shape[0] * value.of.shape[1]).reshape(*value.of.shape[:2], 1)
    return Dependence(value.of_groups(line, line.size), line)


def _product(value: Dependence, factor: np.ndarray) -> Dependence:
    """A product (B, M, N) with a matrix (B, N, K) that does not depend on x, whose zeros are left out."""
    batches, lines, _ = value.of.shape
    columns = factor.shape[1]
    filled = np.count_nonzero(factor)
    if filled == factor.size or filled * lines > MOST_TERMS:
        return _lines(value).moved(lambda of: np.broadcast_to(of, (batches, lines, columns)))
    b, n, k = np.nonzero(factor)
    group = (b * lines + np.arange(lines)[:, None]) * columns + n
    count = batches * lines * columns
    rows = Dependence(value.rows, value.of[b, np.arange(lines)[:, None], k]).of_groups(group, count)
    return compact(rows, np.arange(count).reshape(batches, lines, columns))
