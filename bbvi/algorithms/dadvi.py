"""Mean-field ADVI on fixed draws, and the covariances that its answer responds with.

With draws z_1 ... z_M kept fixed the ELBO of N(m, diag(e^l)^2) is a deterministic, smooth function,

    E(m, l) = mean_j f(m + e^l z_j) + sum l,

which a trust-region Newton method with Hessian-vector products maximises to convergence. With w_j = e^l z_j, gradients
g_j and A_j = -hess f at the draws, minus its Hessian B has the blocks

    B_mm = mean_j A_j,    B_ml = mean_j A_j diag(w_j),    B_ll = mean_j diag(w_j) A_j diag(w_j) + diag(1 - dE/dl).

At the optimum the top left block of B^-1 is the linear-response covariance: how the means answer to a tilt of the log
density. It sees the correlations that a mean-field Gaussian cannot hold, and is exact where f is quadratic. The spread
of the per-draw gradients, mapped by the same inverse, is the error from having only M draws.

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

from bbvi.algorithms.base import Algorithm, Info, Result, extract
from bbvi.algorithms.newton import balanced_draws
from bbvi.algorithms.trust_region import judge, propose
from bbvi.curvature import hessian_diagonal
from bbvi.distributions import Distribution, FullRank, MeanField
from bbvi.outcome import Finding, Status
from bbvi.problem import Problem

Array = Any
DENSE = 500  # coordinates up to which the linear-response covariance is a matrix
PROBES = 32  # for the diagonal of the curvature at the start, above DENSE
LARGE_ERROR = 0.5
NEAR = 1e-8  # nats still to gain from which the optimum counts as reached
RANGE = 15.0  # that log standard deviations may move from the start
ESCAPED = 1e12  # distance in units of the start, from which the mean counts as run off
MAX_STEPS = 200
BLIND = Finding(
    Status.RELIABLE,
    f"above {DENSE} coordinates the mean-field standard deviations stand as they are: correlations were not looked at",
    "take standard deviations of the functions that matter from posterior.linear_response(function)",
)


class DADVIState(NamedTuple):
    """State of `DADVI`, in the coordinates of its start."""

    loc: Array  # (dim,) of the coordinates
    scale: Array  # (dim,)
    eta: Array  # (2, dim) m and l
    value: Array  # () ELBO on the draws, -inf where not known
    value_error: Array  # () its standard error
    gradient: Array  # (2, dim)
    radius: Array  # () of the trust region
    count: Array  # () steps
    arrived: Array  # () bool, at the optimum for these draws
    checked: Array  # () bool, and enough draws
    error: Array  # () of the means from the draws, in linear-response standard deviations
    response: Array  # (dim, dim) linear-response covariance, or (0, 0) above DENSE
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
    """

    num_draws: int = 32
    max_error: float = 0.2
    max_doublings: int = 3
    name = "dadvi"
    families = (MeanField,)

    def __post_init__(self) -> None:
        if self.num_draws < 4 or self.num_draws % 2:
            raise ValueError(f"num_draws={self.num_draws} must be even and at least 4: two antithetic pairs.")
        if self.max_doublings < 0:
            raise ValueError(f"max_doublings={self.max_doublings} must not be negative.")

    def derivatives(self, q: Distribution) -> int:
        return 2

    def default_family(self, dim: int) -> type[Distribution]:
        return MeanField

    def draws(self, rng: np.random.Generator, dim: int) -> Array:
        blocks = [balanced_draws(rng, self.num_draws, dim) for _ in range(2**self.max_doublings)]
        return np.stack(blocks).astype(jax.dtypes.canonicalize_dtype(float))

    def init(self, problem: Problem, q: Distribution, draws: Array) -> DADVIState:
        loc, scale, _ = q.standardise()
        zero, false, dim = jnp.zeros((), loc.dtype), jnp.array(False), q.dim
        curvature = hessian_diagonal(problem.in_coordinates(loc, scale).log_density, jnp.zeros_like(loc), _probes(dim))
        usable = (curvature.value < 0) & jnp.isfinite(curvature.value)
        scale = jnp.where(usable, scale / jnp.sqrt(jnp.where(usable, -curvature.value, 1)), scale)
        return DADVIState(
            loc,
            scale,
            jnp.zeros((2, dim), loc.dtype),
            zero - jnp.inf,
            zero,
            jnp.zeros((2, dim), loc.dtype),
            zero + 3 * (2 * dim) ** 0.5,
            jnp.zeros((), int),
            false,
            false,
            zero + jnp.inf,
            jnp.zeros((dim, dim) if dim <= DENSE else (0, 0), loc.dtype),
            jnp.ones((), int),
            draws,
        )

    def step(self, noise: Any, problem: Problem, state: DADVIState) -> tuple[DADVIState, Info]:
        local = problem.in_coordinates(state.loc, state.scale)
        stage = jnp.where(state.arrived, 2, jnp.where(jnp.isfinite(state.value), 1, 0))
        state, bad, gradients, products = jax.lax.switch(
            stage, (_look, _newton, partial(_check, self.max_error)), local, state
        )
        products = products + jnp.where(state.count == 0, _probes(problem.dim) or problem.dim, 0)  # those of init
        state = state._replace(count=state.count + 1)
        return state, Info(state.value, state.value_error, bad, jnp.zeros((), int), gradients, products)

    def done(self, state: DADVIState) -> Array:
        return (
            state.checked | (jnp.abs(state.eta).max() > ESCAPED) | (state.radius < 1e-10) | (state.count >= MAX_STEPS)
        )

    def extract(self, state: DADVIState) -> Distribution:
        m, log_sd = state.eta
        return MeanField(state.loc + state.scale * m, jnp.log(state.scale) + log_sd)

    def finish(self, problem: Problem, state: DADVIState) -> Result:
        q = jax.device_get(extract(self, state))
        if not bool(state.checked):
            reason = "the log density is not finite at some of the fixed draws"
            nowhere = state.count > 0 and not np.isfinite(state.value)
            remedy = "check its constraints, or use a method that draws afresh"
            return Result((q,), (Finding(Status.USABLE, reason, remedy),) if nowhere else (), converged=False)
        if not np.isfinite(state.error):
            reason = (
                "the log density has no curvature in some direction: there is no linear response, and the error from "
            )
            return Result((q,), (Finding(Status.USABLE, reason + "having few draws is not known"),))
        findings = _about_draws(float(state.error), int(state.used) * self.num_draws)
        if not state.response.size:
            return Result((q,), (*findings, BLIND))
        response = np.asarray(state.scale)[:, None] * np.asarray(state.response) * np.asarray(state.scale)
        if np.linalg.eigvalsh(response)[0] <= 0:
            reason = "the linear-response covariance is not positive definite: the optimum is a saddle point"
            return Result((q,), (*findings, Finding(Status.USABLE, reason)))
        linear_response = FullRank.from_scale_tril(q.mean(), jnp.asarray(np.linalg.cholesky(response)))
        return Result((q, jax.device_get(linear_response)), findings)


def _probes(dim: int) -> int | None:
    """Probes for the diagonal of the curvature at the start; None for the exact one."""
    return None if dim <= DENSE else PROBES


def _about_draws(error: float, draws: int) -> Sequence[Finding]:
    reason = f"with other draws than these {draws} a mean would move by about {error:.2g} standard deviations"
    if error < LARGE_ERROR:
        return (Finding(Status.RELIABLE, reason),)
    return (Finding(Status.USABLE, reason, "raise num_draws"),)


class Average(NamedTuple):
    """Averages over the draws at one (m, l)."""

    value: Array  # () ELBO
    error: Array  # () its standard error
    gradient: Array  # (2, dim)
    bad: Array  # () draws that are not finite


def average(problem: Problem, eta: Array, draws: Array, used: Array) -> Average:
    """ELBO and gradient at eta on the first `used` blocks of draws."""
    n, dim = draws.shape[1:]

    def block(i: Array, sums: Any) -> Any:
        z = jnp.asarray(draws)[i]
        w = jnp.exp(eta[1]) * z
        values, g, good = problem.values_and_gradients(eta[0] + w)
        pairs = (values[: n // 2] + values[n // 2 :]) / 2
        new = pairs.mean(), (pairs**2).mean(), jnp.stack([g.mean(axis=0), (g * w).mean(axis=0)]), jnp.sum(~good)
        return jax.tree.map(jnp.add, sums, new)

    zero = jnp.zeros((), eta.dtype)
    total = jax.lax.fori_loop(0, used, block, (zero, zero, jnp.zeros_like(eta), jnp.zeros((), int)))
    blocks = jnp.asarray(used, eta.dtype)
    mean, square, gradient = total[0] / blocks, total[1] / blocks, total[2] / blocks
    entropy = eta[1].sum() + 0.5 * dim * (1 + jnp.log(2 * jnp.pi))
    value = jnp.where(total[3] == 0, mean + entropy, -jnp.inf)
    error = jnp.sqrt(jnp.maximum(square - mean**2, 0) / (blocks * (n // 2)))
    return Average(value, error, gradient.at[1].add(1), total[3])


def curvature_product(problem: Problem, eta: Array, gradient: Array, draws: Array, used: Array, v: Array) -> Array:
    """B v for v `(2, dim)`, with one Hessian-vector product at each draw."""

    def block(i: Array, total: Array) -> Array:
        w = jnp.exp(eta[1]) * jnp.asarray(draws)[i]
        h = -problem.hessian_vector_products(eta[0] + w, v[0] + v[1] * w)
        return total + jnp.stack([h.mean(axis=0), (h * w).mean(axis=0)])

    total = jax.lax.fori_loop(0, used, block, jnp.zeros_like(eta)) / jnp.asarray(used, eta.dtype)
    return total.at[1].add((1 - gradient[1]) * v[1])


def metric(eta: Array) -> Array:
    """About the diagonal of B, `(2, dim)`: exact at the optimum for independent Gaussian coordinates."""
    return jnp.stack([jnp.exp(-2 * eta[1]), jnp.full_like(eta[1], 2)])


# -- the three kinds of steps: each returns the state, bad draws, gradients and Hessian-vector products made -----------

Outcome = tuple[DADVIState, Array, Array, Array]


def _look(problem: Problem, state: DADVIState) -> Outcome:
    """See where we are, with as many draws as there are by now."""
    here = average(problem, state.eta, state.draws, state.used)
    radius = jnp.where(jnp.isfinite(here.value), state.radius, 0)  # ends the search
    state = state._replace(value=here.value, value_error=here.error, gradient=here.gradient, radius=radius)
    return state, here.bad, _draws(state), jnp.zeros((), int)


def _newton(problem: Problem, state: DADVIState) -> Outcome:
    matvec = lambda v: curvature_product(problem, state.eta, state.gradient, state.draws, state.used, v)
    shape = state.eta.shape
    step = propose(
        state.gradient.ravel(),
        lambda v: matvec(v.reshape(shape)).ravel(),
        state.radius,
        metric(state.eta).ravel(),
    )
    eta = state.eta + step.move.reshape(shape)
    eta = eta.at[1].set(jnp.clip(eta[1], -RANGE, RANGE))
    there = average(problem, eta, state.draws, state.used)
    accept, radius = judge(step, there.value - state.value, state.radius, state.value)
    rounding = 10 * jnp.finfo(eta.dtype).eps * jnp.abs(state.value)
    near = step.predicted < jnp.maximum(NEAR, rounding)
    keep = lambda new, old: jnp.where(accept, new, old)
    state = state._replace(
        eta=keep(eta, state.eta),
        value=keep(there.value, state.value),
        value_error=keep(there.error, state.value_error),
        gradient=keep(there.gradient, state.gradient),
        radius=radius,
        arrived=accept & near & (step.length < 0.99 * state.radius),
    )
    return state, there.bad, _draws(state), step.products * _draws(state)


def _check(max_error: float, problem: Problem, state: DADVIState) -> Outcome:
    """At the optimum: is the error of the draws small? If not, go on with twice as many."""
    dim, dtype = state.loc.size, state.eta.dtype
    made = _draws(state)
    if dim <= DENSE:
        mm, lm, ll = hessian_blocks(problem, state.eta, state.gradient, state.draws, state.used)
        answer = jnp.linalg.solve(ll, lm)  # of l to m
        response = jnp.linalg.inv(mm - lm.T @ answer)
        response = (response + response.T) / 2
        sd = jnp.sqrt(jnp.abs(jnp.diagonal(response)))
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
    return state, jnp.zeros((), int), made, made * (dim if dim <= DENSE else 0)


def hessian_blocks(
    problem: Problem, eta: Array, gradient: Array, draws: Array, used: Array
) -> tuple[Array, Array, Array]:
    """B_mm, B_lm and B_ll, each `(dim, dim)`, with dim Hessian-vector products at each draw."""

    def block(i: Array, total: Array) -> Array:
        w = jnp.exp(eta[1]) * jnp.asarray(draws)[i]

        def columns(e: Array) -> Array:
            h = -problem.hessian_vector_products(eta[0] + w, jnp.broadcast_to(e, w.shape))
            return jnp.stack([h.mean(axis=0), (h * w).mean(axis=0), (h * w * (w @ e)[:, None]).mean(axis=0)])

        return total + jax.lax.map(columns, jnp.eye(eta.shape[1], dtype=eta.dtype))

    dim = eta.shape[1]
    total = jax.lax.fori_loop(0, used, block, jnp.zeros((dim, 3, dim), eta.dtype)) / jnp.asarray(used, eta.dtype)
    mm, lm, ll = total[:, 0].T, total[:, 1].T, total[:, 2].T
    return mm, lm, ll + jnp.diag(1 - gradient[1])


def _draws(state: DADVIState) -> Array:
    return state.used * state.draws.shape[1]
