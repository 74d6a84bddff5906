"""Where the standard normal draws of an estimator come from.

Independent draws are the default. Antithetic pairs cancel every odd-order error; scrambled Sobol points fill space
evenly, and each step scrambles them anew, so that every scheme stays unbiased.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

from bbvi.draws.random import Random
from bbvi.runtime.types import Array


class Noise(ABC):
    """A way to draw sets of `n` standard normal vectors."""

    @abstractmethod
    def __call__(self, random: Random, sets: int, n: int, dim: int) -> Array:
        """Independent sets of draws, `(sets, n, dim)`, each draw N(0, I)."""

    @abstractmethod
    def standard_error(self, values: Array) -> Array:
        """Standard error of `values.mean()` for values `(n,)` of a function at such draws, a scalar."""

    def together(self, n: int) -> int:
        """How many of `n` draws depend on each other: as many at least have to be made at once."""
        return 1

    @abstractmethod
    def check(self, n: int) -> None:
        """Raise ValueError when `n` draws cannot be made."""


def _standard_error(values: Array) -> Array:
    return jnp.std(values, ddof=1) / values.size**0.5 if values.size > 1 else jnp.full((), jnp.nan, values.dtype)


@dataclass(frozen=True)
class IID(Noise):
    """Independent draws."""

    def __call__(self, random: Random, sets: int, n: int, dim: int) -> Array:
        return random.normal((sets, n, dim))

    def standard_error(self, values: Array) -> Array:
        return _standard_error(values)

    def check(self, n: int) -> None:
        pass


@dataclass(frozen=True)
class Antithetic(Noise):
    """Independent draws and their negatives."""

    def __call__(self, random: Random, sets: int, n: int, dim: int) -> Array:
        half = random.normal((sets, n // 2, dim))
        return random.xp.concatenate([half, -half], axis=1)

    def standard_error(self, values: Array) -> Array:
        return _standard_error(values.reshape(2, -1).mean(axis=0))  # pairs are independent, draws are not

    def together(self, n: int) -> int:
        return 2

    def check(self, n: int) -> None:
        if n % 2:
            raise ValueError(f"num_draws={n}: antithetic draws come in pairs. Use an even number.")


@dataclass(frozen=True)
class Sobol(Noise):
    """Scrambled Sobol points through the normal quantile function; `n` is a power of 2.

    The points are `scipy.stats.qmc.Sobol`'s; each call applies a random nested uniform scramble (Owen 1995) in the
    hashed form of Laine and Karras 2011. `standard_error` treats the draws as independent, which for smooth functions
    is too large.

    Example:
        >>> bbvi.ELBO(bbvi.Sobol())  # for fit(estimator=..., num_draws=16)
        ELBO(noise=Sobol())
    """

    def __call__(self, random: Random, sets: int, n: int, dim: int) -> Array:
        return _scrambled(_sobol_bits(n, dim), random.bits((sets, 1, dim)))

    def standard_error(self, values: Array) -> Array:
        return _standard_error(values)

    def together(self, n: int) -> int:
        return n

    def check(self, n: int) -> None:
        if n & (n - 1):
            better = 1 << n.bit_length()
            raise ValueError(f"num_draws={n}: Sobol points are balanced only in powers of 2. Use {better}.")


@lru_cache(maxsize=32)
def _sobol_bits(n: int, dim: int) -> np.ndarray:
    from scipy.stats import qmc

    points = qmc.Sobol(dim, scramble=False, bits=32).random_base2((n - 1).bit_length())
    return np.asarray(points * 2.0**32, np.uint64).astype(np.uint32)


def _reverse_bits(x: Array) -> Array:
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF)):
        mask = jnp.uint32(mask)
        x = ((x >> shift) & mask) | ((x & mask) << shift)
    return (x >> 16) | (x << 16)


def _owen_scramble(bits: Array, seeds: Array) -> Array:
    # A bit may only be changed by those above it: reversed, by those below, which is what products do.
    x = _reverse_bits(bits) + seeds
    for constant in (0x6C50B47C, 0xB82F1E52, 0xC7AFE638, 0x8D22F6E6):
        x = x ^ (x * jnp.uint32(constant))
    return _reverse_bits(x)


@jax.jit
def _scrambled(bits: Array, seeds: Array) -> Array:
    scrambled = _owen_scramble(bits, seeds)
    if jnp.zeros(()).dtype == jnp.float64:
        return ndtri((scrambled.astype(float) + 0.5) * 2.0**-32)
    # 24 bits are what float32 resolves; the half keeps both ends inside (0, 1).
    return ndtri(((scrambled >> 8).astype(float) + 0.5) * 2.0**-24)
