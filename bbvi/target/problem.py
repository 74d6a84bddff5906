"""The target of inference as a pytree."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bbvi.curvature import hvp
from bbvi.data.density import source_of
from bbvi.data.source import Source
from bbvi.distributions.affine import Affine
from bbvi.policy import Regime
from bbvi.runtime.constants import detached
from bbvi.runtime.pytree import pytree, static
from bbvi.runtime.sharding import DATA, Layout
from bbvi.runtime.types import Array
from bbvi.target import cost
from bbvi.target.messages import in_short, no_gradient
from bbvi.target.parameters import Parameters
from bbvi.target.scalar import real_scalar


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
        coordinates: the density is that of y, with x = coordinates(y); None stands for y = x.
        weight: how many rows of the full data each row here stands for, when they are a minibatch; else None.
        reference: the full log density at a point near which minibatches are to have little noise, or None.
        logprob: `logprob(values)` or `logprob(values, data)`, a scalar.
        layout: of arrays on the devices.
    """

    parameters: Parameters
    data: Any
    logprob: Any = static()
    coordinates: Affine | None = None
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
        return Regime.of(self.dim).long

    @property
    def one_by_one(self) -> bool:
        """Whether draws are made and used one after the other, rather than at once or on several devices."""
        return self.is_long and self.layout.mesh is None

    @property
    def is_irregular(self) -> bool:
        """Whether some points take far longer than others: those at which a loop of the log density ends late."""
        return jax.default_backend() == "cpu" and _has_open_loop(*abstract(self.in_coordinates(None)))

    def why_not_differentiable(self, order: int) -> Exception | None:
        """Why JAX cannot make `order` derivatives of the log density, at most 3; None where it can."""
        if order == 0:
            return None
        x = _point(self)
        try:
            # Some rules are only missed when the program is lowered.
            (_gradient, _product, _third)[order - 1].lower(self, x)
        except (NotImplementedError, TypeError, ValueError) as error:  # by which JAX says that it has no rule
            return error
        return None

    def check(self) -> None:
        """Trace the log density, and evaluate nothing.

        Raises:
            TypeError, ValueError: when `logprob` does not return one real number.
        """
        _largest(*abstract(self))

    @property
    def evaluation_size(self) -> int:
        """Numbers that one evaluation of the log density holds in memory, about: the size of the largest array."""
        return _largest(*abstract(self))

    @property
    def operations(self) -> int:
        """Multiplications, or operations as costly, that one evaluation of the log density takes, about."""
        source = None if self.weight is not None or self.is_split else self.source
        times = 1 if source is None else source.num_chunks  # a loop over chunks is counted once
        return times * _operations(*abstract(self))

    def in_coordinates(self, affine: Affine | None) -> "Problem":
        """The same density as seen from y, where x = affine(y): volumes change, so ELBOs do not."""
        return replace(self, coordinates=affine)

    @property
    def source(self) -> Source | None:
        """The rows of the data, None where the density is no sum over rows."""
        return source_of(self.logprob, self.data)

    @property
    def num_rows(self) -> int | None:
        """Number of rows of the data, None where the density is no sum over rows."""
        return None if self.source is None else self.source.num_rows

    @property
    def is_split(self) -> bool:
        """Whether it is a sum over rows that lie on several devices, each of which adds up its own."""
        return self.source is not None and self.layout.mesh is not None

    def minibatch(self, rows: Any) -> "Problem":
        """The same density estimated from some rows of the data; unbiased when they are chosen at random.

        With a reference r, f the log density of all rows and f^ its estimate, the estimate is

            f^(x) - f^(r) - grad f^(r) (x - r)  +  f(r) + grad f(r) (x - r),

        which has the same mean, and whose gradient has noise only so far as rows differ in curvature.

        Arguments:
            rows: what the source hands out as a minibatch: indices `(n,)` of rows in memory, or the rows themselves.

        Reference: Johnson and Zhang 2013 (SVRG); Baker et al. 2019 (arXiv:1706.05439) for log densities.
        """
        assert self.source is not None
        count, total = len(jax.tree.leaves(rows)[0]), self.source.num_rows
        data = self.layout.shard(self.source.take(rows), DATA)
        return replace(self, data=data, weight=jnp.asarray(total / count, float))

    def sampled(self) -> "Problem":
        """The same density estimated from a sample of the rows, always the same one."""
        assert self.source is not None
        return self.minibatch(self.source.sample())

    @property
    def num_sampled(self) -> int:
        """Rows in the sample."""
        assert self.source is not None
        return self.source.num_sampled

    def log_density(self, y: Array) -> jax.Array:
        """Log density at one point `(dim,)`, a scalar; includes the log-Jacobians of constraints and coordinates."""
        if self.coordinates is None:
            return _log_density(self, y)
        original = self.in_coordinates(None)
        return _log_density(original, self.coordinates(y)) + self.coordinates.scale.log_det()

    def log_density_beside(self, x: Array, other: Array, held: tuple[bool, ...]) -> jax.Array:
        """`log_density` at x, given the same point again as `other`: parameters that are `held` are read from that.

        Derivatives in x then do without theirs, and so without all that depends on these parameters alone.
        """
        assert self.coordinates is None
        return _estimate(self, x, other, held) if any(held) else _estimate(self, x)

    def log_densities(self, ys: Array) -> Array:
        """Log densities `(n,)` at points `(n, dim)`; what is not finite counts as no density, -inf.

        Raises:
            TypeError: when JAX cannot evaluate many points at once.
        """
        try:
            values = self.over(self.log_density, ys)
        except NotImplementedError as error:
            raise TypeError(
                f"JAX cannot evaluate logprob at several points at once ({in_short(error)}). A jax.pure_callback "
                'takes several with vmap_method="sequential"; a function outside JAX is given to bbvi.external.'
            ) from error
        return jnp.where(jnp.isfinite(values), values, -jnp.inf)

    def values_and_gradients(self, ys: Array) -> tuple[Array, Array, Array]:
        """Log densities `(n,)`, their gradients `(n, dim)` and at which points both are finite, `(n,)` bool.

        Elsewhere both are returned as zero.

        Raises:
            TypeError: when JAX cannot differentiate the log density.
        """
        try:
            values, gradients = self.over(jax.value_and_grad(self.log_density), ys)
        except (NotImplementedError, TypeError, ValueError) as error:
            raise no_gradient(error) from error
        finite = jnp.isfinite(values) & jnp.isfinite(gradients).all(axis=-1)
        return jnp.where(finite, values, 0), jnp.where(finite[:, None], gradients, 0), finite

    def hessian_vector_products(self, ys: Array, vs: Array) -> Array:
        """The Hessian of the log density at each of the points `ys` `(n, dim)` times `vs` `(n, dim)`, `(n, dim)`."""
        return self.over(lambda y, v: hvp(self.log_density, y, v), ys, vs)

    def over(self, function: Callable[..., Any], *points: Array) -> Any:
        """`function` at each of n points: of all at once, or one after the other where one would hold up all."""
        if self.layout.mesh is None and self.is_irregular:
            return jax.lax.map(lambda each: function(*each), points)
        return jax.vmap(function)(*self.layout.shard(points))


def abstract(problem: Problem) -> tuple[Any, tuple[jax.ShapeDtypeStruct, ...]]:
    """The structure of a problem, with the shapes and types of its leaves: what its programs are cached by."""
    leaves, treedef = jax.tree.flatten(problem)
    kinds = [jax.typeof(leaf) for leaf in leaves]
    return treedef, tuple(jax.ShapeDtypeStruct(each.shape, each.dtype, weak_type=each.weak_type) for each in kinds)


def _point(problem: Problem) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((problem.dim,), jax.dtypes.canonicalize_dtype(float))


def _jaxpr(treedef: Any, leaves: Any) -> Any:
    """The program of one evaluation."""
    problem = jax.tree.unflatten(treedef, leaves)
    return jax.make_jaxpr(_log_density)(problem, _point(problem)).jaxpr


def _remembered(function: Callable[[Any], Any]) -> Callable[[Any, Any], Any]:
    """A function of the program of one evaluation, which is made once for problems of one structure and precision."""

    @lru_cache(maxsize=256)
    def of(treedef: Any, leaves: Any, dtype: Any) -> Any:
        del dtype
        return function(_jaxpr(treedef, leaves))

    return lambda treedef, leaves: of(treedef, leaves, jax.dtypes.canonicalize_dtype(float))


_has_open_loop, _largest, _operations = map(_remembered, (cost.has_open_loop, cost.largest, cost.operations))


def _log_density(problem: Problem, x: Array) -> jax.Array:
    if problem.reference is None or problem.weight is None:
        return _estimate(problem, x)
    point, value, gradient = problem.reference
    seen, slope = jax.value_and_grad(lambda x: _estimate(problem, x))(point)
    return _estimate(problem, x) + (value - seen) + (gradient - slope) @ (x - point)


@jax.jit
def _gradient(problem: Problem, x: Array) -> Array:
    return jax.grad(problem.log_density)(x)


@jax.jit
def _product(problem: Problem, x: Array) -> Array:
    return jax.jvp(jax.grad(problem.log_density), (x,), (x,))[1]


@jax.jit
def _third(problem: Problem, x: Array) -> Array:
    return jax.jvp(lambda x: _product(problem, x), (x,), (x,))[1]


@partial(jax.jit, static_argnames="held")
def _estimate(problem: Problem, x: Array, other: Array | None = None, held: tuple[bool, ...] = ()) -> jax.Array:
    # Jitted so that the user's Python runs once: every program that calls it reuses what was traced.
    values, log_jacobian = problem.parameters.constrain(x, other, held)
    arguments = [each for each in (problem.data, problem.weight) if each is not None]
    try:
        value = detached(lambda *given: real_scalar(_call(problem, *given)))(values, *arguments)
    except Exception as error:
        call = "logprob(values)" if problem.data is None else "logprob(values, data), since data was given"
        error.add_note(f"bbvi called {call}. Under JAX values are traced: use jax.numpy, and lax.cond or jnp.where.")
        raise
    return jnp.asarray(value, x.dtype) + log_jacobian


def _call(problem: Problem, values: Any, *given: Any) -> Any:
    """What the log density returns, `given` the data and how many times each row counts, as far as there are any."""
    if problem.weight is None and not problem.is_split:
        return problem.logprob(values, *given)
    data, weight = given if len(given) == 2 else (*given, 1.0)
    return problem.logprob.estimate(values, data, weight, problem.is_split)
