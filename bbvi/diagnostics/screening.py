"""The verdict on many fits at once, as far as they are so good that no check could speak against them.

What the checks of `checks/` compare with their thresholds is worked out here for all fits together, one array for each
kind of number. Where every number lies far on the good side the verdict is "reliable", with the same numbers as
`diagnose` would give. All that is less clear is left to it, and to the words of the checks.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from bbvi.diagnostics.verdict import Diagnosis
from bbvi.draws.importance import Draws
from bbvi.draws.pareto import effective_sample_size, log_sum_exp, smooth
from bbvi.outcome import Status, Stop, Value
from bbvi.policy import Regime
from bbvi.target.parameters import Parameters


class Cleared(NamedTuple):
    """What is known of a fit that no check could speak against."""

    diagnosis: Diagnosis
    mean: Any  # of the weighted draws, in the structure of the parameters
    sd: Any


@dataclass(frozen=True, kw_only=True)
class Screening:
    """How far from the thresholds of the checks a fit has to be, for its verdict to be told without asking them.

    Besides, it has converged, all of its draws have a density, and draws are too few for the check of remote mass. The
    checks of missed modes and spikes look at paths of a start, which there are not.
    """

    # No draw counts for more average draws than this, so that k-hat does not matter (`ImportanceWeights`).
    heaviest: float = 3.0
    # All the same k-hat is smaller, for draws of q alone, too: few draws hardly see what their tails hint at.
    tails: float = 0.7
    # The draws are worth more independent ones than this (`ImportanceWeights`).
    effective: float = 150.0
    # The log weights of draws of q spread over fewer nats than this, sd (`ImportanceWeights`).
    spread: float = 0.5
    # Along no direction the weighted draws have more times the variance of those of q than this (`TooNarrow`).
    wide: float = 1.5
    # That is known when there are this many draws of q for each coordinate.
    draws_per_coordinate: int = 10
    # The relative error of a standard deviation is at most this, over the square root of the number of draws; for a
    # Gaussian it is sqrt(1/2) (`VagueScale`).
    vague: float = 0.9
    # No coordinate of a draw is further from zero (`RanOff`).
    far: float = 1e20
    # Log densities are rounded to fewer nats than this (`Rounding`).
    rounding: float = 0.01

    def suits(self, parameters: Parameters, num_of_q: int) -> bool:
        """Whether fits with so many draws of q can be told to be good; of angles `VagueScale` has its own idea."""
        is_silent = 2 * num_of_q <= Regime.of(parameters.dim).verdict_draws  # `RemoteMass`
        return is_silent and num_of_q >= self.draws_per_coordinate * parameters.dim and not any(parameters.circular)

    @np.errstate(all="ignore")  # fits that failed
    def __call__(self, parameters: Parameters, draws: Draws, converged: np.ndarray) -> dict[int, Cleared]:
        """The fits that no check could speak against, by their number.

        Arguments:
            draws: of m fits; each field has a leading axis of these, apart from `from_q`, which they share.
            converged: which of the fits did, `(m,)`.
        """
        x, *densities, from_q = draws
        if not self.suits(parameters, int(from_q.sum())):
            return {}
        values = _columns(parameters, x)
        sound = converged & np.isfinite(densities).all(axis=(0, 2))
        sound &= np.finfo(x.dtype).eps * np.abs(densities[0]).max(axis=1) < self.rounding
        sound &= (np.abs(x).max(axis=(1, 2)) < self.far) & (np.ptp(x[:, from_q], axis=1) > 0).all(axis=1)
        chosen = np.flatnonzero(sound)
        if not len(chosen):
            return {}
        x, log_p, log_q, log_r = (each[chosen] for each in (x, *densities))
        numbers, log_weights = _numbers(log_p - log_r, (log_p - log_q)[:, from_q])
        weights, n = np.exp(log_weights), x.shape[1]
        moments, vagueness = _moments(jax.tree.map(lambda leaf: leaf[chosen], values), weights)
        clear = (n * weights.max(axis=1) < self.heaviest) & (numbers["effective_sample_size"] > self.effective)
        clear &= (numbers["k_hat"] < self.tails) & (numbers["resampling_k_hat"] < self.tails)
        clear &= (numbers["log_weight_sd"] < self.spread) & (vagueness < self.vague)
        clear &= _largest_variance(x, weights, from_q) < self.wide
        columns, (leaves, treedef) = {name: each.tolist() for name, each in numbers.items()}, jax.tree.flatten(moments)
        return {
            int(chosen[i]): Cleared(
                _reliable(n, {name: column[i] for name, column in columns.items()}),
                *treedef.unflatten([leaf[i] for leaf in leaves]),
            )
            for i in np.flatnonzero(clear)
        }


def _numbers(raw: np.ndarray, of_q: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What a `Diagnosis` says of m fits, each `(m,)` or, with its standard error, `(m, 2)`; and smoothed log weights.

    Arguments:
        raw: log weights of all draws `(m, n)`.
        of_q: log p - log q of those of q `(m, k)`.
    """
    n, (log_weights, k_hat), spread = raw.shape[1], smooth(raw), of_q.std(axis=1)
    evidence_error = np.sqrt(np.maximum(1 / effective_sample_size(raw) - 1 / n, 0))
    numbers = {
        "k_hat": smooth(of_q).k_hat,
        "resampling_k_hat": k_hat,
        "elbo": np.stack([of_q.mean(axis=1), spread / of_q.shape[1] ** 0.5], axis=1),
        "log_evidence": np.stack([log_sum_exp(raw) - np.log(n), evidence_error], axis=1),
        "effective_sample_size": effective_sample_size(log_weights),
        "log_weight_sd": spread,
    }
    return numbers, log_weights


def _reliable(num_draws: int, numbers: dict[str, Any]) -> Diagnosis:
    """The verdict that nothing speaks against."""
    pairs = {name: Value(*numbers.pop(name)) for name in ("elbo", "log_evidence")}
    return Diagnosis(
        status=Status.RELIABLE,
        num_draws=num_draws,
        non_finite=0.0,
        stop=Stop.CONVERGED,
        reasons=(),
        advice=(),
        improvable=False,
        **pairs,
        **numbers,
    )


def _columns(parameters: Parameters, x: np.ndarray) -> Any:
    """The parameters at draws of m fits `(m, n, dim)`: each `(m, n, *shape)`."""
    m, n, dim = x.shape
    values = parameters.structure(x.reshape(m * n, dim))
    return jax.tree.map(lambda leaf: np.reshape(leaf, (m, n, *leaf.shape[1:])), values)


def _moments(values: Any, weights: np.ndarray) -> tuple[Any, np.ndarray]:
    """Weighted means and standard deviations of the parameters, and the largest error of one of the latter, `(m,)`.

    The error is relative, in units of one over the square root of the number of draws.

    Arguments:
        values: the parameters at draws of m fits, each `(m, n, *shape)`.
        weights: of these draws, `(m, n)`; those of a fit sum to 1.
    """
    m, n = weights.shape
    average = lambda leaf, weights=weights: np.einsum("mn,mn...->m...", weights, leaf)
    means = jax.tree.map(average, values)
    squares = jax.tree.map(lambda leaf, mean: (leaf - mean[:, None]) ** 2, values, means)
    variances = jax.tree.map(average, squares)
    vagueness = np.zeros(m)
    for square, variance in zip(jax.tree.leaves(squares), jax.tree.leaves(variances), strict=True):
        error = average((square - variance[:, None]) ** 2, weights**2) ** 0.5 / (2 * variance)
        vagueness = np.maximum(vagueness, error.reshape(m, -1).max(axis=1, initial=0))
    return (means, jax.tree.map(np.sqrt, variances)), vagueness * n**0.5


def _largest_variance(x: np.ndarray, weights: np.ndarray, from_q: np.ndarray) -> np.ndarray:
    """The largest variance of weighted draws along a direction, over that of the draws of q, `(m,)`.

    In coordinates in which the latter are white, as in `whitening`, it is the largest eigenvalue of a covariance.
    """
    of_q = x[:, from_q]
    spread = of_q.std(axis=1, keepdims=True)
    of_q = (of_q - of_q.mean(axis=1, keepdims=True)) / spread
    eigenvalues, vectors = np.linalg.eigh(of_q.mT @ of_q / of_q.shape[1])
    inverse = vectors / np.sqrt(np.maximum(eigenvalues, 1e-12))[:, None]
    z = (x - weights[:, None] @ x) / spread @ inverse
    return np.linalg.eigvalsh((z * weights[..., None]).mT @ z)[:, -1]
