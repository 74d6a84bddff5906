"""Reading the folder: data, and the moments that others have published."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from benchmarks.posteriordb.database import Case, make_case
from benchmarks.posteriordb.parts import Params
from benchmarks.yardsticks import bugs, gym

MODELS = bugs.MODELS | gym.MODELS
ERRORS_ALLOWED = 2.0  # published Monte Carlo errors


class Moments(NamedTuple):
    """Of one quantity, each one row of numbers."""

    mean: np.ndarray
    sd: np.ndarray
    mc_error: np.ndarray  # of the mean


class Error(NamedTuple):
    """The largest, and the quantity in which it is."""

    value: float
    quantity: str


class Errors(NamedTuple):
    """Of draws, over all quantities."""

    mean: Error  # in posterior standard deviations, beyond the Monte Carlo errors allowed
    sd: Error  # relative


def _entry(folder: str | Path, name: str) -> tuple[Path, dict[str, Any]]:
    """Which of the two folders, and the answer there."""
    kind = Path(folder) / ("bugs" if name in bugs.MODELS else "gym")
    answers = json.loads((kind / "reference.json").read_text())
    return kind, answers.get("gym", answers)[name.split("-")[0]]


def load(folder: str | Path, name: str) -> Case:
    """The posterior of that name, ready to evaluate."""
    kind, entry = _entry(folder, name)
    if kind.name == "bugs":
        raw = json.loads((kind / "data" / f"{name.split('-')[0]}.json").read_text())
    else:
        with np.load(kind / entry["data"]) as file:
            raw = dict(file)
    return make_case(name, MODELS[name], raw)


def read_reference(folder: str | Path, name: str) -> dict[str, Moments]:
    """The published moments of each quantity, or better ones where those are poor."""
    _, entry = _entry(folder, name)
    return {k: _moments(each) for k, each in (entry["quantities"] | entry.get("better", {})).items()}


def _moments(each: dict[str, Any]) -> Moments:
    mc_error = each.get("mc_error", each.get("se_mean", 0.0))
    return Moments(*(np.atleast_1d(np.float64(values)) for values in (each["mean"], each["sd"], mc_error)))


def compute_quantities(case: Case, draws: Params) -> dict[str, np.ndarray]:
    """The quantities of the reference from draws of the parameters."""
    with jax.enable_x64(True):
        return jax.device_get(jax.jit(jax.vmap(lambda p: MODELS[case.name].quantities(p, case.data)))(draws))


def find_errors(reference: dict[str, Moments], draws: dict[str, np.ndarray]) -> Errors:
    """Errors of the moments of draws of the quantities, each `(n, *shape)`."""
    means, sds = {}, {}
    for quantity, each in reference.items():
        values = draws[quantity].reshape(len(draws[quantity]), -1)
        beyond = np.abs(values.mean(axis=0) - each.mean) - ERRORS_ALLOWED * each.mc_error
        means[quantity] = np.maximum(0.0, beyond) / each.sd
        sds[quantity] = np.abs(values.std(axis=0) / each.sd - 1)
    return Errors(_largest(means), _largest(sds))


def _largest(errors: dict[str, np.ndarray]) -> Error:
    labelled = [
        Error(float(np.nan_to_num(value, nan=np.inf)), quantity + (f"[{i}]" if len(values) > 1 else ""))
        for quantity, values in errors.items()
        for i, value in enumerate(values)
    ]
    return max(labelled)
