"""The target of inference as a pytree."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi import cost
from bbvi.chunks import num_chunks, sum_over_rows
from bbvi.constants import detached
from bbvi.curvature import hvp
from bbvi.parameters import Parameters
from bbvi.pytree import pytree, static
from bbvi.rows import Elsewhere, num_sampled, sample_rows
from bbvi.sharding import DATA, Layout

Array = Any
LONG = 2**17  # coordinates


@dataclass(frozen=True)
class Factorized:
    """A log density as prior plus likelihood of independent rows of data, so that it can be estimated from a few rows.

    Arguments:
        log_prior: `log_prior(values)`, a scalar.
        log_likelihood: `log_likelihood(values, rows)`, one number per row `(n,)`; `rows` has the structure of the data,
            each leaf with the same leading axis n.

    Example:
        >>> density = bbvi.Factorized(lambda mu: -0.5 * mu**2, lambda mu, rows: -0.5 * (rows["y"] - mu) ** 2)
        >>> print(density(1.0, {"y": jnp.array([1.0, 3.0])}))
        -2.5
    """

    log_prior: Callable[[Any], Array]
    log_likelihood: Callable[[Any, Any], Array]

    def __call__(self, values: Any, rows: Any, weight: Array | float = 1.0, whole: bool = False) -> Array:
        """Log density with each row counted `weight` times, a scalar; all rows at once when `whole`."""
        if whole:
            return self.log_prior(values) + weight * jnp.sum(self.log_likelihood(values, rows))
        return self.log_prior(values) + weight * sum_over_rows(self.log_likelihood, values, rows)

    def num_rows(self, data: Any) -> int:
        """Length of the leading axis of the data."""
        return data.schema.num_rows if isinstance(data, Elsewhere) else jax.tree.leaves(data)[0].shape[0]

    def take(self, data: Any, rows: Array) -> Any:
        """Some rows of the data, by their indices `(n,)`."""
        return jax.tree.map(lambda leaf: jnp.asarray(leaf)[rows], data)


class Reference(NamedTuple):
    """What the log density of all rows is at a point."""

    point: Array  # (dim,), in x
    value: Array  # ()
    gradient: Array  # (dim,)


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
        reference: the full log density at a point near which minibatches are to have little noise, or None.
        logprob: `logprob(values)` or `logprob(values, data)`, a scalar.
        layout: of arrays on the devices.
    """

    parameters: Parameters
    data: Any
    logprob: Any = static()
    loc: Array | None = None
    scale: Array | None = None
    weight: Array | None = None
    reference: Reference | None = None
    layout: Layout = static(default=Layout())

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return self.parameters.dim

    @property
    def is_long(self) -> bool:
        """Whether vectors have so many coordinates that no more of them are to be in memory than must be."""
        return self.dim > LONG

    @property
    def one_by_one(self) -> bool:
        """Whether draws are made and used one after the other, rather than at once or on several devices."""
        return self.is_long and self.layout.mesh is None

    @property
    def is_irregular(self) -> bool:
        """Whether some points take far longer than others: those at which a loop of the log density ends late."""
        return jax.default_backend() == "cpu" and _has_open_loop(*_abstract(self.in_coordinates(None, None)))

    def why_not_differentiable(self, order: int) -> Exception | None:
        """Why JAX cannot make `order` derivatives of the log density, at most 2; None where it can."""
        if order == 0:
            return None
        x = _point(self)
        try:
            # Some rules are only missed when the program is lowered.
            _gradient.lower(self, x) if order == 1 else _product.lower(self, x, x)
        except (NotImplementedError, TypeError, ValueError) as error:  # by which JAX says that it has no rule
            return error
        return None

    def in_coordinates(self, loc: Array | None, scale: Array | None) -> "Problem":
        """The same density as seen from `y`, where `x = loc + scale y`: volumes change, so ELBOs do not."""
        return replace(self, loc=loc, scale=scale)

    @property
    def num_rows(self) -> int | None:
        """Number of rows of the data, None where the density is no sum over rows."""
        return self.logprob.num_rows(self.data) if hasattr(self.logprob, "num_rows") else None

    @property
    def is_split(self) -> bool:
        """Whether it is a sum over rows that lie on several devices, each of which adds up its own."""
        return isinstance(self.logprob, Factorized) and self.layout.mesh is not None

    @property
    def num_numbers(self) -> int:
        """Numbers in the data."""
        if isinstance(self.data, Elsewhere):
            return self.data.schema.num_rows * self.data.schema.width
        return sum(map(np.size, jax.tree.leaves(self.data)))

    def minibatch(self, rows: Any) -> "Problem":
        """The same density estimated from some rows of the data; unbiased when they are chosen at random.

        With a reference r, f the log density of all rows and f^ its estimate, the estimate is

            f^(x) - f^(r) - grad f^(r) (x - r)  +  f(r) + grad f(r) (x - r),

        which has the same mean, and whose gradient has noise only so far as rows differ in curvature.

        Arguments:
            rows: indices `(n,)` of rows in memory; the rows themselves where the data are elsewhere.

        Reference: Johnson and Zhang 2013 (SVRG); Baker et al. 2019 (arXiv:1706.05439) for log densities.
        """
        count, total = len(jax.tree.leaves(rows)[0]), self.num_rows
        assert total is not None
        data = rows if isinstance(self.data, Elsewhere) else self.logprob.take(self.data, rows)
        data = self.layout.split(data, DATA)
        return replace(self, data=data, weight=jnp.asarray(total / count, float))

    def sampled(self) -> "Problem":
        """The same density estimated from a sample of the rows, always the same one."""
        if isinstance(self.data, Elsewhere):
            return self.minibatch(self.data.sample)
        return self.minibatch(sample_rows(*self._shape))

    @property
    def num_sampled(self) -> int:
        """Rows in the sample."""
        return num_sampled(*self._shape)

    @property
    def _shape(self) -> tuple[int, int]:
        assert self.num_rows is not None
        return self.num_rows, self.num_numbers // self.num_rows

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
        """Log densities `(n,)` at points `(n, dim)`; what is not finite counts as no density, -inf.

        Raises:
            TypeError: when JAX cannot evaluate many points at once.
        """
        try:
            values = self._over(self.log_density, ys)
        except NotImplementedError as error:
            raise TypeError(
                f"JAX cannot evaluate logprob at several points at once ({in_short(error)}). A jax.pure_callback "
                'takes several with vmap_method="sequential"; a function outside JAX is given to bbvi.external.'
            ) from error
        return jnp.where(jnp.isfinite(values), values, -jnp.inf)

    def values_and_gradients(self, ys: Array) -> tuple[Array, Array, Array]:
        """Log densities `(n,)`, their gradients `(n, dim)` and which of the points are good, `(n,)` bool.

        A point is good when value and gradient are finite. Elsewhere both are returned as zero.

        Raises:
            TypeError: when JAX cannot differentiate the log density.
        """
        try:
            values, gradients = self._over(jax.value_and_grad(self.log_density), ys)
        except (NotImplementedError, TypeError, ValueError) as error:
            raise no_gradient(error) from error
        good = jnp.isfinite(values) & jnp.isfinite(gradients).all(axis=-1)
        return jnp.where(good, values, 0), jnp.where(good[:, None], gradients, 0), good

    def hessian_vector_products(self, ys: Array, vs: Array) -> Array:
        """The Hessian of the log density at each of the points `ys` `(n, dim)` times `vs` `(n, dim)`, `(n, dim)`."""
        return self._over(lambda y, v: hvp(self.log_density, y, v), ys, vs)

    def _over(self, function: Callable[..., Any], *points: Array) -> Any:
        """`function` at each of n points: of all at once, or one after the other where one would hold up all."""
        if self.layout.mesh is None and self.is_irregular:
            return jax.lax.map(lambda each: function(*each), points)
        return jax.vmap(function)(*self.layout.split(points))


def no_gradient(reason: Exception) -> TypeError:
    """What to say of a log density that JAX cannot differentiate."""
    return TypeError(
        f"JAX cannot differentiate logprob ({in_short(reason)}). Write the part concerned with other functions, give "
        'it a derivative by jax.custom_jvp, or give the gradient to bbvi.external. method="advi" with '
        'estimator="score_function" needs none.'
    )


def in_short(error: Exception) -> str:
    """Type and first sentence of an error."""
    first = (str(error).splitlines() or [""])[0].split(". ")[0].rstrip(".")
    return f"{type(error).__name__}: {first}"


def trace(problem: Problem) -> int:
    """Run the user's Python once and check what it returns.

    Returns:
        The size of the largest array that one evaluation makes, to judge how many fit in memory.

    Raises:
        TypeError, ValueError: when `logprob` does not return one real number.
    """
    return cost.largest(_jaxpr(problem))


def work(problem: Problem) -> int:
    """Multiplications, or operations as costly, that one evaluation of the log density takes, about."""
    chunked = isinstance(problem.logprob, Factorized) and problem.weight is None and not problem.is_split
    times = num_chunks(problem.data) if chunked else 1  # a loop over chunks is counted once
    return times * cost.operations(_jaxpr(problem))


def _jaxpr(problem: Problem) -> Any:
    """The program of one evaluation."""
    treedef, leaves, x = _abstract(problem)
    return jax.make_jaxpr(_log_density)(jax.tree.unflatten(treedef, leaves), x).jaxpr


def _abstract(problem: Problem) -> tuple[Any, tuple[jax.ShapeDtypeStruct, ...], jax.ShapeDtypeStruct]:
    """The structure of a problem, with the shapes and types of its leaves and of a point."""
    leaves, treedef = jax.tree.flatten(problem)
    kinds = [jax.typeof(leaf) for leaf in leaves]
    shapes = tuple(jax.ShapeDtypeStruct(each.shape, each.dtype, weak_type=each.weak_type) for each in kinds)
    return treedef, shapes, _point(problem)


def _point(problem: Problem) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((problem.dim,), jax.dtypes.canonicalize_dtype(float))


@lru_cache(maxsize=256)
def _has_open_loop(treedef: Any, leaves: Any, x: Any) -> bool:
    return cost.has_open_loop(jax.make_jaxpr(_log_density)(jax.tree.unflatten(treedef, leaves), x).jaxpr)


def _log_density(problem: Problem, x: Array) -> Array:
    if problem.reference is None or problem.weight is None:
        return _estimate(problem, x)
    point, value, gradient = problem.reference
    seen, slope = jax.value_and_grad(lambda x: _estimate(problem, x))(point)
    return _estimate(problem, x) + (value - seen) + (gradient - slope) @ (x - point)


@jax.jit
def _gradient(problem: Problem, x: Array) -> Array:
    return jax.grad(problem.log_density)(x)


@jax.jit
def _product(problem: Problem, x: Array, v: Array) -> Array:
    return jax.jvp(jax.grad(problem.log_density), (x,), (v,))[1]


@jax.jit
def _estimate(problem: Problem, x: Array) -> Array:
    # Jitted so that the user's Python runs once: every program that calls it reuses what was traced.
    values, log_jacobian = problem.parameters.constrain(x)
    arguments = [each for each in (problem.data, problem.weight) if each is not None]
    try:
        whole = {"whole": True} if problem.is_split else {}
        value = detached(lambda *given: _real_scalar(problem.logprob(*given, **whole)))(values, *arguments)
    except Exception as error:
        call = "logprob(values)" if problem.data is None else "logprob(values, data), since data was given"
        error.add_note(f"bbvi called {call}. Under JAX values are traced: use jax.numpy, and lax.cond or jnp.where.")
        raise
    return jnp.asarray(value, x.dtype) + log_jacobian


def dtype_of(value: Any) -> Any:
    """The type of the entries of an array, or of what NumPy makes one of."""
    return value.dtype if isinstance(value, jax.Array) else np.asarray(value).dtype


def is_numeric(dtype: Any) -> bool:
    """Whether entries of this type are numbers or truth values; dates, keys and objects are not."""
    number = jnp.issubdtype(dtype, np.number) and not jnp.issubdtype(dtype, np.timedelta64)
    return number or jnp.issubdtype(dtype, np.bool_)


def _real_scalar(value: Any) -> Array:
    if not hasattr(value, "dtype") and not isinstance(value, int | float | complex):
        raise TypeError(f"logprob returned {value!r}, a {type(value).__name__}. It must return one real number.")
    if not is_numeric(dtype := dtype_of(value)):
        raise TypeError(f"logprob returned {type(value).__name__} of dtype {dtype}. It must return one real number.")
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
