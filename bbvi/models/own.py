"""The log density of a group with parameters of its own, and draws of these parameters."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.data.groups import key_of
from bbvi.models.base import Named
from bbvi.models.local import (
    MOST_COORDINATES,
    Gaussian,
    draw,
    effective_candidates,
    find_gaussian,
    log_average,
    log_integral,
)
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
        guess: `guess(shared, group)`, a Gaussian near the density of x; None for that at the mode, which is sought.
        stream: sets the random nodes of one density, where there are some, apart from those of another.
    """

    log_joint: Callable[[Any, Any, Any], Array]
    own: Parameters
    axes: Any = 0
    guess: Callable[[Any, Any], Gaussian] | None = None
    stream: int = 0

    @property
    def refined(self) -> "GroupDensity":
        """The same, with the Gaussian at the mode that steps of Newton find from the guess, where they find one."""

        def refine(values: Any, group: Any) -> Gaussian:
            guess = self.gaussian(values, group)
            found = find_gaussian(self.at(values, group), self.own.dim, guess.loc.dtype, guess.loc)
            return jax.tree.map(partial(jnp.where, jnp.isfinite(found.scale).all()), found, guess)

        return replace(self, guess=refine, stream=1)

    def log_marginals(self, values: Any, groups: Any) -> Array:
        """With their own parameters integrated out, `(groups,)`; NaN where no mode of them was found."""
        return jax.vmap(self._log_marginal, in_axes=(None, self.axes))(values, groups)

    def draws(self, values: Any, groups: Any, keys: Array) -> Any:
        """Their own parameters, on their own scale, each `(groups, *shape)`."""
        return jax.vmap(self._draw, in_axes=(None, self.axes, 0))(values, groups, keys)

    def _log_marginal(self, values: Any, group: Any) -> Array:
        there = jax.lax.stop_gradient(self.gaussian(jax.lax.stop_gradient(values), group))
        if self.own.dim <= MOST_COORDINATES:
            return log_integral(self.at(values, group), there)
        return log_average(self.at(values, group), there, jax.random.fold_in(key_of(group), self.stream))

    def effective_candidates(self, values: Any, groups: Any, keys: Array) -> Array:
        """How many of the 16 candidates count among which `draws` chooses, `(groups,)`."""
        return jax.vmap(self._effective, in_axes=(None, self.axes, 0))(values, groups, keys)

    def _draw(self, values: Any, group: Any, key: Array) -> Any:
        there, normal, uniform = self._proposed(values, group, key)
        return self.own.constrain(draw(self.at(values, group), there, normal, uniform))[0]

    def _effective(self, values: Any, group: Any, key: Array) -> Array:
        there, normal, _ = self._proposed(values, group, key)
        return effective_candidates(self.at(values, group), there, normal)

    def _proposed(self, values: Any, group: Any, key: Array) -> tuple[Gaussian, Array, Array]:
        """The Gaussian of a group, and the random numbers of a draw."""
        there, (first, second) = self.gaussian(values, group), jax.random.split(key)
        dtype = there.loc.dtype
        normal = jax.random.normal(first, (OWN_CANDIDATES, self.own.dim), dtype)
        return there, normal, jax.random.uniform(second, (), dtype)

    def gaussian(self, values: Any, group: Any) -> Gaussian:
        """The Gaussian around which the density of a group is summed up and drawn from."""
        if self.guess is not None:
            return self.guess(values, group)
        return find_gaussian(self.at(values, group), self.own.dim, jnp.result_type(float, *jax.tree.leaves(values)))

    def at(self, values: Any, group: Any) -> Callable[[Array], Array]:
        """The log density of a group as a function of x."""
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
            values: of the shared parameters, each `(n, *shape)`; or n, where there are none.
            groups: labels of groups; None for all.
            seed: of the draws.
        """
        return self._over_groups(self._draw, values, groups, seed)

    @cached_property
    def refined(self) -> "OwnDraws":
        """Draws around the modes that steps of Newton find from the guesses."""
        return replace(self, density=self.density.refined)

    def gaussians(self, values: Any, groups: Sequence[Any] | None) -> Gaussian:
        """The Gaussians of groups for n draws of the shared parameters, each field `(n, groups, ...)`."""
        return self._over_groups(self._gaussian, values, groups, 0)

    def poorest(self, values: Any, num: int, seed: int) -> dict[Any, float]:
        """The groups with the fewest effective candidates, on average over the draws of `__call__`, by their labels."""
        counts = self._over_groups(self._count, values, None, seed).mean(axis=0)
        return {self.labels[i]: float(counts[i]) for i in np.argsort(counts, kind="stable")[:num]}

    def _over_groups(self, function: Any, values: Any, groups: Sequence[Any] | None, seed: int) -> Any:
        """What a program makes of some groups at a time, together `(n, groups, ...)`."""
        dtype = jax.dtypes.canonicalize_dtype(float)
        shared, n = counted(values)
        shared = jax.tree.map(lambda value: np.asarray(value, dtype), shared)
        chosen = np.arange(len(self.labels)) if groups is None else self.positions(groups)
        together = min(len(chosen), max(1, CANDIDATES_AT_ONCE // (OWN_CANDIDATES * self.row_size)))
        keys, numbers, made = jax.random.split(jax.random.key(seed), len(self.labels)), np.arange(n), []
        for begin in range(0, len(chosen), together):
            some = np.resize(chosen[begin : begin + together], together)
            drawn = function(shared, numbers, self.take(some), keys[some])
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
        return _over_draws(self.density.draws)

    @cached_property
    def _gaussian(self) -> Callable[..., Any]:
        density = self.density
        of_groups = jax.vmap(density.gaussian, in_axes=(None, density.axes))
        return _over_draws(lambda values, groups, keys: of_groups(values, groups))

    @cached_property
    def _count(self) -> Callable[..., Any]:
        return _over_draws(self.density.effective_candidates)


def counted(values: Any) -> tuple[Any, int]:
    """Draws by name and their number, which is given in place of draws where there is nothing to draw."""
    return ({}, values) if isinstance(values, int) else (values, len(jax.tree.leaves(values)[0]))


def _over_draws(function: Callable[[Any, Any, Array], Any]) -> Callable[..., Any]:
    """From n draws of the shared parameters, groups and their keys to what `function` makes of them, `(n, ...)`."""

    def of_draw(groups: Any, keys: Array, given: tuple[Any, Array]) -> Any:
        return function(given[0], groups, jax.vmap(lambda key: jax.random.fold_in(key, given[1]))(keys))

    return program(lambda shared, numbers, groups, keys: jax.lax.map(partial(of_draw, groups, keys), (shared, numbers)))
