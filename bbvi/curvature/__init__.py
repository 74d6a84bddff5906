"""Derivatives and curvature: Jacobians, Hessians by their products with vectors, and the spectrum of what they make.

A Hessian H of f over dim coordinates has dim^2 entries, but a product with a vector needs only the directional
derivative of the gradient,

    H v = d/dt grad f(x + t v) at t = 0    =    grad_x (grad f(x) . v),

which costs a small multiple of one gradient, in time and memory. Diagonals, linear solves and extreme eigenvalues are
built on such products. Every function here is pure JAX: jit what is called more than once.

References: Pearlmutter 1994 (Hessian-vector products); Griewank and Walther 2008 (forward and reverse accumulation);
Hutchinson 1990 (random probes); Golub and Van Loan 2013, ch. 10 (Lanczos).
"""

from jax import grad, hessian

from bbvi.curvature.derivatives import derivative, jacobian
from bbvi.curvature.diagonal import DiagonalEstimate, hessian_diagonal
from bbvi.curvature.krylov import Ritz, lanczos
from bbvi.curvature.operator import HessianOperator
from bbvi.curvature.products import hvp

__all__ = [
    "DiagonalEstimate",
    "HessianOperator",
    "Ritz",
    "derivative",
    "grad",
    "hessian",
    "hessian_diagonal",
    "hvp",
    "jacobian",
    "lanczos",
]
