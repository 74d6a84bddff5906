"""The answers that fits are judged by, of all kinds of posteriors in one form."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpyro.diagnostics import effective_sample_size

from benchmarks import yardsticks
from benchmarks.posteriordb.contestants import QUANTILES
from benchmarks.posteriordb.database import reference_draws
from benchmarks.posteriordb.reference import flatten, labels, read_reference
from benchmarks.record.answers import ANSWERS
from benchmarks.shapes import Shape

LEVELS = QUANTILES
EXACT_DRAWS = 100_000  # independent, of shapes: for quantiles, and for what an interval holds


class Reference(NamedTuple):
    """What is known of the quantities of a posterior, one row of numbers."""

    names: list[str]
    mean: np.ndarray  # (quantities,)
    sd: np.ndarray  # (quantities,)
    mean_error: np.ndarray  # (quantities,) standard errors, in posterior standard deviations; not a number: unknown
    sd_error: np.ndarray  # (quantities,) standard errors, relative
    quantiles: np.ndarray | None  # (2, quantities) of 5 and 95 %; not a number: of a quantity with two values
    quantile_errors: np.ndarray | None  # (2, quantities) their standard errors, in posterior standard deviations
    draws: np.ndarray | None  # (draws, quantities)
    words: str  # where it comes from


def of_posteriordb(folder: str | Path, name: str, kept: str | Path) -> Reference:
    """The draws that come with posteriordb, else what a long run of NUTS found, which is kept in a folder."""
    draws = reference_draws(folder, name)
    if draws is not None:
        return of_draws(labels(draws), flatten(draws), "draws of posteriordb")
    found = read_reference(folder, name, kept)
    effective = np.full(len(found.names), np.nan) if found.effective is None else found.effective
    errors = effective**-0.5, (2 * effective) ** -0.5
    return Reference(found.names, found.mean, found.sd, *errors, found.quantiles, None, None, found.words)


def of_yardstick(folder: str | Path, name: str) -> Reference:
    """Published moments. The error of a standard deviation is that of as many normal draws as the mean's tells of."""
    moments = yardsticks.read_reference(folder, name)
    rows = [np.broadcast_arrays(*each) for each in moments.values()]
    mean, sd, error = (np.concatenate(column) for column in zip(*rows, strict=True))
    names = [
        quantity + (f"[{i}]" if len(each.mean) > 1 else "")
        for quantity, each in moments.items()
        for i in range(len(each.mean))
    ]
    return Reference(names, mean, sd, error / sd, error / sd / 2**0.5, None, None, None, "published moments")


def of_shape(name: str, shape: Shape) -> Reference:
    """Exact moments, with quantiles of independent draws where there is a way to make them."""
    many, exact = len(shape.mean), np.zeros(len(shape.mean))
    names = [f"x[{i}]" for i in range(many)] if many <= shape.dim else [*(f"x[{i}]" for i in range(many - 1)), "side"]
    draw = ANSWERS[name].draw
    if draw is None:
        return Reference(names, shape.mean, shape.sd, exact, exact, None, None, None, "exact")
    draws = shape.quantities(draw(np.random.default_rng(0), EXACT_DRAWS))
    quantiles = find_quantiles(draws, np.full(many, EXACT_DRAWS))
    return Reference(names, shape.mean, shape.sd, exact, exact, *quantiles, draws, "exact")


def of_draws(names: list[str], draws: np.ndarray, words: str) -> Reference:
    """Moments of draws `(n, quantities)`, whose standard errors come from their effective sample sizes."""
    mean, sd = draws.mean(axis=0), draws.std(axis=0)
    squares = (draws - mean) ** 2
    with np.errstate(invalid="ignore"):
        sd_error = squares.std(axis=0) / count_effective(squares) ** 0.5 / (2 * sd**2)
    words, effective = f"{len(draws)} {words}", count_effective(draws)
    return Reference(names, mean, sd, effective**-0.5, sd_error, *find_quantiles(draws, effective), draws, words)


def find_quantiles(draws: np.ndarray, effective: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Those of 5 and 95 %, and their errors in standard deviations, each `(2, quantities)`.

    An error is a quarter of the distance between the quantiles two standard errors of the level below and above. A
    quantity that is 0 or 1 has no quantiles to speak of.
    """
    draws, switches = np.asarray(draws, float), np.isin(draws, (0.0, 1.0)).all(axis=0)
    found, errors = np.quantile(draws, LEVELS, axis=0), np.empty((len(LEVELS), draws.shape[1]))
    for i, level in enumerate(LEVELS):
        of_level = 2 * np.sqrt(level * (1 - level) / effective)
        ends = np.clip([level - of_level, level + of_level], 0, 1)
        for j, column in enumerate(draws.T):
            errors[i, j] = np.diff(np.quantile(column, ends[:, j]))[0] / 4
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(switches, np.nan, found), np.where(switches, np.nan, errors / draws.std(axis=0))


def count_effective(draws: np.ndarray) -> np.ndarray:
    """Of draws `(n, quantities)`, chain after chain: taken for one chain, which tells of disagreement, too."""
    return effective_sample_size(draws[None])
