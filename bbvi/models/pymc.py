"""PyMC models, through PyMC's own translation to JAX."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import jax
import numpy as np

from bbvi.models.base import Model, Named
from bbvi.runtime.compiling import program
from bbvi.runtime.precision import lenient_promotion
from bbvi.runtime.spelling import nearest
from bbvi.runtime.types import Array
from bbvi.target.parameters import Parameters


def from_pymc(model: Any) -> Model:
    """A PyMC model, to be given to `fit`. Needs `bbvi[pymc]`.

    Arguments:
        model: a `pymc.Model` whose free variables are continuous.

    Returns:
        A model that `fit` takes in place of `logprob` and `dim`. The posterior has the free variables by their names,
        with deterministic ones among them, and their dims and coords. `posterior.log_prob` takes PyMC's unconstrained
        value variables, such as `sigma_log__`.

    Raises:
        ImportError: when PyMC is not installed.
        TypeError, ValueError: when it is no model, has nothing to infer, or discrete free variables, which it names.
    """
    try:
        pymc: Any = import_module("pymc")
        get_jaxified_graph = import_module("pymc.sampling.jax").get_jaxified_graph
    except ImportError as error:
        raise ImportError('from_pymc needs PyMC: pip install "bbvi[pymc]".') from error
    if not isinstance(model, pymc.Model):
        raise TypeError(f"model={model!r} must be a pymc.Model.")
    discrete = [variable.name for variable in model.free_RVs if variable.dtype.startswith(("int", "uint", "bool"))]
    if discrete:
        raise ValueError(
            f"The variables {', '.join(discrete)} are discrete, and have no gradient. Sum them out, as pymc.Mixture "
            "and pymc_extras.marginalize do."
        )
    if not model.free_RVs:
        raise ValueError("The model has no free variable: nothing to infer.")
    inputs = model.value_vars
    start = model.initial_point()
    outputs = {v.name: v for v in model.unobserved_value_vars}
    variables, derived = ([v.name for v in group] for group in (model.free_RVs, model.deterministics))
    observed = {rv.name: np.asarray(model.rvs_to_values[rv].eval()) for rv in model.observed_RVs}
    graph = lambda wanted: _Graph(get_jaxified_graph(inputs=inputs, outputs=wanted), tuple(v.name for v in inputs))
    return PyMCModel(
        logprob=_Scalar(graph([model.logp()])),
        dim={v.name: np.shape(start[v.name]) for v in inputs},
        observed=observed,
        coords={name: list(labels) for name, labels in model.coords.items() if labels is not None},
        dims={name: list(dims) for name, dims in model.named_vars_to_dims.items() if None not in dims},
        model=model,
        graphs={
            "variables": _Named(graph([outputs[name] for name in variables]), tuple(variables)),
            "derived": _Named(graph([outputs[name] for name in derived]), tuple(derived)),
            "log_likelihood": _Named(graph(model.logp(model.observed_RVs, sum=False)), tuple(observed)),
        },
    )


@dataclass(frozen=True, eq=False)
class _Graph:
    """A PyTensor graph as a JAX function of the value variables by name."""

    function: Callable[..., Sequence[Array]]
    inputs: tuple[str, ...]

    def __call__(self, values: dict[str, Array]) -> Sequence[Array]:
        with lenient_promotion():
            return self.function(*(values[name] for name in self.inputs))


@dataclass(frozen=True, eq=False)
class _Scalar:
    graph: _Graph

    def __call__(self, values: dict[str, Array]) -> Array:
        return self.graph(values)[0]


@dataclass(frozen=True, eq=False)
class _Named:
    """Several outputs by name, for many draws."""

    graph: _Graph
    names: tuple[str, ...]

    def __call__(self, values: dict[str, np.ndarray]) -> Named:
        if not self.names:
            return {}
        found = program(jax.vmap(self.graph))(values)
        return {name: np.asarray(value) for name, value in zip(self.names, found, strict=True)}


@dataclass(frozen=True, eq=False, kw_only=True)
class PyMCModel(Model):
    """What `from_pymc` returns.

    Fields:
        model: the `pymc.Model`.
        graphs: functions of draws.
    """

    model: Any
    graphs: dict[str, _Named]

    def variables(self, values: Any) -> Any:
        return self.graphs["variables"](values)

    def named(self, parameters: Parameters, values: Any) -> dict[str, Array]:
        return values

    def derived(self, values: Any, seed: int) -> Named:
        return self.graphs["derived"](values)

    def prior(self, seed: int, num: int) -> Any:
        make = import_module("pymc.initial_point").make_initial_point_fn
        rng = np.random.default_rng(seed)
        try:
            draw = make(model=self.model, default_strategy="prior", return_transformed=True)
            rows = [draw(int(rng.integers(2**30))) for _ in range(num)]
        except NotImplementedError:  # as of a flat prior
            return None
        return {name: np.stack([row[name] for row in rows]) for name in self.dim}

    def log_likelihood(self, values: Any) -> Named | None:
        return self.graphs["log_likelihood"](values) or None

    def predict(self, values: Any, seed: int, *args: Any, **kwargs: Any) -> Named:
        pymc: Any = import_module("pymc")
        if args:
            raise TypeError("predict: name the data to replace, as in posterior.predict(x=...), after their pymc.Data.")
        if unknown := [name for name in kwargs if name not in self.model.named_vars]:
            raise ValueError(f"predict: the model has no pymc.Data {unknown[0]!r}. {nearest(unknown[0], self._data())}")
        wanted = [*self.model.observed_RVs, *(self.model.deterministics if kwargs else ())]
        # The free variables are inputs, so that none of them is drawn anew, whatever the data are.
        simulate = pymc.compile(self.model.free_RVs, wanted, random_seed=seed, on_unused_input="ignore")
        draws = self.variables(values)
        before = {name: self.model[name].get_value() for name in kwargs}
        with self.model:
            try:
                pymc.set_data(kwargs)
                made = [simulate(*row) for row in zip(*draws.values(), strict=True)]
            finally:
                pymc.set_data(before)
        return {v.name: np.stack(column) for v, column in zip(wanted, zip(*made, strict=True), strict=True)}

    def _data(self) -> list[str]:
        return [variable.name for variable in self.model.data_vars]
