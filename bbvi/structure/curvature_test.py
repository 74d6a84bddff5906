"""A test of which coordinates change the curvature of the log density in the others, as scales do.

Let D_i be half the difference of the Hessians at x + s_i e_i and x - s_i e_i, in units of the conditional standard
deviations s: about the third derivatives with i. Where D_i is small, the log density of the other coordinates keeps
its shape when i moves by as much as it does, so that one Gaussian serves for all of them. Where it is large, i is a
hyper-parameter, given which the others are to be integrated.
"""

from dataclasses import dataclass

import numpy as np

from bbvi.structure.compressed import CompressedHessian
from bbvi.structure.partition import by_degree, partition

SHRINK = 4  # times shorter is a second move, where the first leads out of the domain


@dataclass(frozen=True)
class CurvatureTest:
    """When a coordinate counts as scale-like.

    Posteriors of regressions and hierarchies stand on both sides with room between: random and fixed effects change
    the curvature of the others by up to 0.15 and their own by up to 0.4, log scales by 0.35 and 0.5 or more.

    Fields:
        others: Frobenius norm of D_i without row and column i, above which coordinate i is scale-like.
        own: absolute entry (i, i) of D_i, above which it is.
        directions: random ones in which all coordinates move at once, to find candidates.
        most_changed: candidates whose rows change most in these directions, at most.
        most_connected: candidates with the most neighbours.
    """

    others: float = 0.25
    own: float = 0.45
    directions: int = 4
    most_changed: int = 48
    most_connected: int = 16

    def __call__(self, hessian: CompressedHessian, x: np.ndarray, sd: np.ndarray) -> np.ndarray | None:
        """Scale-like coordinates in order, at the point `x` `(dim,)`; None where the pattern proves wrong.

        Arguments:
            hessian: of the log density.
            x: a point in the bulk.
            sd: standard deviations `(dim,)`, for coordinates in which the log density is not concave at x.
        """
        rng = np.random.default_rng(0)
        at_x = hessian(np.stack([x + 0.1 * sd * rng.standard_normal(len(x)), x]))
        if not hessian.is_right(at_x):
            return None
        curvature = -at_x.entries[1][hessian.diagonal]
        s = np.where(curvature > 0, 1 / np.sqrt(np.where(curvature > 0, curvature, 1.0)), sd)
        changes = self._changes(hessian, x, s, s * rng.choice([-1.0, 1.0], (self.directions, len(x))))
        if changes is None:
            return None
        candidates = self._candidates(hessian, changes)
        moves = np.zeros((len(candidates), len(x)))
        moves[np.arange(len(candidates)), candidates] = s[candidates]
        changes = self._changes(hessian, x, s, moves)
        return None if changes is None else self._scale_like(hessian, candidates, changes)

    def _changes(
        self, hessian: CompressedHessian, x: np.ndarray, s: np.ndarray, moves: np.ndarray
    ) -> np.ndarray | None:
        """Half the differences of the Hessians at both ends of moves `(n, dim)`, in units of s: entries `(n, nnz)`.

        Entries are infinite where Hessians are not finite. None where the pattern proves wrong.
        """
        ends = hessian(np.concatenate([x + moves, x - moves]))
        right = hessian.is_right(ends)
        change = np.subtract(*np.split(ends.entries, 2)) / 2
        far = ~np.isfinite(change).all(axis=1)
        if far.any():
            near = hessian(np.concatenate([x + moves[far] / SHRINK, x - moves[far] / SHRINK]))
            right &= hessian.is_right(near)
            change[far] = SHRINK * np.subtract(*np.split(near.entries, 2)) / 2
        change[~np.isfinite(change).all(axis=1)] = np.inf
        return change * (s[hessian.rows] * s[hessian.columns]) if right else None

    def _candidates(self, hessian: CompressedHessian, changes: np.ndarray) -> np.ndarray:
        """Coordinates worth a test of their own, given how the Hessian changes in random directions."""
        dim, nnz = hessian.pattern.shape[0], hessian.pattern.nnz
        few = max(1, min(self.most_changed, 10_000_000 // nnz))  # what is kept of each is `(nnz,)`
        finite = changes[np.isfinite(changes).all(axis=1)]
        squares = np.zeros(dim)
        if len(finite):
            squares = np.bincount(hessian.rows, np.mean(finite**2, axis=0), minlength=dim)
        changed = np.argsort(-squares, kind="stable")[:few]
        changed = changed[squares[changed] > (min(self.others, self.own) / 2) ** 2]
        connected = by_degree(hessian.pattern, np.zeros(0, int))[: self.most_connected]
        return np.union1d(changed, connected)

    def _scale_like(self, hessian: CompressedHessian, candidates: np.ndarray, changes: np.ndarray) -> np.ndarray:
        """Which candidates are scale-like.

        One is found after the other, the one that changes most first. Rows and columns of those that were found no
        longer count: given them, their curvature is of no concern; nor do, in the end, those of other
        hyper-parameters. A coordinate that is alone in its block changes no other, and may be as skewed as it is.
        """
        lost = ~np.isfinite(changes).all(axis=1)
        without = candidates[lost]
        found = list(without)
        candidates, squares = candidates[~lost], changes[~lost] ** 2
        rows, columns = hessian.rows, hessian.columns
        alive = ~np.isin(rows, found) & ~np.isin(columns, found)
        beside = [(rows != i) & (columns != i) for i in candidates]

        def worst(excess: np.ndarray) -> bool:
            """Note the one that changes most of those in excess, if there is any."""
            excess = excess & ~np.isin(candidates, found)
            if excess.any():
                found.append(candidates[np.argmax(np.where(excess, squares @ alive, -1.0))])
                alive[:] &= beside[list(candidates).index(found[-1])]
            return bool(excess.any())

        others = lambda: np.array([square @ (alive & apart) for square, apart in zip(squares, beside, strict=True)])
        while worst(others() > self.others**2):
            pass
        own = squares[np.arange(len(candidates)), hessian.diagonal[candidates]] > self.own**2
        hyper, blocks = partition(hessian.pattern, found)
        alone = [block[0] for block in blocks if len(block) == 1]
        latent = ~np.isin(rows, hyper) & ~np.isin(columns, hyper)
        scales = (squares @ latent > self.others**2) & np.isin(candidates, found)
        return np.sort(np.concatenate([without, candidates[scales | (own & ~np.isin(candidates, alone))]]))
