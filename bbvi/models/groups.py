"""Models of many groups, each of which has parameters of its own: these are integrated out, group by group.

What is left to fit are the parameters that all groups share. Their log density is a prior and one number for each
group, so that groups are rows: they come in minibatches, and each has a log likelihood. A group's own parameters are
drawn afterwards, given the shared ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.data.groups import Grouped, Ragged, SumOverGroups, read_groups
from bbvi.data.reading import is_held
from bbvi.models.base import Model, Named
from bbvi.models.local import MOST_COORDINATES
from bbvi.models.own import GroupDensity, OwnDraws, without_density
from bbvi.runtime.compiling import program
from bbvi.runtime.precision import scope, use_double
from bbvi.runtime.types import Array
from bbvi.target.parameters import Parameters
from bbvi.target.reading import make_parameters

Shapes = Mapping[str, Any]


@dataclass(frozen=True, eq=False, kw_only=True)
class GroupedModel(Model):
    """What `from_groups` returns.

    Fields:
        own: draws of the groups' own parameters.
    """

    own: OwnDraws

    def named(self, parameters: Parameters, values: Any) -> dict[str, Array]:
        return dict(values)

    def derived(self, values: Any, seed: int) -> Named:
        """The groups' own parameters, each `(n, groups, *shape)`; nothing where those are more than 2**22 numbers."""
        n = len(next(iter(values.values())))
        return {} if self.own.is_much(n) else self.own(self._shared(values), None, seed)

    def local(self, values: Any, groups: Sequence[Any] | None = None, seed: int = 0) -> Named:
        """Draws of groups' own parameters given the shared ones, by name, each `(n, groups, *shape)`.

        Those of a group are the same whichever other groups are asked for.

        Arguments:
            values: n draws of the shared parameters, as of `posterior.sample(n)`; others among them are left out.
            groups: labels of groups; None for all.
            seed: of the draws.

        Raises:
            KeyError: for a label that no group has.
        """
        with scope(use_double("auto")):
            return self.own(self._shared(values), groups, seed)

    def poorest(self, values: Any, num: int = 5, seed: int = 0) -> dict[Any, float]:
        """The groups whose own parameters are drawn worst, by label: how many of 16 candidates for a draw count.

        A draw is one of 16 candidates around the mode, chosen by importance. Where few count, on average over the
        draws given, the density of the group is far from a Gaussian, and both its draws and its integral are rough.

        Arguments:
            values: draws of the shared parameters, as of `posterior.sample(n)`.
            num: groups at most, the poorest first.
            seed: of the candidates.

        Example:
            >>> model = bbvi.from_groups(
            ...     log_prior=lambda p: -0.5 * p["mean"] ** 2,
            ...     log_local=lambda p, own: -0.5 * (own["a"] - p["mean"]) ** 2 - 0.5 * jnp.log(2 * jnp.pi),
            ...     log_likelihood=lambda p, own, rows: rows * own["a"] - jnp.exp(own["a"]),
            ...     dim={"mean": ()},
            ...     local={"a": ()},
            ...     data=np.array([3.0, 0.0, 5.0]),
            ...     group=["x", "y", "z"],
            ... )
            >>> poorest = model.poorest({"mean": np.zeros(50)}, 2)
            >>> print(len(poorest), min(poorest.values()) > 10)
            2 True
        """
        with scope(use_double("auto")):
            return self.own.poorest(self._shared(values), num, seed)

    def log_likelihood(self, values: Any) -> Named | None:
        """Log likelihood of each group with its own parameters integrated out, `(n, groups)`."""
        if not is_held(self.data):
            return None
        over_draws = program(jax.vmap(self.logprob.of_groups, in_axes=(0, None)))
        return {"of_group": np.asarray(over_draws(values, self.data))}

    def why_not_finite(self, values: Any) -> str:
        found = self.log_likelihood(values)
        return "" if found is None else without_density(self.own.labels, found["of_group"])

    def _shared(self, values: Any) -> Named:
        return {name: values[name] for name in self.dim}


def from_groups(
    log_prior: Callable[[Any], Array],
    log_local: Callable[[Any, Any], Array],
    log_likelihood: Callable[[Any, Any, Any], Array],
    dim: Shapes,
    local: Shapes,
    data: Any,
    group: Any,
    *,
    constraints: Any = None,
    local_constraints: Any = None,
) -> GroupedModel:
    """A model of groups of rows, each of which has parameters of its own: random effects, abilities, local latents.

    The groups' own parameters are integrated out, by adaptive quadrature around the mode of each, so that `fit` sees
    the shared ones only, whatever the number of groups; `sample`, summaries and arviz have both. Its rows are the
    groups: `fit(model, batch_size=40)` takes 40 of them in a step, and leave-one-out leaves out a group.

    Arguments:
        log_prior: `log_prior(shared)`, a scalar: the log density of the shared parameters.
        log_local: `log_local(shared, own)`, a scalar: that of one group's own parameters, with all its constants.
        log_likelihood: `log_likelihood(shared, own, rows)`, one number for each of the group's rows `(m,)`.
        dim: names and shapes of the shared parameters, a dict as for `fit`.
        local: names and shapes of a group's own parameters, a dict; of at most 8 free coordinates.
        data: a pytree of arrays with the same leading axis, the rows, in any order. `rows` has its structure. Memory-
            mapped arrays (`np.memmap`) are read piece by piece: their rows must be sorted by group, as many in each.
        group: the label of each row's group, `(rows,)`, integers or strings.
        constraints, local_constraints: numpyro constraints of both, as for `fit`.

    Returns:
        A `GroupedModel` for `fit`. Its method `local(values, groups)` draws the parameters of some groups, where there
        are so many (more than 2**22 numbers) that `sample` leaves them out.

    Raises:
        ValueError, TypeError: naming the argument, what is wrong and the remedy.

    Example:
        >>> model = bbvi.from_groups(
        ...     log_prior=lambda p: -0.5 * p["mean"] ** 2,
        ...     log_local=lambda p, own: -0.5 * (own["a"] - p["mean"]) ** 2 - 0.5 * jnp.log(2 * jnp.pi),
        ...     log_likelihood=lambda p, own, rows: -0.5 * (rows["y"] - own["a"]) ** 2,
        ...     dim={"mean": ()},
        ...     local={"a": ()},
        ...     data={"y": np.array([1.0, 2.0, 4.0])},
        ...     group=["x", "x", "z"],
        ... )
        >>> posterior = bbvi.fit(model)
        >>> print(posterior.parameters.dim, posterior.sample(100)["a"].shape)
        1 (100, 2)
    """
    for name, shapes in (("dim", dim), ("local", local)):
        if not isinstance(shapes, Mapping) or not shapes:
            raise TypeError(f"{name} must be a dict of names and shapes, such as {{'a': ()}}, not {shapes!r}.")
    if shared := set(dim) & set(local):
        raise ValueError(f"{min(shared)!r} is in dim and in local. A name stands for one parameter: rename one.")
    own = make_parameters(local, local_constraints)
    if own.dim > MOST_COORDINATES:
        raise ValueError(
            f"local has {own.dim} free coordinates, and at most {MOST_COORDINATES} are integrated out by quadrature. "
            'Write the model as one log density, and let fit(..., method="nested_laplace") find its groups.'
        )
    labels, grouped = read_groups(data, group)
    density = GroupDensity(partial(_log_joint, log_local, log_likelihood), own)
    shapes = zip(own.names, own.shapes, strict=True)
    axes = {name: ["group", *(f"{name}_dim_{i}" for i in range(len(shape)))] for name, shape in shapes}
    return GroupedModel(
        logprob=SumOverGroups(log_prior, density.log_marginals),
        dim=dict(dim),
        constraints=constraints,
        data=grouped,
        coords={"group": labels},
        dims={**axes, "of_group": ["group"]},
        own=OwnDraws(density, labels, partial(_take, grouped), own.dim + _numbers(grouped) // len(labels)),
    )


def _log_joint(log_local: Any, log_likelihood: Any, values: Any, own: Any, group: Grouped) -> Array:
    """The log density of a group with its own parameters, a scalar."""
    local, of_rows = jnp.asarray(log_local(values, own)), log_likelihood(values, own, group.rows)
    count = len(jax.tree.leaves(group.rows)[0])
    if local.shape:
        raise ValueError(f"log_local must return a scalar, and returned the shape {local.shape}: sum it up.")
    if jnp.shape(of_rows) != (count,):
        raise ValueError(
            f"log_likelihood must return one number for each of the {count} rows that it got, and returned the shape "
            f"{jnp.shape(of_rows)}."
        )
    return local + jnp.sum(of_rows if group.used is None else jnp.where(group.used, of_rows, 0))


def _take(data: Grouped | Ragged, groups: np.ndarray) -> Grouped:
    if isinstance(data, Ragged):
        return data.take(groups)
    return jax.tree.map(lambda leaf: np.asarray(leaf[groups]), data)


def _numbers(data: Any) -> int:
    return sum(map(np.size, jax.tree.leaves(data)))
