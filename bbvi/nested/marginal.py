"""The log density of the hyper-parameters, with the blocks integrated by Laplace's method.

With z* the mode of the blocks given phi, and A minus the Hessian there,

    m(phi) = f(phi, z*) - h(phi, z*) + n log(2 pi) / 2,    h = log |A| / 2.

Its gradient does without that of the search. The mode moves by dz* = A^-1 f_zphi dphi, so that

    m' = f_phi - h_phi - f_phiz A^-1 h_z,

and the gradient of h is that of -D^2 f [E, A^-1 E] / 2, summed over the unit vectors E of all blocks side by side, with
A^-1 held fixed: a directional derivative of a directional derivative of the gradient of f.

References: Rue, Martino and Chopin 2009; Kristensen et al. 2016 (TMB); Margossian et al. 2020 (arXiv:2004.12550).
"""

from typing import Any

import jax
import jax.numpy as jnp

from bbvi.distributions.base import LOG_2PI
from bbvi.distributions.split import Split
from bbvi.nested.conditional import find_mode, solve_both
from bbvi.runtime.pytree import pytree
from bbvi.runtime.types import Array
from bbvi.target.parameters import Parameters
from bbvi.target.problem import Problem


@pytree
class Marginal(Problem):
    """The problem of the hyper-parameters alone: a log density of phi `(k,)`."""

    @property
    def is_irregular(self) -> bool:
        """The search for a mode ends in a bounded number of rounds."""
        return False

    def values_and_gradients(self, ys: Array) -> tuple[Array, Array, Array]:
        """Log densities `(n,)`, their gradients `(n, k)` and at which points the blocks have a mode, `(n,)` bool."""

        def one(y: Array) -> tuple[Array, Array, Array]:
            if self.coordinates is None:
                return log_marginal(y, *self.data)
            phi, pull = jax.vjp(self.coordinates, y)
            value, slope, found = log_marginal(phi, *self.data)
            return value + self.coordinates.scale.log_det(), pull(slope)[0], found

        values, slopes, found = jax.vmap(one)(ys)
        finite = found & jnp.isfinite(values) & jnp.isfinite(slopes).all(axis=1)
        return jnp.where(finite, values, 0), jnp.where(finite[:, None], slopes, 0), finite


def marginal(problem: Problem, split: Split, z: Array) -> Marginal:
    """The density of the hyper-parameters, whose searches for the mode of the blocks begin at z `(blocks, size)`."""
    shape = (split.num_hyper,)
    parameters = Parameters((None,), jax.tree.structure(0), (shape,), (shape,), ("phi",))
    return Marginal(parameters, (problem, split, z), _value)


def _value(phi: Array, given: Any) -> Array:
    return log_marginal(phi, *given)[0]


def log_marginal(phi: Array, problem: Problem, split: Split, z: Array) -> tuple[Array, Array, Array]:
    """m and its gradient `(k,)` at phi `(k,)`, and whether the blocks have a mode there."""
    mode = find_mode(problem, split, phi, z)
    density = jax.grad(problem.log_density)  # of all coordinates
    nothing = jnp.zeros_like(phi)
    along = lambda d: split.join(nothing, d)
    x = split.join(phi, mode.z)

    def of_volume(unit: Array) -> Array:
        """The gradient `(dim,)` of -D^2 f [E, A^-1 E] / 2 for one place in all blocks."""
        e = jnp.broadcast_to(unit, z.shape)
        once = lambda x: jax.jvp(density, (x,), (along(e),))[1]
        return -0.5 * jax.jvp(once, (x,), (along(solve_both(mode.factor, e)),))[1]

    eye = jnp.eye(z.shape[1], dtype=z.dtype)
    h = of_volume(eye[0]) if len(eye) == 1 else jax.vmap(of_volume)(eye).sum(axis=0)
    towards = along(solve_both(mode.factor, split.latent(h)))
    (value, gradient), (_, mixed) = jax.jvp(jax.value_and_grad(problem.log_density), (x,), (towards,))
    m = value - log_volume(mode.factor) + 0.5 * split.num_latent * LOG_2PI
    return m, (gradient - h - mixed)[split.hyper], mode.found


def log_volume(factor: Array) -> Array:
    """log |A| / 2 of all blocks, from their factors `(blocks, size, size)`."""
    return jnp.sum(jnp.log(jnp.diagonal(factor, axis1=-2, axis2=-1)))
