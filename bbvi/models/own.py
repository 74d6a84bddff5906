"""The log density of a group with parameters of its own, and draws of these parameters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.models.base import Named
from bbvi.models.local import draw, find_gaussian, log_integral
from bbvi.runtime.compiling import program
from bbvi.runtime.types import Array
from bbvi.target.parameters import Parameters

OWN_CANDIDATES = 16  # for each draw of a group's own parameters
CANDIDATES_AT_ONCE = 2**22  # numbers in them and in what is made of rows
NAMED_GROUPS = 5  # without density, at most
MOST_OWN_NUMBERS = 2**22  # of all groups' own parameters in what `sample` returns


@dataclass(frozen=True, eq=False)
class GroupDensity:
    """The log density of one group, with its own parameters x `(d,)`, unconstrained.

    Fields:
        log_joint: `log_joint(shared, own, group)`, a scalar.
        own: names, shapes and constraints of a group's own parameters.
        axes: which axes of what stands for groups count them, as for `jax.vmap`.
    """

    log_joint: Callable[[Any, Any, Any], Array]
    own: Parameters
    axes: Any = 0

    def log_marginals(self, values: Any, groups: Any) -> Array:
        """With their own parameters integrated out, `(groups,)`; NaN where no mode of them was found."""
        return jax.vmap(self._log_marginal, in_axes=(None, self.axes))(values, groups)

    def draws(self, values: Any, groups: Any, keys: Array) -> Any:
        """Their own parameters, on their own scale, each `(groups, *shape)`."""
        return jax.vmap(self._draw, in_axes=(None, self.axes, 0))(values, groups, keys)

    def _log_marginal(self, values: Any, group: Any) -> Array:
        held = jax.lax.stop_gradient(values)
        return log_integral(self._at(values, group), jax.lax.stop_gradient(self._mode(held, group)))

    def _draw(self, values: Any, group: Any, key: Array) -> Any:
        there, (first, second) = self._mode(values, group), jax.random.split(key)
        dtype = there.loc.dtype
        normal = jax.random.normal(first, (OWN_CANDIDATES, self.own.dim), dtype)
        return self.own.constrain(draw(self._at(values, group), there, normal, jax.random.uniform(second, (), dtype)))[
            0
        ]

    def _mode(self, values: Any, group: Any) -> Any:
        return find_gaussian(self._at(values, group), self.own.dim, jnp.result_type(float, *jax.tree.leaves(values)))

    def _at(self, values: Any, group: Any) -> Callable[[Array], Array]:
        return partial(_log_density, self, values, group)


@partial(jax.jit, static_argnums=0)  # so that the user's Python runs once
def _log_density(density: GroupDensity, values: Any, group: Any, x: Array) -> Array:
    own, log_volume = density.own.constrain(x)
    return (density.log_joint(values, own, group) + log_volume).astype(x.dtype)


def without_density(labels: Sequence[Any], log_likelihood: np.ndarray) -> str:
    """A sentence on the groups that have no density at any of n points, of log likelihoods `(n, groups)`.

    It is empty where there are none, and where no group has a density, so that none stands out.
    """
    bad = np.flatnonzero(~np.isfinite(log_likelihood).any(axis=0))
    if not 0 < len(bad) < len(labels):
        return ""
    named = ", ".join(repr(labels[i]) for i in bad[:NAMED_GROUPS])
    more = f" and {len(bad) - NAMED_GROUPS} more" if len(bad) > NAMED_GROUPS else ""
    return f"{len(bad)} of {len(labels)} groups have no finite density or no mode there: {named}{more}. See their data."


@dataclass(frozen=True, eq=False)
class OwnDraws:
    """Draws of groups' own parameters, given those that all share.

    Fields:
        density: of one group.
        labels: of the groups, in order.
        take: from the numbers of some groups `(k,)` to what `density` receives for them.
        row_size: numbers in a group, about.
    """

    density: GroupDensity
    labels: Sequence[Any]
    take: Callable[[np.ndarray], Any]
    row_size: int

    def is_much(self, n: int) -> bool:
        """Whether n draws for all groups are more than `sample` returns."""
        return n * len(self.labels) * self.density.own.dim > MOST_OWN_NUMBERS

    def __call__(self, values: Any, groups: Sequence[Any] | None, seed: int) -> Named:
        """One draw for each of n draws of the shared parameters, by name, each `(n, groups, *shape)`.

        Arguments:
            values: of the shared parameters, each `(n, *shape)`.
            groups: labels of groups; None for all.
            seed: of the draws.
        """
        dtype = jax.dtypes.canonicalize_dtype(float)
        shared = jax.tree.map(lambda value: np.asarray(value, dtype), values)
        chosen = np.arange(len(self.labels)) if groups is None else self.positions(groups)
        n = len(jax.tree.leaves(shared)[0])
        together = min(len(chosen), max(1, CANDIDATES_AT_ONCE // (OWN_CANDIDATES * self.row_size)))
        keys, numbers, made = jax.random.split(jax.random.key(seed), len(self.labels)), np.arange(n), []
        for begin in range(0, len(chosen), together):
            some = np.resize(chosen[begin : begin + together], together)
            drawn = self._draw(shared, numbers, self.take(some), keys[some])
            made.append(jax.tree.map(lambda x, begin=begin: np.asarray(x)[:, : len(chosen) - begin], drawn))
        return jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *made)

    def positions(self, groups: Sequence[Any]) -> np.ndarray:
        """Where groups with these labels are."""
        at = {label: i for i, label in enumerate(self.labels)}
        if unknown := [label for label in groups if label not in at]:
            raise KeyError(
                f"groups: there is no group {unknown[0]!r}. There are {len(at)}, such as {self.labels[0]!r}."
            )
        return np.array([at[label] for label in groups])

    @cached_property
    def _draw(self) -> Callable[..., Any]:
        """From n draws of the shared parameters, groups and their keys to their own parameters `(n, groups, ...)`."""

        def of_draw(groups: Any, keys: Array, given: tuple[Any, Array]) -> Any:
            return self.density.draws(given[0], groups, jax.vmap(lambda key: jax.random.fold_in(key, given[1]))(keys))

        return program(
            lambda shared, numbers, groups, keys: jax.lax.map(partial(of_draw, groups, keys), (shared, numbers))
        )
