"""Random numbers for blocks of steps.

A stream is made for each page of steps from (seed, ..., page), so what step i gets does not depend on where a run was
interrupted. On a CPU the numbers come from NumPy: there its generator is faster than a compiled one, and nothing has to
be compiled. On an accelerator they are made where they are used; so are, everywhere, the draws of very many
coordinates, of which only one is in memory at a time (`add_up`).
"""

import enum
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.runtime.types import Array

NORMALS_AT_ONCE = 2**16  # normal numbers made at once within a program


class RandomStream(enum.IntEnum):
    """What random numbers are for: it sets those of one purpose apart from others with the same seed."""

    START = 0
    STEPS = 1
    VERDICT = 2
    SAMPLE = 3
    RESAMPLE = 4
    FIXED = 5
    CHAINS = 6
    MANY_FIXED = 7
    MANY_VERDICT = 8
    MANY_RESAMPLE = 9
    FULL_DIAGNOSIS = 10
    EPOCHS = 11
    MAXIMISE = 12
    CHECKS = 13
    MODES = 14
    KERNELS = 15
    PLATEAUS = 16


class Random(Protocol):
    """A stream of random numbers; `xp` is the array module (numpy or jax.numpy) of what it returns."""

    xp: Any

    def normal(self, shape: Sequence[int]) -> Array:
        """Independent standard normal numbers."""
        ...

    def bits(self, shape: Sequence[int]) -> Array:
        """Independent uniform 32-bit unsigned integers."""
        ...


class HostRandom:
    """NumPy's generator."""

    xp = np

    def __init__(self, entropy: Sequence[int]) -> None:
        self._generator = np.random.default_rng(entropy)

    def normal(self, shape: Sequence[int]) -> Array:
        return self._generator.standard_normal(shape, jax.dtypes.canonicalize_dtype(float))

    def bits(self, shape: Sequence[int]) -> Array:
        return self._generator.integers(0, 2**32, shape, np.uint32)


class DeviceRandom:
    """JAX's generator."""

    xp = jnp

    def __init__(self, key: Array) -> None:
        self._key = key

    def _next(self) -> Array:
        self._key, key = jax.random.split(self._key)
        return key

    def normal(self, shape: Sequence[int]) -> Array:
        return _normal(self._next(), tuple(shape))

    def bits(self, shape: Sequence[int]) -> Array:
        return jax.random.bits(self._next(), tuple(shape), jnp.uint32)


class InProgram:
    """JAX's generator within a compiled program, from a seed of two 32-bit integers `(2,)`.

    Normal numbers are resolved as in single precision, whatever their type: that takes half the time. On a CPU they are
    made a piece at a time, since what goes before a number takes three times its memory.
    """

    xp = jnp

    def __init__(self, seed: Array) -> None:
        self._key = jax.random.wrap_key_data(jnp.asarray(seed), impl="threefry2x32")

    def normal(self, shape: Sequence[int]) -> Array:
        size = math.prod(shape)
        piece = min(NORMALS_AT_ONCE, size) if jax.default_backend() == "cpu" else size
        keys = jax.random.split(self._key, -(-size // piece))
        made = jax.lax.map(lambda key: jax.random.normal(key, (piece,), jnp.float32), keys)
        return made.reshape(-1)[:size].reshape(tuple(shape)).astype(float)

    def bits(self, shape: Sequence[int]) -> Array:
        return jax.random.bits(self._key, tuple(shape), jnp.uint32)


@partial(jax.jit, static_argnames="shape")
def _normal(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.normal(key, shape, float)


def stream(*entropy: int) -> Random:
    """The stream that belongs to these integers, made for the present device."""
    if jax.default_backend() == "cpu":
        return HostRandom(entropy)
    return DeviceRandom(jax.random.key(int(np.random.SeedSequence(entropy).generate_state(1)[0])))


def add_up(function: Callable[[Random], tuple[Any, Any]], seeds: Array) -> tuple[Any, Any]:
    """The sum of the first thing that `function(random)` returns, and the second ones with a leading axis.

    One after the other, so that what it makes of the random numbers is in memory once.

    Arguments:
        seeds: one for each call, `(n, 2)` unsigned 32-bit integers.
    """
    call = lambda seed: function(InProgram(seed))
    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(call, seeds[0])[0])

    def body(total: Any, seed: Array) -> tuple[Any, Any]:
        term, kept = call(seed)
        return jax.tree.map(jnp.add, total, term), kept

    return jax.lax.scan(body, zero, seeds)
