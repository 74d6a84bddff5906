"""How far means and standard deviations of q can be from those of p: bounds from the second moment of the weights.

With w = p / q and D = log E_q[w^2], Rényi's divergence of order 2 of p from q, and s_i the standard deviation of
coordinate i under q, with fourth central moment m_i,

    |mean_p - mean_q| <= W_1 <= s_i (e^D - 1)^(1/2)
    |sd_p - sd_q|     <= W_2 <= 2^(1/2) m_i^(1/4) (e^D - 1)^(1/4)

for each coordinate, in terms of the Wasserstein distances of the marginals. For all coordinates together, whitened so
that q has covariance I, with m = E_q |x - mean|^4,

    |mean_p - mean_q| <= W_1 <= dim^(1/2) (e^D - 1)^(1/2),   W_2 <= 2^(1/2) m^(1/4) (e^D - 1)^(1/4)
    |Cov_p - Cov_q|   <= 2 W_2 + W_2^2                       in the spectral norm

D has no finite estimate where the weights
have no variance, which k-hat above one half says.

Reference: Huggins, Kasprzak, Campbell and Broderick 2020 (arXiv:1910.04102), theorem 3.4, with the constants of the
derivation: 1 and 2^(1/2), where theirs are 2.
"""

from typing import NamedTuple

import numpy as np

from bbvi.draws.pareto import log_sum_exp, smooth
from bbvi.outcome import Value

FINITE_K = 0.5  # k-hat of the weights, above which they have no variance
ERRORS = 2.0  # standard errors that are added to an estimate of D, to stay on the safe side


class Bounds(NamedTuple):
    """What the weights of draws of q say about the distance of q from p; in nats, and in the units of x."""

    elbo: Value  # log evidence is above it
    log_evidence: Value  # estimated by importance sampling
    cubo: Value  # log evidence is below it; infinite where the weights have no variance
    divergence: float  # D, with two standard errors added
    mean: np.ndarray  # (dim,) largest error of the means of q
    sd: np.ndarray  # (dim,) and of its standard deviations
    wasserstein: tuple[float, float]  # W_1 and W_2 of q and p, whitened by q's covariance
    covariance: float  # largest error of its covariance, whitened likewise, in the spectral norm


def find_bounds(x: np.ndarray, log_weights: np.ndarray) -> Bounds:
    """Bounds from draws of q `(n, dim)` and their log weights log p - log q `(n,)`, -inf for draws without density."""
    n = len(log_weights)
    finite = np.isfinite(log_weights)
    elbo = log_weights[finite].mean() if finite.all() else -np.inf
    elbo_error = log_weights[finite].std() / n**0.5
    first, first_error = _log_mean(log_weights)
    second, second_error = _log_mean(2 * log_weights)
    influence = np.exp(2 * log_weights - second) - 2 * np.exp(log_weights - first)  # of each draw on D
    divergence = second - 2 * first + ERRORS * influence.std() / n**0.5
    if smooth(log_weights).k_hat >= FINITE_K:
        second, second_error, divergence = np.inf, np.nan, np.inf
    centred = x - x.mean(axis=0)
    excess = np.expm1(max(divergence, 0.0)) if divergence < 700 else np.inf
    fourth = np.mean(_squared_lengths(centred) ** 2)
    w_1, w_2 = (x.shape[1] * excess) ** 0.5, 2**0.5 * (fourth * excess) ** 0.25
    return Bounds(
        Value(float(elbo), float(elbo_error)),
        Value(first, first_error),
        Value(float(second / 2), float(second_error / 2)),
        float(divergence),
        centred.std(axis=0) * excess**0.5,
        2**0.5 * np.mean(centred**4, axis=0) ** 0.25 * excess**0.25,
        (float(w_1), float(w_2)),
        float(2 * w_2 + w_2**2),
    )


def _squared_lengths(centred: np.ndarray) -> np.ndarray:
    """Squared distances from the mean `(n,)` in the metric of the sample covariance."""
    covariance = np.atleast_2d(centred.T @ centred / len(centred))
    return np.einsum("ni,ni->n", centred, np.linalg.solve(covariance, centred.T).T)


def _log_mean(log_values: np.ndarray) -> tuple[float, float]:
    """Log of the mean of exp(values), and its standard error."""
    n = len(log_values)
    log_mean = log_sum_exp(log_values) - np.log(n)
    relative = np.exp(log_values - log_mean)
    return float(log_mean), float(relative.std() / n**0.5)
