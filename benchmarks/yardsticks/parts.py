"""What the models share beyond the parts of posteriordb's: random effects in two forms, precisions, counts, labels."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.posteriordb.parts import Data, Logprob, Model, Parameter, Params, gamma, normal

# Parameters.


def unit(*shape: int) -> Parameter:
    """Parameter in (0, 1)."""
    return Parameter(shape, ("unit_interval",))


# Log densities, summed over their elements, up to a constant.


def sd(precision) -> jax.Array:
    """Standard deviation of a normal with this precision."""
    return precision**-0.5


def vague(*precisions) -> jax.Array:
    """Each ~ Gamma(0.001, 0.001)."""
    return sum(gamma(each, 0.001, 0.001) for each in precisions)


def binomial(y, trials, logits) -> jax.Array:
    """Bin(trials, logistic(logits))."""
    return jnp.sum(y * logits - trials * jax.nn.softplus(logits))


def poisson(y, log_rate) -> jax.Array:
    """Poisson(exp(log_rate))."""
    return jnp.sum(y * log_rate - jnp.exp(log_rate))


# Random effects.


def independent(z: jax.Array, d: Data) -> jax.Array:
    """N(0, 1) each."""
    return normal(z)


class Effects(NamedTuple):
    """Random effects location + scale * z: both from the other parameters, and the log density of z."""

    place: Callable[[Params], tuple[Any, Any]]
    standard: Callable[[jax.Array, Data], jax.Array] = independent

    def logprob(self, x: jax.Array, p: Params, d: Data) -> jax.Array:
        """Log density of effects given the other parameters."""
        location, scale = self.place(p)
        return self.standard((x - location) / scale, d) - jnp.sum(jnp.broadcast_to(jnp.log(scale), x.shape))


def both_forms(
    name: str,
    rest: Logprob,
    params: dict[str, Parameter],
    effects: dict[str, Effects],
    prepare: Callable[[Data], Data],
    quantities: Callable[[Params, Data], Params],
) -> dict[str, Model]:
    """The model whose parameters are the effects, and NAME-noncentred with their standardised values in their place.

    `rest` is the log density of everything but the effects, which it takes as they are.
    """

    def centred(p: Params, d: Data) -> jax.Array:
        return rest(p, d) + sum(each.logprob(p[k], p, d) for k, each in effects.items())

    def filled(p: Params) -> Params:
        places = {k: each.place(p) for k, each in effects.items()}
        return p | {k: location + scale * p[f"{k}_raw"] for k, (location, scale) in places.items()}

    def noncentred(p: Params, d: Data) -> jax.Array:
        return rest(filled(p), d) + sum(each.standard(p[f"{k}_raw"], d) for k, each in effects.items())

    raw = {f"{k}_raw" if k in effects else k: each for k, each in params.items()}
    return {
        name: Model(centred, params, prepare, quantities),
        f"{name}-noncentred": Model(noncentred, raw, prepare, lambda p, d: quantities(filled(p), d)),
    }


# Quantities.


def indexed(name: str, values: jax.Array) -> Params:
    """The elements of an array by names such as "phi[1,2]", counted from 1."""
    return {f"{name}[{','.join(str(i + 1) for i in index)}]": values[index] for index in np.ndindex(values.shape)}


def picked(*names: str) -> Callable[[Params, Data], Params]:
    """Parameters that are quantities as they are."""
    return lambda p, d: {name: p[name] for name in names}
