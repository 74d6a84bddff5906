"""What a model of posteriordb is made of: its parameters, its data as they are read, and densities."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Params = dict[str, Any]
Data = dict[str, Any]
Column = str | Callable[[Data], np.ndarray]
Logprob = Callable[[Params, Data], jax.Array]


class Parameter(NamedTuple):
    """Shape (a string names an integer of the data file) and numpyro constraint with its arguments."""

    shape: tuple[int | str, ...]
    constraint: tuple[Any, ...] | None


class Model(NamedTuple):
    """A log density, its parameters, what it reads of a data file, and what posteriordb reports of it."""

    logprob: Logprob
    params: dict[str, Parameter]
    prepare: Callable[[Data], Data]
    quantities: Callable[[Params, Data], Params] = lambda p, d: p


def real(*shape: int | str) -> Parameter:
    """Unconstrained parameter."""
    return Parameter(shape, None)


def positive(*shape: int | str) -> Parameter:
    """Parameter above 0."""
    return Parameter(shape, ("positive",))


def between(low: float, high: float) -> Parameter:
    """Scalar parameter in (low, high)."""
    return Parameter((), ("interval", low, high))


def vector(size: int, constraint: str) -> Parameter:
    """Vector constrained as a whole: "simplex", "ordered_vector" or "positive_ordered_vector"."""
    return Parameter((size,), (constraint,))


# Reading the data files: columns, design matrices and fields.


def column(raw: Data, source: Column) -> np.ndarray:
    """A field by its name, or a function of the fields, as float64."""
    return np.asarray(source(raw) if callable(source) else raw[source], np.float64)


def design(*columns: Column) -> Callable[[Data], np.ndarray]:
    """Design matrix with the given columns."""
    return lambda raw: np.stack([column(raw, c) for c in columns], axis=-1)


def one(raw: Data) -> np.ndarray:
    """Column of ones."""
    return np.ones(raw["N"])


def log(*names: str) -> Column:
    """Log of the product of the fields."""
    return lambda raw: sum(np.log(column(raw, n)) for n in names)


def log10(name: str) -> Column:
    """Base-10 log of a field."""
    return lambda raw: np.log10(column(raw, name))


def logratio(a: str, b: str) -> Column:
    """Log of a / b."""
    return lambda raw: np.log(column(raw, a) / column(raw, b))


def scaled(name: str, centre: float | None = None, sds: float | None = None) -> Column:
    """A field less its centre (default: the mean), divided by a number of sample standard deviations."""

    def scale(raw: Data) -> np.ndarray:
        x = column(raw, name)
        return (x - (x.mean() if centre is None else centre)) / (1.0 if sds is None else sds * x.std(ddof=1))

    return scale


def times(a: Column, b: Column) -> Column:
    """Product of two columns."""
    return lambda raw: column(raw, a) * column(raw, b)


def indicators(name: str, *levels: int) -> list[Column]:
    """For each level, the 0/1 column of field = level."""
    return [lambda raw, level=level: column(raw, name) == level for level in levels]


def codes(name: str) -> Callable[[Data], np.ndarray]:
    """Group codes, counted from 0."""
    return lambda raw: raw[name] - 1


def fields(*names: str, **others: Column) -> Callable[[Data], Data]:
    """Keep the named fields as float64, and add the others as they are computed."""

    def prepare(raw: Data) -> Data:
        kept = {n: column(raw, n)[()] for n in names}
        return kept | {k: v(raw) if callable(v) else column(raw, v) for k, v in others.items()}

    return prepare


# Log densities, summed over their elements, up to a constant.


def normal(x, mean=0.0, sd=1.0) -> jax.Array:
    """N(mean, sd)."""
    return jnp.sum(-0.5 * ((x - mean) / sd) ** 2 - jnp.log(sd))


def lognormal(x, mean=0.0, sd=1.0) -> jax.Array:
    """log x ~ N(mean, sd)."""
    return normal(jnp.log(x), mean, sd) - jnp.sum(jnp.log(x))


def half_t(x, scale, df=1.0) -> jax.Array:
    """Student's t at x > 0, half Cauchy if df = 1; finite where x**2 overflows."""
    return jnp.sum(-(df + 1) / 2 * jnp.logaddexp(0.0, 2 * jnp.log(x / scale) - jnp.log(df)))


def gamma(x, shape, rate) -> jax.Array:
    """Gamma(shape, rate)."""
    return jnp.sum((shape - 1) * jnp.log(x) - rate * x)


def inverse_gamma(x, shape, scale) -> jax.Array:
    """InvGamma(shape, scale)."""
    return jnp.sum(-(shape + 1) * jnp.log(x) - scale / x)


def bernoulli(y, logits) -> jax.Array:
    """Bernoulli(logistic(logits))."""
    return jnp.sum(y * logits - jax.nn.softplus(logits))
