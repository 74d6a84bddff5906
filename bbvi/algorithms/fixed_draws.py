"""The ELBO of a mean-field Gaussian on fixed draws, and its derivatives.

With draws z_1 ... z_M kept fixed the ELBO of N(m, diag(e^l)^2) is a deterministic, smooth function,

    E(m, l) = mean_j f(m + e^l z_j) + sum l.

With w_j = e^l z_j, gradients g_j and A_j = -hess f at the draws, minus its Hessian B has the blocks

    B_mm = mean_j A_j,    B_ml = mean_j A_j diag(w_j),    B_ll = mean_j diag(w_j) A_j diag(w_j) + diag(1 - dE/dl).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bbvi.distributions.base import LOG_2PI
from bbvi.distributions.scales import on_diagonal
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem


class Average(NamedTuple):
    """Averages over the draws at one (m, l)."""

    value: Array  # () ELBO
    error: Array  # () its standard error
    gradient: Array  # (2, dim)
    non_finite: Array  # () draws


def average(problem: Problem, eta: Array, draws: Array, used: Array) -> Average:
    """ELBO and gradient at eta on the first `used` blocks of draws."""
    n, dim = draws.shape[1:]

    def block(i: Array, sums: Any) -> Any:
        z = jnp.asarray(draws)[i]
        w = jnp.exp(eta[1]) * z
        values, g, finite = problem.values_and_gradients(eta[0] + w)
        pairs = (values[: n // 2] + values[n // 2 :]) / 2
        new = pairs.mean(), (pairs**2).mean(), jnp.stack([g.mean(axis=0), (g * w).mean(axis=0)]), jnp.sum(~finite)
        return jax.tree.map(jnp.add, sums, new)

    zero = jnp.zeros((), eta.dtype)
    total = jax.lax.fori_loop(0, used, block, (zero, zero, jnp.zeros_like(eta), jnp.zeros((), int)))
    blocks = jnp.asarray(used, eta.dtype)
    mean, square, gradient = total[0] / blocks, total[1] / blocks, total[2] / blocks
    entropy = eta[1].sum() + 0.5 * dim * (1 + LOG_2PI)
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
    return mm, lm, ll + on_diagonal(1 - gradient[1])
