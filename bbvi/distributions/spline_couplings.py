"""Rational-quadratic spline couplings: a normalising flow."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.distributions.affine_couplings import AffineCouplings
from bbvi.distributions.base import Array
from bbvi.distributions.couplings import Couplings
from bbvi.runtime.pytree import pytree

SPLINE_BINS = 8
EDGE = 5.0  # the splines go from -EDGE to EDGE, and are straight beyond
LEAST_SHARE = 1e-3  # of a bin's share of the range, and of a slope at a knot
UNIT = float(np.log(np.expm1(1 - LEAST_SHARE)))  # where a softplus gives the slope 1


@pytree
class SplineCouplings(Couplings):
    """Each coupling scales and shifts like `AffineCouplings`', and then bends by a monotone rational-quadratic spline.

    Richer for each coupling, and slower: for posteriors in few dimensions whose shape is far from a
    Gaussian, such as two modes that are not far apart. See `Couplings` for the arguments.

    Reference: Durkan, Bekasov, Murray and Papamakarios 2019 (arXiv:1906.04032).
    """

    name = "spline_flow"
    per_coordinate = 2 + 3 * SPLINE_BINS - 1

    @staticmethod
    def move(v: Array, parameters: Array) -> tuple[Array, Array]:
        v, log_scale = AffineCouplings.move(v, parameters[:, :2])
        bent, log_slope = jax.vmap(_bend)(v, parameters[:, 2:])
        return bent, log_scale + log_slope

    @staticmethod
    def move_back(v: Array, parameters: Array) -> tuple[Array, Array]:
        v, log_slope = jax.vmap(_unbend)(v, parameters[:, 2:])
        v, log_scale = AffineCouplings.move_back(v, parameters[:, :2])
        return v, log_scale + log_slope


class Knots(NamedTuple):
    """Of one spline."""

    x: Array  # (SPLINE_BINS + 1,)
    y: Array  # (SPLINE_BINS + 1,)
    slope: Array  # (SPLINE_BINS + 1,)

    def bin(self, values: Array, value: Array) -> tuple[Array, ...]:
        """x, y, width, height, and slopes at the left and right end of the bin of `values` that holds `value`."""
        i = jnp.sum(value >= values[1:-1])
        (x, y, left), (far, top, right) = (jax.tree.map(lambda knots, j=j: knots[j], tuple(self)) for j in (i, i + 1))
        return x, y, far - x, top - y, left, right


def _knots(parameters: Array) -> Knots:
    def positions(raw: Array) -> Array:
        shares = LEAST_SHARE + (1 - LEAST_SHARE * SPLINE_BINS) * jax.nn.softmax(raw)
        inner = EDGE * (2 * jnp.cumsum(shares)[:-1] - 1)
        return jnp.concatenate([jnp.array([-EDGE], raw.dtype), inner, jnp.array([EDGE], raw.dtype)])

    widths, heights, slopes = jnp.split(parameters, [SPLINE_BINS, 2 * SPLINE_BINS])
    one = jnp.ones(1, parameters.dtype)
    slope = jnp.concatenate([one, LEAST_SHARE + jax.nn.softplus(slopes + UNIT), one])
    return Knots(positions(widths), positions(heights), slope)


def _bend(v: Array, parameters: Array) -> tuple[Array, Array]:
    """The spline at one number, and the logarithm of its slope."""
    inside = jnp.abs(v) < EDGE
    knots = _knots(parameters)
    x, y, width, height, left, right = knots.bin(knots.x, v)
    share, steepness = jnp.where(inside, (v - x) / width, 0.5), height / width
    middle = share * (1 - share)
    bottom = steepness + (left + right - 2 * steepness) * middle
    bent = y + height * (steepness * share**2 + left * middle) / bottom
    return jnp.where(inside, bent, v), jnp.where(inside, _log_slope(share, steepness, left, right), 0)


def _unbend(bent: Array, parameters: Array) -> tuple[Array, Array]:
    """The number at which the spline has the value `bent`, and the logarithm of its slope there."""
    inside = jnp.abs(bent) < EDGE
    knots = _knots(parameters)
    x, y, width, height, left, right = knots.bin(knots.y, bent)
    rise, steepness = jnp.where(inside, bent - y, 0.5 * height), height / width
    excess = rise * (left + right - 2 * steepness)
    a, b, c = height * (steepness - left) + excess, height * left - excess, -steepness * rise
    share = 2 * c / (-b - jnp.sqrt(b**2 - 4 * a * c))
    v = x + share * width
    return jnp.where(inside, v, bent), jnp.where(inside, _log_slope(share, steepness, left, right), 0)


def _log_slope(share: Array, steepness: Array, left: Array, right: Array) -> Array:
    middle = share * (1 - share)
    top = right * share**2 + 2 * steepness * middle + left * (1 - share) ** 2
    return 2 * jnp.log(steepness) + jnp.log(top) - 2 * jnp.log(steepness + (left + right - 2 * steepness) * middle)
