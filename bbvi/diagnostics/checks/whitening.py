"""Coordinates in which draws have unit variances and no correlations."""

from collections.abc import Callable

import numpy as np

Whitening = Callable[[np.ndarray], np.ndarray]  # of points (n, dim)


def whitening(x: np.ndarray, draws_per_coordinate: int = 10) -> Whitening:
    """A map to coordinates in which the draws `x` `(n, dim)` have unit variances and no correlations.

    With fewer `draws_per_coordinate` the correlations stay, for they are not known well enough to be undone.
    """
    centre, spread = x.mean(axis=0), x.std(axis=0)
    n, dim = x.shape
    if dim > n // draws_per_coordinate:
        return lambda points: (points - centre) / spread
    eigenvalues, vectors = np.linalg.eigh(np.atleast_2d(np.corrcoef(x.T)))
    inverse = vectors / np.sqrt(np.maximum(eigenvalues, 1e-12))
    return lambda points: (points - centre) / spread @ inverse
