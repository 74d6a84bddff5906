"""Local steps: from a Gaussian with independent coordinates to the best one, and what that gains."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from bbvi.models.local import Gaussian
from bbvi.runtime.precision import lenient_promotion
from bbvi.runtime.types import Array

LOCAL_STEPS, LOCAL_DRAWS = 300, 8  # steps of Adam, and draws in each
LOCAL_LENGTH = 0.05  # of the first steps, in standard deviations of the Gaussian that they begin at
BOUND_PAIRS = 128  # of opposite draws behind each bound


def improvement(f: Callable[[Array], Array], there: Gaussian, key: Array) -> tuple[Array, Array]:
    """Evidence bounds of a Gaussian for the log density f, before steps and after, from the same draws."""
    dim, dtype = len(there.loc), there.loc.dtype
    of_steps, of_bounds = jax.random.split(key)
    adam = optax.adam(optax.cosine_decay_schedule(LOCAL_LENGTH, LOCAL_STEPS))
    begin = jnp.zeros(dim, dtype), jnp.zeros(dim, dtype)

    def log_ratios(q: tuple[Array, Array], noise: Array) -> Array:
        """log f - log q at draws, q held in the latter: its gradient has no noise where q is right."""
        loc, log_sd = q
        y = loc + jnp.exp(log_sd) * noise  # in standard deviations of `there`
        held, held_log_sd = jax.lax.stop_gradient(q)
        log_q = -0.5 * jnp.sum(((y - held) * jnp.exp(-held_log_sd)) ** 2, axis=1) - jnp.sum(held_log_sd)
        return jax.vmap(f)(there(y)) - log_q + there.log_volume

    def step(
        carry: tuple[tuple[Array, Array], optax.OptState], key: Array
    ) -> tuple[tuple[tuple[Array, Array], optax.OptState], None]:
        q, memory = carry
        noise = jax.random.normal(key, (LOCAL_DRAWS, dim), dtype)
        gradient = jax.grad(lambda q: -log_ratios(q, noise).mean())(q)
        with lenient_promotion():
            updates, memory = adam.update(gradient, memory)
        return (jax.tree.map(lambda a, b: a + jnp.nan_to_num(b), q, updates), memory), None

    (best, _), _ = jax.lax.scan(step, (begin, adam.init(begin)), jax.random.split(of_steps, LOCAL_STEPS))
    half = jax.random.normal(of_bounds, (BOUND_PAIRS, dim), dtype)
    noise = jnp.concatenate([half, -half])
    return log_ratios(begin, noise).mean(), log_ratios(best, noise).mean()
