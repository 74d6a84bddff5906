"""A run of NUTS that begins where a fit ended: the last resort, and the next step after a verdict "unreliable".

A flow knows the shape of the posterior, so its chains run in the noise e that it maps to x = T(e). There the density,
p(T(e)) |det dT/de|, is near N(0, I) even where p is a funnel or a banana.

Reference: Hoffman et al. 2019 (arXiv:1903.03704), who call it NeuTra, for chains in the noise of a flow.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.distributions import Distribution, LocationScale
from bbvi.distributions.bases import Warped
from bbvi.draws.random import RandomStream
from bbvi.policy import Regime
from bbvi.record import Record
from bbvi.runtime.compiling import program
from bbvi.runtime.precision import scope
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

COVARIANCE_DRAWS = 4096  # of q, behind its covariance


class NUTSDraws(NamedTuple):
    """Draws by Markov chain Monte Carlo."""

    x: np.ndarray  # unconstrained, `(chains, draws, dim)`
    samples: Any  # the structure of the parameters, each `(chains * draws, *shape)`, chain after chain
    r_hat: float  # largest over the unconstrained coordinates: near 1 when the chains agree
    effective_sample_size: float  # smallest
    divergences: int
    gradients: int  # evaluated after the warm-up, by all chains


def run(record: Record, num_samples: int, num_warmup: int, num_chains: int, seed: int) -> NUTSDraws:
    """See `Posterior.to_nuts`."""
    problem, q = record.target_for("to_nuts"), record.q
    starts = record.draw(num_chains, seed=seed)[0].x
    with scope(record.double):
        mcmc = _run(problem, q, starts, num_samples, num_warmup, np.random.default_rng((seed, RandomStream.CHAINS)))
        x = mcmc.get_samples(group_by_chain=True)
        x = np.asarray(_from_noise(q, x) if _is_warped(q) else x)
    return _read(record, x, {name: int(np.asarray(each).sum()) for name, each in mcmc.get_extra_fields().items()})


def _read(record: Record, x: np.ndarray, seen: dict[str, int]) -> NUTSDraws:
    from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

    return NUTSDraws(
        x=x,
        samples=record.structure(x.reshape(-1, x.shape[-1])),
        r_hat=float(np.max(split_gelman_rubin(x))),
        effective_sample_size=float(np.min(effective_sample_size(x))),
        divergences=seen["diverging"],
        gradients=seen["num_steps"],
    )


def _is_warped(q: Distribution) -> bool:
    return isinstance(q, LocationScale) and isinstance(q.base, Warped)


def _run(problem: Problem, q: Distribution, starts: Array, num_draws: int, num_warmup: int, rng: Any) -> Any:
    """NUTS from `starts` `(chains, dim)`, with the covariance of q as its first inverse mass matrix."""
    from numpyro.infer import MCMC, NUTS

    starts, dim = jnp.asarray(starts), problem.dim
    warped = q if isinstance(q, LocationScale) and isinstance(q.base, Warped) else None
    dense = Regime.of(dim).dense_start
    if warped is not None:
        starts = _to_noise(warped, starts)
        inverse_mass = jnp.eye(dim) if dense else jnp.ones(dim)
    else:
        draws = np.asarray(q.push(jnp.asarray(rng.standard_normal((COVARIANCE_DRAWS, q.noise_dim)))))
        inverse_mass = jnp.asarray(np.atleast_2d(np.cov(draws.T)) if dense else draws.var(axis=0))

    def potential(y: Array) -> Array:
        if warped is None:
            return -problem.log_density(y)
        x, log_det = warped.forward_one(y)
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
    return mcmc


@program
def _to_noise(q: LocationScale, x: Array) -> Array:
    return jax.vmap(lambda x: q.inverse_one(x)[0])(x)


@program
def _from_noise(q: LocationScale, noise: Array) -> Array:
    return q.push(noise)
