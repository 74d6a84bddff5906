"""A posterior in one file: a zip of NumPy arrays (`.npz`) and a JSON header. Reading it never runs code."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bbvi.diagnostics.verdict import Diagnosis
from bbvi.distributions.reading import read_distribution
from bbvi.draws.importance import Draws
from bbvi.models.provenance import Provenance
from bbvi.outcome import ChainSummary, Cost, History, StageSummary, Status, Stop, Value
from bbvi.record import Record
from bbvi.runtime.precision import scope
from bbvi.runtime.storage import read_arrays, read_path, write_arrays
from bbvi.target.parameters import Parameters

FORMAT = "bbvi posterior 6"
READABLE = ("bbvi posterior 5", FORMAT)  # the former knows of no chains
MISFITS = (ValueError, LookupError, TypeError, AttributeError)  # of parts that do not fit together


def save(posterior: Record, path: str | Path) -> None:
    """Write a posterior to `path`; a file that was there is replaced only once the new one is complete."""
    path = read_path("path", path)
    arrays = {f"q.{name}": leaf for name, leaf in posterior.distribution.leaves().items()}
    arrays |= {f"history.{name}": row for name, row in posterior.history._asdict().items()}
    arrays |= {f"pool.{name}": column for name, column in posterior.pool._asdict().items()}
    arrays |= {f"observed.{name}": value for name, value in posterior.observed_data.items()}
    parameters, bounds = posterior.parameters, []
    header = {
        "format": FORMAT,
        "family": posterior.distribution.name,
        "method": posterior.method,
        "double": posterior.double,
        "cost": posterior.cost._asdict(),
        "origin": None if posterior.origin is None else asdict(posterior.origin),
        "ladder": [stage._asdict() | {"status": stage.status.name} for stage in posterior.ladder],
        "diagnosis": _diagnosis_to_json(posterior.diagnosis),
        "structure": _structure_to_json(jax.tree.unflatten(parameters.treedef, range(len(parameters.names)))),
        "names": parameters.names,
        "shapes": parameters.shapes,
        "free_shapes": parameters.free_shapes,
        "constraints": [_constraint_to_json(constraint, bounds) for constraint in parameters.constraints],
    }
    arrays |= {f"bound.{i}": bound for i, bound in enumerate(bounds)}
    arrays |= {f"centre.{i}": centre for i, centre in enumerate(parameters.centres or ())}
    try:
        write_arrays(path, {"header": np.array(json.dumps(header)), **arrays}, compress=True)
    except OSError as error:
        raise OSError(f"path={str(path)!r} cannot be written: {error}. Make room, or give another path.") from error


@contextmanager
def damaged(path: Path) -> Generator[None]:
    """Inside, what does not fit together is said of the file.

    Raises:
        ValueError: naming the file.
    """
    try:
        yield
    except MISFITS as error:
        raise ValueError(f"path={str(path)!r} is no bbvi posterior, or is damaged: {error}") from error


def read(path: Path) -> dict[str, Any]:
    """The fields of a posterior, by name; to be called inside `damaged`."""
    arrays = read_arrays(path)
    header = json.loads(str(arrays["header"]))
    if header["format"] not in READABLE:
        raise ValueError(f"its format is {header['format']!r}, and this version reads {' and '.join(READABLE)}")
    return _read(header, arrays)


def _read(header: dict[str, Any], arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    def group(prefix: str) -> dict[str, np.ndarray]:
        return {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}

    for name, array in arrays.items():
        if array.dtype.kind not in _kinds(name):
            raise ValueError(f"{name} holds {array.dtype}")
    bounds = [arrays[f"bound.{i}"] for i in range(len(group("bound.")))]
    parameters = Parameters(
        tuple(_constraint_from_json(item, bounds) for item in header["constraints"]),
        jax.tree.structure(_structure_from_json(header["structure"])),
        tuple(map(tuple, header["shapes"])),
        tuple(map(tuple, header["free_shapes"])),
        tuple(header["names"]),
        tuple(arrays[f"centre.{i}"] for i in range(len(group("centre.")))) or None,
    )
    distribution = read_distribution(header["family"], dict(group("q.")))
    pool, history = Draws(**group("pool.")), History(**group("history."))
    with scope(header["double"]):
        shape = jax.eval_shape(distribution.log_prob, pool.x).shape
    fits = (
        distribution.dim == parameters.dim
        and parameters.treedef.num_leaves == len(parameters.names) == len(parameters.shapes)
        and pool.x.shape == (len(pool), parameters.dim)
        and {column.shape for column in pool[1:]} == {shape}
        and len({column.shape for column in history}) == 1
        and all(np.isfinite(count).all() for count in history[2:])
    )
    if not fits:
        raise ValueError("its parts do not fit together")
    return {
        "distribution": distribution,
        "diagnosis": _diagnosis_from_json(header["diagnosis"]),
        "history": history,
        "cost": Cost(**header["cost"]),
        "method": header["method"],
        "parameters": parameters,
        "observed_data": group("observed."),
        "pool": pool,
        "double": header["double"],
        "ladder": tuple(map(_stage_from_json, header["ladder"])),
        "origin": _provenance_from_json(header["origin"]),
    }


def _kinds(name: str) -> str:
    """The kinds of dtypes that the array of this name may have."""
    group = name.split(".")[0]
    if name == "pool.from_q":
        return "b"
    return {"q": "fiu", "pool": "f", "history": "fiu", "centre": "f"}.get(group, "biufcSU")


def _provenance_from_json(items: dict[str, Any] | None) -> Provenance | None:
    return None if items is None else Provenance(**_read_fields(items, {"inputs": tuple}))


def _stage_from_json(items: dict[str, Any]) -> StageSummary:
    return StageSummary(**_read_fields(items, {"status": Status.__getitem__, "reasons": tuple}))


def _diagnosis_to_json(diagnosis: Diagnosis) -> dict[str, Any]:
    items = {field.name: getattr(diagnosis, field.name) for field in fields(diagnosis)}
    chains = diagnosis.chains and diagnosis.chains._asdict() | {"status": diagnosis.chains.status.name}
    return items | {"status": diagnosis.status.name, "stop": diagnosis.stop.name, "chains": chains}


def _diagnosis_from_json(items: dict[str, Any]) -> Diagnosis:
    read: dict[str, Any] = {"status": Status.__getitem__, "stop": Stop.__getitem__, "reasons": tuple, "advice": tuple}
    read |= {name: lambda pair: Value(*pair) for name in ("elbo", "log_evidence")}
    read |= {"chains": lambda each: each and ChainSummary(**_read_fields(each, {"status": Status.__getitem__}))}
    return Diagnosis(**_read_fields(items, read))


def _read_fields(items: dict[str, Any], read: dict[str, Any]) -> dict[str, Any]:
    return {name: read.get(name, lambda item: item)(item) for name, item in items.items()}


def _structure_to_json(tree: Any) -> Any:
    if type(tree) is dict:
        if not all(isinstance(key, str | int) for key in tree):
            raise TypeError("Only str and int keys of dicts in the parameters' structure can be stored.")
        return {"dict": [[key, _structure_to_json(child)] for key, child in tree.items()]}
    if type(tree) in (list, tuple):
        return {type(tree).__name__: [_structure_to_json(child) for child in tree]}
    if tree is None or isinstance(tree, int):
        return tree
    raise TypeError(
        f"The parameters' structure holds a {type(tree).__name__}, which cannot be stored without code. Use dicts, "
        "lists and tuples in dim, or store to_arviz() instead."
    )


def _structure_from_json(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    ((kind, children),) = item.items()
    if kind == "dict":
        return {key: _structure_from_json(child) for key, child in children}
    return {"list": list, "tuple": tuple}[kind](_structure_from_json(child) for child in children)


def _constraint_to_json(constraint: Any, bounds: list[np.ndarray]) -> Any:
    """A constraint as its class and fields; arrays among them go to `bounds`."""
    if constraint is None:
        return None
    children, (names, settings) = constraint.tree_flatten()
    items = []
    for child in children:
        if hasattr(child, "tree_flatten"):
            items.append(_constraint_to_json(child, bounds))
        else:
            items.append(len(bounds))
            bounds.append(np.asarray(child))
    return {"class": type(constraint).__name__, "names": names, "children": items, "settings": settings}


def _constraint_from_json(item: Any, bounds: list[np.ndarray]) -> Any:
    if item is None:
        return None
    from numpyro.distributions import constraints

    classes = [value for value in vars(constraints).values() if isinstance(value, type)]
    known = {each.__name__: each for each in classes if issubclass(each, constraints.Constraint)}
    children = [_constraint_from_json(c, bounds) if isinstance(c, dict) else bounds[c] for c in item["children"]]
    return known[item["class"]].tree_unflatten((tuple(item["names"]), item["settings"]), children)
