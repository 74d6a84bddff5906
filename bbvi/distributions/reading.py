"""Distributions by name, and from the arrays that are stored of them."""

from collections.abc import Mapping
from typing import Any

from bbvi import distributions
from bbvi.distributions.base import Distribution
from bbvi.distributions.bases import Base
from bbvi.distributions.location_scale import Family, named_families
from bbvi.distributions.mixture import Mixture
from bbvi.distributions.scales import Array, Scale

ALIASES = {"real_nvp": "flow", "neural_spline": "spline_flow"}


def _exported() -> dict[str, Any]:
    found = [getattr(distributions, name) for name in distributions.__all__]
    families = [each for each in found if isinstance(each, Family) or each is Mixture]
    named = {each.name: each for each in families}
    return named | {alias: named[name] for alias, name in ALIASES.items()}


FAMILIES: dict[str, Any] = _exported()


def find_family(name: str) -> Any:
    """The family of this name: one of `FAMILIES`, or a family, a class or a combination by a user.

    Raises:
        ValueError: where there is none.
    """
    known = {each.name: each for each in _subclasses(Distribution)} | named_families() | FAMILIES
    if name in known:
        return known[name]
    base, _, scale = name.partition("+")
    bases, scales = ({each.name: each for each in _subclasses(kind)} for kind in (Base, Scale))
    if base not in bases or scale not in scales:
        raise ValueError(f"it is of the family {name!r}, which is not known here: define it first")
    return Family(name, scales[scale], bases[base])


def read_distribution(name: str, leaves: Mapping[str, Array]) -> Distribution:
    """The distribution of a family with these leaves, as `Distribution.leaves` gave them."""
    if name != Mixture.name:
        return find_family(name).from_leaves(dict(leaves))
    groups: dict[str, dict[str, Array]] = {}
    for each, leaf in leaves.items():
        if "." in each:
            family, field = each.split(".", 1)
            groups.setdefault(family, {})[field] = leaf
    ((family, parts),) = groups.items()
    return Mixture(read_distribution(family, parts), leaves["log_weights"])


def _subclasses(base: type) -> list[Any]:
    return [each for kind in base.__subclasses__() for each in (kind, *_subclasses(kind)) if "name" in vars(each)]
