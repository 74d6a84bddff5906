"""Square roots of covariances, with structure.

A scale S makes x = S v of independent standard numbers v, so that x has the covariance S S^T. What a Gaussian, the
coordinates of a problem and the place where a fit starts have in common is such a map, and what it costs depends on
its structure: a diagonal, a triangle, a diagonal plus a few directions. Leaves are unconstrained, as those of a
distribution. Arrays of NumPy stay on the host: nothing is compiled for them.
"""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.scipy.linalg import solve_triangular

from bbvi.runtime.pytree import pytree
from bbvi.runtime.types import Array


class Scale(ABC):
    """A square root S `(dim, columns)` of a covariance; the methods speak of one vector.

    Example:
        >>> from bbvi.ext import Diagonal, Triangular
        >>> Diagonal.of(np.array([1.0, 2.0])).apply(np.ones(2))
        array([1., 2.])
        >>> Triangular.around(Diagonal.of(np.array([1.0, 2.0]))).matrix()
        array([[1., 0.],
               [0., 2.]])
    """

    name: ClassVar[str]

    @classmethod
    @abstractmethod
    def standard(cls, dim: int, dtype: Any = float) -> Self:
        """I, or as near to it as can be optimised from."""

    @property
    @abstractmethod
    def dim(self) -> int:
        """Length of x."""

    @property
    @abstractmethod
    def columns(self) -> int:
        """Length of v."""

    @abstractmethod
    def apply(self, v: Array) -> Array:
        """S v `(dim,)` of v `(columns,)`."""

    @abstractmethod
    def square(self, x: Array) -> Array:
        """x^T (S S^T)^-1 x, the squared distance of x `(dim,)` from 0 in standard deviations, a scalar."""

    @abstractmethod
    def log_det(self) -> Array:
        """log |S S^T| / 2, a scalar."""

    @abstractmethod
    def sd(self) -> Array:
        """Standard deviations of x, `(dim,)`."""

    @abstractmethod
    def conditional_sd(self) -> Array:
        """Standard deviation of each coordinate of x given all others, `1 / sqrt(P_ii)` with P = (S S^T)^-1, `(dim,)`.

        These are the standard deviations of the mean-field Gaussian that is closest in KL(q || .).
        """

    @abstractmethod
    def after(self, outer: "Scale") -> Self:
        """The scale of `outer.apply(x)`, where `outer` is diagonal, or such as `coordinates` returns."""

    @abstractmethod
    def like(self, other: "Scale") -> Self:
        """The scale with this one's structure that is closest to `other` in KL(q || .), or about so."""

    @abstractmethod
    def coordinates(self) -> tuple["Scale", Self]:
        """A scale that can be inverted, and this scale as seen from there, close to I."""

    @abstractmethod
    def matrix(self) -> Array:
        """S as an array `(dim, columns)`."""


class Invertible(Scale):
    """A scale with as many columns as rows."""

    @property
    def columns(self) -> int:
        return self.dim

    @abstractmethod
    def solve(self, x: Array) -> Array:
        """S^-1 x `(dim,)` of x `(dim,)`."""

    @abstractmethod
    def sd_of(self, sd: Array) -> Array:
        """Standard deviations of S y `(dim,)`, for uncorrelated coordinates of y with these, `(dim,)`."""

    def square(self, x: Array) -> Array:
        return (self.solve(x) ** 2).sum()


@pytree
class Diagonal(Invertible):
    """A diagonal matrix.

    Arguments:
        log_scale: logarithms of its diagonal, `(dim,)`.
    """

    name = "mean_field"
    log_scale: Array

    @classmethod
    def standard(cls, dim: int, dtype: Any = float) -> Self:
        return cls(jnp.zeros(dim, dtype))

    @classmethod
    def of(cls, diagonal: Array) -> Self:
        """From the diagonal itself, `(dim,)`."""
        return cls(namespace(diagonal).log(diagonal))

    @property
    def dim(self) -> int:
        return self.log_scale.shape[-1]

    @property
    def log_diagonal(self) -> Array:
        return self.log_scale

    @property
    def diagonal(self) -> Array:
        """The diagonal, `(dim,)`."""
        return namespace(self.log_scale).exp(self.log_scale)

    def apply(self, v: Array) -> Array:
        return self.diagonal * v

    def solve(self, x: Array) -> Array:
        return x / self.diagonal  # the same numbers as in `apply`, so that a program holds one of them

    def log_det(self) -> Array:
        return self.log_scale.sum(axis=-1)

    def sd_of(self, sd: Array) -> Array:
        return self.diagonal * sd

    def sd(self) -> Array:
        return self.diagonal

    def conditional_sd(self) -> Array:
        return self.diagonal

    def after(self, outer: Scale) -> Self:
        return type(self)(_diagonal(outer).log_scale + self.log_scale)

    def like(self, other: Scale) -> Self:
        return other if isinstance(other, type(self)) else self.of(other.conditional_sd())

    def coordinates(self) -> tuple[Scale, Self]:
        return self, type(self)(namespace(self.log_scale).zeros_like(self.log_scale))

    def matrix(self) -> Array:
        return on_diagonal(self.diagonal)


@pytree
class Triangular(Invertible):
    """A lower triangular matrix L with a positive diagonal.

    Arguments:
        raw_tril: `(dim, dim)`; L is its strict lower triangle plus the exponential of its diagonal, so that every
            value is admissible. The upper triangle is not used.
    """

    name = "full_rank"
    raw_tril: Array

    @classmethod
    def standard(cls, dim: int, dtype: Any = float) -> Self:
        return cls(jnp.zeros((dim, dim), dtype))

    @classmethod
    def of(cls, tril: Array) -> Self:
        """From L itself, `(dim, dim)` lower triangular with a positive diagonal."""
        xp = namespace(tril)
        return cls(xp.tril(tril, -1) + on_diagonal(xp.log(diagonal_of(tril))))

    @classmethod
    def of_factor(cls, factor: Array) -> Self:
        """From any F `(dim, n)` with L L^T = F F^T of full rank."""
        xp = namespace(factor)
        lower = xp.linalg.qr(factor.T, mode="r").T
        return cls.of(lower * xp.where(diagonal_of(lower) < 0, -1, 1))

    @property
    def dim(self) -> int:
        return self.raw_tril.shape[-1]

    @property
    def log_diagonal(self) -> Array:
        return diagonal_of(self.raw_tril)

    def apply(self, v: Array) -> Array:
        return self.matrix() @ v

    def solve(self, x: Array) -> Array:
        on_host = namespace(self.raw_tril) is np and namespace(x) is np  # x may be traced where the scale is not
        solver = scipy.linalg.solve_triangular if on_host else solve_triangular
        return solver(self.matrix(), x, lower=True)

    def log_det(self) -> Array:
        return self.log_diagonal.sum(axis=-1)

    def sd_of(self, sd: Array) -> Array:
        return ((self.matrix() * sd) ** 2).sum(axis=-1) ** 0.5

    def sd(self) -> Array:
        return (self.matrix() ** 2).sum(axis=-1) ** 0.5

    def conditional_sd(self) -> Array:
        eye = namespace(self.raw_tril).eye(self.dim, dtype=self.raw_tril.dtype)
        return 1 / (self.solve(eye) ** 2).sum(axis=0) ** 0.5

    def after(self, outer: Scale) -> Self:
        if isinstance(outer, Diagonal):
            return self.of(outer.diagonal[:, None] * self.matrix())
        return self.of(outer.matrix() @ self.matrix())

    def like(self, other: Scale) -> Self:
        return self.around(other)

    @classmethod
    def around(cls, other: Scale) -> Self:
        """The triangular scale of the same covariance."""
        if isinstance(other, cls):
            return other
        if isinstance(other, Diagonal):
            return cls(on_diagonal(other.log_scale))
        return cls.of_factor(other.matrix())

    def coordinates(self) -> tuple[Scale, Self]:
        return self, type(self)(namespace(self.raw_tril).zeros_like(self.raw_tril))

    def matrix(self) -> Array:
        xp = namespace(self.raw_tril)
        return xp.tril(self.raw_tril, -1) + on_diagonal(xp.exp(self.log_diagonal))


def namespace(array: Array) -> Any:
    """NumPy for its arrays, whose programs need no compiling, and jax.numpy for all others."""
    return np if isinstance(array, np.ndarray | np.generic) else jnp


def diagonal_of(matrix: Array) -> Array:
    """The diagonal `(..., n)` of matrices `(..., n, n)`. That of jax.numpy is longer as a program."""
    n = matrix.shape[-1]
    return matrix.reshape(*matrix.shape[:-2], n * n)[..., :: n + 1]


def on_diagonal(vector: Array) -> Array:
    """The matrix `(n, n)` with these numbers `(n,)` on its diagonal."""
    n = len(vector)
    if namespace(vector) is np:
        return np.diag(vector)
    return jax.lax.pad(vector, jnp.zeros((), vector.dtype), ((0, 0, n),)).reshape(n, n)


def _diagonal(scale: Scale) -> Diagonal:
    if not isinstance(scale, Diagonal):
        raise TypeError(f"a {type(scale).__name__} scale in front of this one has no such structure: give a Diagonal.")
    return scale


def random_directions(dim: int, rank: int, dtype: Any) -> Array:
    """Random directions `(dim, rank)`, always the same."""
    return jax.random.normal(jax.random.key(0), (dim, rank), dtype)
