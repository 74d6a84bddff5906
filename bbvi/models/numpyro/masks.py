"""Rows of observed sites that are no observations: what masks leave out, and masks that do not fit."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from bbvi.models.numpyro.sites import Trace


def check_mask(site: Any) -> None:
    """Complain about a mask whose shape makes more of a site than was observed."""
    from numpyro.distributions import MaskedDistribution

    if site["type"] != "sample" or not site["is_observed"] or not isinstance(site["fn"], MaskedDistribution):
        return
    if np.ndim(site["value"]) and np.shape(site["value"]) != site["fn"].shape():
        rows = np.shape(site["value"])[: np.ndim(site["value"]) - site["fn"].event_dim]
        raise _mask_misfits(site["name"].removesuffix("_observed"), np.shape(site["fn"]._mask), rows)


def misfitting_mask(error: Exception) -> ValueError | None:
    """The complaint, where numpyro came to an error while it applied `obs_mask`."""
    frame = error.__traceback__
    while frame is not None:
        here = frame.tb_frame.f_locals
        if frame.tb_frame.f_code.co_name == "_masked_observe":
            mask, rows = np.shape(here["obs_mask"]), tuple(here["fn"].batch_shape)
            return None if mask == rows else _mask_misfits(here["name"], mask, rows)
        frame = frame.tb_next
    return None


def _mask_misfits(name: str, mask: tuple[int, ...], rows: tuple[int, ...]) -> ValueError:
    return ValueError(
        f"The mask of the site {name!r} has shape {mask}, and the site has rows {rows}. A mask has one entry for each "
        "row, all components of which are observed or none: split the site, or write the density of the components "
        "that are observed with numpyro.factor."
    )


def data_masks(trace: Trace, other: Trace) -> dict[str, np.ndarray]:
    """Which rows of observed sites are observations, for the sites of which not all rows are.

    A mask that differs in another run of the model depends on parameters, and is none of the data.
    """
    masks = {}
    for name, site in trace.items():
        if (mask := _mask(site)) is None or mask.all():
            continue
        again = _mask(other[name])
        if again is not None and np.array_equal(mask, again):
            masks[name] = mask
    return masks


def observations(trace: Trace, masks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The values of observed sites, without the rows that are no observations."""
    values = {name: np.asarray(site["value"]) for name, site in trace.items() if _is_observed(site)}
    values = {name: value[masks[name]] if name in masks else value for name, value in values.items()}
    return {name: value for name, value in values.items() if value.size}


def _mask(site: Any) -> np.ndarray | None:
    """The mask of an observed site, None where it has none or a single one for all rows."""
    from numpyro.distributions import MaskedDistribution

    if not _is_observed(site) or not isinstance(site["fn"], MaskedDistribution) or isinstance(site["fn"]._mask, bool):
        return None
    return np.asarray(site["fn"]._mask)


def _is_observed(site: Any) -> bool:
    """Whether a site is an observation, rather than a latent one or a numpyro.factor."""
    return site["type"] == "sample" and site["is_observed"] and np.size(site["value"]) > 0
