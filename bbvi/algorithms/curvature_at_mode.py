"""The Gaussian with the curvature of a log density at its mode: dense, diagonal, or a diagonal and few directions."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from bbvi.curvature import HessianOperator, hessian_diagonal, lanczos
from bbvi.distributions import Distribution, LocationScale
from bbvi.distributions.affine import Affine
from bbvi.distributions.base import LOG_2PI
from bbvi.distributions.scales import Diagonal, Triangular, on_diagonal
from bbvi.distributions.spiked import SpikedDiagonal
from bbvi.policy import Regime
from bbvi.runtime.compiling import program
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

DIAGONAL_PROBES = 100  # for a diagonal of curvature where the exact one costs too much
EXTRA = 20  # Lanczos steps, besides two for each direction
SETTLED = 0.01  # residual of a Ritz pair, as a share of its value, below which it is used
SMALL = 1e-4  # share of its curvature that a coordinate has at least outside the span of the Ritz vectors
ROUNDING = 1e3  # roundings of the diagonal, below which what is left of it counts as nothing
COMPLETIONS = 50  # products in completing the diagonal, at most
COLUMNS = 64  # of the Hessian computed at once
FLAT = 1e-8  # curvature, as a share of the largest, below which a direction is repaired


class Mode(NamedTuple):
    """Where a search for the mode ended."""

    coordinates: Affine
    y: Array  # (dim,) in these
    value: Array  # () log density there
    precision: Array  # (dim, dim) minus the Hessian at y, where the search has looked at it
    converged: Array  # () bool: then it has


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


def _evidence(mode: Mode, log_det: Array) -> Array:
    return mode.value + 0.5 * mode.y.size * LOG_2PI - 0.5 * log_det


@program
def curved(problem: Problem, q: Distribution, mode: Mode) -> Curved:
    """The Gaussian with the curvature at the mode, in the structure of q."""
    assert isinstance(q, LocationScale)
    if isinstance(q.scale, SpikedDiagonal):
        found = _low_rank(problem, mode, q.scale.rank)
    else:
        found = (_dense if isinstance(q.scale, Triangular) else _diagonal)(problem, mode)
    return problem.layout.replicate(found)


def dense_precision(problem: Problem, y: Array) -> Array:
    """Minus the Hessian, `(dim, dim)`, by dim Hessian-vector products."""
    hessian = HessianOperator(problem.log_density, y)
    matrix = -jax.lax.map(hessian.matvec, jnp.eye(y.size, dtype=y.dtype), batch_size=min(y.size, COLUMNS))
    return (matrix + matrix.T) / 2


def _dense(problem: Problem, mode: Mode) -> Curved:
    # A search that ended early has not looked at the curvature.
    local = problem.in_coordinates(mode.coordinates)
    precision = jax.lax.cond(mode.converged, lambda: mode.precision, lambda: dense_precision(local, mode.y))
    eigenvalues, vectors = jnp.linalg.eigh(jnp.where(jnp.isfinite(precision).all(), precision, 0))
    repaired, bad = _repair(eigenvalues)
    directions = mode.coordinates.scale.matrix() @ vectors
    q = LocationScale(mode.coordinates(mode.y), Triangular.of_factor(directions / jnp.sqrt(repaired)))
    products = jnp.where(mode.converged, 0, mode.y.size)
    return Curved(q, _evidence(mode, jnp.log(repaired).sum()), bad, directions.T, jnp.zeros(()), products)


def _diagonal(problem: Problem, mode: Mode) -> Curved:
    local = problem.in_coordinates(mode.coordinates)
    value, error, products = _diagonal_of(local.log_density, mode.y)
    repaired, bad = _repair(-value)
    scale = Diagonal(-0.5 * jnp.log(repaired)).after(mode.coordinates.scale)
    q = LocationScale(mode.coordinates(mode.y), scale)
    noise = (error / repaired).max()
    return Curved(q, _evidence(mode, jnp.log(repaired).sum()), bad, jnp.zeros((0, 0)), noise, products)


def _low_rank(problem: Problem, mode: Mode, rank: int) -> Curved:
    """A = diag(r) + V T V^T + what is neglected, in the coordinates of the start.

    V are the Ritz vectors that have converged, T their values, and r is such that the diagonal of A is right, too. What
    Lanczos has found is taken out before the rest of the diagonal is estimated by probes, with most of the noise.
    With B = V^T diag(r) V and S = T - B this is diag(r) + V S V^T, whose square root is found in the span of V.
    """
    dim, dtype = mode.y.size, mode.y.dtype
    local = problem.in_coordinates(mode.coordinates)
    hessian = HessianOperator(local.log_density, mode.y)
    steps = min(dim, 2 * rank + EXTRA)
    ritz = lanczos(lambda v: -hessian.matvec(v), jax.random.normal(jax.random.key(0), (dim,), dtype), steps)
    repaired, bad = _repair(ritz.values)
    settled = (ritz.residuals < SETTLED * repaired) | bad
    spread = jnp.abs(jnp.log(repaired) - jnp.log(jnp.median(repaired)))
    order = jnp.argsort(jnp.where(settled, -spread, jnp.inf))[:rank]
    vectors = jnp.where(settled[order], ritz.vectors[:, order], 0)
    values = jnp.where(settled[order], ritz.values[order], 0)
    made_positive = jnp.where(settled[order], repaired[order], 0)

    deflated = lambda y: local.log_density(y) + 0.5 * jnp.sum(values * (vectors.T @ y) ** 2)
    left, error, products = _diagonal_of(deflated, mode.y)
    whole = -left + jnp.sum(values * vectors**2, axis=1)
    rounding = ROUNDING * jnp.finfo(left.dtype).eps * jnp.abs(whole)
    left = jnp.where(-left > rounding, -left, 0)  # where V spans everything, rounding is all that is left

    def incomplete(diagonal: Array) -> Array:
        return diagonal - jnp.sum((vectors @ (vectors.T @ (diagonal[:, None] * vectors))) * vectors, axis=1)

    # r, less its part in the span of V, is what is left of the diagonal.
    diagonal, _ = cg(incomplete, left, x0=left, tol=1e-8, maxiter=COMPLETIONS)
    diagonal = jnp.maximum(diagonal, SMALL * jnp.maximum(jnp.abs(whole), jnp.abs(whole).max() * FLAT))
    excess = on_diagonal(made_positive) - vectors.T @ (diagonal[:, None] * vectors)
    basis, upper = jnp.linalg.qr(vectors / jnp.sqrt(diagonal)[:, None])
    eigenvalues, rotation = jnp.linalg.eigh(upper @ excess @ upper.T)
    spikes, _ = _repair(1 + eigenvalues)
    scale = SpikedDiagonal.of_eigenvectors(diagonal**-0.5, basis @ rotation, spikes**-0.5)
    q = LocationScale(mode.coordinates(mode.y), scale.after(mode.coordinates.scale))
    evidence = _evidence(mode, jnp.log(diagonal).sum() + jnp.log(spikes).sum())
    noise = (error / diagonal).max()
    return Curved(q, evidence, bad, mode.coordinates.scale.sd() * ritz.vectors.T, noise, products + steps)


def _diagonal_of(function: Any, y: Array) -> tuple[Array, Array, int]:
    """Diagonal of a Hessian, its standard error, and the products made."""
    probes = None if Regime.of(y.size).exact_diagonal else DIAGONAL_PROBES
    estimate = hessian_diagonal(function, y, probes)
    return estimate.value, estimate.standard_error, probes or y.size
