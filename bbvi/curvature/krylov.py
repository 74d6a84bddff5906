"""Extreme eigenvalues of a symmetric matrix, from its products with vectors."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array


class Ritz(NamedTuple):
    """Approximate eigenpairs of a symmetric matrix A."""

    values: Array  # (steps,) ascending
    vectors: Array  # (dim, steps), orthonormal columns
    residuals: Array  # (steps,) |A v - value v|, up to rounding; some eigenvalue is within it of the value


def lanczos(matvec: Callable[[Array], Array], start: Array, steps: int) -> Ritz:
    """Eigenpairs of a symmetric matrix A as seen from the Krylov space of `start`.

    With an orthonormal basis Q of span(q, A q, A^2 q, ...) and T = Q^T A Q, which is tridiagonal,

        A Q = Q T + beta q' e^T,    T s = value s,    v = Q s,    |A v - value v| = beta |last entry of s|.

    The ends of the spectrum converge first; with steps = dim everything is there. Each new direction is orthogonalised
    twice against all before it. Where the Krylov space is exhausted, beta = 0, the basis goes on with the unit vector
    that is furthest from its span, made orthogonal to it.

    Arguments:
        matvec: `A v` for v `(dim,)`.
        start: a vector `(dim,)` in float32 or float64, in which the sought eigenvectors take part.
        steps: products with A, from 1 to dim. Memory is O(dim steps), time O(dim steps^2) besides the products.

    Raises:
        ValueError: for a start that is no floating point vector, or steps outside of 1 to dim.

    Example:
        >>> ritz = bbvi.curvature.lanczos(lambda v: jnp.array([1.0, 2.0, 3.0]) * v, jnp.ones(3), 3)
        >>> np.asarray(ritz.values).round(3)
        array([1., 2., 3.], dtype=float32)

    Reference: Golub and Van Loan 2013, section 10.3; the step after an exhausted space is an addition.
    """
    start = jnp.asarray(start)
    if start.ndim != 1 or not jnp.issubdtype(start.dtype, jnp.floating):
        raise ValueError(f"start must be a floating point vector (dim,); got {start.dtype} of shape {start.shape}.")
    if not 1 <= steps <= start.size:
        raise ValueError(f"steps must be from 1 to the dimension, {start.size}; got {steps}.")
    dot = partial(jnp.dot, precision="highest")
    rounding = jnp.finfo(start.dtype).eps * start.size**0.5

    def orthogonalise(w: Array, basis: Array) -> Array:
        for _ in range(2):
            w = w - dot(dot(basis, w), basis)
        return w

    def fresh(basis: Array) -> Array:
        furthest = jnp.argmin(jnp.sum(basis**2, axis=0))
        w = orthogonalise(jnp.zeros_like(start).at[furthest].set(1), basis)
        return w / jnp.linalg.norm(w)

    def step(carry: tuple[Array, ...], j: Array) -> tuple[tuple[Array, ...], tuple[Array, Array]]:
        basis, w, beta, size = carry  # basis (steps, dim); size is the largest |A q| so far
        q = jax.lax.cond(beta > 0, lambda: w / beta, lambda: fresh(basis))
        basis = basis.at[j].set(q)
        product = matvec(q)
        size = jnp.maximum(size, jnp.linalg.norm(product))
        w = orthogonalise(product, basis)
        beta = jnp.linalg.norm(w)
        beta = jnp.where(beta > rounding * size, beta, 0)
        return (basis, w, beta, size), (dot(q, product), beta)

    basis = jnp.zeros((steps, start.size), start.dtype)
    begin = (basis, start, jnp.linalg.norm(start), jnp.zeros((), start.dtype))
    (basis, *_), (alpha, beta) = jax.lax.scan(step, begin, jnp.arange(steps))
    tridiagonal = jnp.diag(alpha) + jnp.diag(beta[:-1], 1) + jnp.diag(beta[:-1], -1)
    values, vectors = jnp.linalg.eigh(tridiagonal)
    return Ritz(values, dot(basis.T, vectors), jnp.abs(beta[-1] * vectors[-1]))
