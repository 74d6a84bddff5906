"""Derivatives and curvature: Jacobians, Hessians by their products with vectors, and the spectrum of what they make.

A Hessian H of f over dim coordinates has dim^2 entries, but a product with a vector needs only the directional
derivative of the gradient,

    H v = d/dt grad f(x + t v) at t = 0    =    grad_x (grad f(x) . v),

which costs a small multiple of one gradient, in time and memory. Diagonals, linear solves and extreme eigenvalues are
built on such products. Every function here is pure JAX: jit what is called more than once.

References: Pearlmutter 1994 (Hessian-vector products); Griewank and Walther 2008 (forward and reverse accumulation);
Hutchinson 1990 (random probes); Golub and Van Loan 2013, ch. 10 (Lanczos).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import grad, hessian
from jax.flatten_util import ravel_pytree

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

Array = Any
BLOCK = 32  # columns of the Hessian that the exact diagonal computes at once

_JACOBIANS = {"forward": jax.jacfwd, "reverse": jax.jacrev}
_PRODUCTS = {
    "forward_over_reverse": lambda gradient, x, v: jax.jvp(gradient, (x,), (v,))[1],
    "reverse_over_reverse": lambda gradient, x, v: jax.vjp(gradient, x)[1](v)[0],
}


def jacobian(fun: Callable[[Any], Any], mode: str = "auto") -> Callable[[Any], Any]:
    """A function of x that returns the Jacobian of `fun` there.

    Arguments:
        fun: of one pytree of floating point arrays, returning a pytree of them.
        mode: "forward" makes the columns, one Jacobian-vector product per input; "reverse" makes the rows, one
            vector-Jacobian product per output; "auto" takes "reverse" when there are fewer outputs than inputs.

    Returns:
        A function whose result has the structure of the output with the structure of x in place of each leaf; leaves
        are `(*output_shape, *input_shape)`.

    Raises:
        ValueError: for another mode.

    Example:
        >>> bbvi.curvature.jacobian(lambda x: x**2)(jnp.array([1.0, 3.0]))
        Array([[2., 0.],
               [0., 6.]], dtype=float32)

    Reference: Griewank and Walther 2008, ch. 3.
    """
    if mode in _JACOBIANS:
        return _JACOBIANS[mode](fun)
    if mode != "auto":
        raise ValueError(f"mode must be one of {['auto', *_JACOBIANS]}; got {mode!r}.")

    def cheaper(x: Any) -> Any:
        shapes = jax.eval_shape(lambda x: (x, fun(x)), x)
        inputs, outputs = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in shapes)
        return _JACOBIANS["reverse" if outputs < inputs else "forward"](fun)(x)

    return cheaper


def hvp(fun: Callable[[Any], Array], x: Any, v: Any, mode: str = "forward_over_reverse") -> Any:
    """Product `H v` of the Hessian of `fun` at `x` with `v`, in O(dim) memory.

    Arguments:
        fun: `fun(x)`, a scalar.
        x: a pytree of floating point arrays.
        v: likewise, with the structure and shapes of `x`; taken to its dtypes.
        mode: "forward_over_reverse", the directional derivative of the gradient along v; or "reverse_over_reverse",
            the gradient of `grad f(x) . v`, for functions without forward derivatives of their gradient.

    Returns:
        `H v` with the structure, shapes and dtypes of `x`.

    Raises:
        ValueError: for another mode, or when `v` does not match `x`.

    Example:
        >>> bbvi.curvature.hvp(lambda x: jnp.sum(x**3), jnp.array([1.0, 2.0]), jnp.ones(2))  # 6 x v
        Array([ 6., 12.], dtype=float32)

    Reference: Pearlmutter 1994.
    """
    if mode not in _PRODUCTS:
        raise ValueError(f"mode must be one of {list(_PRODUCTS)}; got {mode!r}.")
    expected, given = (jax.tree.map(jnp.shape, tree) for tree in (x, v))
    if expected != given:
        raise ValueError(f"v must have the structure and shapes of x, {expected}; it has {given}.")
    x = jax.tree.map(jnp.asarray, x)
    v = jax.tree.map(lambda x, v: jnp.asarray(v, x.dtype), x, v)
    return _PRODUCTS[mode](jax.grad(fun), x, v)


class HessianOperator:
    """The Hessian of `fun` at `x` as a linear operator on flat vectors: linearised once, applied many times.

    The linearisation keeps what one gradient computes on its way, and each product reads it. `matvec` is what
    `jax.scipy.sparse.linalg.cg` and `lanczos` take, and the operator what `scipy.sparse.linalg.aslinearoperator` takes.

    Arguments:
        fun: `fun(x)`, a scalar.
        x: a pytree of floating point arrays, dim numbers in all.

    Fields:
        shape: `(dim, dim)`.
        dtype: of x, and of the products.
        gradient: of `fun` at `x`, `(dim,)`; it comes with the linearisation.
        unravel: maps a flat vector `(dim,)` to the structure of x.

    Example:
        >>> operator = bbvi.curvature.HessianOperator(lambda x: jnp.sum(x**3), jnp.array([1.0, 2.0]))
        >>> operator @ jnp.ones(2)  # 6 x
        Array([ 6., 12.], dtype=float32)
    """

    def __init__(self, fun: Callable[[Any], Array], x: Any):
        flat, unravel = ravel_pytree(x)
        # Jitted so that the linear part is one program too, run as a whole by each product.
        gradient = jax.jit(jax.grad(lambda flat: fun(unravel(flat))))
        self.gradient, self._product = jax.linearize(gradient, flat)
        self.unravel, self.shape, self.dtype = unravel, (flat.size, flat.size), flat.dtype

    def matvec(self, v: Array) -> Array:
        """`H v` for v `(dim,)`, or `(dim, 1)` as SciPy may have it; in the shape of v.

        Raises:
            ValueError: for another shape.
        """
        dim = len(self.gradient)
        if jnp.shape(v) not in {(dim,), (dim, 1)}:
            raise ValueError(f"v must have shape {(dim,)}; it has {jnp.shape(v)}. Flatten a pytree with ravel_pytree.")
        return self._product(jnp.asarray(v, self.dtype).reshape(dim)).reshape(jnp.shape(v))

    def matmat(self, V: Array) -> Array:
        """`H V` `(dim, k)` for the columns of V `(dim, k)`, in memory for k products.

        Raises:
            ValueError: for another shape.
        """
        if jnp.ndim(V) != 2 or len(V) != len(self.gradient):
            raise ValueError(f"V must have shape {(len(self.gradient), 'k')}; it has {jnp.shape(V)}.")
        return jax.vmap(self._product, in_axes=1, out_axes=1)(jnp.asarray(V, self.dtype))

    def __matmul__(self, other: Array) -> Array:
        return self.matmat(other) if jnp.ndim(other) == 2 else self.matvec(other)


class DiagonalEstimate(NamedTuple):
    """The diagonal of a Hessian, each field in the structure of x."""

    value: Any
    standard_error: Any  # zero where the value is exact


def hessian_diagonal(
    fun: Callable[[Any], Array], x: Any, probes: int | None = None, seed: int | Array = 0
) -> DiagonalEstimate:
    """Diagonal of the Hessian of `fun` at `x`, exact or from random probes.

    Exact, it takes dim products, 32 at a time, and memory for that many. With probes z of independent random signs,

        E[z * H z] = diag H,    var[(z * H z)_i] = sum_{j != i} H_ij^2,

    so that n probes take n products, one at a time, and have no error where H is diagonal.

    Arguments:
        fun: `fun(x)`, a scalar.
        x: a pytree of floating point arrays.
        probes: number n of random probes, at least 2; None for the exact diagonal.
        seed: of the probes, an int or a key of `jax.random`.

    Returns:
        Values with standard errors, both in the structure and dtypes of `x`.

    Raises:
        ValueError: for fewer than 2 probes.

    Example:
        >>> bbvi.curvature.hessian_diagonal(lambda x: jnp.sum(x**3), jnp.array([1.0, 2.0])).value  # 6 x
        Array([ 6., 12.], dtype=float32)

    References: Hutchinson 1990; Bekas, Kokiopoulou and Saad 2007, for the diagonal.
    """
    if probes is not None and probes < 2:
        raise ValueError(f"probes must be at least 2, to tell the error from their spread; got {probes}.")
    operator = HessianOperator(fun, x)
    zeros = jnp.zeros_like(operator.gradient)
    if probes is None:
        entry = lambda i: operator.matvec(zeros.at[i].set(1))[i]
        value, error = jax.lax.map(entry, jnp.arange(zeros.size), batch_size=BLOCK), zeros
    else:
        value, error = _hutchinson(operator, probes, seed)
    return DiagonalEstimate(operator.unravel(value), operator.unravel(error))


def _hutchinson(operator: HessianOperator, probes: int, seed: int | Array) -> tuple[Array, Array]:
    """Mean of `z * H z` over the probes and its standard error, both `(dim,)`, by Welford's recurrence."""
    is_key = isinstance(seed, jax.Array) and jnp.issubdtype(seed.dtype, jax.dtypes.prng_key)
    keys = jax.random.split(seed if is_key else jax.random.key(seed), probes)
    zeros = jnp.zeros_like(operator.gradient)

    def add(moments: tuple[Array, Array], probe: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        (mean, squares), (count, key) = moments, probe
        z = jax.random.rademacher(key, zeros.shape, zeros.dtype)
        deviation = z * operator.matvec(z) - mean
        step = deviation / count
        return (mean + step, squares + deviation * (deviation - step)), None

    counts = jnp.arange(1, probes + 1, dtype=zeros.dtype)
    (mean, squares), _ = jax.lax.scan(add, (zeros, zeros), (counts, keys))
    return mean, jnp.sqrt(squares / (probes * (probes - 1)))


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


def derivative(fun: Callable[[Array], Array], order: int = 1) -> Callable[[Array], Array]:
    """The derivative of a scalar function of one number, of any order, by nested forward differentiation.

    Arguments:
        fun: `fun(t)`, a number for a number.
        order: 0 for the function itself. What is traced grows about threefold with each order.

    Returns:
        A function of numbers or floating point arrays, applied to each element.

    Raises:
        ValueError: for a negative order.

    Example:
        >>> print(f"{bbvi.curvature.derivative(jnp.exp, 3)(0.0):.1f}")
        1.0
    """
    if order < 0:
        raise ValueError(f"order must be 0 or more; got {order}.")
    for _ in range(order):
        fun = _slope(fun)
    return jnp.vectorize(fun)


def _slope(fun: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda t: jax.jvp(fun, (t,), (jnp.ones_like(t),))[1]
