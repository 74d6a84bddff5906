"""The scalar parameters of a posterior: statistics of all, and of the ones shown their draws."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bbvi.diagnostics.estimates import Estimates, estimate
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
    estimates: Estimates  # of each, with quantiles at PROBABILITIES
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
    mean_error: float  # a Monte Carlo standard error, not a number where the verdict does not trust the draws
    sd_error: float
    quantile_errors: tuple[float, ...]
    effective_sample_size: float
    k_hat: float  # of its square, on which the sd rests
    draws: np.ndarray  # (n,)
    plain: np.ndarray  # (m,) draws of q itself


def read_variables(posterior: Record) -> list[Variable]:
    """All parameters, by name."""
    weights, units, trusted = posterior.weights, posterior.units, posterior.diagnosis.trusted
    read = lambda x: posterior.named(posterior.on_branch.variables(x))
    plain = None if posterior.diagnosis.chains is None else read(posterior.draws_of_q)
    found = []
    for name, values in read(posterior.pool.x).items():
        columns = np.reshape(np.asarray(values, float), (len(weights), -1))
        estimates = estimate(columns, weights, units, PROBABILITIES)
        of_p = estimates if trusted else estimate(columns, np.exp(posterior.importance.log_weights), units)
        of_q = columns[posterior.pool.from_q] if plain is None else np.reshape(plain[name], (-1, columns.shape[1]))
        known, ess = estimates if trusted else estimates.without_errors, of_p.effective_sample_size
        found.append(Variable(name, np.shape(values)[1:], columns, known, ess, of_q))
    return found


def worst(posterior: Record, variables: Sequence[Variable], most: int) -> list[Row]:
    """The scalars, at most `most` of them: those with the fewest effective draws, in their order."""
    ess = np.concatenate([variable.effective_sample_size for variable in variables])
    chosen = np.sort(np.argsort(ess, kind="stable")[:most])
    starts = np.cumsum([0, *(len(variable.effective_sample_size) for variable in variables)])
    log_weights = posterior.importance.log_weights

    def row(variable: Variable, i: int) -> Row:
        return _row(variable, i, k_hat_of_square(log_weights, variable.columns[:, i]))

    places = np.searchsorted(starts, chosen, side="right") - 1
    return [row(variables[k], int(index - starts[k])) for k, index in zip(places, chosen, strict=True)]


def _row(variable: Variable, i: int, k_hat: float) -> Row:
    found = variable.estimates
    return Row(
        variable=variable.name,
        label=label(variable.name, np.unravel_index(i, variable.shape)),
        mean=float(found.mean[i]),
        sd=float(found.sd[i]),
        quantiles=tuple(map(float, found.quantiles[:, i])),
        mean_error=float(found.mean_error[i]),
        sd_error=float(found.sd_error[i]),
        quantile_errors=tuple(map(float, found.quantile_errors[:, i])),
        effective_sample_size=float(variable.effective_sample_size[i]),
        k_hat=k_hat,
        draws=variable.columns[:, i],
        plain=variable.plain[:, i],
    )
