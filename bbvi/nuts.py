"""A run of NUTS that begins where a fit ended: the last resort, and the next step after a verdict "unreliable"."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.distributions import Distribution
from bbvi.problem import Problem

Array = Any
DENSE_UP_TO = 200  # coordinates, up to which the mass matrix is dense
SCALES = 4096  # draws of q behind its covariance


class Chains(NamedTuple):
    """Draws of several chains."""

    x: np.ndarray  # (chains, draws, dim) unconstrained
    r_hat: np.ndarray  # (dim,) split R-hat: near 1 when the chains agree
    effective_sample_size: np.ndarray  # (dim,)
    divergences: int


def run_nuts(
    problem: Problem, q: Distribution, starts: Array, num_draws: int, num_warmup: int, rng: np.random.Generator
) -> Chains:
    """NUTS from `starts` `(chains, dim)`, with the covariance of q as its first inverse mass matrix."""
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
    from numpyro.infer import MCMC, NUTS

    draws = np.asarray(q.push(jnp.asarray(rng.standard_normal((SCALES, q.noise_dim)))))
    dense = problem.dim <= DENSE_UP_TO
    inverse_mass = np.atleast_2d(np.cov(draws.T)) if dense else draws.var(axis=0)
    kernel = NUTS(
        potential_fn=lambda x: -problem.log_density(x),
        inverse_mass_matrix=jnp.asarray(inverse_mass),
        dense_mass=dense,
    )
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_draws,
        num_chains=len(starts),
        chain_method="vectorized",
        progress_bar=False,
    )
    with jax.numpy_dtype_promotion("standard"):
        mcmc.run(jax.random.key(int(rng.integers(2**31))), init_params=jnp.asarray(starts))
    x = np.asarray(mcmc.get_samples(group_by_chain=True))
    diverging = np.asarray(mcmc.get_extra_fields()["diverging"])
    return Chains(x, split_gelman_rubin(x), effective_sample_size(x), int(diverging.sum()))
