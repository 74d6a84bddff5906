"""Sparse Hessians from few products with vectors."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.sparse import csr_array, eye_array

from bbvi.runtime.compiling import program
from bbvi.runtime.types import Array, Sparse
from bbvi.structure.colouring import colouring, meeting
from bbvi.structure.partition import by_degree
from bbvi.structure.soft_sums import probes, soft_sums
from bbvi.target.problem import Problem

POINTS_AT_ONCE = 16  # whose products one call returns
SEEDS_AT_ONCE = 16  # that the Hessian is multiplied with side by side, at most
PRODUCT_NUMBERS = 2**24  # held by the products that are computed side by side, about
TRIED_DENSE = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)  # columns that get a product of their own


class Hessians(NamedTuple):
    """Hessians at several points.

    Fields:
        entries: those of the pattern, `(n, nnz)`.
        error: of the product with a random vector, relative to the sizes of its terms, `(n,)`.
    """

    entries: np.ndarray
    error: np.ndarray


@dataclass(eq=False)
class CompressedHessian:
    """The Hessian of a log density as a function of points, given its pattern.

    A few columns with many entries get a product each. The others share one where no two of them have an entry in the
    same row, apart from rows that are known from those few columns, by symmetry.

    Fields:
        problem: whose log density it is.
        pattern: `(dim, dim)`, symmetric, with the whole diagonal.
        seeds: vectors that the Hessian is multiplied with, `(k, dim)`: a random one, those that sums are found by, and
            one for each colour.
        sums: rows v of which terms -v v^T are left out, `(r, dim)`.
        place: for each entry of the pattern its seed and its row in the product, `(2, nnz)`.
        sd: units of x, `(dim,)`.
        products: that were taken so far.

    References: Coleman and More 1984; Gebremedhin, Manne and Pothen 2005 (review).
    """

    problem: Problem
    pattern: Sparse
    seeds: np.ndarray
    place: np.ndarray
    sd: np.ndarray
    sums: np.ndarray
    products: int = 0

    @classmethod
    def of(
        cls, problem: Problem, pattern: Sparse, x: np.ndarray, sd: np.ndarray, sets: Sequence[np.ndarray] = ()
    ) -> "CompressedHessian | None":
        """With seeds for a pattern, to which terms -v v^T are to be added; None where there are no such v.

        Arguments:
            x: a point in the bulk, `(dim,)`.
            sets: coordinates in which each v is not zero.
        """
        dim = pattern.shape[0]
        pattern = csr_array(pattern + eye_array(dim, dtype=bool, format="csr"))
        pattern.sort_indices()
        dense = _dense_columns(pattern)
        colour = np.full(dim, -1)
        colour[dense] = np.arange(len(dense))
        rest = np.flatnonzero(colour < 0)
        colour[rest] = len(dense) + colouring(meeting(pattern[rest][:, rest]))
        rows, columns = pattern.nonzero()
        by_symmetry = np.isin(rows, dense) & ~np.isin(columns, dense)
        chosen = probes(pattern, sets)
        random = sd * np.random.default_rng(1).standard_normal((2, dim))
        first = 1 + chosen.size
        place = first * np.array([[1], [0]]) + np.where(by_symmetry, [colour[rows], columns], [colour[columns], rows])
        seeds = np.zeros((first + colour.max() + 1, dim))
        seeds[0] = random[0]
        seeds[1 + np.arange(chosen.size), chosen.ravel()] = 1
        seeds[first + colour, np.arange(dim)] = 1
        made = cls(problem, pattern, seeds, place, sd, np.zeros((0, dim)))
        if sets:
            columns = np.concatenate([*made._multiplied(np.stack([x + 0.1 * random[1], x]), first)])[:, 1:first]
            sums = soft_sums(columns.reshape(2, *chosen.shape, dim), pattern, sets, chosen)
            if sums is None:
                return None
            made.sums = sums
        return made

    @property
    def rows(self) -> np.ndarray:
        """Rows of the entries, `(nnz,)`."""
        return np.repeat(np.arange(len(self.sd)), np.diff(self.pattern.indptr))

    @property
    def columns(self) -> np.ndarray:
        """Columns of the entries, `(nnz,)`."""
        return self.pattern.indices

    @property
    def diagonal(self) -> np.ndarray:
        """Which entries are on the diagonal, `(dim,)`."""
        return np.flatnonzero(self.rows == self.columns)

    def __call__(self, points: np.ndarray) -> Hessians:
        """The Hessians at `points` `(n, dim)`."""
        added, entries, errors = (self.seeds @ self.sums.T) @ self.sums, [], []
        for products in self._multiplied(points, len(self.seeds)):
            entries.append((products + added)[:, self.place[0], self.place[1]])
            errors.append(self._errors(entries[-1], (products + added)[:, 0]))
        return Hessians(np.concatenate(entries), np.concatenate(errors))

    def _multiplied(self, points: np.ndarray, first: int) -> Iterator[np.ndarray]:
        """Products of the Hessians at `points` `(n, dim)` with the first seeds, `(some, first, dim)` of some points."""
        self.products += len(points) * first
        side_by_side = max(1, PRODUCT_NUMBERS // max(self.problem.evaluation_size, len(self.sd)))
        batch = min(side_by_side, len(self.seeds), SEEDS_AT_ONCE)
        seeds = np.concatenate([self.seeds, np.zeros((-len(self.seeds) % batch, len(self.sd)))])
        seeds = seeds.reshape(-1, batch, len(self.sd))
        for start in range(0, len(points), POINTS_AT_ONCE):
            some = points[start : start + POINTS_AT_ONCE]
            filled = np.concatenate([some, np.zeros((POINTS_AT_ONCE - len(some), len(self.sd)))])
            counts = np.array([len(some), -(-first // batch)])
            made = np.asarray(_products(self.problem, jnp.asarray(filled, float), jnp.asarray(seeds, float), counts))
            yield made[: len(some)].reshape(len(some), -1, len(self.sd))[:, :first]

    def is_right(self, hessians: Hessians) -> bool:
        """Whether there are no entries beside the pattern, as far as Hessians are finite."""
        tolerance = 1e-6 if jax.dtypes.canonicalize_dtype(float) == np.float64 else 1e-2
        return not (hessians.error > tolerance).any()

    def _errors(self, entries: np.ndarray, products: np.ndarray) -> np.ndarray:
        """How far entries are from products with the random vector, given both at several points."""
        terms = entries * self.seeds[0][self.columns]
        starts = self.pattern.indptr[:-1]
        difference = (products - np.add.reduceat(terms, starts, axis=1)) * self.sd
        size = np.add.reduceat(np.abs(terms), starts, axis=1) * self.sd
        return np.linalg.norm(difference, axis=1) / np.maximum(np.linalg.norm(size, axis=1), np.finfo(float).tiny)


def _dense_columns(pattern: Sparse) -> np.ndarray:
    """The columns that are to have a product of their own: as many as leave the fewest products, about."""
    ranked = by_degree(pattern, np.zeros(0, int))
    best, fewest = ranked[:0], np.inf
    for count in TRIED_DENSE:
        if count > len(ranked) or count >= fewest:
            break
        rest = np.sort(ranked[count:])
        products = count + np.diff(pattern[rest][:, rest].indptr).max(initial=0)
        if products < fewest:
            best, fewest = ranked[:count], products
    return best


@program
def _products(problem: Problem, points: Array, seeds: Array, counts: Array) -> Any:
    """Products of the Hessian with batches of `seeds` `(m, batch, dim)`, at `points` `(n, dim)`: `(n, m, batch, dim)`.

    Arguments:
        counts: of the points and of the batches; the others are left out.
    """

    def at_point(i: Any, made: Array) -> Array:
        product = jax.linearize(jax.grad(problem.log_density), points[i])[1]
        fill = lambda j, made: jnp.asarray(made).at[i, j].set(jax.vmap(product)(seeds[j]))
        return jax.lax.fori_loop(0, counts[1], fill, made)

    return jax.lax.fori_loop(0, counts[0], at_point, jnp.zeros((len(points), *seeds.shape), points.dtype))
