"""Symmetric matrices in arrow form: blocks that do not touch each other, and separators that may touch all of them.

A precision matrix A of blocks B and separators S is factored as K K^T with

    A = [[A_B, C], [C^T, A_S]],    K = [[L, 0], [W^T, R]],

where A_B = L L^T block by block, W = L^-1 C, and R R^T = A_S - W^T W is the Schur complement. Vectors have the places of
all blocks, one block after the other, and then the separators. Without separators A is block-diagonal.
"""

import jax.numpy as jnp
from jax.scipy.linalg import solve_triangular

from bbvi.distributions.scales import Array
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

    def factorise(self) -> "ArrowFactor":
        """K of a positive definite matrix; NaN where it is not positive definite."""
        root = jnp.sqrt(self.blocks) if self.blocks.shape[-1] == 1 else jnp.linalg.cholesky(self.blocks)
        inverse = inverse_lower(root)
        if not self.num_separators:
            return ArrowFactor(root, inverse, self.border, self.corner, self.corner, self.touched)
        border = inverse @ self.border
        schur = self.corner - self._summed(jnp.einsum("gim,gin->gmn", border, border))
        corner = jnp.linalg.cholesky(schur)
        return ArrowFactor(root, inverse, border, corner, inverse_lower(corner), self.touched)

    def _summed(self, parts: Array) -> Array:
        """A matrix of the separators from matrices `(blocks, touched, touched)` of those that each block touches."""
        total = jnp.zeros((self.num_separators + 1,) * 2, parts.dtype)
        return total.at[self.touched[:, :, None], self.touched[:, None, :]].add(parts)[:-1, :-1]


@pytree
class ArrowFactor:
    """K of a matrix K K^T in arrow form. Inverses are kept, since to multiply is faster than to solve.

    Fields:
        blocks: L `(blocks, size, size)`, lower triangular.
        inverse_blocks: L^-1.
        border: W `(blocks, size, touched)`.
        corner: R `(separators, separators)`, lower triangular.
        inverse_corner: R^-1.
        touched: as of `Arrow`.
    """

    blocks: Array
    inverse_blocks: Array
    border: Array
    corner: Array
    inverse_corner: Array
    touched: Array

    @classmethod
    def of(cls, blocks: Array, border: Array, corner: Array, touched: Array) -> "ArrowFactor":
        """From its parts."""
        return cls(blocks, inverse_lower(blocks), border, corner, inverse_lower(corner), touched)

    @property
    def has_separators(self) -> bool:
        """Whether there are separators."""
        return self.corner.shape[0] > 0

    def solve(self, v: Array) -> Array:
        """K^-1 v."""
        of_blocks, of_separators = self._parts(v)
        of_blocks = jnp.einsum("gij,gj->gi", self.inverse_blocks, of_blocks)
        if not self.has_separators:
            return jnp.ravel(of_blocks)
        rest = of_separators - self._summed(jnp.einsum("gim,gi->gm", self.border, of_blocks))
        return self._joined(of_blocks, self.inverse_corner @ rest)

    def solve_transposed(self, v: Array) -> Array:
        """K^-T v: of standard normal noise, a vector with precision K K^T."""
        of_blocks, of_separators = self._parts(v)
        if self.has_separators:
            of_separators = self.inverse_corner.T @ of_separators
            of_blocks = of_blocks - jnp.einsum("gim,gm->gi", self.border, self._seen(of_separators))
        return self._joined(jnp.einsum("gji,gj->gi", self.inverse_blocks, of_blocks), of_separators)

    def multiply_transposed(self, v: Array) -> Array:
        """K^T v."""
        of_blocks, of_separators = self._parts(v)
        made = jnp.einsum("gji,gj->gi", self.blocks, of_blocks)
        if self.has_separators:
            made = made + jnp.einsum("gim,gm->gi", self.border, self._seen(of_separators))
        return self._joined(made, self.corner.T @ of_separators)

    def solve_both(self, v: Array) -> Array:
        """(K K^T)^-1 v."""
        return self.solve_transposed(self.solve(v))

    def log_det(self) -> Array:
        """log |K|."""
        logs = lambda root: jnp.sum(jnp.log(jnp.diagonal(root, axis1=-2, axis2=-1)))
        return logs(self.blocks) + logs(self.corner) if self.has_separators else logs(self.blocks)

    def inverse(self) -> Arrow:
        """The entries of (K K^T)^-1 at the places of an `Arrow`; those between blocks, not zero either, left out."""
        root = self.inverse_blocks
        own = root**2 if root.shape[-1] == 1 else jnp.einsum("gki,gkj->gij", root, root)
        if not self.has_separators:
            return Arrow(own, self.border, self.corner, self.touched)
        corner = self.inverse_corner.T @ self.inverse_corner
        padded = jnp.pad(corner, ((0, 1), (0, 1)))
        between = padded[self.touched[:, :, None], self.touched[:, None, :]]
        towards = jnp.einsum("gji,gjm->gim", root, self.border)
        border = -towards @ between
        return Arrow(own - border @ jnp.moveaxis(towards, 1, 2), border, corner, self.touched)

    def scaled(self, by: Array) -> "ArrowFactor":
        """That of the precision after a vector was multiplied by `by`, place by place."""
        of_blocks, of_separators = self._parts(by)
        border = self.border / self._seen(of_separators)[:, None, :] if self.has_separators else self.border
        return self.of(self.blocks / of_blocks[..., None], border, self.corner / of_separators[:, None], self.touched)

    def _parts(self, v: Array) -> tuple[Array, Array]:
        """The places of the blocks `(blocks, size)`, and the separators."""
        blocks, size, _ = self.blocks.shape
        return jnp.reshape(v[: blocks * size], (blocks, size)), v[blocks * size :]

    def _joined(self, of_blocks: Array, of_separators: Array) -> Array:
        return jnp.concatenate([jnp.ravel(of_blocks), of_separators]) if self.has_separators else jnp.ravel(of_blocks)

    def _seen(self, of_separators: Array) -> Array:
        """The separators as each block sees them, `(blocks, touched)`, 0 for a filler."""
        return jnp.pad(of_separators, (0, 1))[self.touched]

    def _summed(self, parts: Array) -> Array:
        """A vector of the separators from vectors `(blocks, touched)` of those that each block touches."""
        return jnp.zeros(len(self.corner) + 1, parts.dtype).at[self.touched].add(parts)[:-1]


def inverse_lower(root: Array) -> Array:
    """The inverses of lower triangular matrices `(..., n, n)`."""
    n = root.shape[-1]
    if n <= 1:
        return 1 / root
    return solve_triangular(root, jnp.broadcast_to(jnp.eye(n, dtype=root.dtype), root.shape), lower=True)
