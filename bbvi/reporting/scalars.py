"""The scalar parameters of a posterior: statistics of all, and of the ones shown their draws."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bbvi.draws.agreement import mean_error
from bbvi.draws.pareto import k_hat_of_square
from bbvi.record import Record
from bbvi.target.parameters import label

PROBABILITIES = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Variable:
    """A named array of parameters with k elements; statistics are weighted as the verdict allows."""

    name: str
    shape: tuple[int, ...]
    columns: np.ndarray  # (n, k) draws behind the verdict
    mean: np.ndarray  # (k,)
    sd: np.ndarray  # (k,)
    effective_sample_size: np.ndarray  # (k,) of the mean
    plain: np.ndarray  # (m, k) draws of q itself


@dataclass(frozen=True)
class Row:
    """One scalar."""

    variable: str
    label: str
    mean: float
    sd: float
    quantiles: tuple[float, ...]  # at PROBABILITIES
    effective_sample_size: float
    k_hat: float  # of its square, on which the sd rests
    draws: np.ndarray  # (n,)
    plain: np.ndarray  # (m,) draws of q itself


def read_variables(posterior: Record) -> list[Variable]:
    """All parameters, by name."""
    pool, weights = posterior.pool, posterior.weights
    importance, chains = np.exp(posterior.importance.log_weights), posterior.diagnosis.chains
    read = lambda x: posterior.named(posterior.on_branch.variables(x))
    plain = None if chains is None else read(posterior.draws_of_q)
    found = []
    for name, values in read(pool.x).items():
        columns = np.reshape(np.asarray(values, float), (len(weights), -1))
        with np.errstate(all="ignore"):  # draws of a q that has run off
            mean, squares = _moments(columns, weights)
            _, of_p = _moments(columns, importance)
            ess = importance @ of_p / (importance**2 @ of_p)
        if chains is not None:
            ess = 1 / np.maximum(mean_error(columns.reshape(-1, chains.chains, columns.shape[1])), 1e-9) ** 2
        of_q = columns[pool.from_q] if plain is None else np.reshape(plain[name], (-1, columns.shape[1]))
        shape, sds = np.shape(values)[1:], np.sqrt(weights @ squares)
        found.append(Variable(name, shape, columns, mean, sds, np.nan_to_num(ess), of_q))
    return found


def _moments(columns: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means `(k,)` and squared deviations from them `(n, k)`; draws of weight zero may overflow."""
    kept = np.where(weights[:, None] > 0, columns, 0)
    mean = weights @ kept
    return mean, np.where(weights[:, None] > 0, (kept - mean) ** 2, 0)


def worst(posterior: Record, variables: Sequence[Variable], most: int) -> list[Row]:
    """The scalars, at most `most` of them: those with the fewest effective draws, in their order."""
    ess = np.concatenate([variable.effective_sample_size for variable in variables])
    chosen = np.sort(np.argsort(ess, kind="stable")[:most])
    starts = np.cumsum([0, *(len(variable.mean) for variable in variables)])
    log_weights, weights = posterior.importance.log_weights, posterior.weights

    def row(variable: Variable, i: int) -> Row:
        k_hat = k_hat_of_square(log_weights, variable.columns[:, i])
        return _row(variable, i, weights, k_hat)

    places = np.searchsorted(starts, chosen, side="right") - 1
    return [row(variables[k], int(index - starts[k])) for k, index in zip(places, chosen, strict=True)]


def _row(variable: Variable, i: int, weights: np.ndarray, k_hat: float) -> Row:
    column = variable.columns[:, i]
    quantiles = np.quantile(column, PROBABILITIES, weights=weights, method="inverted_cdf")
    return Row(
        variable.name,
        label(variable.name, np.unravel_index(i, variable.shape)),
        float(variable.mean[i]),
        float(variable.sd[i]),
        tuple(map(float, quantiles)),
        float(variable.effective_sample_size[i]),
        k_hat,
        column,
        variable.plain[:, i],
    )
