"""Reading `fit`'s arguments: names become objects, and what is wrong is said before anything compiles."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi import algorithms, estimators
from bbvi.algorithms import Algorithm
from bbvi.distributions import Distribution, Family
from bbvi.distributions.location_scale import structure
from bbvi.distributions.reading import FAMILIES
from bbvi.estimators import Estimator
from bbvi.fitting.schedule import first_method
from bbvi.models import Model
from bbvi.runtime.spelling import nearest
from bbvi.target.parameters import Parameters
from bbvi.target.reading import check_keys


def _by_name(package: Any, base: type) -> dict[str, Any]:
    exported = [getattr(package, name) for name in package.__all__]
    return {each.name: each for each in exported if issubclass(each, base) and each is not base}


ESTIMATORS: dict[str, type[Estimator]] = _by_name(estimators, Estimator)
METHODS: dict[str, Any] = _by_name(algorithms, Algorithm)


def choose(argument: str, name: str, table: Mapping[str, Any]) -> Any:
    """The entry called `name`, or a ValueError that lists the names."""
    if not isinstance(name, str) or name not in table:
        raise ValueError(f"{argument}={name!r} is unknown. {nearest(name, table)}")
    return table[name]


def read_model(logprob: Any, dim: Any, constraints: Any, data: Any) -> Model:
    """The model that is to be fitted, made of a log density where it is given as such."""
    if isinstance(logprob, Model):
        given = {"dim": dim, "constraints": constraints, "data": data}
        if extra := [name for name, value in given.items() if value is not None]:
            raise ValueError(f"{', '.join(extra)}: a model brings its own. Leave this out.")
        return logprob
    if not callable(logprob):
        raise TypeError(f"logprob={logprob!r} must be a function of the parameters that returns a scalar log density.")
    if dim is None:
        raise TypeError("dim is missing: an int, or a pytree of shapes, of the parameters that logprob receives.")
    check_keys("data", data)
    return Model(logprob=logprob, dim=dim, constraints=constraints, data=data)


def read_seed(seed: Any) -> int:
    """A non-negative integer, or an error."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed={seed!r} must be a non-negative integer.")
    return int(seed)


def read_callbacks(callbacks: Any) -> tuple[Any, ...]:
    """Functions of a Progress, as a tuple."""
    try:
        found = tuple(callbacks)
    except TypeError as error:
        raise TypeError(f"callbacks={callbacks!r} must be a list of functions of a Progress.") from error
    if not all(map(callable, found)):
        raise TypeError(f"callbacks={found!r} must be functions of a Progress.")
    return found


def read_algorithm(method: Any, family: Any, dim: int, **given: Any) -> Algorithm[Any]:
    """The algorithm that `method` and the hyper-parameters given (those that are not None) describe.

    For "auto" it is the first one to try: the default method of the family, if one is named.
    """
    options = {name: value for name, value in given.items() if value is not None}
    if isinstance(method, Algorithm):
        if options:
            raise ValueError(
                f"method={method!r} already has its hyper-parameters. Give {', '.join(options)} to it, not to fit."
            )
        return method
    if not isinstance(method, str):
        raise TypeError(f"method={method!r} must be a name or an Algorithm. {nearest('', METHODS)}")
    if isinstance(options.get("estimator"), str):
        options["estimator"] = choose("estimator", options["estimator"], ESTIMATORS)()
    for name in ("num_draws", "batch_size"):
        if name in options:
            options[name] = positive(name, options[name])
    if method == "auto" and (family is not None or options):
        family = choose("family", family, FAMILIES) if isinstance(family, str) else family
        method = getattr(family, "default_method", "advi")
    elif method == "auto":
        method = first_method(dim)
    chosen = choose("method", method, {"auto": None, **METHODS})
    known = [field.name for field in fields(chosen)]
    for name, value in options.items():
        if name not in known:
            able = [other for other, each in METHODS.items() if name in (field.name for field in fields(each))]
            raise ValueError(f"{name}={value!r} means nothing to method={method!r}. Leave it out, or use {able}.")
    return chosen(**options)


def read_family(family: Any, init: Any, dim: int, algorithm: Algorithm[Any]) -> Distribution:
    """A member of the family, for its structure."""
    needs = algorithm.needs(dim)
    fits = lambda q: needs.families is None or any(each.holds(q) for each in needs.families)
    if family is None and isinstance(init, Distribution) and fits(init):
        dtype = jax.dtypes.canonicalize_dtype(float)
        as_float = lambda array: array.astype(dtype) if np.issubdtype(array.dtype, np.inexact) else array
        return jax.tree.map(lambda leaf: as_float(np.asarray(leaf)), init)
    if family is None:
        family = needs.family
    if isinstance(family, str):
        family = choose("family", family, FAMILIES)
    if isinstance(family, Family) or (isinstance(family, type) and issubclass(family, Distribution)):
        family = structure(family, dim)
    if not isinstance(family, Distribution):
        raise TypeError(
            f"family={family!r} must be a name, a family, a Distribution or a class of them. {nearest('', FAMILIES)}"
        )
    if family.dim != dim:
        raise ValueError(f"family has dim {family.dim}, but the parameters have {dim} free coordinates.")
    if not fits(family):
        names = ", ".join(repr(each.name) for each in needs.families or ())
        raise ValueError(f"method={algorithm.name!r} fits the families {names}, not {family.name!r}.")
    return family


def read_latents(latents: Any, parameters: Parameters, method: str | None) -> tuple[str, ...] | None:
    """Names of parameters to be integrated out, or None."""
    if latents is None:
        return None
    if method not in ("auto", "nested_laplace"):
        raise ValueError("latents are for method='auto' or 'nested_laplace' without further options: leave these out.")
    if isinstance(latents, str) or not all(isinstance(name, str) for name in latents):
        raise TypeError(f"latents={latents!r} must be a list of names of parameters.")
    for name in latents:
        choose("latents", name, dict.fromkeys(parameters.names))
    return tuple(latents)


def read_init(init: Any, parameters: Parameters) -> np.ndarray | None:
    """The flat, unconstrained vector `(dim,)` of a starting point, or None for no such point."""
    if init is None:
        return None
    try:
        leaves = [np.asarray(leaf, float) for leaf in parameters.treedef.flatten_up_to(init)]
    except (ValueError, TypeError) as error:
        raise ValueError(f"init must have the structure of dim, {parameters.treedef}: {error}") from error
    for name, leaf, shape in zip(parameters.names, leaves, parameters.shapes, strict=True):
        if leaf.shape != shape:
            raise ValueError(f"init: {name!r} has shape {leaf.shape}, but dim says {shape}.")
    x = np.asarray(parameters.unconstrain([jnp.asarray(leaf) for leaf in leaves])[0])
    if not np.isfinite(x).all():
        raise ValueError("init lies on or outside the bounds of its constraints. Give a point inside.")
    return x


def positive(argument: str, value: Any) -> int:
    """A positive integer, or an error."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{argument}={value!r} must be an integer.")
    if value < 1:
        raise ValueError(f"{argument}={value!r} must be positive.")
    return int(value)
