"""What a site of a NumPyro model is, and which sites cannot be inferred."""

from collections.abc import Iterable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import jax
import numpy as np

Trace = Mapping[str, Any]
BASE = "_base"  # numpyro's ending for the latent site that a reparameterised one is made of


class Subsampled(NamedTuple):
    """A plate that a model subsamples."""

    name: str
    size: int
    subsample_size: int


def check_site(site: Any) -> None:
    """Complain about a site that cannot be inferred."""
    from numpyro.distributions import Delta

    name, kind = site["name"], site["type"]
    if kind == "mutable":
        raise ValueError(
            f"The site {name!r} is a numpyro.mutable, whose value may change from run to run. Pass it to the model as "
            "an argument."
        )
    if kind != "sample" or site["is_observed"]:
        return
    fn = site["fn"]
    if isinstance(getattr(fn, "base_dist", fn), Delta):
        raise ValueError(f"The site {name!r} has a Delta distribution, a fixed value: use numpyro.deterministic.")
    if fn.support.is_discrete:
        if not fn.has_enumerate_support or site["infer"].get("enumerate", "parallel") != "parallel":
            raise ValueError(
                f"The site {name!r} is discrete ({type(fn).__name__}), and numpyro cannot sum over its values. Sum it "
                "out in the model, or write its likelihood with a continuous or marginal distribution."
            )
        if find_spec("funsor") is None:
            raise ImportError(
                f'To sum over the discrete site {name!r} numpyro needs funsor: pip install "bbvi[enumeration]".'
            )
        return
    try:
        bijection_of(site)
    except NotImplementedError as error:
        raise ValueError(
            f"The site {name!r} has the support {fn.support}, which numpyro cannot map from unconstrained space."
        ) from error


def bijection_of(site: Any) -> Any:
    """The map from unconstrained space onto the support of a site."""
    from numpyro.distributions import biject_to

    return biject_to(site["fn"].support)


def differs(a: Any, b: Any) -> bool:
    """Whether two constraints have different bounds."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return any(np.shape(x) != np.shape(y) or not np.array_equal(x, y) for x, y in pairs)


def has_arrays_as_bounds(constraint: Any) -> bool:
    """Whether the bounds of a constraint are more than one number each."""
    return any(np.ndim(bound) for bound in jax.tree.leaves(constraint))


def nesting(trace: Trace) -> int:
    """How many dimensions plates take, counted from the right."""
    frames = (frame for site in trace.values() for frame in site.get("cond_indep_stack", ()))
    return max((-frame.dim for frame in frames), default=0)


def subsampled(trace: Trace) -> Subsampled | None:
    """The plate that is subsampled; None without one."""
    plates = {name: site["args"] for name, site in trace.items() if site["type"] == "plate"}
    found = [Subsampled(name, *args) for name, args in plates.items() if args[1] is not None and args[1] < args[0]]
    if len(found) > 1:
        raise ValueError(f"The plates {', '.join(each.name for each in found)} are all subsampled. Subsample one only.")
    return found[0] if found else None


def own_sites(trace: Trace, plate: str) -> list[str]:
    """The continuous latent sites in a plate."""
    latent = [name for name, site in trace.items() if site["type"] == "sample" and not site["is_observed"]]
    return [name for name in latent if is_inside(trace[name], plate) and not trace[name]["fn"].support.is_discrete]


def is_inside(site: Any, plate: str | None) -> bool:
    """Whether a site lies in a plate."""
    return any(frame.name == plate for frame in site.get("cond_indep_stack", ()))


def plate_axis(site: Any, plate: str) -> int:
    """The axis of the value of a site that counts the elements of a plate in which it lies."""
    dim = next(frame.dim for frame in site["cond_indep_stack"] if frame.name == plate)
    return np.ndim(site["value"]) - (site["fn"].event_dim if site["type"] == "sample" else 0) + dim


def plate_dims(trace: Trace, but: Iterable[str]) -> dict[str, list[str]]:
    """Names of the dimensions of sites that have a value in the posterior, where a plate names one; not of `but`."""
    visible = {name: site for name, site in trace.items() if site["type"] in ("sample", "deterministic")}
    found = {name: _dims(site) for name, site in visible.items() if name not in but}
    return {name: dims for name, dims in found.items() if dims is not None}


def _dims(site: Any) -> list[str] | None:
    """Names of the dimensions of a site; None when no plate names one."""
    shape, frames = np.shape(site["value"]), site["cond_indep_stack"]
    event_dim = site["fn"].event_dim if site["type"] == "sample" else 0
    dims = [f"{site['name']}_dim_{i}" for i in range(len(shape))]
    for frame in frames:
        axis = len(shape) - event_dim + frame.dim
        if 0 <= axis < len(shape) and shape[axis] == frame.size:
            dims[axis] = frame.name
    return dims if frames else None
