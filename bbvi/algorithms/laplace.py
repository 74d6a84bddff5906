"""The Gaussian at the mode, with the curvature there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg

from bbvi.algorithms.base import Algorithm, Begin, Info, Result
from bbvi.algorithms.newton import triangular
from bbvi.algorithms.trust_region import judge, propose
from bbvi.compiling import program
from bbvi.curvature import HessianOperator, hessian_diagonal, lanczos
from bbvi.distributions import Distribution, FullRank, MeanField, Spiked
from bbvi.outcome import Finding, Status
from bbvi.problem import Problem

Array = Any
DENSE_UP_TO = 1000  # coordinates, when no family is named
EXACT_DIAGONAL_UP_TO = 2000  # coordinates
PROBES = 100  # for the diagonal above that
NOISY = 0.2  # relative error of the diagonal by probes, from which it is worth a word
RANK = 256  # of the curvature above DENSE_UP_TO, at most
EXTRA = 20  # Lanczos steps, besides two for each direction
SETTLED = 0.01  # residual of a Ritz pair, as a share of its value, below which it is used
SMALL = 1e-4  # share of its curvature that a coordinate has at least outside the span of the Ritz vectors
ROUNDING = 1e3  # roundings of the diagonal, below which what is left of it counts as nothing
COMPLETIONS = 50  # products in completing the diagonal, at most
WELL = 1e3  # curvature in good coordinates is within this factor of 1
MAX_ROUNDS = 5
BLOCK = 64  # columns of the Hessian computed at once
MAX_STEPS = 200
NEAR = 1e-8  # nats still to gain from which the mode counts as reached
FORCING = 0.01  # products at one point are cheaper than further points
ESCAPED = 1e12  # distance in units of the start, from which the mode counts as run off
FLAT = 1e-8  # curvature, as a share of the largest, below which a direction is repaired


class LaplaceState(NamedTuple):
    """State of `Laplace`, in the coordinates of its start."""

    q: Distribution  # the start
    loc: Array  # (dim,) of the coordinates
    scale: Array  # (dim,) or (dim, dim)
    y: Array  # (dim,) the best point
    value: Array  # () log density there, -inf before the first step
    gradient: Array  # (dim,)
    radius: Array  # () of the trust region
    count: Array  # () steps
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
    families = (FullRank, MeanField, Spiked)

    def derivatives(self, q: Distribution) -> int:
        return 2

    @property
    def begins(self) -> Begin:
        return Begin.MODE

    def default_family(self, dim: int) -> type[Distribution] | Distribution:
        return FullRank if dim <= DENSE_UP_TO else Spiked.standard(dim, rank=min(dim // 4, RANK))

    def draws(self, rng: np.random.Generator, dim: int) -> Array:
        # A nudge, lest a start that is exactly a saddle point stay there.
        return 1e-3 * rng.standard_normal(dim).astype(jax.dtypes.canonicalize_dtype(float))

    def init(self, problem: Problem, q: Distribution, draws: Array) -> LaplaceState:
        loc, scale, _ = q.standardise()
        zero = jnp.zeros((), loc.dtype)
        shape = (q.dim, q.dim) if isinstance(q, FullRank) else (0, 0)
        return LaplaceState(
            q,
            loc,
            scale,
            jnp.asarray(draws),
            zero - jnp.inf,
            jnp.zeros_like(loc),
            zero + 3 * q.dim**0.5,
            jnp.zeros((), int),
            jnp.zeros(shape, loc.dtype),
            jnp.zeros((), int),
            jnp.zeros((), bool),
            jnp.zeros((), bool),
        )

    def step(self, noise: Any, problem: Problem, state: LaplaceState) -> tuple[LaplaceState, Info]:
        local = problem.in_coordinates(state.loc, state.scale)
        stage = jnp.where(state.arrived, 2, jnp.where(jnp.isfinite(state.value), 1, 0))
        stages = (_look, _newton, _standardise) if state.precision.size else (_look, _newton)
        state, info = jax.lax.switch(stage, stages, local, state)
        elbo = state.value + 0.5 * state.y.size * jnp.log(2 * jnp.pi)
        return state, info._replace(elbo=elbo)

    def done(self, state: LaplaceState) -> Array:
        stuck = (state.radius < 1e-10) | (jnp.abs(state.y).max() > ESCAPED) | (state.count >= MAX_STEPS)
        return state.converged | stuck | ((state.count > 0) & ~jnp.isfinite(state.value))

    def extract(self, state: LaplaceState) -> Distribution:
        move = state.scale @ state.y if jnp.ndim(state.scale) == 2 else state.scale * state.y
        return state.q.near(state.loc + move, state.scale)

    def finish(self, problem: Problem, state: LaplaceState) -> Result:
        curvature = {FullRank: _dense, MeanField: _diagonal, Spiked: _low_rank}[type(state.q)]
        found: Curved = jax.device_get(_curved(curvature, problem, state))
        findings = [*_about_mode(state), *_about_repair(problem, found), *_about_noise(float(found.noise))]
        if state.converged and not isinstance(state.q, MeanField) and not np.any(found.repaired):
            findings.append(Finding(Status.RELIABLE, f"Laplace's estimate of the log evidence is {found.evidence:.2f}"))
        return Result((found.q,), findings, 0, int(found.products), bool(state.converged))


def _look(problem: Problem, state: LaplaceState) -> tuple[LaplaceState, Info]:
    """The first step: see where we are."""
    value, gradient = jax.value_and_grad(problem.log_density)(state.y)
    good = jnp.isfinite(value) & jnp.isfinite(gradient).all()
    zero = jnp.zeros((), int)
    state = state._replace(value=jnp.where(good, value, -jnp.inf), gradient=gradient, count=state.count + 1)
    return state, Info(value, jnp.zeros_like(value), jnp.asarray(~good, int), zero, zero + 1, zero)


def _newton(problem: Problem, state: LaplaceState) -> tuple[LaplaceState, Info]:
    hessian = HessianOperator(problem.log_density, state.y)
    step = propose(state.gradient, lambda v: -hessian.matvec(v), state.radius, forcing=FORCING)
    y = state.y + step.move
    value, gradient = jax.value_and_grad(problem.log_density)(y)
    good = jnp.isfinite(value) & jnp.isfinite(gradient).all()
    accept, radius = judge(step, jnp.where(good, value - state.value, -jnp.inf), state.radius, state.value)
    rounding = jnp.finfo(value.dtype).eps * jnp.abs(value)
    arrived = accept & (step.length < 0.99 * state.radius) & (step.predicted < jnp.maximum(NEAR, 10 * rounding))
    keep = lambda new, old: jnp.where(accept, new, old)
    state = state._replace(
        y=keep(y, state.y),
        value=keep(value, state.value),
        gradient=keep(gradient, state.gradient),
        radius=radius,
        count=state.count + 1,
        arrived=arrived,
        converged=arrived & (state.precision.size == 0),
    )
    zero = jnp.zeros((), int)
    # One gradient for the candidate, and one in the linearisation.
    return state, Info(value, jnp.zeros_like(value), jnp.asarray(~good, int), zero, zero + 2, step.products)


def _standardise(problem: Problem, state: LaplaceState) -> tuple[LaplaceState, Info]:
    """Look at the curvature. Where the coordinates do not suit it, go on in those that do.

    Rounding and the stopping rule work in coordinates, and those of the start may be off by orders of magnitude.
    """
    precision = _precision(problem, state.y)
    eigenvalues, vectors = jnp.linalg.eigh(jnp.where(jnp.isfinite(precision).all(), precision, 0))
    size = jnp.abs(eigenvalues)
    # Directions in which nothing but rounding is seen stay as they are.
    size = jnp.where(size <= 10 * len(size) * jnp.finfo(size.dtype).eps * size.max(), 1, size)
    good = ((size > 1 / WELL) & (size < WELL)).all() | (state.rounds >= MAX_ROUNDS)
    scale = triangular(state.scale @ (vectors / jnp.sqrt(size)))
    root = jax.scipy.linalg.solve_triangular(state.scale, scale, lower=True)
    anew = state._replace(
        loc=_mode(state),
        scale=scale,
        y=jnp.zeros_like(state.y),
        value=state.value - 0.5 * jnp.log(size).sum(),
        gradient=root.T @ state.gradient,
        radius=jnp.full_like(state.radius, 3 * state.y.size**0.5),
        rounds=state.rounds + 1,
        arrived=jnp.zeros((), bool),
    )
    kept = jax.tree.map(lambda a, b: jnp.where(good, a, b), state, anew)
    state = kept._replace(precision=precision, converged=good, count=state.count + 1)
    zero = jnp.zeros((), int)
    return state, Info(state.value, jnp.zeros_like(state.value), zero, zero, zero, zero + state.y.size)


def _precision(problem: Problem, y: Array) -> Array:
    """Minus the Hessian, `(dim, dim)`, by dim Hessian-vector products."""
    hessian = HessianOperator(problem.log_density, y)
    matrix = -jax.lax.map(hessian.matvec, jnp.eye(y.size, dtype=y.dtype), batch_size=min(y.size, BLOCK))
    return (matrix + matrix.T) / 2


# -- curvature at the mode ---------------------------------------------------------------------------------------------


class Curved(NamedTuple):
    """A Gaussian with the curvature at the mode."""

    q: Distribution
    evidence: Array  # () Laplace's estimate of the log evidence, in nats
    repaired: Array  # (n,) bool
    directions: Array  # (n, dim) that `repaired` speaks of, or (0, 0) for the coordinates
    noise: Array  # () largest relative standard error of a diagonal curvature
    products: Array | int  # Hessian-vector products made


def _repair(curvatures: Array) -> tuple[Array, Array]:
    """Positive curvatures, and which of them had to be made so."""
    largest = jnp.abs(jnp.nan_to_num(curvatures)).max()
    floor = jnp.where(largest > 0, FLAT * largest, 1.0)
    bad = ~(curvatures > floor)
    return jnp.where(bad, jnp.maximum(jnp.abs(jnp.nan_to_num(curvatures)), floor), curvatures), bad


def _evidence(state: LaplaceState, log_det: Array) -> Array:
    return state.value + 0.5 * state.y.size * jnp.log(2 * jnp.pi) - 0.5 * log_det


def _mode(state: LaplaceState) -> Array:
    return state.loc + (state.scale @ state.y if jnp.ndim(state.scale) == 2 else state.scale * state.y)


@program(static_argnums=0)
def _curved(curvature: Callable[[Problem, LaplaceState], Curved], problem: Problem, state: LaplaceState) -> Curved:
    return problem.layout.everywhere(curvature(problem, state))


def _dense(problem: Problem, state: LaplaceState) -> Curved:
    # A search that ended early has not looked at the curvature.
    local = problem.in_coordinates(state.loc, state.scale)
    precision = jax.lax.cond(state.converged, lambda: state.precision, lambda: _precision(local, state.y))
    eigenvalues, vectors = jnp.linalg.eigh(jnp.where(jnp.isfinite(precision).all(), precision, 0))
    good, bad = _repair(eigenvalues)
    q = FullRank.from_scale_tril(_mode(state), triangular(state.scale @ (vectors / jnp.sqrt(good))))
    products = jnp.where(state.converged, 0, state.y.size)
    return Curved(q, _evidence(state, jnp.log(good).sum()), bad, (state.scale @ vectors).T, jnp.zeros(()), products)


def _diagonal(problem: Problem, state: LaplaceState) -> Curved:
    local = problem.in_coordinates(state.loc, state.scale)
    value, error, products = _diagonal_of(local.log_density, state.y)
    good, bad = _repair(-value)
    q = MeanField(_mode(state), jnp.log(state.scale) - 0.5 * jnp.log(good))
    return Curved(q, _evidence(state, jnp.log(good).sum()), bad, _no_directions(), (error / good).max(), products)


def _low_rank(problem: Problem, state: LaplaceState) -> Curved:
    """A = diag(r) + V T V^T + what is neglected, in the coordinates of the start.

    V are the Ritz vectors that have converged, T their values, and r is such that the diagonal of A is right, too. What
    Lanczos has found is taken out before the rest of the diagonal is estimated by probes, with most of the noise.
    With B = V^T diag(r) V and S = T - B this is diag(r) + V S V^T, whose square root is found in the span of V.
    """
    assert isinstance(state.q, Spiked)
    dim, rank = state.y.size, state.q.rank
    local = problem.in_coordinates(state.loc, state.scale)
    hessian = HessianOperator(local.log_density, state.y)
    steps = min(dim, 2 * rank + EXTRA)
    ritz = lanczos(lambda v: -hessian.matvec(v), jax.random.normal(jax.random.key(0), (dim,), state.y.dtype), steps)
    repaired, bad = _repair(ritz.values)
    settled = (ritz.residuals < SETTLED * repaired) | bad
    spread = jnp.abs(jnp.log(repaired) - jnp.log(jnp.median(repaired)))
    order = jnp.argsort(jnp.where(settled, -spread, jnp.inf))[:rank]
    vectors = jnp.where(settled[order], ritz.vectors[:, order], 0)
    values = jnp.where(settled[order], ritz.values[order], 0)
    made_good = jnp.where(settled[order], repaired[order], 0)

    deflated = lambda y: local.log_density(y) + 0.5 * jnp.sum(values * (vectors.T @ y) ** 2)
    left, error, products = _diagonal_of(deflated, state.y)
    whole = -left + jnp.sum(values * vectors**2, axis=1)
    rounding = ROUNDING * jnp.finfo(left.dtype).eps * jnp.abs(whole)
    left = jnp.where(-left > rounding, -left, 0)  # where V spans everything, rounding is all that is left

    def incomplete(diagonal: Array) -> Array:
        return diagonal - jnp.sum((vectors @ (vectors.T @ (diagonal[:, None] * vectors))) * vectors, axis=1)

    # r, less its part in the span of V, is what is left of the diagonal.
    diagonal, _ = cg(incomplete, left, x0=left, tol=1e-8, maxiter=COMPLETIONS)
    diagonal = jnp.maximum(diagonal, SMALL * jnp.maximum(jnp.abs(whole), jnp.abs(whole).max() * FLAT))
    excess = jnp.diag(made_good) - vectors.T @ (diagonal[:, None] * vectors)
    basis, upper = jnp.linalg.qr(vectors / jnp.sqrt(diagonal)[:, None])
    eigenvalues, rotation = jnp.linalg.eigh(upper @ excess @ upper.T)
    spikes, _ = _repair(1 + eigenvalues)
    q = Spiked.from_eigenvectors(_mode(state), state.scale / jnp.sqrt(diagonal), basis @ rotation, spikes**-0.5)
    evidence = _evidence(state, jnp.log(diagonal).sum() + jnp.log(spikes).sum())
    noise = (error / diagonal).max()
    return Curved(q, evidence, bad, state.scale * ritz.vectors.T, noise, products + steps)


def _diagonal_of(function: Any, y: Array) -> tuple[Array, Array, int]:
    """Diagonal of a Hessian, its standard error, and the products made."""
    probes = None if y.size <= EXACT_DIAGONAL_UP_TO else PROBES
    estimate = hessian_diagonal(function, y, probes)
    return estimate.value, estimate.standard_error, probes or y.size


def _no_directions() -> Array:
    return jnp.zeros((0, 0))


# -- what there is to say ---------------------------------------------------------------------------------------------


def _about_mode(state: LaplaceState) -> Sequence[Finding]:
    if state.converged:
        return ()
    far = float(jnp.abs(state.y).max())
    if far > ESCAPED or (far > 100 and state.radius < 1e-6):
        return (
            Finding(
                Status.UNRELIABLE,
                "the mode has run off: the density keeps rising towards the edge of what can be computed",
                'use method="newton" or "advi", which look at mass rather than height; a non-centred parameterisation '
                "often has a mode",
            ),
        )
    return (
        Finding(
            Status.USABLE,
            f"the search for the mode ended before it converged, after {int(state.count)} steps",
            "give init= a point near the mode, or look for kinks and discontinuities in the log density",
        ),
    )


def _about_noise(noise: float) -> Sequence[Finding]:
    if noise < NOISY:
        return ()
    reason = f"random probes leave a relative error of up to {noise:.2g} in the diagonal of the curvature"
    return (Finding(Status.USABLE, reason, "use the family Spiked with a larger rank, or 'full_rank'"),)


def _about_repair(problem: Problem, found: Curved) -> Sequence[Finding]:
    bad, directions = found.repaired, found.directions
    count = int(np.sum(bad))
    if not count:
        return ()
    names = problem.parameters.coordinate_names()
    if directions.size:
        words = [in_words(direction, names) for direction in directions[bad][:3]]
    else:
        words = [names[i] for i in np.flatnonzero(bad)[:3]]
    return (
        Finding(
            Status.USABLE,
            f"the curvature is not positive along {count} direction{'s' * (count > 1)} and was repaired: "
            + "; ".join(words)
            + ("; ..." if count > len(words) else ""),
            "a direction without curvature has no proper posterior, or the point is a saddle: check priors along it",
        ),
    )


def in_words(direction: np.ndarray, names: Sequence[str]) -> str:
    """A vector `(dim,)` as a combination of its largest coordinates, such as "0.98 mu - 0.17 tau"."""
    if not np.isfinite(direction).all():
        return "a direction that is not finite"
    unit = direction / np.abs(direction).max()
    largest = [i for i in np.argsort(-np.abs(unit))[:3] if abs(unit[i]) > 0.05]
    signs = ["" if unit[largest[0]] > 0 else "-", *(" + " if unit[i] > 0 else " - " for i in largest[1:])]
    return "".join(f"{sign}{abs(unit[i]):.2g} {names[i]}" for sign, i in zip(signs, largest, strict=True))
