"""How far draws are from a reference: moments, quantiles, and what their intervals hold."""

from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from bbvi.diagnostics.estimates import Estimates
from benchmarks.record.lines import Error
from benchmarks.record.references import LEVELS, Reference

ALLOWED = 2.0  # standard errors of the reference
WITHIN = float(ndtri(LEVELS[1]))  # standard errors, of a central 90 % interval
CONTENT = LEVELS[1] - LEVELS[0]  # what a central interval should hold


class Judgement(NamedTuple):
    """Of draws of the quantities; fields are those of a line."""

    mean: Error
    sd: Error
    low: Error | None
    high: Error | None
    content: float | None
    worst_content: float | None


def judge(reference: Reference, values: np.ndarray) -> Judgement:
    """Compare draws `(n, quantities)` with the reference; what is not a number is infinitely wrong."""
    with np.errstate(all="ignore"):
        mean = np.abs(values.mean(axis=0) - reference.mean) / reference.sd
        sd = np.abs(values.std(axis=0) / reference.sd - 1)
    low = high = content = worst = None
    if reference.quantiles is not None and not np.isnan(reference.quantiles).all():
        known = np.flatnonzero(~np.isnan(reference.quantiles[0]))
        with np.errstate(all="ignore"):
            of_values = np.quantile(values[:, known], LEVELS, axis=0)
            off = np.abs(of_values - reference.quantiles[:, known]) / reference.sd[known]
        names, unknown = [reference.names[i] for i in known], np.full(len(known), np.nan)
        low, high = (_largest(names, each, unknown) for each in off)
        if reference.draws is not None:
            inside = (reference.draws[:, known] >= of_values[0]) & (reference.draws[:, known] <= of_values[1])
            held = inside.mean(axis=0)
            content, worst = float(held.mean()), float(held[np.argmax(np.abs(held - CONTENT))])
    errors = (_largest(reference.names, mean, reference.mean_error), _largest(reference.names, sd, reference.sd_error))
    return Judgement(*errors, low, high, content, worst)


def count_covered(reference: Reference, found: Estimates) -> dict[str, list[int]]:
    """Of means, standard deviations and quantiles: how many are within 90 % intervals, and of how many that is known.

    Intervals are those of the estimates' standard errors and the reference's together.
    """
    unit = reference.sd
    pairs = {
        "mean": (found.mean, found.mean_error, reference.mean, reference.mean_error * unit),
        "sd": (found.sd, found.sd_error, reference.sd, reference.sd_error * unit),
    }
    if reference.quantiles is not None and reference.quantile_errors is not None:
        for i, level in enumerate(LEVELS):
            answer = reference.quantiles[i], reference.quantile_errors[i] * unit
            pairs[f"{100 * level:g} %"] = (found.quantiles[i], found.quantile_errors[i], *answer)
    counted = {}
    for name, (value, error, truth, of_truth) in pairs.items():
        with np.errstate(all="ignore"):
            off = np.abs(value - truth) / np.hypot(error, of_truth)
        known = np.isfinite(off)
        if known.any():
            counted[name] = [int((off[known] <= WITHIN).sum()), int(known.sum())]
    return counted


def _largest(names: list[str], errors: np.ndarray, of_reference: np.ndarray) -> Error:
    errors = np.nan_to_num(errors, nan=np.inf)
    beyond = np.maximum(0.0, errors - ALLOWED * np.nan_to_num(of_reference))
    at = int(np.argmax(errors))
    own = None if np.isnan(of_reference[at]) else float(of_reference[at])
    return Error(float(errors[at]), float(beyond.max()), names[at], own)
