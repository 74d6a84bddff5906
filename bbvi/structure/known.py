"""Values of arrays that do not depend on x, such as indices, as far as they are wanted."""

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

DEEPEST = 100  # values that each wait for the one before


class Later:
    """A value that is computed when it is first asked for."""

    def __init__(self, function: Callable[[], Any], depth: int = 0):
        self._function, self.depth = function, depth

    @cached_property
    def value(self) -> Any:
        """The value."""
        return self._function()


def known(value: Any) -> np.ndarray | None:
    """The value of an array, None where it is not known."""
    if isinstance(value, Later):
        value = value.value
    return value if isinstance(value, np.ndarray) else None


def constant(value: Any, aval: Any) -> Any:
    """What is known of a constant of a program."""
    if jnp.issubdtype(aval.dtype, jax.dtypes.extended):
        return Later(lambda: value)
    return np.asarray(value, aval.dtype)


def picked(which: np.ndarray, cases: Sequence[np.ndarray]) -> np.ndarray:
    """Elements of arrays of one shape, each from the array that `which` says; it has that shape, or is one number."""
    cases = np.broadcast_arrays(*cases)
    which = np.broadcast_to(np.asarray(which, int), cases[0].shape)
    return np.take_along_axis(np.stack(cases), which[None], axis=0)[0]


def padded(array: np.ndarray, padding: Any, config: Any, shape: tuple[int, ...]) -> np.ndarray:
    """`lax.pad`, with a result of this shape."""
    result = np.full(shape, padding, array.dtype)
    places = [low + (1 + between) * np.arange(n) for (low, _, between), n in zip(config, array.shape, strict=True)]
    inside = [(place >= 0) & (place < n) for place, n in zip(places, shape, strict=True)]
    kept = [place[keep] for place, keep in zip(places, inside, strict=True)]
    result[np.ix_(*kept)] = array[np.ix_(*inside)]
    return result


def window(starts: Sequence[Any], sizes: Sequence[int], shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The window of an array of this shape that `lax.dynamic_slice` takes."""
    begins = [min(max(int(s), 0), n - size) for s, size, n in zip(starts, sizes, shape, strict=True)]
    return tuple(slice(begin, begin + size) for begin, size in zip(begins, sizes, strict=True))


def _spread(equation: Any, array: np.ndarray) -> np.ndarray:
    """`lax.broadcast_in_dim`."""
    shape = [1] * len(equation.params["shape"])
    for axis, n in zip(equation.params["broadcast_dimensions"], array.shape, strict=True):
        shape[axis] = n
    return np.broadcast_to(array.reshape(shape), equation.params["shape"])


def _sliced(equation: Any, array: np.ndarray) -> np.ndarray:
    params = equation.params
    strides = params["strides"] or (1,) * array.ndim
    return array[tuple(map(slice, params["start_indices"], params["limit_indices"], strides))]


_same = lambda equation, array: array
_reshaped = lambda equation, array: array.reshape(equation.outvars[0].aval.shape)

MOVES: dict[str, Callable[[Any, np.ndarray], np.ndarray]] = {  # each element of the result is one of the array
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _reshaped),
    **dict.fromkeys(("copy", "copy_p", "convert_element_type", "reduce_precision", "sharding_constraint"), _same),
    "broadcast_in_dim": _spread,
    "transpose": lambda equation, array: array.transpose(equation.params["permutation"]),
    "rev": lambda equation, array: np.flip(array, equation.params["dimensions"]),
    "slice": _sliced,
    "tile": lambda equation, array: np.tile(array, equation.params["reps"]),
}
JOINS: dict[str, Callable[..., np.ndarray]] = {  # each element of the result is one of some array
    "concatenate": lambda equation, *arrays: np.concatenate(arrays, axis=equation.params["dimension"]),
    "stack": lambda equation, *arrays: np.stack(arrays, axis=equation.params["axis"]),
    "pad": lambda equation, array, padding: padded(
        array, padding, equation.params["padding_config"], equation.outvars[0].aval.shape
    ),
}
_UFUNCS = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "neg": np.negative,
    "max": np.maximum,
    "min": np.minimum,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "square": np.square,
    "rem": np.fmod,
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "is_finite": np.isfinite,
}
_BY_NUMPY: dict[str, Callable[..., Any]] = {
    **MOVES,
    **JOINS,
    **{name: lambda equation, *arrays, ufunc=ufunc: ufunc(*arrays) for name, ufunc in _UFUNCS.items()},
    "stop_gradient": _same,
    "integer_pow": lambda equation, array: array ** equation.params["y"],
    "select_n": lambda equation, which, *cases: picked(which, cases),
    "clamp": lambda equation, low, array, high: np.clip(array, low, high),
    "iota": lambda equation: np.broadcast_to(
        np.arange(equation.params["shape"][equation.params["dimension"]]).reshape(
            [-1 if axis == equation.params["dimension"] else 1 for axis in range(len(equation.params["shape"]))]
        ),
        equation.params["shape"],
    ),
    "reduce_sum": lambda equation, array: array.sum(axis=tuple(equation.params["axes"])),
    "reduce_max": lambda equation, array: array.max(axis=tuple(equation.params["axes"])),
    "reduce_min": lambda equation, array: array.min(axis=tuple(equation.params["axes"])),
}


def evaluated(equation: Any, values: Sequence[Any]) -> list[Any]:
    """What is known of the results of an equation, given what is known of its operands, none of which depends on x."""
    if any(value is None for value in values):
        return [None] * len(equation.outvars)
    function = _BY_NUMPY.get(equation.primitive.name)
    if function is not None and all(isinstance(value, np.ndarray) for value in values):
        with np.errstate(all="ignore"):
            return [np.asarray(function(equation, *values)).astype(equation.outvars[0].aval.dtype, copy=False)]
    depth = 1 + max((value.depth for value in values if isinstance(value, Later)), default=0)
    whole = Later(lambda: _bound(equation, values), depth)
    if depth > DEEPEST:
        return whole.value
    return [Later(lambda i=i: whole.value[i], depth) for i in range(len(equation.outvars))]


def _bound(equation: Any, values: Sequence[Any]) -> list[Any]:
    """The results of an equation, computed by JAX."""
    operands = [value.value if isinstance(value, Later) else value for value in values]
    operands = [jnp.asarray(each) if isinstance(each, np.ndarray) else each for each in operands]
    primitive = equation.primitive
    with equation.ctx.manager:
        made = primitive.bind(*operands, **primitive.get_bind_params(equation.params))
    made = made if primitive.multiple_results else [made]
    return [each if jnp.issubdtype(each.dtype, jax.dtypes.extended) else np.asarray(each) for each in made]
