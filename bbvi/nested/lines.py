"""The exact density of every block along lines through its mode, from gradients that all blocks share.

A log density is a sum over blocks, given the hyper-parameters, but a black box only gives the sum. Its gradient gives
the parts: block g of the gradient does not see the others, so that moving all blocks along lines at once,

    l_g(t) = f_g(z_g + t d_g) - f_g(z_g) = int_0^t grad_g f(z + s d) . d_g ds,

gives every l_g from the same gradients. The integrand is a polynomial through its values at Gauss-Legendre nodes. With
d_g = L_g^-T u and u a random direction, in polar coordinates the integral of exp(f_g) over the block is, in units of
Laplace's estimate,

    E_u int |t|^(b - 1) exp(l_g(t)) dt / int |t|^(b - 1) exp(-t^2 / 2) dt,

exact for b = 1, where there is but one line, and unbiased for any number of directions.
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp

from bbvi.distributions.split import Split
from bbvi.nested.conditional import Mode, latent_gradient
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

NODES = 16  # gradients along a line
CELLS = 64  # into which a line is cut, to integrate and to draw
REACH = 4.0  # standard deviations to which lines go, beyond the square root of the size of a block
LOOKED_AT = slice(CELLS // 4, 3 * CELLS // 4 + 1, CELLS // 2)  # two cells, where the sum is compared with the density
LINES = 8  # through blocks of several coordinates
LARGEST_ON_LINES = 20  # coordinates, that so few lines tell enough of


def suit(split: Split) -> bool:
    """Whether lines are enough: blocks are independent and small."""
    return not split.is_connected and split.shape[1] <= LARGEST_ON_LINES


class Exact(NamedTuple):
    """The exact conditional density of the blocks, as far as lines tell, and draws of it."""

    centre: Array  # () log density at the mode
    log_ratio: Array  # () log of the integral over all blocks, in units of Laplace's estimate
    z: Array  # (copies, places) draws
    error: Array  # () nats by which the line integrals, summed over blocks, miss the log density
    at_end: Array  # (blocks,) share of the mass in the outermost cells
    effective: Array  # (blocks,) lines that contribute


class _Rule(NamedTuple):
    """Numbers that are the same for all lines."""

    nodes: np.ndarray  # (NODES,) in t
    integrals: np.ndarray  # (CELLS, NODES): from values at nodes to integrals from 0 to the middle of each cell
    middles: np.ndarray  # (CELLS,) in t
    log_base: np.ndarray  # (CELLS,) log of |t|^(b-1) over the sum of |t|^(b-1) exp(-t^2/2)


@lru_cache
def rule(size: int) -> _Rule:
    """The rule for blocks of this size."""
    reach = REACH + size**0.5
    unit, weights = np.polynomial.legendre.leggauss(NODES)
    degrees = np.arange(NODES)
    legendre = np.polynomial.legendre.legvander(unit, NODES - 1)
    coefficients = (degrees + 0.5)[:, None] * (weights[:, None] * legendre).T  # from values to those of Legendre's P_k

    def antiderivative(t: np.ndarray) -> np.ndarray:
        values = np.polynomial.legendre.legvander(t, NODES)
        before = np.concatenate([np.zeros((len(t), 1)), values[:, : NODES - 1]], axis=1)
        return (values[:, 1:] - before) / (2 * degrees + 1)

    width = 2 * reach / CELLS
    middles = -reach + width * (np.arange(CELLS) + 0.5)
    integrals = reach * (antiderivative(middles / reach) - antiderivative(np.zeros(1))) @ coefficients
    log_base = (size - 1) * np.log(np.abs(middles))
    log_base -= logsumexp(log_base - 0.5 * middles**2)  # so that a Gaussian block is exact
    return _Rule(reach * unit, integrals, middles, log_base)


def along_lines(problem: Problem, split: Split, phi: Array, mode: Mode, directions: Array, uniforms: Array) -> Exact:
    """The exact density of the blocks, given the hyper-parameters `(k,)`.

    Arguments:
        mode: of the blocks.
        directions: unit vectors `(lines, blocks, size)`, of whitened blocks.
        uniforms: in [0, 1), `(copies, blocks, 2)`: a draw each, which choose a cell and a place in it.
    """
    size, dtype = split.shape[1], mode.z.dtype
    nodes, integrals, middles, log_base = (jnp.asarray(each, dtype) for each in rule(size))
    gradient = latent_gradient(problem, split, phi)
    whitened = lambda unit: mode.factor.solve_transposed(jnp.ravel(unit))
    used = split.in_blocks(split.used)

    def one(unit: Array) -> tuple[Array, Array, Array]:
        """Cells `(blocks, CELLS)` of l_g along a line, by how much their sum misses the log density, and that at z."""
        d = whitened(unit)
        idle = jnp.sum(jnp.where(used, 0, unit) ** 2, axis=1)  # places without a coordinate are standard normal
        slope = lambda t: jnp.sum(split.in_blocks(gradient(mode.z + t * d) * d), axis=1)
        slopes = jax.lax.map(slope, nodes)
        found = jnp.einsum("ng,cn->gc", slopes, integrals)
        height = jax.vmap(lambda t: problem.log_density(split.join(phi, mode.z + t * d)))
        centre, *seen = height(jnp.concatenate([jnp.zeros(1, dtype), middles[LOOKED_AT]]))
        miss = jnp.abs(found[:, LOOKED_AT].sum(axis=0) - (jnp.stack(seen) - centre)).max()
        return found - 0.5 * middles**2 * idle[:, None], miss, centre

    logs, misses, centres = jax.lax.map(one, directions)
    logs = jnp.moveaxis(logs, 0, 1) + log_base  # (blocks, lines, CELLS)
    blocks = logs.shape[0]
    top = logs.max(axis=(1, 2), keepdims=True)
    mass = jnp.exp(logs - top)
    of_lines = mass.sum(axis=2)
    log_ratio = jnp.sum(jnp.log(of_lines.mean(axis=1)) + top[:, 0, 0])
    cumulative = jnp.cumsum(mass.reshape(blocks, -1), axis=1)

    def drawn(u: Array) -> Array:
        at = jax.vmap(jnp.searchsorted)(cumulative, u[:, 0] * cumulative[:, -1])
        line, cell = jnp.divmod(jnp.minimum(at, cumulative.shape[1] - 1), CELLS)
        t = middles[cell] + (u[:, 1] - 0.5) * (middles[1] - middles[0])
        unit = jnp.take_along_axis(directions, line[None, :, None], axis=0)[0]
        return mode.z + whitened(t[:, None] * unit)

    return Exact(
        centre=centres[0],
        log_ratio=log_ratio,
        z=jax.vmap(drawn)(uniforms),
        error=misses.max(),
        at_end=mass[:, :, jnp.array([0, -1])].sum(axis=(1, 2)) / mass.sum(axis=(1, 2)),
        effective=of_lines.sum(axis=1) ** 2 / jnp.sum(of_lines**2, axis=1),
    )
