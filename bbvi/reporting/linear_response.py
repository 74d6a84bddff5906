"""Linear-response covariances of chosen functions of the parameters, without a matrix.

With eta = (m, l) the optimum of a mean-field Gaussian on fixed draws, B minus the Hessian of its ELBO and J the
Jacobian of eta -> E_q[phi], the covariance of the functions phi is

    Cov(phi) = J B^-1 J^T,

one system B x = J_i^T for each function, solved by preconditioned conjugate gradients with Hessian-vector products.

Reference: Giordano, Broderick and Jordan 2018 (arXiv:1709.02536).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg

from bbvi.algorithms.base import CONVERGED
from bbvi.algorithms.dadvi import DADVI, DADVIState
from bbvi.algorithms.fixed_draws import curvature_product, metric
from bbvi.distributions import Distribution, MeanField
from bbvi.draws.random import RandomStream
from bbvi.optimise import solve
from bbvi.record import Record
from bbvi.runtime.compiling import program
from bbvi.runtime.precision import scope
from bbvi.runtime.types import Array
from bbvi.target.messages import no_derivative, no_gradient
from bbvi.target.problem import Problem

RESIDUAL = 1e-6  # of the residual of each system, relative to its right-hand side
MAX_PRODUCTS = 500  # Hessian-vector products for each, at most


class LinearResponse(NamedTuple):
    """Moments of functions of the parameters by linear response; k is the number of scalars that they return."""

    mean: np.ndarray  # (*shape) as the function returns it, under the mean-field Gaussian
    sd: np.ndarray  # (*shape)
    mean_field_sd: np.ndarray  # (*shape) of the mean-field Gaussian itself, by the delta method
    covariance: np.ndarray  # (k, k)
    residual: float  # largest relative residual of the systems solved; large where conjugate gradients gave up


def respond(record: Record, function: Callable[[Any], Array], num_draws: int = 32, seed: int = 0) -> LinearResponse:
    """See `Posterior.linear_response`."""
    problem = record.target_for("linear_response")
    with scope(record.double):
        if reason := problem.why_not_differentiable(2):
            first = problem.why_not_differentiable(1)
            raise no_gradient(first) if first else no_derivative("linear_response", reason)
        rng = np.random.default_rng((seed, RandomStream.FIXED))
        return linear_response(problem, record.q, function, num_draws, rng)


def linear_response(
    problem: Problem, q: Distribution, function: Callable[[Any], Array], num_draws: int, rng: np.random.Generator
) -> LinearResponse:
    """Moments of `function(values)`, at the mean-field optimum found from the means and scales of q.

    Raises:
        FloatingPointError: when that optimum is not reached, or is a saddle point.
    """
    algorithm = DADVI(num_draws=num_draws, max_doublings=0, response=False)
    begin = MeanField(q.mean(), jnp.log(q.sd()))
    state, status = _optimum(algorithm, problem, begin, algorithm.needs(problem.dim).draws(rng))
    if int(status) != CONVERGED:
        raise FloatingPointError(
            "The mean-field optimum was not reached, and linear response means nothing elsewhere. Raise num_draws, or "
            "start from a posterior that fits better; a log density with kinks or without density nearby has none."
        )
    value, covariance, mean_field, residual = jax.device_get(_respond(function, problem, state))
    variance = np.diagonal(covariance)
    if not np.isfinite(variance).all():
        raise FloatingPointError(
            "The function, or its gradient, is not finite at some draws. Check where it is defined."
        )
    if (variance < 0).any():
        raise FloatingPointError(
            "A linear-response variance is negative: the mean-field optimum is a saddle point. Raise num_draws, or use "
            "another method."
        )
    sd = np.sqrt(variance).reshape(value.shape)
    return LinearResponse(value, sd, mean_field.reshape(value.shape), covariance, float(residual.max(initial=0)))


@program(static_argnames="algorithm")
def _optimum(algorithm: DADVI, problem: Problem, q: Distribution, draws: Array) -> tuple[DADVIState, Array]:
    state = solve(algorithm, problem, algorithm.init(problem, q, draws)).state
    return problem.layout.replicate((state, algorithm.status(state)))


@program(static_argnames="function")
def _respond(
    function: Callable[[Any], Array], problem: Problem, state: DADVIState
) -> tuple[Array, Array, Array, Array]:
    local = problem.in_coordinates(state.coordinates)
    draws = jnp.asarray(state.draws)[0]

    def expected(eta: Array) -> Array:
        xs = state.coordinates.draws(eta[0] + jnp.exp(eta[1]) * draws)
        return jax.vmap(lambda x: jnp.asarray(function(problem.parameters.constrain(x)[0]), eta.dtype))(xs).mean(axis=0)

    matvec = lambda v: curvature_product(local, state.eta, state.gradient, state.draws, state.used, v)
    size = metric(state.eta)

    def solve(row: Array) -> tuple[Array, Array]:
        x, _ = cg(matvec, row, tol=RESIDUAL, maxiter=MAX_PRODUCTS, M=lambda v: v / size)
        norm = lambda v: jnp.sqrt(jnp.sum(v**2 / size))
        return x, norm(matvec(x) - row) / jnp.maximum(norm(row), jnp.finfo(row.dtype).tiny)

    value = expected(state.eta)
    rows = jax.jacrev(expected)(state.eta).reshape(-1, *state.eta.shape)
    solutions, residual = jax.lax.map(solve, rows)
    covariance = jnp.einsum("iab,jab->ij", rows, solutions)
    mean_field = jnp.sqrt(jnp.sum((rows[:, 0] * jnp.exp(state.eta[1])) ** 2, axis=-1))
    return problem.layout.replicate((value, (covariance + covariance.T) / 2, mean_field, residual))
