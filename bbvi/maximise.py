"""Parameters without a prior, set to where the evidence bound is largest: maximum marginal likelihood, nearly.

With theta the parameters and x what is latent, the bound is L(theta) = max_q E_q[log p(x, theta) - log q(x)]. Its
gradient is E_q[d log p(x, theta) / d theta] at the best q, since q is stationary there. Newton's steps find q for each
theta, and BFGS climbs L on the unconstrained scale of theta, without a Jacobian: the largest point is the same on any
scale.

Reference: variational EM (Neal and Hinton 1998), with the best Gaussian q at every theta.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.algorithms.base import Begin
from bbvi.algorithms.climb import constant
from bbvi.algorithms.newton import balanced_draws
from bbvi.compiling import program
from bbvi.data.reading import read_data
from bbvi.models.numpyro import NumPyroModel, with_params
from bbvi.problem import Problem
from bbvi.reading_parameters import make_parameters
from bbvi.start import find_start, polish

Array = Any
DRAWS = 256  # behind the bound and its gradient, at least
LARGEST = 1000  # latent coordinates
CLOSE = 1e-2  # nats for a unit of unconstrained theta: a gradient from which it counts as zero
STREAM = 11  # of random numbers


@dataclass(frozen=True)
class _Given:
    """The log density of what is latent, with the parameters theta among the data."""

    logprob: Any

    def __call__(self, values: Any, data: Any) -> Array:
        given, (parameters, theta) = data
        return self.logprob({**values, **parameters.constrain(theta)[0]}, given)


def with_best_params(model: NumPyroModel, seed: int) -> NumPyroModel:
    """The model with its params set to where the evidence bound is largest.

    Raises:
        ValueError: when nothing is left to infer, or too much for Newton's steps.
    """
    initial = model.maximised
    latent = {name: shape for name, shape in model.dim.items() if name not in initial}
    if not latent:
        raise ValueError('params="maximise" needs latent sites: the model has params only.')
    parameters = make_parameters(latent, {name: model.constraints.get(name) for name in latent})
    if parameters.dim > LARGEST:
        raise ValueError(f'params="maximise" takes at most {LARGEST} latent coordinates, not {parameters.dim}.')
    of_theta = make_parameters(
        {name: np.shape(value) for name, value in initial.items()},
        {name: model.constraints.get(name) for name in initial},
    )
    leaves = of_theta.treedef.flatten_up_to(dict(initial))
    theta = np.asarray(of_theta.unconstrain([jnp.asarray(leaf, float) for leaf in leaves])[0])
    data, given, dim = read_data(model.data), _Given(model.logprob), parameters.dim
    noise = balanced_draws(np.random.default_rng((seed, STREAM)), max(DRAWS, 2 * (dim + 1)), dim)
    near: list[tuple[Array, Array]] = []

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        rng = np.random.default_rng((seed, STREAM))
        problem = Problem(parameters, (data, (of_theta, theta)), given)
        if not near:
            start = find_start(problem, rng, None, Begin.BULK)
            near.append((start.loc, start.scale if start.scale.ndim == 2 else np.diag(start.scale)))
        found = polish(problem, *near[-1], rng)
        if not np.isfinite(found.elbo):
            return np.inf, np.zeros_like(theta)
        near.append((found.loc, found.scale))
        value, gradient = jax.device_get(_bound(problem, found.loc, found.scale, noise))
        return -float(value), -np.asarray(gradient)

    from scipy.optimize import minimize

    found = minimize(loss, theta, jac=True, method="BFGS", options={"gtol": CLOSE})
    best = jax.tree.map(np.asarray, of_theta.constrain(jnp.asarray(found.x))[0])
    return with_params(model, best)


@program
def _bound(problem: Problem, loc: Array, scale: Array, noise: Array) -> tuple[Array, Array]:
    """The bound at N(loc, scale scale^T), and its gradient in theta."""
    data, (parameters, theta) = problem.data

    def of(theta: Array) -> Array:
        there = replace(problem, data=(data, (parameters, theta))).in_coordinates(loc, scale)
        return there.log_densities(noise).mean() + constant(noise, problem.dim)

    return jax.value_and_grad(of)(theta)
