"""What chains have shown of the density, and how they are to go on: on the host, between steps.

The covariance of one half of the chains moves the other half, so that no chain is steered by where it was itself. The
length of trajectories is the one, among those tried, that decorrelates the slowest coordinate, or its square, most for
a gradient.
"""

import numpy as np

from bbvi.chains.kernel import HALVES

MOST_LEAPFROGS = 256  # leapfrog steps of a trajectory
PRIOR_WORTH = 5  # that unit variances count for


def roots(y: np.ndarray, dense: bool) -> np.ndarray:
    """Symmetric roots of the covariance for each half of the chains, from draws y `(n, chains, dim)` of the other half.

    They are `(2, dim, dim)`, or without `dense` of the variances, `(2, dim)`. The covariance is drawn towards its
    diagonal, and that towards 1, where chains and steps are few.
    """
    made = []
    for half in np.split(y, HALVES, axis=1)[::-1]:
        draws = half.reshape(-1, half.shape[-1]).astype(float)
        independent = half.shape[1] * max(1, len(half) // 8)
        weight = independent / (independent + PRIOR_WORTH)
        variance = weight * draws.var(axis=0) + (1 - weight)
        if not dense:
            made.append(np.sqrt(variance))
            continue
        weight = independent / (independent + draws.shape[1])
        covariance = np.atleast_2d(np.cov(draws.T))
        values, vectors = np.linalg.eigh(weight * covariance + (1 - weight) * np.diag(variance))
        made.append(vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T)
    return np.stack(made).astype(y.dtype)


def best_length(distances: np.ndarray, lengths: np.ndarray) -> int:
    """The number of leapfrog steps to go on with.

    Arguments:
        distances: mean squares of how far trajectories went, in units of the variance, `(n, k)`.
        lengths: their leapfrog steps, `(n,)`.
    """
    tried = np.unique(lengths)
    gained = [distances[lengths == each].mean(axis=0).min() / each for each in tried]
    return int(min(tried[int(np.argmax(gained))], MOST_LEAPFROGS))
