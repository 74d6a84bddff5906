"""The Gaussian at the mode, with the curvature there."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.algorithms.base import Algorithm, Info, Initialisation, Needs, Result, status
from bbvi.algorithms.curvature_at_mode import Mode, curved, dense_precision
from bbvi.algorithms.laplace_findings import about_mode, about_noise, about_repair
from bbvi.algorithms.numerics.trust_region import first_radius, has_arrived, is_stuck, judge, propose_step
from bbvi.curvature import HessianOperator
from bbvi.distributions import Distribution, FullRank, MeanField, Spiked
from bbvi.distributions.affine import Affine
from bbvi.distributions.scales import Triangular
from bbvi.outcome import Evaluations, Finding, Status
from bbvi.policy import Regime, default_rank
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

LARGEST_RANK = 256  # of the curvature where it is not dense, when no family is named
WELL_SCALED = 1e3  # curvature in good coordinates is within this factor of 1
MAX_ROUNDS = 5
FORCING = 0.01  # products at one point are cheaper than further points


class LaplaceState(NamedTuple):
    """State of `Laplace`, in the coordinates of its start."""

    q: Distribution  # the start
    coordinates: Affine
    y: Array  # (dim,) the best point
    value: Array  # () log density there, -inf before the first step
    gradient: Array  # (dim,)
    radius: Array  # () of the trust region
    steps: Array  # () steps
    precision: Array  # (dim, dim) minus the Hessian at y, where the curvature is dense; else (0, 0)
    rounds: Array  # () times that the coordinates were standardised anew
    arrived: Array  # () bool, at the mode
    converged: Array  # () bool, at the mode in good coordinates


@dataclass(frozen=True, kw_only=True)
class Laplace(Algorithm[LaplaceState]):
    """Laplace's approximation: N(x*, A^-1) with x* the mode of the unconstrained density and A = -hess log p(x*).

    The mode is sought by trust-region Newton steps with Hessian-vector products, from the best of a few quasi-Newton
    paths, in coordinates that are standardised anew where those of the paths turn out not to suit the curvature. This
    is dense ("full_rank", dim products), its diagonal ("mean_field"), or a diagonal plus low rank from extreme
    eigenpairs by Lanczos ("spiked", two products for each direction, and those for a diagonal). Directions without
    positive curvature are given the size of it, and named in the verdict.

    The ELBO in the history is that of the quadratic expansion with the curvature of the coordinates; at the end, with
    the curvature found, it is Laplace's estimate of the log evidence.

    References: Tierney and Kadane 1986; Nocedal and Wright 2006, ch. 7, for the search.
    """

    name = "laplace"

    def needs(self, dim: int, q: Distribution | None = None) -> Needs:
        def nudge(rng: np.random.Generator) -> Array:
            # Without it a start that is exactly a saddle point would stay there.
            return 1e-3 * rng.standard_normal(dim).astype(jax.dtypes.canonicalize_dtype(float))

        dense = Regime.of(dim).newton
        return Needs(
            family=FullRank if dense else Spiked.standard(dim, rank=default_rank(dim, LARGEST_RANK)),
            families=(FullRank, MeanField, Spiked),
            start=Initialisation.MODE,
            derivatives=2,
            draws=nudge,
        )

    def init(self, problem: Problem, q: Distribution, draws: Array) -> LaplaceState:
        coordinates, _ = q.standardise()
        loc = coordinates.loc
        return LaplaceState(
            q=q,
            coordinates=coordinates,
            y=jnp.asarray(draws),
            value=jnp.full((), -jnp.inf, loc.dtype),
            gradient=jnp.zeros_like(loc),
            radius=first_radius(loc, q.dim),
            steps=jnp.zeros((), int),
            precision=jnp.zeros((q.dim, q.dim) if FullRank.holds(q) else (0, 0), loc.dtype),
            rounds=jnp.zeros((), int),
            arrived=jnp.zeros((), bool),
            converged=jnp.zeros((), bool),
        )

    def step(self, noise: Any, problem: Problem, state: LaplaceState) -> tuple[LaplaceState, Info]:
        local = problem.in_coordinates(state.coordinates)
        stage = jnp.where(state.arrived, 2, jnp.where(jnp.isfinite(state.value), 1, 0))
        stages = (_look, _newton, _standardise) if state.precision.size else (_look, _newton)
        state, info = jax.lax.switch(stage, stages, local, state)
        elbo = state.value + 0.5 * state.y.size * jnp.log(2 * jnp.pi)
        return state, info._replace(elbo=elbo)

    def status(self, state: LaplaceState) -> Array:
        nowhere = (state.steps > 0) & ~jnp.isfinite(state.value)
        return status(state.converged, is_stuck(state.y, state.radius, state.steps) | nowhere)

    def extract(self, state: LaplaceState) -> Distribution:
        return state.q.around(Affine(state.coordinates(state.y), state.coordinates.scale))

    def finish(self, problem: Problem, state: LaplaceState) -> Result:
        converged = bool(state.converged)
        mode = Mode(state.coordinates, state.y, state.value, state.precision, np.asarray(converged))
        found = jax.device_get(curved(problem, state.q, mode))
        findings = [
            *about_mode(converged, state.y, state.radius, state.steps),
            *about_repair(problem.parameters.coordinate_names(), found),
            *about_noise(float(found.noise)),
        ]
        if converged and not MeanField.holds(state.q) and not np.any(found.repaired):
            findings.append(Finding(Status.RELIABLE, f"Laplace's estimate of the log evidence is {found.evidence:.2f}"))
        return Result((found.q,), findings, Evaluations(hessian_vector_products=int(found.products)))


def _look(problem: Problem, state: LaplaceState) -> tuple[LaplaceState, Info]:
    """The first step: see where we are."""
    value, gradient, finite = _at(problem, state.y)
    state = state._replace(value=jnp.where(finite, value, -jnp.inf), gradient=gradient, steps=state.steps + 1)
    return state, _info(value, ~finite, gradients=1)


def _newton(problem: Problem, state: LaplaceState) -> tuple[LaplaceState, Info]:
    hessian = HessianOperator(problem.log_density, state.y)
    step = propose_step(state.gradient, lambda v: -hessian.matvec(v), state.radius, forcing=FORCING)
    y = state.y + step.move
    value, gradient, finite = _at(problem, y)
    accept, radius = judge(step, jnp.where(finite, value - state.value, -jnp.inf), state.radius, state.value)
    arrived = has_arrived(step, accept, state.radius, value)
    keep = lambda new, old: jnp.where(accept, new, old)
    state = state._replace(
        y=keep(y, state.y),
        value=keep(value, state.value),
        gradient=keep(gradient, state.gradient),
        radius=radius,
        steps=state.steps + 1,
        arrived=arrived,
        converged=arrived & (state.precision.size == 0),
    )
    return state, _info(value, ~finite, gradients=2, products=step.products)  # one gradient in the linearisation


def _standardise(problem: Problem, state: LaplaceState) -> tuple[LaplaceState, Info]:
    """Look at the curvature. Where the coordinates do not suit it, go on in those that do.

    Rounding and the stopping rule work in coordinates, and those of the start may be off by orders of magnitude.
    """
    precision = dense_precision(problem, state.y)
    eigenvalues, vectors = jnp.linalg.eigh(jnp.where(jnp.isfinite(precision).all(), precision, 0))
    size = jnp.abs(eigenvalues)
    # Directions in which nothing but rounding is seen stay as they are.
    size = jnp.where(size <= 10 * len(size) * jnp.finfo(size.dtype).eps * size.max(), 1, size)
    fits = ((size > 1 / WELL_SCALED) & (size < WELL_SCALED)).all() | (state.rounds >= MAX_ROUNDS)
    old = state.coordinates.scale
    assert isinstance(old, Triangular)
    scale = Triangular.of_factor(old.matrix() @ (vectors / jnp.sqrt(size)))
    root = old.solve(scale.matrix())
    anew = state._replace(
        coordinates=Affine(state.coordinates(state.y), scale),
        y=jnp.zeros_like(state.y),
        value=state.value - 0.5 * jnp.log(size).sum(),
        gradient=root.T @ state.gradient,
        radius=first_radius(state.y, state.y.size),
        rounds=state.rounds + 1,
        arrived=jnp.zeros((), bool),
    )
    kept = jax.tree.map(lambda a, b: jnp.where(fits, a, b), state, anew)
    state = kept._replace(precision=precision, converged=fits, steps=state.steps + 1)
    return state, _info(state.value, jnp.zeros((), bool), products=state.y.size)


def _at(problem: Problem, y: Array) -> tuple[Array, Array, Array]:
    """Log density and gradient at y, and whether they are finite."""
    value, gradient = jax.value_and_grad(problem.log_density)(y)
    return value, gradient, jnp.isfinite(value) & jnp.isfinite(gradient).all()


def _info(value: Array, non_finite: Array, gradients: int = 0, products: Array | int = 0) -> Info:
    count = lambda number: jnp.asarray(number, int)
    evaluations = Evaluations(count(0), count(gradients), count(products))
    return Info(value, jnp.zeros_like(value), count(non_finite), evaluations)
