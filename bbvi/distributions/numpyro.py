"""Distributions as numpyro has them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def as_numpyro(q: Any) -> Any:
    """A numpyro distribution that draws and has the density of q, `(dim,)` numbers as one event."""
    import numpyro.distributions as dist
    from numpyro.distributions import constraints

    members = {
        "support": constraints.real_vector,
        "sample": lambda self, key, sample_shape=(): q.push(jax.random.normal(key, (*sample_shape, q.noise_dim))),
        "log_prob": lambda self, x: q.log_prob(x),
        "mean": property(lambda self: q.mean()),
        "variance": property(lambda self: q.sd() ** 2),
    }
    return type(type(q).__name__, (dist.Distribution,), members)(event_shape=(q.dim,))


def transformed(
    dim: int,
    dtype: Any,
    forward: Callable[[Any], tuple[Any, Any]],
    inverse: Callable[[Any], tuple[Any, Any]],
) -> Any:
    """The image of N(0, I) under a map, as numpyro has it.

    Arguments:
        forward: from noise `(dim,)` to x `(dim,)` and the log-determinant of the map's Jacobian.
        inverse: from x to noise, and the same log-determinant.
    """
    import numpyro.distributions as dist
    from numpyro.distributions import constraints, transforms

    vector = lambda function: jnp.vectorize(function, signature="(d)->(d)")
    members = {
        "domain": constraints.real_vector,
        "codomain": constraints.real_vector,
        "__call__": lambda self, noise: vector(lambda noise: forward(noise)[0])(noise),
        "_inverse": lambda self, x: vector(lambda x: inverse(x)[0])(x),
        "log_abs_det_jacobian": lambda self, noise, x, intermediates=None: jnp.vectorize(
            lambda noise: forward(noise)[1], signature="(d)->()"
        )(noise),
        "tree_flatten": lambda self: ((), ((), {})),
    }
    transform = type("Pushed", (transforms.Transform,), members)()
    zeros = jnp.zeros(dim, dtype)
    return dist.TransformedDistribution(dist.Normal(zeros, jnp.ones_like(zeros)).to_event(1), transform)
