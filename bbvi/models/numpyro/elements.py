"""The log density of one element of a subsampled plate that has latent sites inside, and the sum over elements."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp

from bbvi.data.density import SumOverRows
from bbvi.data.plate import Plate
from bbvi.models.local import nodes
from bbvi.models.numpyro.density import JointDensity
from bbvi.models.numpyro.model import AT_ONCE
from bbvi.models.own import GroupDensity
from bbvi.runtime.types import Array
from bbvi.target.parameters import Parameters


@dataclass(frozen=True)
class Element:
    """The log density of one element of the plate.

    Fields:
        joint: of the model, with all its latent sites.
        axes: parameters of an element, with the axis of each that counts the elements.
    """

    joint: JointDensity
    axes: tuple[tuple[str, int], ...]

    def __call__(self, shared: Mapping[str, Array], own: Mapping[str, Array], element: tuple[Any, Array]) -> Array:
        """The sites inside the plate, a scalar; `element` are the arrays of the model and a number."""
        arrays, number = element
        alone = {name: jnp.expand_dims(own[name], axis) for name, axis in self.axes}
        return self.joint.part({**shared, **alone}, (*arrays, number[None]), inside=True)


@dataclass(frozen=True)
class SumOverElements(SumOverRows):
    """The log density of the latent sites outside the plate, with those inside integrated out.

    Fields:
        element: the log density of one.
        own: parameters of one.
        bounds: of these, so that densities that differ in them are told apart.
    """

    element: Element
    own: Parameters = field(compare=False)
    bounds: tuple[float, ...]

    @cached_property
    def density(self) -> GroupDensity:
        """Of one element."""
        return GroupDensity(self.element, self.own, (None, 0))

    @property
    def size(self) -> int:
        """How many elements there are."""
        size = self.element.joint.plate_size
        assert size is not None
        return size

    def source(self, data: Any) -> Plate:
        return Plate(data, self.size)

    def __call__(self, values: Mapping[str, Array], data: Any) -> Array:
        """Log density, a scalar."""
        return self.estimate(values, data, 1.0, at_once=False)

    def estimate(self, values: Mapping[str, Array], data: Any, weight: Array | float, at_once: bool) -> Array:
        is_batch = len(data) > self.element.joint.static.count(None)
        arrays, rows = (data[:-1], data[-1]) if is_batch else (data, jnp.arange(self.size))
        return self.outside(values, arrays) + weight * jnp.sum(self.density.log_marginals(values, (arrays, rows)))

    def outside(self, values: Mapping[str, Array], arrays: Any) -> Array:
        """The log density of the sites outside the plate, a scalar: those inside are anywhere."""
        own, _ = self.own.constrain(jnp.zeros(self.own.dim))
        alone = {name: jnp.expand_dims(own[name], axis) for name, axis in self.element.axes}
        return self.element.joint.part({**values, **alone}, (*arrays, jnp.zeros(1, int)), inside=False)

    def of_elements(self, values: Mapping[str, Array], arrays: Any) -> Array:
        """The log likelihood of each element, `(n, elements)`, for n draws of the parameters."""
        numbers = self.size * len(nodes(self.own.dim)[0])
        rows = jnp.arange(self.size)
        one = lambda each: self.density.log_marginals(each, (arrays, rows))
        return jax.lax.map(one, values, batch_size=max(1, AT_ONCE // numbers))
