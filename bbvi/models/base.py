"""What a front end makes of a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from bbvi.data.factorized import likelihood_of_rows
from bbvi.data.reading import is_held
from bbvi.runtime.compiling import program
from bbvi.runtime.types import Array
from bbvi.target.parameters import Parameters

Named = dict[str, np.ndarray]


@dataclass(frozen=True, eq=False, kw_only=True)
class Model:
    """A log density with what else is known of it; `fit` takes one in place of `logprob` and `dim`.

    The methods speak of n draws at once, in the structure of `dim`, each parameter a NumPy array `(n, *shape)` on the
    scale that `logprob` receives. They compute in JAX's present precision.

    Fields:
        logprob, dim, constraints, data: as in `fit`.
        batch_size: rows of data in each step, unless `fit` is told otherwise.
        observed: observed arrays by name.
        coords, dims: labels of dimensions, and the dimensions of each array, for arviz.
        notes: what the verdict should mention.
        start: a point in the structure of `dim` near which the posterior is, where `fit` begins unless told otherwise.

    Example:
        >>> class Means(bbvi.Model):  # of observations with standard deviation 1
        ...     def predict(self, values, seed):
        ...         noise = np.random.default_rng(seed).standard_normal((len(values), 3))
        ...         return {"y": values[:, None] + noise}
        >>> y = np.array([1.0, 2.0, 3.0])
        >>> model = Means(logprob=lambda mean: -0.5 * jnp.sum((y - mean) ** 2), dim=(), observed={"y": y})
        >>> predicted = bbvi.fit(model).predict()["posterior_predictive"]["y"]
        >>> print(f"{float(predicted.std()):.1f}")
        1.2
    """

    logprob: Any  # a function
    dim: Any
    constraints: Any = None
    data: Any = None
    batch_size: int | None = None
    observed: Mapping[str, np.ndarray] = field(default_factory=dict)
    coords: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    dims: Mapping[str, Sequence[str]] = field(default_factory=dict)
    notes: Sequence[str] = ()
    start: Any = None

    def variables(self, values: Any) -> Any:
        """What a user knows as the parameters, on their own scale: here the values themselves."""
        return values

    def named(self, parameters: Parameters, values: Any) -> dict[str, Array]:
        """What `variables` returned, by name."""
        return parameters.named(values)

    def derived(self, values: Any, seed: int) -> Named:
        """Further quantities that the model names, each `(n, *shape)`."""
        return {}

    def prior(self, seed: int, num: int) -> Any:
        """Draws of the prior in the structure of `dim`, each parameter `(num, *shape)`; None where it is not known."""
        return None

    def log_likelihood(self, values: Any) -> Named | None:
        """Log likelihood of each observation, by name, each `(n, *observed shape)`; None where it is not known."""
        likelihood = likelihood_of_rows(self.logprob)
        if likelihood is None or not is_held(self.data):
            return None
        over_draws = program(jax.vmap(likelihood, in_axes=(0, None)))
        return {"rows": np.asarray(over_draws(values, self.data))}

    def why_not_finite(self, values: Any) -> str:
        """A sentence on why the log density is not finite at any of these points; empty where it is not known."""
        return ""

    @property
    def predicts(self) -> bool:
        """Whether new observations can be drawn."""
        return type(self).predict is not Model.predict

    def predict(self, values: Any, seed: int, *args: Any, **kwargs: Any) -> Named:
        """New observations from the posterior predictive distribution, by name, each `(n, *observed shape)`."""
        raise ValueError(
            "This posterior is of a log density, which does not say how to make data: draw them yourself from "
            "posterior.sample(), or fit a model, by bbvi.from_numpyro or bbvi.from_pymc."
        )
