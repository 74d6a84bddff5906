"""Coordinates in which draws have unit variances and no correlations."""

from collections.abc import Callable

import numpy as np

DRAWS_PER_COORDINATE = 10  # with fewer draws correlations are not estimated well enough to be undone


def whitening(x: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """A map to coordinates in which the draws `x` `(n, dim)` have unit variances, and no correlations if n allows."""
    centre, spread = x.mean(axis=0), x.std(axis=0)
    n, dim = x.shape
    if dim > n // DRAWS_PER_COORDINATE:
        return lambda points: (points - centre) / spread
    eigenvalues, vectors = np.linalg.eigh(np.atleast_2d(np.corrcoef(x.T)))
    inverse = vectors / np.sqrt(np.maximum(eigenvalues, 1e-12))
    return lambda points: (points - centre) / spread @ inverse
