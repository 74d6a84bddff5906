"""The parameters of one group, given those that all groups share: their mode, their integral, and draws of them.

With f(x) the log density of a group, m its mode and L L^T minus the Hessian there,

    log int exp(f) = log sum_k w_k exp(f(m + L^-T t_k) + |t_k|^2 / 2) + (d / 2) log(2 pi) - log |L|,

with nodes t_k and weights w_k for a standard normal: exact where f is quadratic. Derivatives in the shared parameters
are those of the sum with the nodes held where they are. What is left out by that is no larger than the error of the
sum, since the integral does not depend on its nodes; so neither the search for m nor L is differentiated, and m need
not be exact.

Nodes are those of Gauss and Hermite along up to five coordinates. For six to eight they are 2 d points on the axes and
2^d in the corners of a cube, which are exact up to the fifth degree. For more they are random, the same
at each call, and the sum is that of importance sampling.

References: Naylor and Smith 1982; Pinheiro and Bates 1995 (adaptive quadrature); Stroud 1971 (the formula E_n 5);
Rubin 1988 (resampled candidates).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular

from bbvi.distributions.scales import diagonal_of, on_diagonal
from bbvi.runtime.types import Array

Function = Callable[[Array], Array]
MOST_COORDINATES = 8  # of a group, up to which nodes are a quadrature's and factorisations are written out
RANDOM_PAIRS = 128  # of nodes, where coordinates are more
MOST_LOOKS = 32  # at the density of a group, while its mode is sought
STILL = 1e-4  # squared length of a Newton step, in standard deviations, after which no other is made
SHORTER_STEP = 0.25  # share of a step that is tried after one that led down
NODES_ALONG = {1: 15, 2: 9, 3: 5, 4: 4, 5: 3}  # nodes along each coordinate
CANDIDATES_WIDER = 1.2  # times the scale of the Gaussian is that of candidates


class Gaussian(NamedTuple):
    """The Gaussian at a mode."""

    loc: Array  # (d,)
    scale: Array  # (d, d) triangular; NaN where no mode was found
    looks: Array  # at value, gradient and Hessian: ()

    def __call__(self, t: Array) -> Array:
        """Points `(n, d)` from standard normal ones `(n, d)`."""
        return self.loc + jnp.sum(t[:, None] * self.scale, axis=-1)

    def log_prob(self, x: Array) -> Array:
        """Log density at one point `(d,)`, of a diagonal scale, a scalar."""
        t = (x - self.loc) / diagonal_of(self.scale)
        return -0.5 * jnp.sum(t**2) - self.log_volume

    @property
    def log_volume(self) -> Array:
        """Of one standard deviation, and (d / 2) log(2 pi)."""
        return 0.5 * len(self.loc) * np.log(2 * np.pi) + jnp.sum(jnp.log(diagonal_of(self.scale)))


class _Place(NamedTuple):
    """Where a search is."""

    x: Array  # (d,)
    value: Array  # ()
    step: Array  # (d,) that is tried next
    length: Array  # () squared, of a whole step of Newton, in standard deviations
    root: Array  # (d, d)
    is_curved: Array  # () whether minus the Hessian is positive definite


def log_integral(f: Function, there: Gaussian) -> Array:
    """The logarithm of the integral of exp(f) over x `(d,)`, by nodes around a Gaussian; NaN where that is NaN."""
    t, log_weights = nodes(len(there.loc))
    values = _finite(jax.vmap(f)(there(jnp.asarray(t, there.loc.dtype))))
    return jax.nn.logsumexp(values + jnp.asarray(log_weights, values.dtype)) + there.log_volume


def log_average(f: Function, there: Gaussian, key: Array) -> Array:
    """The same from pairs of opposite draws of the Gaussian, made by a key, for any number of coordinates.

    The logarithm of an average is too small, by half the relative variance of that average to first order: this is
    added.
    """
    half = jax.random.normal(key, (RANDOM_PAIRS, len(there.loc)), there.loc.dtype)
    half = half / jnp.sqrt(jnp.mean(half**2, axis=0))
    t = jnp.concatenate([half, -half])
    values = _finite(jax.vmap(f)(there(t))) + 0.5 * jnp.sum(t**2, axis=1)
    shares = jnp.sum(jax.nn.softmax(values).reshape(2, -1), axis=0)
    missing = 0.5 * (jnp.sum(shares**2) - 1 / RANDOM_PAIRS)
    return jax.nn.logsumexp(values) - np.log(len(t)) + missing + there.log_volume


def find_gaussian(f: Function, dim: int, dtype: np.dtype, begin: Array | None = None) -> Gaussian:
    """The Gaussian at the mode of f, by steps of Newton, each a shorter one where f would fall.

    Arguments:
        begin: where they begin, `(dim,)`; None for zero.
    """

    def look(x: Array) -> _Place:
        (value, gradient), push = jax.linearize(jax.value_and_grad(f), x)
        root, is_curved = _cholesky(-jax.vmap(push)(jnp.eye(dim, dtype=dtype))[1])
        step = _solve_transposed(root, _solve(root, gradient))
        return _Place(x, value, step, gradient @ step, root, is_curved)

    def is_moving(state: tuple[Array, Array, _Place]) -> Array:
        return (state[0] < MOST_LOOKS) & state[1]

    def move(state: tuple[Array, Array, _Place]) -> tuple[Array, Array, _Place]:
        looks, _, here = state
        there = look(here.x + here.step)
        rounding = 8 * jnp.finfo(dtype).eps * (1 + jnp.abs(here.value))
        is_better = jnp.isfinite(there.length) & (there.value >= here.value - rounding)
        back = here._replace(step=jnp.asarray(SHORTER_STEP, dtype) * here.step)
        place = jax.tree.map(lambda new, old: jnp.where(is_better, new, old), there, back)
        return looks + 1, ~is_better | (place.length > STILL), place

    first = look(jnp.zeros(dim, dtype) if begin is None else begin)
    looks, is_lost, place = jax.lax.while_loop(
        is_moving, move, (jnp.ones((), jnp.int32), jnp.abs(first.length) > STILL, first)
    )
    is_found = ~is_lost & place.is_curved & jnp.isfinite(place.length)
    scale = jax.vmap(lambda e: _solve_transposed(place.root, e), out_axes=1)(jnp.eye(dim, dtype=dtype))
    return Gaussian(place.x + place.step, jnp.where(is_found, scale, jnp.nan), looks)


def draw(f: Function, there: Gaussian, normal: Array, uniform: Array) -> Array:
    """A draw `(d,)` of the density of f: one of some candidates around its mode, chosen by their importance.

    Arguments:
        normal: `(candidates, d)` standard normal.
        uniform: a scalar.
    """
    xs, log_weights = _candidates(f, there, normal)
    shares = jnp.cumsum(jax.nn.softmax(log_weights))
    return xs[jnp.minimum(jnp.sum(shares < uniform * shares[-1]), len(xs) - 1)]


def effective_candidates(f: Function, there: Gaussian, normal: Array) -> Array:
    """How many equally important candidates those of `draw` are worth (Kish 1965), a scalar; 0 where none has any."""
    shares = jax.nn.softmax(_candidates(f, there, normal)[1])
    return jnp.nan_to_num(1 / jnp.sum(shares**2))


def _candidates(f: Function, there: Gaussian, normal: Array) -> tuple[Array, Array]:
    """Points `(n, d)` around the mode, and logarithms of their importance `(n,)` up to a constant."""
    xs = there(jnp.asarray(CANDIDATES_WIDER, normal.dtype) * normal)
    return xs, _finite(jax.vmap(f)(xs)) + 0.5 * jnp.sum(normal**2, axis=1)


def nodes(dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Points t `(n, dim)`, and logarithms of their weights `(n,)` for exp(f + |t|^2 / 2)."""
    points, log_weights = _grid(dim, NODES_ALONG[dim]) if dim in NODES_ALONG else _axes_and_corners(dim)
    return points, log_weights + 0.5 * np.sum(points**2, axis=1)


def _grid(dim: int, along: int) -> tuple[np.ndarray, np.ndarray]:
    t, weights = np.polynomial.hermite_e.hermegauss(along)
    points = np.stack(np.meshgrid(*[t] * dim, indexing="ij"), axis=-1).reshape(-1, dim)
    each = np.log(weights / weights.sum())
    return points, np.sum(np.meshgrid(*[each] * dim, indexing="ij"), axis=0).ravel()


def _axes_and_corners(dim: int) -> tuple[np.ndarray, np.ndarray]:
    r2 = (dim + 2) / 2  # squared distance of the points on the axes
    s2 = r2 / (r2 - 2)  # squared coordinates of the corners
    axes = np.sqrt(r2) * np.concatenate([np.eye(dim), -np.eye(dim)])
    corners = np.sqrt(s2) * (2 * (np.arange(2**dim)[:, None] >> np.arange(dim) & 1) - 1)
    weights = np.repeat([r2**-2, s2**-2 / 2**dim], [len(axes), len(corners)])
    return np.concatenate([axes, corners]), np.log(weights)


def _finite(values: Array) -> Array:
    return jnp.where(jnp.isfinite(values), values, -jnp.inf)


def _cholesky(matrix: Array) -> tuple[Array, Array]:
    """The lower root, written out where it is small, and whether there is one; else the root of another matrix."""
    dim, zero = len(matrix), jnp.zeros((), matrix.dtype)
    if dim > MOST_COORDINATES:
        root = jnp.linalg.cholesky(matrix)
        is_definite = jnp.isfinite(root).all()
        return jnp.where(
            is_definite, root, on_diagonal(jnp.maximum(jnp.abs(diagonal_of(matrix)), 1) ** 0.5)
        ), is_definite
    root, is_definite = [[zero] * dim for _ in range(dim)], jnp.ones((), bool)
    for j in range(dim):
        pivot = matrix[j, j] - sum((root[j][k] ** 2 for k in range(j)), start=zero)
        is_definite &= pivot > 0
        root[j][j] = jnp.sqrt(jnp.where(pivot > 0, pivot, jnp.maximum(jnp.abs(pivot), 1)))
        for i in range(j + 1, dim):
            inner = sum((root[i][k] * root[j][k] for k in range(j)), start=zero)
            root[i][j] = (matrix[i, j] - inner) / root[j][j]
    return jnp.stack([jnp.stack(row) for row in root]), is_definite


def _solve(root: Array, v: Array) -> Array:
    """L^-1 v."""
    if len(v) > MOST_COORDINATES:
        return solve_triangular(root, v, lower=True)
    made: list[Array] = []
    for i in range(len(v)):
        made.append((v[i] - sum((root[i, k] * made[k] for k in range(i)), start=v[i] * 0)) / root[i, i])
    return jnp.stack(made)


def _solve_transposed(root: Array, v: Array) -> Array:
    """L^-T v."""
    return _solve(root.T[::-1, ::-1], v[::-1])[::-1]
