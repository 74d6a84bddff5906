"""Stan models, compiled, through BridgeStan."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from bbvi.models.base import Model, Named
from bbvi.models.external import External
from bbvi.runtime.types import Array
from bbvi.target.parameters import Parameters

TRIED = 10  # points that Stan may reject before the model is refused
LOG_LIKELIHOOD = "log_lik"  # the generated quantity that by convention holds the pointwise log likelihood


def from_stan(model: Any, data: Mapping[str, Any] | str | None = None) -> Model:
    """A Stan model, to be given to `fit`. Needs `bbvi[stan]`.

    Arguments:
        model: path of a `.stan` file or of what BridgeStan compiled of one; or an object with the methods of
            `bridgestan.StanModel`, which then already has its data.
        data: of the model, as a dict, as JSON, or as the path of a `.json` file.

    Returns:
        A model that `fit` takes in place of `logprob` and `dim`. The posterior has the parameters by their names, and
        transformed parameters and generated quantities among them. A generated quantity `log_lik` becomes the
        log_likelihood group of `to_arviz`. `posterior.log_prob` takes Stan's unconstrained parameters.

    Raises:
        ImportError: when a path is given and BridgeStan is not installed.
        ValueError: when the model has no parameters, or Stan rejects all of ten random points; with its message.

    Stan runs on the host, on one core. Points at which it rejects its parameters count as points without density.
    Hessian-vector products are BridgeStan's: finite differences of gradients, unless the model was compiled with
    `BRIDGESTAN_AD_HESSIAN=true`.

    Reference: Roualdes, Ward, Carpenter, Seyboldt and Axen 2023, BridgeStan, JOSS 8(87), 5236.
    """
    if not hasattr(model, "log_density_gradient"):
        try:
            from bridgestan import StanModel
        except ImportError as error:
            raise ImportError('from_stan needs BridgeStan: pip install "bbvi[stan]".') from error
        model = StanModel(model, data)
    elif data is not None:
        raise ValueError("data: a StanModel has its own. Leave it out, or give the path of the model instead.")
    if model.param_unc_num() == 0:
        raise ValueError("The Stan model has no parameters: nothing to infer.")
    functions = _Functions(model, _sizes(model.param_unc_names()))
    _try(model)
    return StanModelOf(
        logprob=External(functions.value, functions.gradient, functions.hvp, functions.value_and_gradient),
        dim={name: (size,) if size else () for name, size in functions.sizes.items()},
        model=model,
    )


def _sizes(names: list[str]) -> dict[str, int]:
    """How many numbers belong to each of the unconstrained parameters, 0 for a scalar, in Stan's order."""
    groups = itertools.groupby(names, key=_variable)
    counts = {name: list(members) for name, members in groups}
    return {name: 0 if members == [name] else len(members) for name, members in counts.items()}


def _try(model: Any) -> None:
    rng, reason = np.random.default_rng(0), ""
    for _ in range(TRIED):
        try:
            model.log_density_gradient(rng.uniform(-2, 2, model.param_unc_num()))
            return
        except RuntimeError as error:
            reason = str(error)
    raise ValueError(f"Stan rejects each of {TRIED} random points, the last one because: {reason}")


@dataclass(frozen=True, eq=False)
class _Functions:
    """The log density of a Stan model, with its derivatives, on unconstrained parameters by name."""

    model: Any
    sizes: dict[str, int]

    def _flat(self, values: Mapping[str, Array]) -> np.ndarray:
        return np.concatenate([np.ravel(values[name]) for name in self.sizes]).astype(float)

    def _named(self, x: np.ndarray) -> dict[str, np.ndarray]:
        ends = np.cumsum([max(size, 1) for size in self.sizes.values()])[:-1]
        pieces = zip(self.sizes.items(), np.split(x, ends), strict=True)
        return {name: piece if size else piece[0] for (name, size), piece in pieces}

    def value(self, values: Mapping[str, Array]) -> float:
        try:
            return self.model.log_density(self._flat(values), propto=False)
        except RuntimeError:  # how BridgeStan passes on that Stan rejects a point
            return -np.inf

    def value_and_gradient(self, values: Mapping[str, Array]) -> tuple[float, Any]:
        x = self._flat(values)
        try:
            value, gradient = self.model.log_density_gradient(x, propto=False)
        except RuntimeError:
            return -np.inf, self._named(np.zeros_like(x))
        return value, self._named(gradient)

    def gradient(self, values: Mapping[str, Array]) -> Any:
        return self.value_and_gradient(values)[1]

    def hvp(self, values: Mapping[str, Array], vectors: Mapping[str, Array]) -> Any:
        x, v = self._flat(values), self._flat(vectors)
        try:
            return self._named(self.model.log_density_hessian_vector_product(x, v, propto=False)[1])
        except RuntimeError:
            return self._named(np.full_like(x, np.nan))


@dataclass(frozen=True, eq=False, kw_only=True)
class StanModelOf(Model):
    """What `from_stan` returns.

    Fields:
        model: the `bridgestan.StanModel`.
    """

    model: Any

    def variables(self, values: Any) -> Any:
        return self._constrained(values)

    def named(self, parameters: Parameters, values: Any) -> dict[str, Array]:
        return values

    def derived(self, values: Any, seed: int) -> Named:
        known = _layout(self.model.param_names())
        everything = self._constrained(values, include_tp=True, include_gq=True, rng=self.model.new_rng(seed))
        return {name: value for name, value in everything.items() if name not in known and name != LOG_LIKELIHOOD}

    def log_likelihood(self, values: Any) -> Named | None:
        if LOG_LIKELIHOOD not in _layout(self.model.param_names(include_tp=True, include_gq=True)):
            return None
        everything = self._constrained(values, include_tp=True, include_gq=True, rng=self.model.new_rng(0))
        return {LOG_LIKELIHOOD: everything[LOG_LIKELIHOOD]}

    def _constrained(self, values: Any, **options: Any) -> Named:
        flat = np.concatenate([np.reshape(values[name], (len(values[name]), -1)) for name in self.dim], axis=1)
        rows = np.stack([self.model.param_constrain(row, **options) for row in np.asarray(flat, float)])
        options.pop("rng", None)
        layout = _layout(self.model.param_names(**options))
        return {name: _arrange(rows[:, columns], indices) for name, (columns, indices) in layout.items()}


def _layout(names: list[str]) -> dict[str, tuple[slice, np.ndarray]]:
    """For each variable its columns, and the index `(columns, axes)` of each of them in the variable."""
    layout, start = {}, 0
    for name, members in itertools.groupby(names, key=_variable):
        indices = [member.removeprefix(name).split(".")[1:] for member in members]
        layout[name] = slice(start, start + len(indices)), np.array(indices, int).reshape(len(indices), -1) - 1
        start += len(indices)
    return layout


def _variable(name: str) -> str:
    """`a` of `a.2.3`; the names of parts of tuples and of complex numbers, as in `z.1.real`, stay as they are."""
    variable, *indices = name.split(".")
    return variable if all(map(str.isdigit, indices)) else name


def _arrange(columns: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Columns `(n, size)` as arrays `(n, *shape)`; Stan lists them with the first index moving fastest."""
    shape = tuple(indices.max(axis=0) + 1)
    if not shape:
        return columns[:, 0]
    arranged = np.empty((len(columns), *shape))
    arranged[(slice(None), *indices.T)] = columns
    return arranged
