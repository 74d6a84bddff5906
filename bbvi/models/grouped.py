"""Models of many groups, each of which has parameters of its own: these are integrated out, group by group.

What is left to fit are the parameters that all groups share. Their log density is a prior and one number for each
group, so that groups are rows: they come in minibatches, and each has a log likelihood. A group's own parameters are
drawn afterwards, given the shared ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.data.groups import Grouped, Ragged, read_groups
from bbvi.data.reading import is_held
from bbvi.models.base import Model, Named
from bbvi.models.own import GroupDensity, OwnDraws, counted, without_density
from bbvi.runtime.compiling import program
from bbvi.runtime.precision import scope, use_double
from bbvi.runtime.types import Array
from bbvi.target.parameters import Parameters


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

    def local(
        self,
        values: Any,
        groups: Sequence[Any] | None = None,
        seed: int = 0,
        *,
        data: Any = None,
        group: Any = None,
        refine: bool = False,
    ) -> Named:
        """Draws of groups' own parameters given the shared ones, by name, each `(n, groups, *shape)`.

        Those of a group are the same whichever other groups are asked for.

        Arguments:
            values: n draws of the shared parameters, as of `posterior.sample(n)`; others among them are left out. Or n
                itself, where all shared parameters were maximised.
            groups: labels of groups; None for all.
            seed: of the draws.
            data, group: rows of new groups and their labels, as for `from_groups`; None for those of the model.
            refine: whether Newton's steps lead from a network's answer to the mode of each group, around which its
                draws are made then. Without a network they are made there in any case.

        Raises:
            KeyError: for a label that no group has.
            TypeError, ValueError: as `from_groups`, for new groups.
        """
        with scope(use_double("auto")):
            own = self._own_of(data, group)
            return (own.refined if refine else own)(self._shared(values), groups, seed)

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
        shared, n = counted(self._shared(values))
        over_draws = program(jax.vmap(self.logprob.of_groups, in_axes=(0, None), axis_size=n))
        return {"of_group": np.asarray(over_draws(shared, self.data))}

    def why_not_finite(self, values: Any) -> str:
        found = self.log_likelihood(values)
        return "" if found is None else without_density(self.own.labels, found["of_group"])

    def _shared(self, values: Any) -> Named:
        return {name: values[name] for name in self.dim} if self.dim else values

    def _own_of(self, data: Any, group: Any) -> OwnDraws:
        """Draws for the model's groups, or for new ones."""
        if data is None and group is None:
            return self.own
        if data is None or group is None:
            raise ValueError("data and group go together: the rows of new groups, and the label of each row's group.")
        return make_draws(self.own.density, *read_groups(data, group))


def log_joint(log_local: Any, log_likelihood: Any, values: Any, own: Any, group: Grouped) -> Array:
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


def make_draws(density: GroupDensity, labels: Sequence[Any], grouped: Grouped | Ragged) -> OwnDraws:
    """Draws of the own parameters of groups with these labels and rows."""
    return OwnDraws(density, labels, partial(_take, grouped), density.own.dim + _numbers(grouped) // len(labels))


def _take(data: Grouped | Ragged, groups: np.ndarray) -> Grouped:
    if isinstance(data, Ragged):
        return data.take(groups)
    return jax.tree.map(lambda leaf: np.asarray(leaf[groups]), data)


def _numbers(data: Any) -> int:
    return sum(map(np.size, jax.tree.leaves(data)))
