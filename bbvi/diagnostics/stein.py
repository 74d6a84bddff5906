"""Whether draws come from p, by the kernel Stein discrepancy: it needs the gradient of log p, and no normaliser.

With the inverse multiquadric kernel k(x, y) = B^(-1/2), B = 1 + |x - y|^2, and the score s = grad log p,

    u(x, y) = s(x).s(y) B^(-1/2) - B^(-3/2) (x - y).(s(y) - s(x)) + d B^(-3/2) - 3 B^(-5/2) |x - y|^2

has mean zero over draws of p. The discrepancy is its mean over pairs of draws. It is blind to the weights of modes that
lie apart.

References: Gorham and Mackey 2017 (arXiv:1703.01717); Liu, Lee and Jordan 2016 (arXiv:1602.03253); Chwialkowski,
Strathmann and Gretton 2016 (arXiv:1602.02964) for the bootstrap.
"""

from typing import NamedTuple

import numpy as np

BOOTSTRAP = 500


class SteinTest(NamedTuple):
    """Whether draws come from p."""

    discrepancy: float  # squared, estimated without bias, so that it may be negative
    p_value: float  # of draws of p having one as large
    num_draws: int


def stein_test(x: np.ndarray, scores: np.ndarray, rng: np.random.Generator) -> SteinTest:
    """The test for independent draws `(n, dim)` with the gradients of log p there, `(n, dim)`.

    Distances are measured in standard deviations of the draws. The p-value is by a wild bootstrap with random signs,
    which independent draws allow.
    """
    centre, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-300)
    pairs = stein_kernel((x - centre) / spread, scores * spread)
    n = len(x)
    np.fill_diagonal(pairs, 0.0)
    statistic = pairs.sum() / (n * (n - 1))
    signs = rng.choice([-1.0, 1.0], (BOOTSTRAP, n))
    replicas = np.einsum("bi,bi->b", signs @ pairs, signs) / (n * (n - 1))
    return SteinTest(float(statistic), float((1 + np.sum(replicas >= statistic)) / (1 + BOOTSTRAP)), n)


def stein_kernel(x: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """u of all pairs of points, `(n, n)`."""
    dim = x.shape[1]
    squares = np.sum(x**2, axis=1)
    distance = np.maximum(squares[:, None] + squares - 2 * x @ x.T, 0)
    inner = x @ scores.T  # x_i . s_j
    own = np.einsum("id,id->i", x, scores)
    cross = inner - own - own[:, None] + inner.T  # (x_i - x_j) . (s_j - s_i)
    root = (1 + distance) ** -0.5
    return scores @ scores.T * root - root**3 * cross + dim * root**3 - 3 * root**5 * distance
