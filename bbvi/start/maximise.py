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

from bbvi.algorithms.base import Initialisation
from bbvi.algorithms.numerics.draws import balanced_draws
from bbvi.algorithms.numerics.paths import missing_entropy
from bbvi.data.reading import read_data
from bbvi.distributions.affine import Affine
from bbvi.draws.random import RandomStream
from bbvi.models import Model
from bbvi.models.numpyro import NumPyroModel, with_params
from bbvi.runtime.compiling import program
from bbvi.runtime.types import Array
from bbvi.start.bulk import polish
from bbvi.start.find import find_start
from bbvi.start.record import Hints
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters

BOUND_DRAWS = 256  # behind the bound and its gradient, at least
MOST_LATENT = 1000  # latent coordinates
FLAT_GRADIENT = 1e-2  # nats for a unit of unconstrained theta: a gradient from which it counts as zero


@dataclass(frozen=True)
class _Given:
    """The log density of what is latent, with the parameters theta among the data."""

    logprob: Any

    def __call__(self, values: Any, data: Any) -> Array:
        given, (parameters, theta) = data
        return self.logprob({**values, **parameters.constrain(theta)[0]}, given)


def with_params_set(model: Model, seed: int) -> Model:
    """The model, where it has params to be maximised over with these set.

    Raises:
        ValueError: when nothing is left to infer, or too much for Newton's steps.
    """
    return _maximised(model, seed) if isinstance(model, NumPyroModel) and model.maximised else model


def _maximised(model: NumPyroModel, seed: int) -> NumPyroModel:
    """The model with its params set to where the evidence bound is largest."""
    initial = model.maximised
    latent = {name: shape for name, shape in model.dim.items() if name not in initial}
    if not latent:
        raise ValueError('params="maximise" needs latent sites: the model has params only.')
    parameters = make_parameters(latent, {name: model.constraints.get(name) for name in latent})
    if parameters.dim > MOST_LATENT:
        raise ValueError(f'params="maximise" takes at most {MOST_LATENT} latent coordinates, not {parameters.dim}.')
    of_theta = make_parameters(
        {name: np.shape(value) for name, value in initial.items()},
        {name: model.constraints.get(name) for name in initial},
    )
    leaves = of_theta.treedef.flatten_up_to(dict(initial))
    theta = np.asarray(of_theta.unconstrain([jnp.asarray(leaf, float) for leaf in leaves])[0])
    data, given, dim = read_data(model.data), _Given(model.logprob), parameters.dim
    noise = balanced_draws(np.random.default_rng((seed, RandomStream.MAXIMISE)), max(BOUND_DRAWS, 2 * (dim + 1)), dim)
    near: list[Affine] = []

    def loss(theta: np.ndarray) -> tuple[float, np.ndarray]:
        rng = np.random.default_rng((seed, RandomStream.MAXIMISE))
        problem = Problem(parameters, (data, (of_theta, theta)), given)
        if not near:
            near.append(find_start(problem, Initialisation.BULK, Hints(rng=rng)).gaussian)
        found = polish(problem, near[-1], rng)
        if not np.isfinite(found.elbo):
            return np.inf, np.zeros_like(theta)
        near.append(found.gaussian)
        value, gradient = jax.device_get(_bound(problem, found.gaussian, noise))
        return -float(value), -np.asarray(gradient)

    from scipy.optimize import minimize

    found = minimize(loss, theta, jac=True, method="BFGS", options={"gtol": FLAT_GRADIENT})
    best = jax.tree.map(np.asarray, of_theta.constrain(jnp.asarray(found.x))[0])
    return with_params(model, best)


@program
def _bound(problem: Problem, gaussian: Affine, noise: Array) -> tuple[Array, Array]:
    """The bound at a Gaussian, and its gradient in theta."""
    data, (parameters, theta) = problem.data

    def of(theta: Array) -> Array:
        there = replace(problem, data=(data, (parameters, theta))).in_coordinates(gaussian)
        return there.log_densities(noise).mean() + missing_entropy(noise, problem.dim)

    return jax.value_and_grad(of)(theta)
