"""Where a posterior comes from: what was run, with which versions, on which device. Text only."""

import inspect
import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from typing import Any

import jax
import numpy as np

from bbvi.data.factorized import likelihood_of_rows
from bbvi.distributions import Distribution
from bbvi.models import Model

PACKAGES = ("bbvi", "jax", "jaxlib", "numpyro", "optax", "numpy", "scipy")


@dataclass(frozen=True)
class Provenance:
    """What is needed to run a fit again.

    Fields:
        call: the call of `fit` as Python, with the arguments that were given; arrays and other objects by name only.
        source: Python source of the functions that were given; empty where it cannot be had.
        inputs: what the names in the call stand for, one line each; arrays by dtype and shape.
        versions: of Python and the packages that computed it.
        device: that computed it.
        finished: date and time, UTC, ISO 8601.
        name: of the model, or of the function that is the log density; empty where it has none of its own.
    """

    call: str
    source: str
    inputs: tuple[str, ...]
    versions: dict[str, str]
    device: str
    finished: str
    name: str = ""

    @classmethod
    def of(cls, model: Model, given: Mapping[str, Any]) -> "Provenance":
        """The provenance of a fit of `model` with the further arguments `given`, on JAX's present default device."""
        plain = type(model) is Model
        arguments = [_code(model.logprob, "logprob"), _shapes(model.dim)] if plain else ["model"]
        objects = {"data": model.data, "constraints": model.constraints} if plain else {}
        objects |= dict(given)
        arguments += [f"{name}={_code(value, name)}" for name, value in objects.items() if value is not None]
        inputs = [] if plain else [f"model: {type(model).__name__}"]
        inputs += [*_arrays("data", model.data), *_arrays("init", given.get("init"))]
        device = jax.devices()[0]
        return cls(
            call=f"bbvi.fit({', '.join(arguments)})",
            source="\n\n".join(filter(None, dict.fromkeys(map(_source, _functions(model))))),
            inputs=tuple(inputs),
            versions=dict(package_versions()),
            device=f"{device.platform}: {device.device_kind}, {jax.device_count()} in all",
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            name=_title(model),
        )


@cache
def package_versions() -> dict[str, str]:
    """Of Python and the packages that fits rest on."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def _arrays(name: str, tree: Any) -> Iterator[str]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if hasattr(leaf, "dtype"):
            yield f"{name}{jax.tree_util.keystr(path)}: {leaf.dtype} {np.shape(leaf)}"


def _name(function: Any, otherwise: str) -> str:
    name = getattr(function, "__name__", "")
    return name if name.isidentifier() else otherwise


def _shapes(dim: Any) -> str:
    return repr(jax.tree.map(lambda leaf: leaf if isinstance(leaf, int) else np.shape(leaf), dim))


def _code(value: Any, name: str) -> str:
    """Python for an argument; what has no short code is called by the argument's name."""
    if name in ("data", "init"):
        return name
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key!r}: {_code(item, name)}" for key, item in value.items()) + "}"
    if type(value) in (list, tuple):
        inner = ", ".join(_code(item, name) for item in value)
        return f"[{inner}]" if type(value) is list else f"({inner}{',' * (len(value) == 1)})"
    if type(value).__module__.startswith("numpyro.distributions.constraints"):
        return _constraint(value)
    if isinstance(value, type):
        return f"bbvi.{value.__name__}"
    if is_dataclass(value) and type(value).__module__.startswith("bbvi.") and not isinstance(value, Distribution):
        changed = [field for field in fields(value) if getattr(value, field.name) != field.default]
        inner = ", ".join(f"{field.name}={_code(getattr(value, field.name), field.name)}" for field in changed)
        return f"bbvi.{type(value).__name__}({inner})"
    if value is None or isinstance(value, str | bool | int | float):
        return repr(value)
    return _name(value, name)


def _constraint(value: Any) -> str:
    from numpyro.distributions import constraints

    public = {name: item for name, item in vars(constraints).items() if not name.startswith("_")}
    for name, item in public.items():
        if item is value:
            return f"constraints.{name}"
    for name, item in public.items():
        if item is type(value) and name.islower():
            return f"constraints.{name}{repr(value)[repr(value).index('(') :]}"
    return repr(value)


def _functions(value: Any, depth: int = 3) -> Iterator[Any]:
    """The functions that a user wrote, among what a model holds."""
    if inspect.isfunction(value):
        if not (value.__module__ or "").startswith(("bbvi.", "numpyro.", "jax.", "pymc.")):
            yield value
    elif is_dataclass(value) and depth:
        for field in fields(value):
            yield from _functions(getattr(value, field.name), depth - 1)


def _title(model: Model) -> str:
    own: Any = getattr(getattr(model, "model", None), "name", "")  # PyMC has a name, Stan a method
    if title := str(own() if callable(own) else own).removesuffix("_model"):
        return title
    parts = likelihood_of_rows(model.logprob) is not None  # neither of which is the model
    return "" if parts else next((_name(function, "") for function in _functions(model)), "")


def _source(function: Any) -> str:
    try:
        return inspect.cleandoc("\n" + inspect.getsource(function))
    except (OSError, TypeError):  # typed at a prompt, or made by a program
        return ""
