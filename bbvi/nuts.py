"""A run of NUTS that begins where a fit ended: the last resort, and the next step after a verdict "unreliable".

A flow knows the shape of the posterior, so its chains run in the noise e that it maps to x = T(e). There the density,
p(T(e)) |det dT/de|, is near N(0, I) even where p is a funnel or a banana.

Reference: Hoffman et al. 2019 (arXiv:1903.03704), who call it NeuTra, for chains in the noise of a flow.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.compiling import program
from bbvi.distributions import Distribution
from bbvi.distributions.pushforward import Pushforward
from bbvi.problem import Problem

Array = Any
DENSE_UP_TO = 200  # coordinates, up to which the mass matrix is dense
SCALES = 4096  # draws of q behind its covariance


class NUTSDraws(NamedTuple):
    """Draws by Markov chain Monte Carlo."""

    x: np.ndarray  # unconstrained, `(chains, draws, dim)`
    samples: Any  # the structure of the parameters, each `(chains * draws, *shape)`, chain after chain
    r_hat: float  # largest over the unconstrained coordinates: near 1 when the chains agree
    effective_sample_size: float  # smallest
    divergences: int
    gradients: int  # evaluated after the warm-up, by all chains


class Chains(NamedTuple):
    """Draws of several chains."""

    x: np.ndarray  # (chains, draws, dim) unconstrained
    r_hat: np.ndarray  # (dim,) split R-hat: near 1 when the chains agree
    effective_sample_size: np.ndarray  # (dim,)
    divergences: int
    gradients: int  # evaluated after the warm-up, by all chains


def run_nuts(
    problem: Problem, q: Distribution, starts: Array, num_draws: int, num_warmup: int, rng: np.random.Generator
) -> Chains:
    """NUTS from `starts` `(chains, dim)`, with the covariance of q as its first inverse mass matrix."""
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
    from numpyro.infer import MCMC, NUTS

    starts, dim = jnp.asarray(starts), problem.dim
    dense = dim <= DENSE_UP_TO
    if isinstance(q, Pushforward):
        starts = _to_noise(q, starts)
        inverse_mass = jnp.eye(dim) if dense else jnp.ones(dim)
    else:
        draws = np.asarray(q.push(jnp.asarray(rng.standard_normal((SCALES, q.noise_dim)))))
        inverse_mass = jnp.asarray(np.atleast_2d(np.cov(draws.T)) if dense else draws.var(axis=0))

    def potential(y: Array) -> Array:
        if not isinstance(q, Pushforward):
            return -problem.log_density(y)
        x, log_det = q.forward_one(y)
        return -problem.log_density(x) - log_det

    kernel = NUTS(potential_fn=potential, inverse_mass_matrix=inverse_mass, dense_mass=dense)
    mcmc = MCMC(
        kernel,
        num_warmup=num_warmup,
        num_samples=num_draws,
        num_chains=len(starts),
        chain_method="vectorized",
        progress_bar=False,
    )
    with jax.numpy_dtype_promotion("standard"):
        mcmc.run(jax.random.key(int(rng.integers(2**31))), init_params=starts, extra_fields=("num_steps",))
    x = mcmc.get_samples(group_by_chain=True)
    x = np.asarray(_from_noise(q, x) if isinstance(q, Pushforward) else x)
    seen = {name: int(np.asarray(each).sum()) for name, each in mcmc.get_extra_fields().items()}
    return Chains(x, split_gelman_rubin(x), effective_sample_size(x), seen["diverging"], seen["num_steps"])


@program
def _to_noise(q: Pushforward, x: Array) -> Array:
    return jax.vmap(lambda x: q.inverse_one(x)[0])(x)


@program
def _from_noise(q: Pushforward, noise: Array) -> Array:
    return q.push(noise)
