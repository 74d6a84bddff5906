"""A posterior as an arviz DataTree."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bbvi.data.factorized import likelihood_of_rows
from bbvi.record import Record
from bbvi.runtime.precision import scope

RESERVED = ("chain", "draw", "sample")  # dimensions of arviz
UNASKED_NUMBERS = 2**25  # numbers in a log_likelihood group that nobody asked for
Groups = dict[str, dict[str, np.ndarray]]


class Labels(NamedTuple):
    """Names of dimensions, and the labels along them, as `arviz_base.from_dict` takes them."""

    coords: Mapping[str, Sequence[Any]] = {}
    dims: Mapping[str, Sequence[str]] = {}


def to_arviz(
    posterior: Record,
    num_samples: int,
    seed: int,
    resample: bool | None,
    labels: Labels,
    log_likelihood: bool | None,
) -> Any:
    """See `Posterior.to_arviz`."""
    draws, resampled, chains = posterior.draw_steps(num_samples, seed=seed, resample=resample)
    groups: Groups = {
        "posterior": posterior.named(posterior.structure(draws.x, seed)),
        "sample_stats": {"log_p": draws.log_p, "log_q": draws.log_q},
    }
    found = None if log_likelihood is False else _log_likelihood(posterior, draws.x, must=log_likelihood is True)
    if found:
        groups["log_likelihood"] = found
    names = {path(name) for name in (*groups["posterior"], *posterior.observed_data, *(found or {}))}
    if unknown := [name for name in labels.dims if path(name) not in names]:
        raise ValueError(f"dims: there is no variable {unknown[0]!r}. There are {', '.join(sorted(names))}.")
    return _tree(posterior, groups, resampled, labels, chains)


def as_draws(posterior: Record, values: Mapping[str, np.ndarray]) -> Any:
    """A DataTree whose draws are the rows of named arrays `(n, *shape)`."""
    return _tree(posterior, {"posterior": dict(values)}, False, Labels(), 1)


def predict(posterior: Record, args: Any, kwargs: Any, num_samples: int, seed: int, resample: bool | None) -> Any:
    """See `Posterior.predict`."""
    if posterior.model is None:
        raise ValueError("predict needs the model: bbvi.load(path, logprob=model).")
    tree = to_arviz(posterior, num_samples, seed, resample, Labels(), None)
    draws, resampled, chains = posterior.draw_steps(num_samples, seed=seed, resample=resample)
    with scope(posterior.double):
        values = posterior.parameters.structure(draws.x)
        made = posterior.model.predict(values, seed, *args, **kwargs)
    new = bool(args or kwargs)
    groups = {"predictions" if new else "posterior_predictive": made}
    sizes = {name: range(np.ndim(value) - 1) for name, value in made.items() if new}  # other data, other dimensions
    dims = {name: [f"{name}_dim_{i}" for i in axes] for name, axes in sizes.items()}
    made_tree = _tree(posterior, groups, resampled, Labels(dims=dims), chains)
    for name in groups:
        tree[name] = made_tree[name]
    return tree


def _log_likelihood(posterior: Record, xs: np.ndarray, must: bool) -> dict[str, np.ndarray] | None:
    model = posterior.model
    if model is None or (not must and len(xs) * num_observations(posterior) > UNASKED_NUMBERS):
        found = None
    else:
        with scope(posterior.double):
            found = model.log_likelihood(posterior.parameters.structure(xs))
    if must and not found:
        raise ValueError(
            "The log density does not say which part of it is the likelihood of which observation. Fit a model, or a "
            "bbvi.Factorized log density, and give it to load()."
        )
    return found


def num_observations(posterior: Record) -> int:
    """How many log likelihoods there are at one draw, where the model says them."""
    if posterior.problem is not None and likelihood_of_rows(posterior.problem.logprob):
        return posterior.problem.num_rows or 0
    return sum(np.size(value) for value in posterior.observed_data.values())


def path(name: str) -> str:
    """The name of a variable in a DataTree, which keeps slashes for paths, and some names for its own dimensions."""
    return f"{name}_" if name in RESERVED else name.replace("/", ".")


def _tree(
    posterior: Record,
    groups: Groups,
    resampled: bool,
    labels: Labels,
    chains: int,
) -> Any:
    import arviz_base

    by_chain = lambda value: np.reshape(value, (chains, -1, *np.shape(value)[1:]))
    found = {group: {path(name): by_chain(value) for name, value in each.items()} for group, each in groups.items()}
    if posterior.observed_data:
        found["observed_data"] = {path(name): value for name, value in posterior.observed_data.items()}
    model = posterior.model
    known = ({}, {}) if model is None else (model.coords, model.dims)
    variables = {name for each in found.values() for name in each}
    # In xarray a dimension and a variable with axes of its own cannot have one name.
    dimension = lambda name: f"{path(name)}_dim" if name in variables else path(name)
    own = {group: found.pop(group) for group in ("sample_stats",) if group in found}  # names that a model may have too
    with warnings.catch_warnings():  # there may be more chains than draws of each
        warnings.filterwarnings("ignore", message="Found chain dimension to be longer")
        tree = arviz_base.from_dict(
            found,
            coords={dimension(name): each for name, each in {**known[0], **labels.coords}.items()},
            dims={path(name): list(map(dimension, each)) for name, each in {**known[1], **labels.dims}.items()},
        )
        for group in own:
            tree[group] = arviz_base.from_dict(own)[group]
    diagnosis = posterior.diagnosis
    tree.attrs.update(
        inference_library="bbvi",
        method=posterior.method,
        status=diagnosis.status.name.lower(),
        k_hat=diagnosis.k_hat,
        resampling_k_hat=diagnosis.resampling_k_hat,
        elbo=diagnosis.elbo.value,
        importance_resampled=int(resampled),
    )
    return tree
