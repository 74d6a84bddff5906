"""Mean-field ADVI on fixed draws, and the covariances that its answer responds with.

The ELBO on fixed draws (`fixed_draws.py`) is maximised to convergence by a trust-region Newton method with
Hessian-vector products. With B minus its Hessian, the top left block of B^-1 at the optimum is the linear-response
covariance: how the means answer to a tilt of the log density. It sees the correlations that a mean-field Gaussian
cannot hold, and is exact where f is quadratic. The spread of the per-draw gradients, mapped by the same inverse, is the
error from having only M draws.

References: Giordano, Ingram and Broderick 2024 (arXiv:2304.05527), here with antithetic, moment-matched draws and
another preconditioner; Giordano, Broderick and Jordan 2018 (arXiv:1709.02536) for linear response.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.algorithms.base import Algorithm, Info, Needs, Result, extract, status
from bbvi.algorithms.fixed_draws import average, curvature_product, hessian_blocks, metric
from bbvi.algorithms.numerics.draws import blocks_of_draws, check_doublings
from bbvi.algorithms.numerics.trust_region import first_radius, has_arrived, is_stuck, judge, propose_step
from bbvi.curvature import hessian_diagonal
from bbvi.distributions import Distribution, LocationScale, MeanField
from bbvi.distributions.affine import Affine
from bbvi.distributions.scales import Diagonal, Triangular, diagonal_of
from bbvi.outcome import Evaluations, Finding, Status
from bbvi.policy import LIMITS, Regime
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

START_PROBES = 32  # for the diagonal of the curvature at the start, where the exact one costs too much
LARGE_ERROR = 0.5
RANGE = 15.0  # that log standard deviations may move from the start
BLIND = Finding(
    Status.RELIABLE,
    f"above {LIMITS.dense_response} coordinates the mean-field standard deviations stand as they are: correlations "
    "were not looked at",
    "take standard deviations of the functions that matter from posterior.linear_response(function)",
)


class DADVIState(NamedTuple):
    """State of `DADVI`, in the coordinates of its start."""

    coordinates: Affine  # diagonal
    eta: Array  # (2, dim) m and l
    value: Array  # () ELBO on the draws, -inf where not known
    value_error: Array  # () its standard error
    gradient: Array  # (2, dim)
    radius: Array  # () of the trust region
    steps: Array  # () steps
    arrived: Array  # () bool, at the optimum for these draws
    checked: Array  # () bool, and enough draws
    error: Array  # () of the means from the draws, in linear-response standard deviations
    response: Array  # (dim, dim) linear-response covariance, or (0, 0) where it is not worked out
    used: Array  # () blocks of draws in use
    draws: Array  # (blocks, n, dim)


@dataclass(frozen=True, kw_only=True)
class DADVI(Algorithm[DADVIState]):
    """Deterministic ADVI: the mean-field Gaussian of largest ELBO on fixed draws, with linear response.

    Up to 500 coordinates the full-rank Gaussian with the linear-response covariance competes with the mean-field one
    for being the result; the smaller k-hat wins.

    Arguments:
        num_draws: at first, in antithetic pairs: an even number. Their sample covariance is I for dim <= num_draws / 2.
        max_error: of a mean from the draws, in linear-response standard deviations (mean-field ones above 500
            coordinates), above which they are doubled.
        max_doublings: of the number of draws, at most.
        response: whether to work out linear response, and with it the error of the draws, at the optimum.
    """

    num_draws: int = 32
    max_error: float = 0.2
    max_doublings: int = 3
    response: bool = True
    name = "dadvi"

    def __post_init__(self) -> None:
        check_doublings(self.num_draws, self.max_doublings)

    def needs(self, dim: int, q: Distribution | None = None) -> Needs:
        def draws(rng: np.random.Generator) -> Array:
            return blocks_of_draws(rng, self.num_draws, dim, self.max_doublings)

        return Needs(family=MeanField, families=(MeanField,), derivatives=2, draws=draws)

    def init(self, problem: Problem, q: Distribution, draws: Array) -> DADVIState:
        start, _ = q.standardise()
        loc, dim = start.loc, q.dim
        at_start = problem.in_coordinates(start).log_density
        curvature = hessian_diagonal(at_start, jnp.zeros_like(loc), _probes(dim))
        usable = (curvature.value < 0) & jnp.isfinite(curvature.value)
        narrower = Diagonal(jnp.where(usable, -0.5 * jnp.log(jnp.where(usable, -curvature.value, 1)), 0))
        scalar = lambda value: jnp.full((), value, loc.dtype)
        dense = Regime.of(dim).dense_response and self.response
        return DADVIState(
            coordinates=Affine(loc, narrower.after(start.scale)),
            eta=jnp.zeros((2, dim), loc.dtype),
            value=scalar(-jnp.inf),
            value_error=scalar(0),
            gradient=jnp.zeros((2, dim), loc.dtype),
            radius=first_radius(loc, 2 * dim),
            steps=jnp.zeros((), int),
            arrived=jnp.array(False),
            checked=jnp.array(False),
            error=scalar(jnp.inf),
            response=jnp.zeros((dim, dim) if dense else (0, 0), loc.dtype),
            used=jnp.ones((), int),
            draws=draws,
        )

    def step(self, noise: Any, problem: Problem, state: DADVIState) -> tuple[DADVIState, Info]:
        local = problem.in_coordinates(state.coordinates)
        stage = jnp.where(state.arrived, 2, jnp.where(jnp.isfinite(state.value), 1, 0))
        stages = (_look, _newton, partial(_check, self.max_error))
        state, non_finite, gradients, products = jax.lax.switch(stage, stages, local, state)
        products = products + jnp.where(state.steps == 0, _probes(problem.dim) or problem.dim, 0)  # those of init
        state = state._replace(steps=state.steps + 1)
        evaluations = Evaluations(jnp.zeros((), int), gradients, products)
        return state, Info(state.value, state.value_error, non_finite, evaluations)

    def status(self, state: DADVIState) -> Array:
        stuck = is_stuck(state.eta, state.radius, state.steps)
        return status(state.checked if self.response else state.arrived, stuck)

    def extract(self, state: DADVIState) -> Distribution:
        m, log_sd = state.eta
        return LocationScale(state.coordinates(m), Diagonal(log_sd).after(state.coordinates.scale))

    def finish(self, problem: Problem, state: DADVIState) -> Result:
        q = jax.device_get(extract(self, state))
        if not (state.checked if self.response else state.arrived):
            reason = "the log density is not finite at some of the fixed draws"
            nowhere = state.steps > 0 and not np.isfinite(state.value)
            remedy = "check its constraints, or use a method that draws afresh"
            return Result((q,), (Finding(Status.USABLE, reason, remedy),) if nowhere else ())
        if not np.isfinite(state.error):
            reason = (
                "the log density has no curvature in some direction: there is no linear response, and the error from "
                "having few draws is not known"
            )
            return Result((q,), (Finding(Status.USABLE, reason),))
        findings = _about_draws(float(state.error), int(state.used) * self.num_draws)
        if not state.response.size:
            return Result((q,), (*findings, BLIND))
        scale = np.asarray(state.coordinates.scale.sd())
        response = scale[:, None] * np.asarray(state.response) * scale
        if np.linalg.eigvalsh(response)[0] <= 0:
            reason = "the linear-response covariance is not positive definite: the optimum is a saddle point"
            return Result((q,), (*findings, Finding(Status.USABLE, reason)))
        return Result((q, LocationScale(np.asarray(q.mean()), Triangular.of(np.linalg.cholesky(response)))), findings)


def _probes(dim: int) -> int | None:
    """Probes for the diagonal of the curvature at the start; None for the exact one."""
    return None if Regime.of(dim).dense_response else START_PROBES


def _about_draws(error: float, draws: int) -> Sequence[Finding]:
    reason = f"with other draws than these {draws} a mean would move by about {error:.2g} standard deviations"
    if error < LARGE_ERROR:
        return (Finding(Status.RELIABLE, reason),)
    return (Finding(Status.USABLE, reason, "raise num_draws"),)


# -- the three kinds of steps: each returns the state, non-finite draws, gradients and Hessian-vector products --------

Outcome = tuple[DADVIState, Array, Array, Array]


def _look(problem: Problem, state: DADVIState) -> Outcome:
    """See where we are, with as many draws as there are by now."""
    here = average(problem, state.eta, state.draws, state.used)
    radius = jnp.where(jnp.isfinite(here.value), state.radius, 0)  # ends the search
    state = state._replace(value=here.value, value_error=here.error, gradient=here.gradient, radius=radius)
    return state, here.non_finite, _draws(state), jnp.zeros((), int)


def _newton(problem: Problem, state: DADVIState) -> Outcome:
    matvec = lambda v: curvature_product(problem, state.eta, state.gradient, state.draws, state.used, v)
    shape = state.eta.shape
    step = propose_step(
        state.gradient.ravel(),
        lambda v: matvec(v.reshape(shape)).ravel(),
        state.radius,
        metric(state.eta).ravel(),
    )
    eta = state.eta + step.move.reshape(shape)
    eta = jnp.asarray(eta).at[1].set(jnp.clip(eta[1], -RANGE, RANGE))
    there = average(problem, eta, state.draws, state.used)
    accept, radius = judge(step, there.value - state.value, state.radius, state.value)
    keep = lambda new, old: jnp.where(accept, new, old)
    state = state._replace(
        eta=keep(eta, state.eta),
        value=keep(there.value, state.value),
        value_error=keep(there.error, state.value_error),
        gradient=keep(there.gradient, state.gradient),
        radius=radius,
        arrived=has_arrived(step, accept, state.radius, state.value),
    )
    return state, there.non_finite, _draws(state), step.products * _draws(state)


def _check(max_error: float, problem: Problem, state: DADVIState) -> Outcome:
    """At the optimum: is the error of the draws small? If not, go on with twice as many."""
    dim, dtype = problem.dim, state.eta.dtype
    made = _draws(state)
    if dense := state.response.size > 0:
        mm, lm, ll = hessian_blocks(problem, state.eta, state.gradient, state.draws, state.used)
        answer = jnp.linalg.solve(ll, lm)  # of l to m
        response = jnp.linalg.inv(mm - lm.T @ answer)
        response = (response + response.T) / 2
        sd = jnp.sqrt(jnp.abs(diagonal_of(response)))
        move = lambda g: (g[0] - g[1] @ answer) @ response
    else:
        response, sd = state.response, jnp.exp(state.eta[1])
        move = lambda g: g[0] * sd**2

    def block(i: Array, total: Array) -> Array:
        w = jnp.exp(state.eta[1]) * jnp.asarray(state.draws)[i]
        _, g, _ = problem.values_and_gradients(state.eta[0] + w)
        pairs = jax.tree.map(lambda rows: (rows[: len(rows) // 2] + rows[len(rows) // 2 :]) / 2, (g, g * w + 1))
        return total + jnp.sum(move((pairs[0] - state.gradient[0], pairs[1] - state.gradient[1])) ** 2, axis=0)

    squares = jax.lax.fori_loop(0, state.used, block, jnp.zeros(dim, dtype))
    pairs = (made // 2).astype(dtype)
    error = jnp.max(jnp.sqrt(squares / (pairs * jnp.maximum(pairs - 1, 1))) / sd)
    too_few = (error > max_error) & (2 * state.used <= len(state.draws))
    state = state._replace(
        response=response,
        error=error,
        checked=~too_few,
        arrived=~too_few,
        used=jnp.where(too_few, 2 * state.used, state.used),
        value=jnp.where(too_few, -jnp.inf, state.value),
    )
    return state, jnp.zeros((), int), made, made * (dim if dense else 0)


def _draws(state: DADVIState) -> Array:
    return state.used * state.draws.shape[1]
