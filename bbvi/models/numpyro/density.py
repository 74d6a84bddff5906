"""The joint log density of a NumPyro model."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from bbvi.data.density import SumOverRows
from bbvi.data.plate import Plate
from bbvi.models.numpyro.arguments import Static, is_array
from bbvi.models.numpyro.handlers import settle
from bbvi.models.numpyro.sites import BASE, Trace, bijection_of, is_inside
from bbvi.runtime.precision import lenient_promotion
from bbvi.runtime.types import Array

NEEDS_CONCRETE = (  # what JAX raises when Python code looks into a traced array
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


@dataclass(frozen=True)
class JointDensity(SumOverRows):
    """The joint log density of a model, as a function of its latent sites and of the arrays among its arguments."""

    model: Callable[..., Any]
    treedef: Any  # of (args, kwargs)
    static: tuple[Static | None, ...]  # None where an argument is among the data
    latent: tuple[str, ...]
    dynamic: tuple[str, ...]  # those whose support depends on other sites
    enumerated: bool
    nesting: int
    plate: str | None  # that is subsampled
    plate_size: int | None
    subsample_size: int | None

    def arrays(self, leaves: Iterable[Any]) -> tuple[Any, ...]:
        """Those of the arguments that are data."""
        return tuple(leaf for leaf, fixed in zip(leaves, self.static, strict=True) if fixed is None)

    def source(self, data: Any) -> Plate | None:
        """The rows of the subsampled plate, None without one."""
        return None if self.plate_size is None else Plate(data, self.plate_size)

    def estimate(self, values: Mapping[str, Array], data: Any, weight: Array | float, at_once: bool) -> Array:
        """The joint log density: the plate weights its rows itself."""
        return self(values, data)

    def __call__(self, values: Mapping[str, Array], data: Any) -> Array:
        """Joint log density at one point, a scalar."""
        total, trace = self._log_density(*self.prepare(values, data), values)
        self._check_sites(trace)
        return total

    def part(self, values: Mapping[str, Array], data: Any, inside: bool) -> Array:
        """The log density of the sites inside or outside of the subsampled plate, a scalar.

        Sites inside are not scaled up: each of the plate's elements that are run counts once.
        """
        from numpyro import handlers

        run, args, kwargs = self.prepare(values, data)
        hidden = lambda site: site["type"] == "sample" and is_inside(site, self.plate) is not inside
        run = handlers.block(run, hide_fn=hidden)
        if inside and self.plate_size is not None and len(data[-1]) < self.plate_size:
            run = handlers.scale(run, scale=len(data[-1]) / self.plate_size)
        return self._log_density(run, args, kwargs, values)[0]

    def trace(self, values: Mapping[str, Array], data: Any) -> Trace:
        """All sites at one point."""
        from numpyro import handlers

        run, args, kwargs = self.prepare(values, data)
        with lenient_promotion():
            return handlers.trace(run).get_trace(*args, **kwargs)

    def draw_prior(self, key: Any, data: Any) -> dict[str, Array]:
        """A draw of the latent sites from the prior, as parameters."""
        from numpyro import handlers

        args, kwargs = self.arguments(data)
        run = settle(handlers.seed(self.model, key), self.plate, None)
        with lenient_promotion():
            trace = handlers.trace(run).get_trace(*args, **kwargs)
            free = {name + BASE: bijection_of(trace[name]).inv(trace[name]["value"]) for name in self.dynamic}
        return {name: trace[name]["value"] for name in self.latent if name not in self.dynamic} | free

    def arguments(self, data: Any) -> tuple[Any, Any]:
        """What the model is called with."""
        given = iter(data)
        leaves = [next(given) if fixed is None else fixed.value for fixed in self.static]
        return jax.tree.unflatten(self.treedef, leaves)

    def prepare(self, values: Mapping[str, Array], data: Any) -> tuple[Callable[..., Any], Any, Any]:
        """The model with its latent sites given, and its arguments."""
        from numpyro import handlers

        rows = None
        if len(data) > self.static.count(None):
            *data, rows = data
        args, kwargs = self.arguments(data)

        def support_known(site: Any) -> Array | None:
            return bijection_of(site)(values[site["name"] + BASE]) if site["name"] in self.dynamic else None

        run = handlers.substitute(handlers.seed(self.model, 0), data=dict[str, Any](values))
        run = handlers.substitute(run, substitute_fn=support_known) if self.dynamic else run
        run = settle(run, self.plate, rows)
        if self.enumerated:
            from numpyro.contrib.funsor import config_enumerate, enum

            run = enum(config_enumerate(run), -self.nesting - 1)
        return run, args, kwargs

    def _log_density(
        self, run: Callable[..., Any], args: Any, kwargs: Any, values: Mapping[str, Array]
    ) -> tuple[Array, Trace]:
        from numpyro.infer.util import log_density

        with lenient_promotion():
            if self.enumerated:
                from numpyro.contrib.funsor import log_density

            total, trace = log_density(run, args, kwargs, {})
            for name in self.dynamic:
                if name in trace:
                    bijection, free = bijection_of(trace[name]), values[name + BASE]
                    total += jnp.sum(bijection.log_abs_det_jacobian(free, bijection(free)))
        return jnp.asarray(total), trace

    def _check_sites(self, trace: Trace) -> None:
        latent = {name for name, site in trace.items() if site["type"] == "sample" and not site["is_observed"]}
        latent = {name for name in latent if not trace[name]["fn"].support.is_discrete}
        latent |= {name for name, site in trace.items() if site["type"] == "param"}
        if strange := latent.symmetric_difference(self.latent):
            raise ValueError(
                f"The site {min(strange)!r} is in some runs of the model only. All runs must have the same latent "
                "sites."
            )


def with_needed_arguments_fixed(density: JointDensity, leaves: list[Any], dim: Any) -> JointDensity:
    """`density` with as many arrays as data as its code allows: some models look into theirs while they run."""
    integers = [is_array(leaf) and not jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
    values = {name: jax.ShapeDtypeStruct(shape, float) for name, shape in dim.items()}
    for fixed in ([False] * len(leaves), integers, list(map(is_array, leaves))):
        pairs = zip(leaves, density.static, fixed, strict=True)
        density = replace(density, static=tuple(Static(leaf) if fix else old for leaf, old, fix in pairs))
        try:
            jax.eval_shape(partial(density), values, density.arrays(leaves))  # partial: JAX keeps nothing of it
            return density
        except NEEDS_CONCRETE as error:
            reason = error
        except ValueError as error:
            error.add_note('This is the log density of the model; a "guide" here means the values of its sites.')
            raise
    raise reason
