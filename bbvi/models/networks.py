"""Networks that look at the rows of a group and say where its own parameters are.

A network is any object with two methods, such as a module of Flax:

    weights = network.init(key, group)      any pytree of floating point arrays
    output = network.apply(weights, group)  (2 d,), or a pair of (d,) and (d,)

where d counts the free coordinates of a group's own parameters. The output is the mean and the logarithm of the
standard deviation of each. Two come with bbvi; both are a linear map plus a perceptron, since the answer of a Gaussian
model is linear in means of rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from bbvi.runtime.types import Array

Layers = list[tuple[Array, Array]]  # matrices (inputs, outputs) and offsets (outputs,)
SMALL_OUTPUT = 0.1  # times its usual size is the last layer at first, so that training begins near N(0, I)


class Group(NamedTuple):
    """What a network sees of a group.

    Fields:
        rows: the structure of `data`, each array `(m, ...)`.
        used: bool `(m,)`, which rows are the group's own; the others fill up, and the answer must not depend on them.
        shared: the shared parameters, by name.
    """

    rows: Any
    used: Array
    shared: dict[str, Array]


class Network(Protocol):
    """What `from_groups(amortise=...)` takes."""

    def init(self, key: Array, group: Group, /) -> Any:
        """Weights to begin with."""
        ...

    def apply(self, weights: Any, group: Group, /) -> Any:
        """Means and log standard deviations, `(2 d,)` or a pair of `(d,)`."""
        ...


@dataclass(frozen=True)
class MLP:
    """A perceptron of all rows of a group, one after the other: for groups of one row, or of as many in each.

    Arguments:
        hidden: units of each hidden layer.
        shared: names of the shared parameters that it is told; None for all.
        outputs: numbers that it returns; None for what the model needs.

    Its inputs should be of the size of one.

    Example:
        >>> network = bbvi.MLP(hidden=(8,), shared=(), outputs=2)
        >>> group = bbvi.Group(rows=jnp.ones((1, 3)), used=jnp.ones(1, bool), shared={})
        >>> network.apply(network.init(jax.random.key(0), group), group).shape
        (2,)
    """

    hidden: Sequence[int] = (64, 64)
    shared: Sequence[str] | None = None
    outputs: int | None = None

    def init(self, key: Array, group: Group) -> Any:
        return _init_output(key, len(self._inputs(group)), self)

    def apply(self, weights: Any, group: Group) -> Array:
        return _output(weights, self._inputs(group))

    def _inputs(self, group: Group) -> Array:
        return jnp.concatenate([_flat(group.rows, len(group.used)).ravel(), _told(group, self.shared)])


@dataclass(frozen=True)
class SetEncoder:
    """A network whose answer depends neither on the order of a group's rows nor on how many fill it up.

    Each row goes through a perceptron; a second one sees the means of what comes out, those of the rows, and the
    logarithm of their number.

    Arguments:
        hidden: units of each hidden layer, of both.
        shared: names of the shared parameters that it is told; None for all.
        outputs: numbers that it returns; None for what the model needs.

    Its inputs should be of the size of one.

    Example:
        >>> network = bbvi.SetEncoder(hidden=(8,), shared=(), outputs=2)
        >>> group = bbvi.Group(rows=jnp.arange(3.0), used=jnp.array([True, True, False]), shared={})
        >>> weights = network.init(jax.random.key(0), group)
        >>> swapped = group._replace(rows=jnp.array([1.0, 0.0, 5.0]))
        >>> bool(jnp.allclose(network.apply(weights, group), network.apply(weights, swapped)))
        True

    Reference: Zaheer et al. 2017 (arXiv:1703.06114).
    """

    hidden: Sequence[int] = (64,)
    shared: Sequence[str] | None = None
    outputs: int | None = None

    def init(self, key: Array, group: Group) -> Any:
        of_row, of_group = jax.random.split(key)
        rows = _flat(group.rows, len(group.used))
        embedding = _init_layers(of_row, (rows.shape[1], *self.hidden))
        inputs = self.hidden[-1] + rows.shape[1] + 1 + len(_told(group, self.shared))
        return {"row": embedding, "group": _init_output(of_group, inputs, self)}

    def apply(self, weights: Any, group: Group) -> Array:
        rows, used = _flat(group.rows, len(group.used)), group.used[:, None]
        seen = jnp.concatenate([jax.nn.silu(_perceptron(weights["row"], rows)), rows], axis=1)
        count = jnp.maximum(jnp.sum(used), 1).astype(rows.dtype)
        mean = jnp.sum(jnp.where(used, seen, 0), axis=0) / count
        return _output(weights["group"], jnp.concatenate([mean, jnp.log(count)[None], _told(group, self.shared)]))


def _flat(rows: Any, count: int) -> Array:
    """All numbers of each row, `(m, k)`."""
    return jnp.concatenate([jnp.asarray(leaf, float).reshape(count, -1) for leaf in jax.tree.leaves(rows)], axis=1)


def _told(group: Group, names: Sequence[str] | None) -> Array:
    """The shared parameters with these names, as one vector."""
    told = sorted(group.shared) if names is None else names
    return jnp.concatenate([jnp.zeros(0), *(jnp.asarray(group.shared[name], float).ravel() for name in told)])


def _init_layers(key: Array, sizes: Sequence[int]) -> Layers:
    keys = jax.random.split(key, len(sizes) - 1)
    return [
        (jax.random.normal(key, shape, float) * shape[0] ** -0.5, jnp.zeros(shape[1]))
        for key, shape in zip(keys, pairwise(sizes), strict=True)
    ]


def _init_output(key: Array, inputs: int, network: MLP | SetEncoder) -> dict[str, Layers]:
    if network.outputs is None:
        raise ValueError(f"{network}: give outputs, the numbers that it returns; from_groups does it by itself.")
    deep, linear = jax.random.split(key)
    layers = {
        "deep": _init_layers(deep, (inputs, *network.hidden, network.outputs)),
        "linear": _init_layers(linear, (inputs, network.outputs)),
    }
    last = layers["deep"].pop()
    return {
        "deep": [*layers["deep"], (SMALL_OUTPUT * last[0], last[1])],
        "linear": [(SMALL_OUTPUT * matrix, offset) for matrix, offset in layers["linear"]],
    }


def _output(weights: dict[str, Layers], inputs: Array) -> Array:
    return _perceptron(weights["deep"], inputs) + _perceptron(weights["linear"], inputs)


def _perceptron(layers: Layers, x: Array) -> Array:
    for matrix, offset in layers[:-1]:
        x = jax.nn.silu(x @ matrix + offset)
    return x @ layers[-1][0] + layers[-1][1]
