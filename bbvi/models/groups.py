"""Models of groups of rows, read: what is wrong is said before anything is computed."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from bbvi.data.groups import SumOverGroups, read_groups
from bbvi.models.amortised import AmortisedModel, read_network, untrained
from bbvi.models.grouped import GroupedModel, log_joint, make_draws
from bbvi.models.local import MOST_COORDINATES
from bbvi.models.networks import Network
from bbvi.models.own import GroupDensity
from bbvi.runtime.spelling import nearest
from bbvi.runtime.types import Array
from bbvi.target.reading import make_parameters

Shapes = Mapping[str, Any]


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
    amortise: Network | None = None,
    maximise: Sequence[str] = (),
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
        local: names and shapes of a group's own parameters, a dict; of at most 8 free coordinates without a network.
        data: a pytree of arrays with the same leading axis, the rows, in any order. `rows` has its structure. Memory-
            mapped arrays (`np.memmap`) are read piece by piece: their rows must be sorted by group, as many in each.
        group: the label of each row's group, `(rows,)`, integers or strings.
        constraints, local_constraints: numpyro constraints of both, as for `fit`.
        amortise: a network that says where a group's own parameters are, in place of a search for their mode:
            `bbvi.SetEncoder()`, `bbvi.MLP()`, or any object with `init(key, group) -> weights` and
            `apply(weights, group)`, which returns means and log standard deviations of the d free coordinates, `(2 d,)`
            or a pair of `(d,)`. `group` is a `bbvi.Group`. `fit` trains it, or `bbvi.train` before.
        maximise: names of shared parameters that are trained with the network, to where the evidence bound is largest
            on the unconstrained scale, and have no posterior: such as weights of a decoder.

    Returns:
        A `GroupedModel` for `fit`, an `AmortisedModel` with a network. Its method `local(values, groups)` draws the
        parameters of some groups, where there are so many (more than 2**22 numbers) that `sample` leaves them out.

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
    if own.dim > MOST_COORDINATES and amortise is None:
        raise ValueError(
            f"local has {own.dim} free coordinates, and at most {MOST_COORDINATES} are integrated out by quadrature. "
            "Give amortise=bbvi.SetEncoder(), a network that is trained for them; or write the model as one log "
            'density, and let fit(..., method="nested_laplace") find its groups.'
        )
    if maximise and amortise is None:
        raise ValueError(
            f"maximise={maximise!r} is for parameters that are trained with a network: give amortise, too."
        )
    if unknown := [name for name in maximise if name not in dim]:
        raise ValueError(f"maximise names {unknown[0]!r}, which dim does not have. {nearest(unknown[0], dim)}")
    labels, grouped = read_groups(data, group)
    joint = partial(log_joint, log_local, log_likelihood)
    density = GroupDensity(joint, own, guess=None if amortise is None else untrained)
    shapes = zip(own.names, own.shapes, strict=True)
    axes = {name: ["group", *(f"{name}_dim_{i}" for i in range(len(shape)))] for name, shape in shapes}
    known: dict[str, Any] = {
        "logprob": SumOverGroups(log_prior, density.log_marginals),
        "dim": dict(dim),
        "constraints": constraints,
        "data": grouped,
        "coords": {"group": labels},
        "dims": {**axes, "of_group": ["group"]},
        "own": make_draws(density, labels, grouped),
    }
    if amortise is None:
        return GroupedModel(**known)
    encoder = read_network(amortise, own.dim, grouped)
    return AmortisedModel(**known, encoder=encoder, functions=(log_prior, joint), maximised=tuple(maximise))
