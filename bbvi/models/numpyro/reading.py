"""A NumPyro model, read by running it twice."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.models.numpyro.arguments import Static, in_precision, is_array
from bbvi.models.numpyro.density import JointDensity, with_needed_arguments_fixed
from bbvi.models.numpyro.handlers import settle
from bbvi.models.numpyro.masks import data_masks, observations
from bbvi.models.numpyro.model import NumPyroModel
from bbvi.models.numpyro.plates import PlateModel, with_elements_integrated
from bbvi.models.numpyro.sites import (
    BASE,
    Subsampled,
    Trace,
    differs,
    has_arrays_as_bounds,
    nesting,
    own_sites,
    plate_dims,
    subsampled,
)
from bbvi.models.numpyro.tracing import first_trace
from bbvi.runtime.constants import with_clean_caches
from bbvi.runtime.precision import scope
from bbvi.target.reading import is_real, make_parameters


def from_numpyro(
    model: Callable[..., Any], *args: Any, params: str = "flat", **kwargs: Any
) -> NumPyroModel | PlateModel:
    """A NumPyro model, to be given to `fit`.

    Arguments:
        model: a function with numpyro primitives. Its continuous `sample` sites are the parameters, on the scale of
            their supports; discrete ones are summed over where numpyro can (`bbvi[enumeration]`). A plate with a
            `subsample_size` is run on minibatches of that many rows, and in full for the verdict.
            Latent sites inside of it, of up to 8 free coordinates for each of its elements, are integrated out element
            by element, and drawn given the others afterwards.
        params: what becomes of `numpyro.param` sites. "flat" makes them parameters, with a flat prior on what their
            constraint allows; "maximise" has `fit` set them to where the evidence bound is largest, after which they
            are deterministic sites.
        args, kwargs: what it is called with. Arrays are data: others of the same shapes compile nothing anew.

    Returns:
        A model that `fit` takes in place of `logprob` and `dim`. The posterior has the sites by their names, with
        deterministic sites among them, and for arviz the plates as dimensions. Where a subsampled plate has latent
        sites inside, the model's method `local(values, groups)` draws those of some elements.

    Raises:
        TypeError, ValueError: naming the site, when a site cannot be inferred.
        ImportError: when sites have to be summed over and funsor is not installed.

    Example:
        >>> def model(y):
        ...     scale = numpyro.sample("scale", numpyro.distributions.HalfNormal(1))
        ...     numpyro.sample("y", numpyro.distributions.Normal(0, scale), obs=y)
        >>> bbvi.from_numpyro(model, np.ones(3)).dim  # give the model to bbvi.fit
        {'scale': ()}

    A site whose support depends on other sites, such as Uniform(0, sigma), is a parameter under the name `<site>_base`,
    unconstrained, and itself a deterministic site.
    """
    with scope(True):  # bounds of supports in full precision
        args, kwargs = jax.tree.map(in_precision, (args, kwargs))
        if params not in ("flat", "maximise"):
            raise ValueError(f"params={params!r} is unknown. Known: flat, maximise.")
        plate, *traces = with_clean_caches(lambda: _traces(model, args, kwargs))
        found = _read(model, args, kwargs, plate, *traces)
        initial = {name: np.asarray(site["value"]) for name, site in traces[0].items() if site["type"] == "param"}
        maximised = initial if params == "maximise" else {}
        if plate and (own := own_sites(traces[0], plate.name)):
            return with_elements_integrated(found, own, traces[0], maximised)
        if params == "flat":
            return found
        return replace(found, maximised=initial, notes=())


def with_params(model: NumPyroModel, values: Mapping[str, np.ndarray]) -> NumPyroModel:
    """The model with these values of its params, as deterministic sites."""
    from numpyro.primitives import Messenger

    class Fixed(Messenger):
        def process_message(self, msg: Any) -> None:
            if msg["type"] == "param" and msg["name"] in values:
                msg["type"], msg["value"] = "deterministic", jnp.asarray(values[msg["name"]])

    args, kwargs = model.logprob.arguments(model.data)
    shown = ", ".join(f"{name} = {np.array2string(np.asarray(value), precision=4)}" for name, value in values.items())
    note = f"{shown}: without a prior, set to where the evidence bound is largest; their uncertainty is left out"
    found = from_numpyro(Fixed(model.logprob.model), *args, **kwargs)
    assert isinstance(found, NumPyroModel)  # params of a model with elements integrated out are never maximised over
    return replace(found, notes=(note,))


def _traces(model: Callable[..., Any], args: Any, kwargs: Any) -> tuple[Subsampled | None, Trace, Trace]:
    """The plate that is subsampled, and the sites of two runs of the model with that plate in full."""
    first = first_trace(model, args, kwargs, 0)
    plate = subsampled(first)
    if plate is None:
        return plate, first, first_trace(model, args, kwargs, 1)
    whole = settle(model, None, None)
    return plate, first_trace(whole, args, kwargs, 0), first_trace(whole, args, kwargs, 1)


def _read(
    model: Callable[..., Any], args: Any, kwargs: Any, plate: Subsampled | None, trace: Trace, other: Trace
) -> NumPyroModel:
    """The model, from the sites of two runs of it."""
    latent = [name for name, site in trace.items() if site["type"] == "sample" and not site["is_observed"]]
    continuous = [name for name in latent if not trace[name]["fn"].support.is_discrete]
    free = [name for name, site in trace.items() if site["type"] == "param"]
    if not continuous and not free:
        raise ValueError(
            "The model has no continuous latent site: nothing to infer. Leave obs= out where a value is unknown."
        )
    own = [] if plate is None else own_sites(trace, plate.name)
    supports = {name: (trace[name]["fn"].support, other[name]["fn"].support) for name in continuous}
    dynamic = tuple(
        name for name, (a, b) in supports.items() if differs(a, b) or (name in own and has_arrays_as_bounds(a))
    )
    dim, constraints = _parameter_space(trace, continuous, free, dynamic)
    leaves, treedef = jax.tree.flatten((args, kwargs))
    density = JointDensity(
        model=model,
        treedef=treedef,
        static=tuple(None if is_array(leaf) else Static(leaf) for leaf in leaves),
        latent=(*continuous, *free),
        dynamic=dynamic,
        enumerated=len(continuous) < len(latent),
        nesting=nesting(trace),
        plate=None if plate is None else plate.name,
        plate_size=None if plate is None else plate.size,
        subsample_size=None if plate is None else plate.subsample_size,
    )
    density = with_needed_arguments_fixed(density, leaves, dim)
    masks = data_masks(trace, other)
    return NumPyroModel(
        logprob=density,
        dim=dim,
        constraints=constraints,
        data=density.arrays(leaves),
        batch_size=density.subsample_size,
        observed=observations(trace, masks),
        coords={f"{name}_dim_0": np.flatnonzero(mask).tolist() for name, mask in masks.items()},
        dims=plate_dims(trace, masks),
        names=tuple(name for name in dim if name.removesuffix(BASE) not in dynamic),
        deterministic=_deterministic(density, leaves, dim, trace),
        masks=masks,
        notes=_about_params(free),
    )


def _parameter_space(
    trace: Trace, continuous: list[str], free: list[str], dynamic: tuple[str, ...]
) -> tuple[dict[str, tuple[int, ...]], dict[str, Any]]:
    """Shapes and constraints of the parameters, by name."""
    dim, constraints = {}, {}
    for name in continuous:
        support, shape = trace[name]["fn"].support, np.shape(trace[name]["value"])
        if name in dynamic:
            dim[name + BASE] = make_parameters({name: shape}, {name: support}).free_shapes[0]
        else:
            dim[name] = shape
            constraints[name] = None if is_real(support) else support
    for name in free:
        dim[name], constraint = np.shape(trace[name]["value"]), trace[name]["kwargs"].get("constraint")
        constraints[name] = None if constraint is None or is_real(constraint) else constraint
    make_parameters(dim, constraints)  # complains about supports that cannot be mapped
    return dim, constraints


def _about_params(names: list[str]) -> tuple[str, ...]:
    if not names:
        return ()
    are = "is a numpyro.param" if len(names) == 1 else "are numpyro.params"
    return (f"{', '.join(names)} {are}, without a prior: the density is flat over what its constraint allows",)


def _deterministic(density: JointDensity, leaves: list[Any], dim: Any, trace: Trace) -> tuple[str, ...]:
    """Deterministic sites, without those that hang on values that are summed over."""
    values = {name: jax.ShapeDtypeStruct(shape, float) for name, shape in dim.items()}
    shapes = jax.eval_shape(
        lambda values, data: {
            name: site["value"] for name, site in density.trace(values, data).items() if site["type"] == "deterministic"
        },
        values,
        density.arrays(leaves),
    )
    return (*density.dynamic, *(name for name, each in shapes.items() if each.shape == np.shape(trace[name]["value"])))
