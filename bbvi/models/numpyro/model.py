"""What is known of a NumPyro model besides its log density: its variables, predictions and draws of its prior."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.models.base import Model, Named
from bbvi.models.numpyro.arguments import in_precision, is_array
from bbvi.models.numpyro.density import JointDensity
from bbvi.models.numpyro.handlers import settle, with_whole_shapes
from bbvi.models.numpyro.sites import Trace
from bbvi.runtime.compiling import program
from bbvi.runtime.constants import detached
from bbvi.runtime.precision import lenient_promotion
from bbvi.runtime.types import Array
from bbvi.target.parameters import Parameters

AT_ONCE = 2**20  # numbers made at once while a model is run for many draws


@dataclass(frozen=True, eq=False, kw_only=True)
class NumPyroModel(Model):
    """What `from_numpyro` returns.

    Fields:
        names: the parameters that are sites themselves.
        deterministic: sites that follow from the parameters.
        masks: for observed sites of which some rows are no observations, which ones are.
        maximised: params to be set to where the evidence bound is largest, with their initial values.
    """

    logprob: JointDensity
    names: tuple[str, ...]
    deterministic: tuple[str, ...]
    masks: Mapping[str, np.ndarray]
    maximised: Mapping[str, np.ndarray] = field(default_factory=dict)

    def variables(self, values: Any) -> Any:
        return {name: values[name] for name in self.names}

    def named(self, parameters: Parameters, values: Any) -> dict[str, Array]:
        return values

    def derived(self, values: Any, seed: int) -> Named:
        return self._over_draws(values, lambda trace: {name: trace[name]["value"] for name in self.deterministic})

    def prior(self, seed: int, num: int) -> Any:
        try:
            return jax.device_get(_draw_prior(self.logprob, jax.random.split(jax.random.key(seed), num), self.data))
        except NotImplementedError:  # by which numpyro says that a distribution, such as an improper one, has no draws
            return None

    def log_likelihood(self, values: Any) -> Named | None:
        if self.logprob.enumerated or not self.observed:  # then a row's likelihood is no site's
            return None

        def read(trace: Trace) -> dict[str, Array]:
            return {name: trace[name]["fn"].log_prob(trace[name]["value"]) for name in self.observed}

        return {name: self._only_observed(name, value) for name, value in self._over_draws(values, read).items()}

    def _only_observed(self, name: str, values: np.ndarray) -> np.ndarray:
        """Without the rows, behind the axis of draws, that are no observations."""
        return values[:, self.masks[name]] if name in self.masks else values

    def predict(self, values: Any, seed: int, *args: Any, **kwargs: Any) -> Named:
        from numpyro import handlers
        from numpyro.infer import Predictive

        density = self.logprob
        new = bool(args or kwargs)
        if new:
            args, kwargs = jax.tree.map(in_precision, (args, kwargs))
        else:
            args, kwargs = density.arguments(self.data)
        if density.plate is not None:  # whose indices are traced, and index no array of NumPy
            args, kwargs = jax.tree.map(lambda leaf: jnp.asarray(leaf) if is_array(leaf) else leaf, (args, kwargs))
        known = self.variables(values) | {name: self.derived(values, seed)[name] for name in density.dynamic}
        sites = [*self.observed, *(self.deterministic if new else ())]
        model = settle(density.model, None, None)
        model = model if new else handlers.uncondition(with_whole_shapes(model))
        predictive = Predictive(model, jax.tree.map(jnp.asarray, known), return_sites=sites, batch_ndims=1)
        with lenient_promotion():
            made = predictive(jax.random.key(seed), *args, **kwargs)
        made = {name: np.asarray(value) for name, value in made.items()}
        return made if new else {name: self._only_observed(name, value) for name, value in made.items()}

    def _over_draws(self, values: Any, read: Callable[[Trace], dict[str, Array]]) -> Named:
        shapes = jax.eval_shape(partial(_read_all, self.logprob, read, 1), values, self.data)
        draws = len(next(iter(values.values())))
        made = sum(leaf.size for leaf in jax.tree.leaves(shapes)) // max(draws, 1)
        found = program(partial(_read_all, self.logprob, read, max(1, AT_ONCE // max(made, 1))))(values, self.data)
        return {name: np.asarray(value) for name, value in found.items()}


@program(static_argnames="density")
def _draw_prior(density: JointDensity, keys: Array, data: Any) -> dict[str, Array]:
    return jax.vmap(lambda key: detached(density.draw_prior)(key, data))(keys)


def _read_all(density: JointDensity, read: Callable[[Trace], Any], at_once: int, values: Any, data: Any) -> Any:
    with lenient_promotion():
        one = detached(lambda each, data: read(density.trace(each, data)))
        return jax.lax.map(lambda each: one(each, data), values, batch_size=at_once)
