"""Latent sites inside a subsampled plate: its elements are groups, whose own parameters are integrated out.

The log density of an element is that of the sites inside the plate when the model is run on this element alone. What
is left to fit are the latent sites outside, whose log density is that of the sites outside plus a number for each
element. This holds where elements are independent given the sites outside, which is tried out on some of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.models.base import Model, Named
from bbvi.models.local import MOST_COORDINATES
from bbvi.models.numpyro.density import JointDensity
from bbvi.models.numpyro.elements import Element, SumOverElements
from bbvi.models.numpyro.model import NumPyroModel
from bbvi.models.numpyro.sites import BASE, Trace, bijection_of, is_inside, plate_axis
from bbvi.models.own import OwnDraws, without_density
from bbvi.runtime.compiling import program
from bbvi.runtime.precision import lenient_promotion, scope, use_double
from bbvi.runtime.types import Array
from bbvi.target.parameters import Parameters
from bbvi.target.reading import make_parameters

REMEDY = "Leave subsample_size out: then all latent sites are fitted together."


@dataclass(frozen=True, eq=False, kw_only=True)
class PlateModel(Model):
    """What `from_numpyro` returns where a subsampled plate has latent sites inside.

    Fields:
        whole: the model with all its latent sites and the plate in full.
        own: draws of the elements' own parameters.
        inside: sites inside the plate that have a value in the posterior.
    """

    logprob: SumOverElements
    whole: NumPyroModel
    own: OwnDraws
    inside: tuple[str, ...]

    def named(self, parameters: Parameters, values: Any) -> dict[str, Array]:
        return values

    def derived(self, values: Any, seed: int) -> Named:
        """Latent sites inside the plate and deterministic sites; nothing where the former are over 2**22 numbers."""
        n = len(next(iter(values.values())))
        return {} if self.own.is_much(n) else self._sites(self.whole, values, self._own(values, None, seed))

    def local(self, values: Any, groups: Sequence[int] | None = None, seed: int = 0) -> Named:
        """Draws of sites inside the plate given those outside, by name; the plate's axis counts elements.

        Those of an element are the same whichever others are asked for.

        Arguments:
            values: n draws of the parameters, as of `posterior.sample(n)`; others among them are left out.
            groups: numbers of elements, from 0; None for all.
            seed: of the draws.

        Raises:
            KeyError: for a number that no element has.
        """
        with scope(use_double("auto")):
            rows = np.arange(self.logprob.size) if groups is None else self.own.positions(groups)
            on_rows = replace(self.whole, data=(*self.data, rows))
            sites = self._sites(on_rows, values, self._own(values, groups, seed))
        return {name: sites[name] for name in self.inside}

    def poorest(self, values: Any, num: int = 5, seed: int = 0) -> dict[int, float]:
        """The elements whose own parameters are drawn worst, as `GroupedModel.poorest` has it for groups."""
        with scope(use_double("auto")):
            return self.own.poorest(self._shared(values), num, seed)

    def log_likelihood(self, values: Any) -> Named:
        """Log likelihood of each element with its own parameters integrated out, `(n, elements)`."""
        name = f"of_{self.logprob.element.joint.plate}"
        return {name: np.asarray(program(self.logprob.of_elements)(values, self.data))}

    def why_not_finite(self, values: Any) -> str:
        return without_density(self.own.labels, *self.log_likelihood(values).values())

    def prior(self, seed: int, num: int) -> Any:
        drawn = self.whole.prior(seed, num)
        return None if drawn is None else self._shared(drawn)

    def predict(self, values: Any, seed: int, *args: Any, **kwargs: Any) -> Named:
        return self.whole.predict({**self._shared(values), **self._own(values, None, seed)}, seed, *args, **kwargs)

    def _own(self, values: Any, groups: Sequence[int] | None, seed: int) -> Named:
        drawn = self.own(self._shared(values), groups, seed)
        return {name: np.moveaxis(drawn[name], 1, 1 + axis) for name, axis in self.logprob.element.axes}

    def _sites(self, whole: NumPyroModel, values: Any, own: Named) -> Named:
        latent = {name: value for name, value in own.items() if name in whole.names}
        return latent | whole.derived({**self._shared(values), **own}, 0)

    def _shared(self, values: Any) -> Named:
        return {name: values[name] for name in self.dim}


def with_elements_integrated(
    whole: NumPyroModel, own: Sequence[str], trace: Trace, maximised: Mapping[str, Any]
) -> PlateModel:
    """The model without the latent sites `own` inside its subsampled plate, as they were in one run in full."""
    joint = whole.logprob
    plate = joint.plate
    assert plate is not None
    _refuse(joint, own, trace, maximised)
    named = {name + BASE if name in joint.dynamic else name: name for name in own}
    axes = {parameter: plate_axis(trace[name], plate) for parameter, name in named.items()}
    shapes = {parameter: tuple(np.delete(whole.dim[parameter], axis).tolist()) for parameter, axis in axes.items()}
    constraints = {name: whole.constraints[name] for name in shapes if name in whole.constraints}
    parameters = make_parameters(shapes, constraints)
    if parameters.dim > MOST_COORDINATES:
        raise ValueError(
            f"Each element of the subsampled plate {plate!r} has {parameters.dim} free coordinates of its own, of the "
            f"latent sites {', '.join(own)}, and at most {MOST_COORDINATES} are integrated out by quadrature. {REMEDY}"
        )
    density = SumOverElements(
        Element(joint, tuple(axes.items())), parameters, tuple(map(float, jax.tree.leaves(parameters.constraints)))
    )
    _check_independence(density, whole, trace)
    shared = {name: shape for name, shape in whole.dim.items() if name not in axes}
    numbers = sum(map(np.size, whole.data)) // density.size
    visible = (*own, *(name for name in whole.deterministic if is_inside(trace[name], plate)))
    found = PlateModel(
        logprob=density,
        dim=shared,
        constraints={name: each for name, each in whole.constraints.items() if name in shared},
        data=whole.data,
        batch_size=whole.batch_size,
        observed=whole.observed,
        coords=whole.coords,
        dims={**whole.dims, f"of_{plate}": [plate]},
        notes=whole.notes,
        whole=whole,
        own=OwnDraws(density.density, range(density.size), lambda rows: (whole.data, rows), parameters.dim + numbers),
        inside=tuple(dict.fromkeys(visible)),
    )
    _refuse_nan(found, plate)
    return found


def _refuse_nan(model: PlateModel, plate: str) -> None:
    """Name the elements that NaN among the data leave without density."""
    if any(np.isnan(leaf).any() for leaf in model.data if np.issubdtype(leaf.dtype, np.floating)):
        parameters = make_parameters(model.dim, model.constraints)
        if why := model.why_not_finite(parameters.structure(np.zeros((1, parameters.dim)))):
            raise ValueError(f"The data hold NaN. In the plate {plate!r} {why} Fill them and mask them, or drop them.")


def _refuse(joint: JointDensity, own: Sequence[str], trace: Trace, maximised: Mapping[str, Any]) -> None:
    if maximised:
        raise ValueError(
            f"params='maximise' does not go with the latent site {own[0]!r} in the subsampled plate {joint.plate!r}, "
            f"which is integrated out. Take params='flat'. Or: {REMEDY}"
        )
    if len(own) == len(joint.latent):
        raise ValueError(
            f"All latent sites lie in the subsampled plate {joint.plate!r}, so that its elements share no parameter "
            f"that could be fitted. {REMEDY}"
        )
    for name, site in trace.items():
        is_summed = site["type"] == "sample" and not site["is_observed"] and site["fn"].support.is_discrete
        if is_summed and not is_inside(site, joint.plate):
            raise ValueError(
                f"The site {name!r} is discrete and outside of the subsampled plate {joint.plate!r}, whose latent "
                f"sites are integrated out element by element, given all others. {REMEDY}"
            )


def _check_independence(density: SumOverElements, whole: NumPyroModel, trace: Trace) -> None:
    """Refuse a model some of whose sites have another density when some elements are run together than alone."""
    plate, rows = density.element.joint.plate, np.unique([0, 1, density.size - 1])
    values = _values(density.element.joint, trace)

    @program
    def run(data: Any) -> Any:
        return [_log_densities(density.element, values, data, some) for some in (rows, *rows[:, None])]

    try:
        together, *alone = run(whole.data)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"The model has latent sites in the subsampled plate {plate!r}, and does not run on one of its elements "
            f"alone, as it must where these are integrated out element by element. {REMEDY}"
        ) from error
    for name, total in together.items():
        inside, each = is_inside(trace[name], plate), np.array([float(one[name]) for one in alone])
        if np.allclose(np.sum(each) if inside else each, total, rtol=1e-6, atol=1e-6, equal_nan=True):
            continue
        if inside:
            raise ValueError(
                f"The site {name!r} in the subsampled plate {plate!r} has another density where elements of the plate "
                "are run together than where each is alone: they depend on each other, or on how many are run, and "
                f"latent sites of the plate can be integrated out for independent elements only. {REMEDY}"
            )
        raise ValueError(
            f"The site {name!r} depends on elements of the subsampled plate {plate!r} and lies outside, while latent "
            f"sites of the plate are integrated out element by element. Move {name!r} into the plate. Or: {REMEDY}"
        )


def _values(joint: JointDensity, trace: Trace) -> dict[str, np.ndarray]:
    """All parameters, as they were in a run of the model."""
    values = {name: trace[name]["value"] for name in joint.latent if name not in joint.dynamic}
    with lenient_promotion():
        values |= {name + BASE: bijection_of(trace[name]).inv(trace[name]["value"]) for name in joint.dynamic}
    return {name: np.asarray(value) for name, value in values.items()}


def _log_densities(element: Element, values: Mapping[str, np.ndarray], data: Any, rows: np.ndarray) -> dict[str, Array]:
    """The log density of each site when the model is run on some elements."""
    axes = dict(element.axes)
    some = {name: np.take(value, rows, axes[name]) if name in axes else value for name, value in values.items()}
    sites = element.joint.trace(some, (*data, rows))
    with lenient_promotion():
        return {
            name: jnp.sum(site["fn"].log_prob(site["value"]))
            for name, site in sites.items()
            if site["type"] == "sample"
        }
