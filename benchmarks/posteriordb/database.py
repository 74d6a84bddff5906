"""Reading a folder in the layout of posteriordb: data, and reference draws where there are some."""

import json
import re
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpyro.distributions import constraints

from benchmarks.posteriordb.models import MODELS
from benchmarks.posteriordb.parts import Data, Logprob, Model, Params


class Case(NamedTuple):
    """A posterior: its log density, the parameters it takes and the data it conditions on."""

    name: str
    logprob: Logprob
    shapes: Any  # by name, or the length of one vector
    constraints: Any  # by name; None where there are none
    data: Any  # by name; None where there are none


def _database(folder: str | Path) -> Path:
    return Path(folder) / "posterior_database"


def _entry(folder: str | Path, name: str) -> dict[str, Any]:
    return json.loads((_database(folder) / "posteriors" / f"{name}.json").read_text())


def _unzip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(archive.namelist()[0]))


def _constraint(name: str, *args: float) -> Any:
    constraint = getattr(constraints, name)
    return constraint(*args) if args else constraint


def names(folder: str | Path) -> list[str]:
    """Names of the posteriors in the folder that have a port here."""
    found = sorted(path.stem for path in (_database(folder) / "posteriors").glob("*.json"))
    return [name for name in found if _entry(folder, name)["model_name"] in MODELS]


def load(folder: str | Path, name: str) -> Case:
    """The posterior of that name, ready to evaluate."""
    entry = _entry(folder, name)
    model = MODELS[entry["model_name"]]
    return make_case(name, model, _unzip(_database(folder) / "data" / "data" / f"{entry['data_name']}.json.zip"))


def make_case(name: str, model: Model, raw: Data) -> Case:
    """A model with its data, as they are in a file."""
    raw = {key: np.asarray(value) if isinstance(value, list) else value for key, value in raw.items()}
    shapes = {k: tuple(raw[n] if isinstance(n, str) else n for n in v.shape) for k, v in model.params.items()}
    constrained = {k: _constraint(*v.constraint) for k, v in model.params.items() if v.constraint}
    return Case(name, model.logprob, shapes, constrained, model.prepare(raw))


def has_draws(folder: str | Path, name: str) -> bool:
    """Whether there are reference draws."""
    return _entry(folder, name)["reference_posterior_name"] is not None


def reference_draws(folder: str | Path, name: str) -> dict[str, np.ndarray] | None:
    """Reference draws of each quantity on the constrained scale, (draws, *shape), chain after chain."""
    reference = _entry(folder, name)["reference_posterior_name"]
    if reference is None:
        return None
    chains = _unzip(_database(folder) / "reference_posteriors" / "draws" / "draws" / f"{reference}.json.zip")
    elements: dict[str, dict[tuple[int, ...], np.ndarray]] = {}
    for label in chains[0]:
        quantity, index = re.fullmatch(r"(\w+)(?:\[([\d,]+)\])?", label).groups()
        position = tuple(int(i) - 1 for i in index.split(",")) if index else ()
        elements.setdefault(quantity, {})[position] = np.concatenate([chain[label] for chain in chains])
    return {quantity: _assemble(parts) for quantity, parts in elements.items()}


def _assemble(parts: dict[tuple[int, ...], np.ndarray]) -> np.ndarray:
    """Array of draws from those of its elements."""
    shape = tuple(int(n) + 1 for n in np.max(list(parts), axis=0))
    array = np.empty((len(next(iter(parts.values()))), *shape))
    for position, draws in parts.items():
        array[:, *position] = draws
    return array


def quantities(case: Case, params: Params) -> Params:
    """What the reference draws hold, from one draw of the parameters; for most models the parameters."""
    return MODELS[case.name.rsplit("-", 1)[-1]].quantities(params, case.data)
