"""The target of inference as a pytree."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp

from bbvi.parameters import Parameters
from bbvi.pytree import pytree, static
from bbvi.sharding import DATA, Layout

Array = Any


@dataclass(frozen=True)
class Factorized:
    """A log density as prior plus likelihood of independent rows of data, so that it can be estimated from a few rows.

    Arguments:
        log_prior: `log_prior(values)`, a scalar.
        log_likelihood: `log_likelihood(values, rows)`, one number per row `(n,)`; `rows` has the structure of the data,
            each leaf with the same leading axis n.
    """

    log_prior: Callable[[Any], Array]
    log_likelihood: Callable[[Any, Any], Array]

    def __call__(self, values: Any, rows: Any, weight: Array | float = 1.0) -> Array:
        """Log density with each row counted `weight` times, a scalar."""
        return self.log_prior(values) + weight * jnp.sum(self.log_likelihood(values, rows))

    def num_rows(self, data: Any) -> int:
        """Length of the leading axis of the data."""
        return jax.tree.leaves(data)[0].shape[0]

    def take(self, data: Any, rows: Array) -> Any:
        """Some rows of the data, by their indices `(n,)`."""
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], data)


@pytree
class Problem:
    """An unnormalised log density over flat, unconstrained vectors `x` of length `dim`.

    Data and the bounds of constraints are leaves: new values of the same shapes reuse what was compiled.

    Fields:
        parameters: how `x` maps to what `logprob` receives.
        data: second argument of `logprob`, or None when it takes none.
        loc, scale: coordinates. The density is that of `y`, with `x = loc + scale y`; `scale` is `(dim,)` for a
            diagonal, `(dim, dim)` for a lower triangular matrix, and None stands for `y = x`.
        weight: how many rows of the full data each row here stands for, when they are a minibatch; else None.
        logprob: `logprob(values)` or `logprob(values, data)`, a scalar.
        layout: of arrays on the devices.
    """

    parameters: Parameters
    data: Any
    logprob: Any = static()
    loc: Array | None = None
    scale: Array | None = None
    weight: Array | None = None
    layout: Layout = static(default=Layout())

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return self.parameters.dim

    @property
    def twice_differentiable(self) -> bool:
        """Whether Hessian-vector products can be had."""
        return getattr(self.logprob, "twice_differentiable", True)

    def in_coordinates(self, loc: Array | None, scale: Array | None) -> "Problem":
        """The same density as seen from `y`, where `x = loc + scale y`: volumes change, so ELBOs do not."""
        return replace(self, loc=loc, scale=scale)

    @property
    def num_rows(self) -> int:
        """Number of rows of the data."""
        return self.logprob.num_rows(self.data)

    def minibatch(self, rows: Array) -> "Problem":
        """The same density estimated from some rows of the data, given by their indices `(n,)`; unbiased."""
        data = self.layout.split(self.logprob.take(self.data, rows), DATA)
        return replace(self, data=data, weight=jnp.asarray(self.num_rows / len(rows), float))

    def log_density(self, y: Array) -> Array:
        """Log density at one point `(dim,)`, a scalar; includes the log-Jacobians of constraints and coordinates."""
        if self.scale is None:
            return _log_density(self, y)
        original = self.in_coordinates(None, None)
        if jnp.ndim(self.scale) == 1:
            return _log_density(original, self.loc + self.scale * y) + jnp.sum(jnp.log(self.scale))
        log_volume = jnp.sum(jnp.log(jnp.diagonal(self.scale)))
        return _log_density(original, self.loc + self.scale @ y) + log_volume

    def log_densities(self, ys: Array) -> Array:
        """Log densities `(n,)` at points `(n, dim)`; what is not finite counts as no density, -inf."""
        values = jax.vmap(self.log_density)(self.layout.split(ys))
        return jnp.where(jnp.isfinite(values), values, -jnp.inf)

    def values_and_gradients(self, ys: Array) -> tuple[Array, Array, Array]:
        """Log densities `(n,)`, their gradients `(n, dim)` and which of the points are good, `(n,)` bool.

        A point is good when value and gradient are finite. Elsewhere both are returned as zero.
        """
        values, gradients = jax.vmap(jax.value_and_grad(self.log_density))(self.layout.split(ys))
        good = jnp.isfinite(values) & jnp.isfinite(gradients).all(axis=-1)
        return jnp.where(good, values, 0), jnp.where(good[:, None], gradients, 0), good

    def hessian_vector_products(self, ys: Array, vs: Array) -> Array:
        """The Hessian of the log density at each of the points `ys` `(n, dim)` times `vs` `(n, dim)`, `(n, dim)`."""
        ys, vs = self.layout.split((ys, vs))
        return jax.vmap(lambda y, v: jax.jvp(jax.grad(self.log_density), (y,), (v,))[1])(ys, vs)


def trace(problem: Problem) -> int:
    """Run the user's Python once and check what it returns.

    Returns:
        The size of the largest array that one evaluation makes, to judge how many fit in memory.

    Raises:
        TypeError, ValueError: when `logprob` does not return one real number.
    """
    point = jax.ShapeDtypeStruct((problem.dim,), jax.dtypes.canonicalize_dtype(float))
    closed = jax.make_jaxpr(_log_density)(problem, point)
    inner = [equation.params["jaxpr"].jaxpr for equation in closed.eqns if "jaxpr" in equation.params]
    equations = [equation for jaxpr in inner for equation in jaxpr.eqns]
    return max((v.aval.size for equation in equations for v in equation.outvars if hasattr(v.aval, "size")), default=1)


@jax.jit
def _log_density(problem: Problem, x: Array) -> Array:
    # Jitted so that the user's Python runs once: every program that calls it reuses what was traced.
    values, log_jacobian = problem.parameters.constrain(x)
    arguments = [each for each in (problem.data, problem.weight) if each is not None]
    try:
        value = problem.logprob(values, *arguments)
    except Exception as error:
        call = "logprob(values)" if problem.data is None else "logprob(values, data), since data was given"
        error.add_note(f"bbvi called {call}. Under JAX values are traced: use jax.numpy, and lax.cond or jnp.where.")
        raise
    return _real_scalar(value).astype(x.dtype) + log_jacobian


def _real_scalar(value: Any) -> Array:
    if not hasattr(value, "dtype") and not isinstance(value, int | float | complex):
        raise TypeError(f"logprob returned {value!r}, a {type(value).__name__}. It must return one real number.")
    array = jnp.asarray(value)
    if array.ndim:
        raise ValueError(
            f"logprob returned an array of shape {array.shape}. It must return one number for one point: sum the terms "
            "with jnp.sum."
        )
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise TypeError(f"logprob returned a complex number ({array.dtype}). It must return a real one: take jnp.real.")
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(
            f"logprob returned {array.dtype}, which has no gradient. It must return a floating point number that "
            "depends on the parameters."
        )
    return array
