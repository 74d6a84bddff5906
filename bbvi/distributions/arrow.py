"""Symmetric matrices in arrow form: blocks that do not touch each other, and separators that may touch all of them.

A precision matrix A of blocks B and separators S is factored as K K^T with

    A = [[A_B, C], [C^T, A_S]],    K = [[L, 0], [W^T, R]],

where A_B = L L^T block by block, W = L^-1 C, and R R^T = A_S - W^T W is the Schur complement. Vectors have the places
of all blocks, one block after the other, and then the separators. Without separators A is block-diagonal.

A few terms v v^T may be added to A. With u = K^-1 v, u u^T = s U^T U and |U| = 1, the factor is then

    K (I + g U^T U),    g = (1 + s)^(1/2) - 1;

several have the eigenvectors and eigenvalues of their sum for U and s.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jax.scipy.linalg import cho_solve, solve_triangular

from bbvi.distributions.scales import Array, diagonal_of, namespace
from bbvi.runtime.pytree import pytree


@pytree
class Arrow:
    """Numbers in arrow form.

    Fields:
        blocks: `(blocks, size, size)`.
        border: between each block and the separators that it touches, `(blocks, size, touched)`.
        corner: between separators, `(separators, separators)`.
        touched: the separators that each block touches, `(blocks, touched)` integers; their number, as a filler.
    """

    blocks: Array
    border: Array
    corner: Array
    touched: Array

    @property
    def num_separators(self) -> int:
        """Number of separators."""
        return self.corner.shape[0]

    def factorise(self, sums: Array) -> "ArrowFactor":
        """K of a positive definite matrix with terms v v^T for the rows of `sums` `(r, places)`; NaN without one."""
        plain = self._factorise()
        if not sums.shape[0]:
            return plain
        white = jax.vmap(plain.solve)(sums)
        squares = white @ white.T
        values, vectors = (jnp.ravel(squares), jnp.ones_like(squares)) if len(sums) == 1 else jnp.linalg.eigh(squares)
        return replace(plain, along=vectors.T @ white / jnp.sqrt(values)[:, None], gain=jnp.sqrt(1 + values) - 1)

    def _factorise(self) -> "ArrowFactor":
        """That without the sums."""
        root = jnp.sqrt(self.blocks) if self.blocks.shape[-1] == 1 else jnp.linalg.cholesky(self.blocks)
        if not self.num_separators:
            return ArrowFactor.plain(root, self.border, self.corner, self.touched)
        border = _solve(root, self.border)
        schur = self.corner - self._summed(jnp.einsum("gim,gin->gmn", border, border))
        return ArrowFactor.plain(root, border, jnp.linalg.cholesky(schur), self.touched)

    def _summed(self, parts: Array) -> Array:
        """A matrix of the separators from matrices `(blocks, touched, touched)` of those that each block touches."""
        total = jnp.zeros((self.num_separators + 1,) * 2, parts.dtype)
        return total.at[self.touched[:, :, None], self.touched[:, None, :]].add(parts)[:-1, :-1]


@pytree
class ArrowFactor:
    """K of a matrix K K^T in arrow form.

    Fields:
        blocks: L `(blocks, size, size)`, lower triangular.
        border: W `(blocks, size, touched)`.
        corner: R `(separators, separators)`, lower triangular.
        touched: as of `Arrow`.
        along: U `(r, places)`, orthonormal rows.
        gain: g `(r,)`.
    """

    blocks: Array
    border: Array
    corner: Array
    touched: Array
    along: Array
    gain: Array

    @classmethod
    def plain(cls, blocks: Array, border: Array, corner: Array, touched: Array) -> "ArrowFactor":
        """That of a matrix without sums."""
        places = blocks.shape[0] * blocks.shape[1] + corner.shape[0]
        none = namespace(blocks).zeros((0, places), blocks.dtype)
        return cls(blocks, border, corner, touched, none, none[:, 0])

    @property
    def has_separators(self) -> bool:
        """Whether there are separators."""
        return self.corner.shape[0] > 0

    def solve(self, v: Array) -> Array:
        """K^-1 v."""
        of_blocks, of_separators = self._parts(v)
        of_blocks = _solve(self.blocks, of_blocks)
        if not self.has_separators:
            return self._stretched(jnp.ravel(of_blocks), -self.gain / (1 + self.gain))
        rest = of_separators - self._summed(jnp.einsum("gim,gi->gm", self.border, of_blocks[..., 0]))
        made = self._joined(of_blocks, solve_triangular(self.corner, rest, lower=True))
        return self._stretched(made, -self.gain / (1 + self.gain))

    def solve_transposed(self, v: Array) -> Array:
        """K^-T v: of standard normal noise, a vector with precision K K^T."""
        return self._solve_plain(self._stretched(v, -self.gain / (1 + self.gain)))

    def _solve_plain(self, v: Array) -> Array:
        """The same of the factor without the sums."""
        of_blocks, of_separators = self._parts(v)
        if self.has_separators:
            of_separators = solve_triangular(self.corner, of_separators, lower=True, trans=1)
            of_blocks = of_blocks - self.border @ self._seen(of_separators)[..., None]
        return self._joined(_solve(self.blocks, of_blocks, transposed=True), of_separators)

    def multiply_transposed(self, v: Array) -> Array:
        """K^T v."""
        of_blocks, of_separators = self._parts(v)
        made = jnp.einsum("gij,gik->gjk", self.blocks, of_blocks)
        if self.has_separators:
            made = made + self.border @ self._seen(of_separators)[..., None]
        return self._stretched(self._joined(made, self.corner.T @ of_separators), self.gain)

    def solve_both(self, v: Array) -> Array:
        """(K K^T)^-1 v."""
        return self.solve_transposed(self.solve(v))

    def log_det(self) -> Array:
        """log |K|."""
        logs = lambda root: jnp.sum(jnp.log(diagonal_of(root)))
        made = logs(self.blocks) + logs(self.corner) if self.has_separators else logs(self.blocks)
        return made + jnp.sum(jnp.log1p(self.gain)) if len(self.gain) else made

    def inverse(self) -> Arrow:
        """The entries of (K K^T)^-1 at the places of an `Arrow`; those between blocks, not zero either, left out."""
        size, dtype = self.blocks.shape[-1], jax.dtypes.canonicalize_dtype(self.blocks.dtype)
        root = _solve(self.blocks, jnp.broadcast_to(jnp.eye(size, dtype=dtype), self.blocks.shape))
        own = jnp.einsum("gki,gkj->gij", root, root)
        if not self.has_separators:
            return self._less_by_sums(Arrow(own, self.border, self.corner, self.touched))
        corner = cho_solve((self.corner, True), jnp.eye(len(self.corner), dtype=dtype))
        padded = jnp.pad(corner, ((0, 1), (0, 1)))
        between = padded[self.touched[:, :, None], self.touched[:, None, :]]
        towards = _solve(self.blocks, self.border, transposed=True)
        border = -towards @ between
        return self._less_by_sums(Arrow(own - border @ jnp.moveaxis(towards, 1, 2), border, corner, self.touched))

    def log_sd(self) -> Array:
        """Logarithms of the standard deviations `(places,)` of a vector with precision K K^T."""
        inverse = self.inverse()
        of_blocks = jnp.ravel(diagonal_of(inverse.blocks))
        variances = [of_blocks, diagonal_of(inverse.corner)] if self.has_separators else [of_blocks]
        return 0.5 * jnp.log(jnp.concatenate(variances))

    def _less_by_sums(self, inverse: Arrow) -> Arrow:
        """The inverse with the sums, of the one without them."""
        for along, gain in zip(self.along, 1 - 1 / (1 + self.gain) ** 2, strict=True):
            of_blocks, of_separators = self._parts(self._solve_plain(along))
            column, seen = of_blocks[..., 0], self._seen(of_separators)
            less = lambda array, left, right, gain=gain: array - gain * left[..., :, None] * right[..., None, :]
            inverse = Arrow(
                less(inverse.blocks, column, column),
                less(inverse.border, column, seen),
                less(inverse.corner, of_separators, of_separators),
                self.touched,
            )
        return inverse

    def scaled(self, by: Array) -> "ArrowFactor":
        """That of the precision after a vector was multiplied by `by`, place by place."""
        of_blocks, of_separators = self._parts(by)
        seen = jnp.pad(of_separators, (0, 1), constant_values=1)[self.touched]
        border = self.border / seen[:, None, :]
        blocks, corner = self.blocks / of_blocks, self.corner / of_separators[:, None]
        return replace(self, blocks=blocks, border=border, corner=corner)

    def _stretched(self, v: Array, by: Array) -> Array:
        """(I + U^T diag(by) U) v."""
        return v + (by * (self.along @ v)) @ self.along if self.along.shape[0] else v

    def _parts(self, v: Array) -> tuple[Array, Array]:
        """The places of the blocks as columns `(blocks, size, 1)`, and the separators."""
        blocks, size, _ = self.blocks.shape
        return jnp.reshape(v[: blocks * size], (blocks, size, 1)), v[blocks * size :]

    def _joined(self, of_blocks: Array, of_separators: Array) -> Array:
        return jnp.concatenate([jnp.ravel(of_blocks), of_separators]) if self.has_separators else jnp.ravel(of_blocks)

    def _seen(self, of_separators: Array) -> Array:
        """The separators as each block sees them, `(blocks, touched)`, 0 for a filler."""
        return jnp.pad(of_separators, (0, 1))[self.touched]

    def _summed(self, parts: Array) -> Array:
        """A vector of the separators from vectors `(blocks, touched)` of those that each block touches."""
        return jnp.zeros(len(self.corner) + 1, parts.dtype).at[self.touched].add(parts)[:-1]


def _solve(root: Array, columns: Array, *, transposed: bool = False) -> Array:
    """L^-1, or L^-T, times columns `(blocks, size, n)`."""
    return columns / root if root.shape[-1] == 1 else solve_triangular(root, columns, lower=True, trans=int(transposed))
