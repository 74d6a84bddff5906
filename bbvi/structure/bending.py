"""How far a few coordinates bend the log density of all others: what a Gaussian of all of them would miss.

Let x move along coordinate i by its conditional standard deviation s. In units in which the posterior has unit
covariance, half the difference D of the Hessians at x + s e_i and x - s e_i is zero for a Gaussian. Its Frobenius norm
comes from few directions v, normal with the covariance of the posterior, since the variance of v.D v is twice its
square. No Hessian is made, so that a look costs little where one costs much.

Reference: Hutchinson 1989 (estimates from random directions).
"""

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.distributions.affine import Affine
from bbvi.outcome import Evaluations
from bbvi.runtime.compiling import program
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

DIRECTIONS = 16  # at least


def bending(problem: Problem, gaussian: Affine, coordinates: np.ndarray) -> tuple[np.ndarray, Evaluations]:
    """The norm of D for each of some coordinates `(k,)`, NaN where the log density is not finite so near; its cost.

    Arguments:
        gaussian: about the posterior.
    """
    x, k = np.asarray(gaussian.loc), len(coordinates)
    axes = np.eye(len(x), dtype=x.dtype)[coordinates]
    n = max(DIRECTIONS, k)
    noise = np.random.default_rng(0).standard_normal((n, len(x))).astype(x.dtype)
    random = noise @ np.asarray(gaussian.scale.matrix()).T
    random[:, coordinates] = 0
    filled = np.concatenate([axes, np.zeros((n - k, len(x)), x.dtype)])
    sd = np.asarray(gaussian.scale.sd())[coordinates]
    found = np.asarray(_curvatures(problem, x, axes, sd, np.stack([filled] + 2 * k * [random])))
    with np.errstate(invalid="ignore"):
        norms = np.std(np.subtract(*np.split(found[1:], 2)) / 2, axis=1) / 2**0.5
    return norms, Evaluations(gradients=len(found), hessian_vector_products=found.size)


@program
def _curvatures(problem: Problem, x: Array, axes: Array, sd: Array, directions: Array) -> Array:
    """Second derivatives of the log density `(1 + 2 k, n)`: at x, and beyond it and before it along each axis.

    Arguments:
        axes: unit vectors, `(k, dim)`.
        sd: moves along these `(k,)`, where the log density is not concave along an axis.
        directions: of the derivatives, `(1 + 2 k, n, dim)`; the first ones begin with the axes.
    """
    k = len(axes)
    nowhere = jnp.zeros((1, k), x.dtype)
    moves = jnp.concatenate([nowhere, jnp.eye(k, dtype=x.dtype), -jnp.eye(k, dtype=x.dtype)])

    def visit(s: Array, given: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        is_first, move, directions = given
        product = jax.linearize(jax.grad(problem.log_density), x + (move * s) @ axes)[1]
        found = jax.vmap(lambda v: product(v) @ v)(directions)
        own = -found[:k]
        conditional = jnp.where(own > 0, 1 / jnp.sqrt(jnp.where(own > 0, own, 1)), sd)
        return jnp.where(is_first, conditional, s), found

    return jax.lax.scan(visit, sd, (jnp.arange(1 + 2 * k) == 0, moves, directions))[1]
