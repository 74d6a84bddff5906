"""A log density that JAX cannot trace, with a gradient of its own.

The functions run on the host. A whole batch of points goes there in one call, and the value and the gradient at a point
come back together, so that a gradient costs one callback.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.buffer_callback import buffer_callback

from bbvi.runtime.types import Array

Leaves = tuple[Array, ...]
Shape = tuple[int, ...]
NO_SECOND_DERIVATIVES = "bbvi.external was given no hvp=."


@dataclass(frozen=True)
class External:
    """What `external` returns: a log density for `fit`, differentiable in its first argument."""

    logprob: Callable[..., Any]
    gradient: Callable[..., Any]
    hvp: Callable[..., Any] | None = None
    value_and_gradient: Callable[..., Any] | None = None  # both in one call, where that is cheaper

    def __call__(self, values: Any, *data: Any) -> Array:
        """Log density of `values`, a scalar."""
        host = _Host(self, _Layout.of(values), _Layout.of(data))
        return _value(host, *(tuple(jax.tree.leaves(tree)) for tree in (values, data)))


def external(
    logprob: Callable[..., Any], gradient: Callable[..., Any], hvp: Callable[..., Any] | None = None
) -> External:
    """A log density written in NumPy, SciPy or C, with its own gradient, for `fit`.

    Arguments:
        logprob: `logprob(values)`, or `logprob(values, data)` when data are given to `fit`: a float, the unnormalised
            log density of parameters in the structure of `dim`, NumPy arrays on their constrained scale. NaN and -inf
            mean no density.
        gradient: of it with respect to `values`, with the same arguments; returns the structure of `values`.
        hvp: the Hessian of it times a vector: `hvp(values, vectors)`, or `hvp(values, vectors, data)`, where `vectors`
            and what is returned have the structure of `values`. Without it, methods that need second derivatives
            refuse, and "auto" does without them.

    Returns:
        A function to give to `fit` as `logprob`. An exception in one of the three ends the fit.

    Raises:
        TypeError: when an argument is no function.

    Example:
        >>> density = bbvi.external(lambda x: -0.5 * x @ x, lambda x: -x, hvp=lambda x, v: -v)
        >>> print(density(jnp.array([1.0, 2.0])))  # give it to bbvi.fit
        -2.5
    """
    for name, function in (("logprob", logprob), ("gradient", gradient), ("hvp", hvp)):
        if not callable(function) and not (name == "hvp" and hvp is None):
            raise TypeError(f"{name}={function!r} must be a function of the parameters.")
    return External(logprob, gradient, hvp)


@dataclass(frozen=True)
class _Layout:
    """The structure of a pytree, and the shape and type of each of its arrays."""

    treedef: Any
    shapes: tuple[Shape, ...]
    dtypes: tuple[np.dtype, ...]

    @classmethod
    def of(cls, tree: Any) -> "_Layout":
        leaves, treedef = jax.tree.flatten(tree)
        return cls(treedef, tuple(map(np.shape, leaves)), tuple(np.dtype(leaf.dtype) for leaf in leaves))

    def zeros(self, lead: Shape) -> tuple[np.ndarray, ...]:
        """Arrays with leading axes `lead`."""
        return tuple(np.zeros(lead + shape, dtype) for shape, dtype in zip(self.shapes, self.dtypes, strict=True))

    def flatten(self, name: str, tree: Any) -> list[np.ndarray]:
        """The arrays of what a user's function returned, after a look at their shapes."""
        try:
            leaves = [np.asarray(leaf) for leaf in self.treedef.flatten_up_to(tree)]
        except (ValueError, TypeError) as error:
            raise TypeError(f"{name} must return the structure of the parameters, {self.treedef}: {error}") from error
        if (shapes := tuple(leaf.shape for leaf in leaves)) != self.shapes:
            raise ValueError(f"{name} returned arrays of shapes {shapes}; those of the parameters are {self.shapes}.")
        return leaves


@dataclass(frozen=True)
class _Host:
    """The user's functions as JAX calls them: over any leading axes, on flat lists of arrays."""

    functions: External
    values: _Layout
    data: _Layout  # of the further arguments

    @property
    def dtype(self) -> np.dtype:
        return np.result_type(*self.values.dtypes)

    def value(self, *arrays: np.ndarray) -> Leaves:
        lead, arguments = self._split(arrays, self.values)
        values = np.zeros(lead, self.dtype)
        for index in np.ndindex(*lead):
            values[index] = _number(self.functions.logprob(*arguments(index)))
        return (values,)

    def value_and_gradient(self, *arrays: np.ndarray) -> Leaves:
        lead, arguments = self._split(arrays, self.values)
        values, gradients = np.zeros(lead, self.dtype), self.values.zeros(lead)
        for index in np.ndindex(*lead):
            value, gradient = self._both(arguments(index))
            values[index] = _number(value)
            _put(gradients, index, self.values.flatten("gradient", gradient))
        return values, *gradients

    def _both(self, arguments: list[Any]) -> tuple[Any, Any]:
        if self.functions.value_and_gradient is not None:
            return self.functions.value_and_gradient(*arguments)
        return self.functions.logprob(*arguments), self.functions.gradient(*arguments)

    def hvp(self, *arrays: np.ndarray) -> Leaves:
        assert self.functions.hvp is not None
        lead, arguments = self._split(arrays, self.values, self.values)
        products = self.values.zeros(lead)
        for index in np.ndindex(*lead):
            _put(products, index, self.values.flatten("hvp", self.functions.hvp(*arguments(index))))
        return products

    def _split(
        self, arrays: Sequence[np.ndarray], *heads: _Layout
    ) -> tuple[tuple[int, ...], Callable[[Any], list[Any]]]:
        """The leading axes, and a function from an index into them to the arguments there."""
        layouts = [*heads, self.data]
        shapes = [shape for layout in layouts for shape in layout.shapes]
        lead = np.broadcast_shapes(*(a.shape[: a.ndim - len(s)] for a, s in zip(arrays, shapes, strict=True)))
        arrays = [np.broadcast_to(a, lead + s) for a, s in zip(arrays, shapes, strict=True)]

        def arguments(index: Any) -> list[Any]:
            leaves = (array[index] for array in arrays)
            *trees, data = [jax.tree.unflatten(each.treedef, [next(leaves) for _ in each.shapes]) for each in layouts]
            return [*trees, *data]

        return lead, arguments


def _put(arrays: tuple[np.ndarray, ...], index: Any, leaves: list[np.ndarray]) -> None:
    for array, leaf in zip(arrays, leaves, strict=True):
        array[index] = leaf


def _number(value: Any) -> float:
    if np.ndim(value) or np.iscomplexobj(value):
        raise TypeError(f"logprob returned {value!r}, a {type(value).__name__}. It must return one real number.")
    return float(value)


def _call(function: Callable[..., Leaves], dtype: np.dtype, shapes: Sequence[Shape], *leaves: Leaves) -> Leaves:
    """Results of one dtype and of these shapes from a function on the host, for arrays that may be batched."""
    if jax.default_backend() != "cpu":
        raise NotImplementedError(
            "A log density of bbvi.external runs on the host: start Python with JAX_PLATFORMS=cpu to use it."
        )

    # Not pure_callback: it makes JAX arrays of the arguments, which deadlocks where all threads wait for the callback,
    # and in the precision of its own thread.
    def on_host(_: Any, out: Any, *buffers: Any) -> None:
        for buffer, result in zip(out, function(*map(np.asarray, buffers)), strict=True):
            np.asarray(buffer)[...] = result

    results = tuple(jax.ShapeDtypeStruct(shape, dtype) for shape in shapes)
    flat = [jnp.asarray(leaf) for group in leaves for leaf in group]
    return tuple(buffer_callback(on_host, results, vmap_method="expand_dims")(*flat))


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value(host: _Host, values: Leaves, data: Leaves) -> Array:
    return _call(host.value, host.dtype, [()], values, data)[0]


@_value.defjvp
def _(host: _Host, primals: Any, tangents: Any) -> tuple[Array, Array]:
    value, gradients = _value_and_gradient(host, *primals)
    return value, _inner(gradients, tangents[0])


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _value_and_gradient(host: _Host, values: Leaves, data: Leaves) -> tuple[Array, Leaves]:
    value, *gradients = _call(host.value_and_gradient, host.dtype, [(), *host.values.shapes], values, data)
    return value, tuple(gradients)


@_value_and_gradient.defjvp
def _(host: _Host, primals: Any, tangents: Any) -> tuple[Any, Any]:
    if host.functions.hvp is None:
        raise TypeError(NO_SECOND_DERIVATIVES)
    (values, data), (vectors, _) = primals, tangents
    value, gradients = _value_and_gradient(host, values, data)
    products = _call(host.hvp, host.dtype, host.values.shapes, values, vectors, data)
    return (value, gradients), (_inner(gradients, vectors), products)


def _inner(a: Leaves, b: Leaves) -> Array:
    return sum((jnp.sum(x * y) for x, y in zip(a, b, strict=True)), start=jnp.zeros((), a[0].dtype))
