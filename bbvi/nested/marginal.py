"""The log density of the hyper-parameters, with the latent coordinates integrated by Laplace's method.

With z* the mode of these given phi, and A minus the Hessian there,

    m(phi) = f(phi, z*) - h(phi, z*) + n log(2 pi) / 2,    h = log |A| / 2.

Its gradient does without that of the search. The mode moves by dz* = A^-1 f_zphi dphi, so that

    m' = f_phi - h_phi - f_phiz A^-1 h_z,

and the gradient of h = log |A| / 2 is that of tr(A^-1 A) / 2 with A^-1 held fixed. Of A^-1 only the entries count at
which A is not zero. So h is -sum_c D^2 f [E_c, U_c] / 2, with E_c all places of a colour and U_c the entries of A^-1
that go with them: a directional derivative of a directional derivative of the gradient of f. Where colours are many,
as in one dense block, that would go back through all of f once for each; there the derivative of A is taken forward, in
the direction in which every phi_j moves phi and z*:

    m'_j = f_phi_j - tr(A^-1 D A [e_j, A^-1 f_zphi e_j]) / 2.

References: Rue, Martino and Chopin 2009; Kristensen et al. 2016 (TMB); Margossian et al. 2020 (arXiv:2004.12550).
"""

from typing import Any

import jax
import jax.numpy as jnp

from bbvi.distributions.base import LOG_2PI
from bbvi.distributions.split import Split
from bbvi.nested.conditional import Mode, curvature, find_mode, latent_gradient
from bbvi.runtime.pytree import pytree
from bbvi.runtime.types import Array
from bbvi.target.parameters import Parameters
from bbvi.target.problem import Problem

MANY_COLOURS = 20  # above which the derivative of the volume is taken forward


@pytree
class Marginal(Problem):
    """The problem of the hyper-parameters alone: a log density of phi `(k,)`."""

    @property
    def is_irregular(self) -> bool:
        """The search for a mode ends in a bounded number of rounds."""
        return False

    def values_and_gradients(self, ys: Array) -> tuple[Array, Array, Array]:
        """Log densities `(n,)`, their gradients `(n, k)` and at which points a mode was found, `(n,)` bool."""

        def one(y: Array) -> tuple[Array, Array, Array]:
            if self.coordinates is None:
                value, slope, mode = log_marginal(y, *self.data)
                return value, slope, mode.found
            phi, pull = jax.vjp(self.coordinates, y)
            value, slope, mode = log_marginal(phi, *self.data)
            return value + self.coordinates.scale.log_det(), pull(slope)[0], mode.found

        split = self.data[1]
        values, slopes, found = jax.lax.map(one, ys) if split.is_large else jax.vmap(one)(ys)
        finite = found & jnp.isfinite(values) & jnp.isfinite(slopes).all(axis=1)
        return jnp.where(finite, values, 0), jnp.where(finite[:, None], slopes, 0), finite


def marginal(problem: Problem, split: Split, z: Array) -> Marginal:
    """The density of the hyper-parameters, whose searches for the mode of the others begin at z `(places,)`."""
    shape = (split.num_hyper,)
    parameters = Parameters((None,), jax.tree.structure(0), (shape,), (shape,), ("phi",))
    return Marginal(parameters, (problem, split, z), _value)


def _value(phi: Array, given: Any) -> Array:
    return log_marginal(phi, *given)[0]


def log_marginal(phi: Array, problem: Problem, split: Split, z: Array) -> tuple[Array, Array, Mode]:
    """m and its gradient `(k,)` at phi `(k,)`, and the mode of the others there."""
    mode = find_mode(problem, split, phi, z)
    constant = 0.5 * split.num_latent * LOG_2PI - mode.factor.log_det()
    value, slope = (_forward if split.num_colours > MANY_COLOURS else _backward)(problem, split, phi, mode)
    return value + constant, slope, mode


def _forward(problem: Problem, split: Split, phi: Array, mode: Mode) -> tuple[Array, Array]:
    """f at a mode, and the gradient `(k,)` of m, one hyper-parameter after the other."""
    value, gradient = jax.value_and_grad(problem.log_density)(split.join(phi, mode.z))
    weights = split.weights(mode.factor.inverse())
    still = jnp.zeros_like(mode.z)

    def of_volume(direction: Array) -> Array:
        """The derivative of log |A| / 2."""
        mixed = jax.jvp(lambda phi: latent_gradient(problem, split, phi)(mode.z), (phi,), (direction,))[1]
        moves = mode.factor.solve_both(jnp.where(split.used, mixed, still))
        of_both = lambda phi, z: curvature(problem, split, phi, z)[1]
        return 0.5 * jnp.sum(weights * jax.jvp(of_both, (phi, mode.z), (direction, moves))[1])

    return value, gradient[split.hyper] - jax.lax.map(of_volume, jnp.eye(len(phi), dtype=phi.dtype))


def _backward(problem: Problem, split: Split, phi: Array, mode: Mode) -> tuple[Array, Array]:
    """f at a mode, and the gradient `(k,)` of m, one colour after the other."""
    density = jax.grad(problem.log_density)  # of all coordinates
    nothing = jnp.zeros_like(phi)
    along = lambda d: split.join(nothing, d)
    x = split.join(phi, mode.z)

    def of_volume(seed: Array, weights: Array) -> Array:
        """The gradient `(dim,)` of -D^2 f [E_c, U_c] / 2."""
        once = lambda x: jax.jvp(density, (x,), (along(seed),))[1]
        return -0.5 * jax.jvp(once, (x,), (along(weights),))[1]

    seeds, weights = split.seeds(mode.z.dtype), split.weights(mode.factor.inverse())
    one = len(seeds) == 1
    h = of_volume(seeds[0], weights[0]) if one else jax.vmap(of_volume)(seeds, weights).sum(axis=0)
    towards = along(mode.factor.solve_both(split.latent(h)))
    (value, gradient), (_, mixed) = jax.jvp(jax.value_and_grad(problem.log_density), (x,), (towards,))
    return value, (gradient - h - mixed)[split.hyper]
