"""The diagonal of a Hessian, exact or estimated."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from bbvi.curvature.operator import HessianOperator

COLUMNS_AT_ONCE = 32  # of the Hessian, in the exact diagonal


class DiagonalEstimate(NamedTuple):
    """The diagonal of a Hessian, each field in the structure of x."""

    value: Any
    standard_error: Any  # zero where the value is exact


def hessian_diagonal(
    fun: Callable[[Any], Array], x: Any, probes: int | None = None, seed: int | Array = 0
) -> DiagonalEstimate:
    """Diagonal of the Hessian of `fun` at `x`, exact or from random probes.

    Exact, it takes dim products, 32 at a time, and memory for that many. With probes z of independent random signs,

        E[z * H z] = diag H,    var[(z * H z)_i] = sum_{j != i} H_ij^2,

    so that n probes take n products, one at a time, and have no error where H is diagonal.

    Arguments:
        fun: `fun(x)`, a scalar.
        x: a pytree of floating point arrays.
        probes: number n of random probes, at least 2; None for the exact diagonal.
        seed: of the probes, an int or a key of `jax.random`.

    Returns:
        Values with standard errors, both in the structure and dtypes of `x`.

    Raises:
        ValueError: for fewer than 2 probes.

    Example:
        >>> bbvi.curvature.hessian_diagonal(lambda x: jnp.sum(x**3), jnp.array([1.0, 2.0])).value  # 6 x
        Array([ 6., 12.], dtype=float32)

    References: Hutchinson 1990; Bekas, Kokiopoulou and Saad 2007, for the diagonal.
    """
    if probes is not None and probes < 2:
        raise ValueError(f"probes must be at least 2, to tell the error from their spread; got {probes}.")
    operator = HessianOperator(fun, x)
    zeros = jnp.zeros_like(operator.gradient)
    if probes is None:
        entry = lambda i: operator.matvec(zeros.at[i].set(1))[i]
        value, error = jax.lax.map(entry, jnp.arange(zeros.size), batch_size=COLUMNS_AT_ONCE), zeros
    else:
        value, error = _hutchinson(operator, probes, seed)
    return DiagonalEstimate(operator.unravel(value), operator.unravel(error))


def _hutchinson(operator: HessianOperator, probes: int, seed: int | Array) -> tuple[Array, Array]:
    """Mean of `z * H z` over the probes and its standard error, both `(dim,)`, by Welford's recurrence."""
    is_key = isinstance(seed, jax.Array) and jnp.issubdtype(seed.dtype, jax.dtypes.prng_key)
    keys = jax.random.split(seed if is_key else jax.random.key(seed), probes)
    zeros = jnp.zeros_like(operator.gradient)

    def add(moments: tuple[Array, Array], probe: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        (mean, squares), (count, key) = moments, probe
        z = jax.random.rademacher(key, zeros.shape, zeros.dtype)
        deviation = z * operator.matvec(z) - mean
        step = deviation / count
        return (mean + step, squares + deviation * (deviation - step)), None

    counts = jnp.arange(1, probes + 1, dtype=zeros.dtype)
    (mean, squares), _ = jax.lax.scan(add, (zeros, zeros), (counts, keys))
    return mean, jnp.sqrt(squares / (probes * (probes - 1)))
