"""Random numbers for blocks of steps.

A stream is made for each page of steps from (seed, ..., page), so what step i gets does not depend on where a run was
interrupted. On a CPU the numbers come from NumPy: there its generator is several times faster than a compiled one,
and nothing has to be compiled. On an accelerator they are made where they are used.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

Array = Any


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

    def __init__(self, entropy: Sequence[int]) -> None:
        self._key = jax.random.key(int(np.random.SeedSequence(entropy).generate_state(1)[0]))

    def _next(self) -> Array:
        self._key, key = jax.random.split(self._key)
        return key

    def normal(self, shape: Sequence[int]) -> Array:
        return _normal(self._next(), tuple(shape))

    def bits(self, shape: Sequence[int]) -> Array:
        return jax.random.bits(self._next(), tuple(shape), jnp.uint32)


@partial(jax.jit, static_argnames="shape")
def _normal(key: Array, shape: tuple[int, ...]) -> Array:
    return jax.random.normal(key, shape, float)


def stream(*entropy: int) -> Random:
    """The stream that belongs to these integers, made for the present device."""
    return (HostRandom if jax.default_backend() == "cpu" else DeviceRandom)(entropy)
