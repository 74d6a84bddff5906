"""Affine couplings: a normalising flow."""

import jax.numpy as jnp

from bbvi.distributions.base import Array
from bbvi.distributions.couplings import Couplings
from bbvi.runtime.pytree import pytree

BOUND = 8.0  # of log scales


@pytree
class AffineCouplings(Couplings):
    """RealNVP: each coupling scales and shifts, v <- v exp(s) + t with |s| < 8.

    Holds funnels, bananas and other posteriors with one mode. See `Couplings` for the arguments.

    References: Dinh, Sohl-Dickstein and Bengio 2017 (arXiv:1605.08803); Agrawal, Sheldon and Domke 2020
    (arXiv:2006.10343).
    """

    name = "flow"
    per_coordinate = 2

    @staticmethod
    def move(v: Array, parameters: Array) -> tuple[Array, Array]:
        log_scale = _bounded(parameters[:, 0])
        return v * jnp.exp(log_scale) + parameters[:, 1], log_scale

    @staticmethod
    def move_back(v: Array, parameters: Array) -> tuple[Array, Array]:
        log_scale = _bounded(parameters[:, 0])
        return (v - parameters[:, 1]) * jnp.exp(-log_scale), log_scale


def _bounded(log_scale: Array) -> Array:
    return log_scale / jnp.sqrt(1 + (log_scale / BOUND) ** 2)
