"""The parameters of a posterior as rows: to print, as a data frame, and as arviz has them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bbvi.diagnostics.estimates import Estimates, estimate
from bbvi.record import Record
from bbvi.reporting.arviz import Labels, as_draws, to_arviz
from bbvi.runtime.types import Array
from bbvi.target.parameters import label

PRINTED = 20  # rows at most
SHOWN_PROBABILITIES = (0.05, 0.5, 0.95)
SUMMARY_NUMBERS = 2**25  # in the draws behind a summary, at most; of more numbers there are fewer draws
OF_SUMMARY = {"kind", "var_names", "filter_vars", "coords", "ci_kind", "ci_prob", "round_to"}  # of arviz's arguments


def estimates(record: Record, max_rows: int | None = None) -> dict[str, tuple[tuple[int, ...], Estimates]]:
    """Shape and estimates of each named array of parameters, flat; of so many scalars at most."""
    shapes = {}

    def read(x: Array) -> dict[str, np.ndarray]:
        found, left = {}, max_rows
        for name, values in record.named(record.on_branch.variables(x)).items():
            shapes[name] = np.shape(values)[1:]
            found[name] = np.array(np.reshape(values, (len(x), -1))[:, :left], float)  # no view, which keeps all
            left = None if left is None else left - found[name].shape[1]
        return found

    draws, weights = record.weighted(read)
    units, made = record.units[record.weights > 0], {}
    for name, columns in draws.items():
        made[name] = shapes[name], _known(record, name, estimate(columns, weights, units, SHOWN_PROBABILITIES))
    return made


def _known(record: Record, name: str, found: Estimates) -> Estimates:
    """The same with the moments of q where these count, and without errors where they are not known."""
    if not record.by_q:
        return found if record.diagnosis.trusted else found.without_errors
    moments = {"mean": record.named(record.mean()), "sd": record.named(record.sd())}
    own = {title: np.ravel(each[name])[: len(found.mean)] for title, each in moments.items() if name in each}
    return found._replace(**own).without_errors


def rows(record: Record, max_rows: int | None = None) -> list[tuple[str, dict[str, float]]]:
    """Mean, sd and quantiles of each scalar parameter, by name, and then their Monte Carlo standard errors."""
    titles = ["mean", "sd", *(f"{100 * p:g}%" for p in SHOWN_PROBABILITIES)]
    titles += [f"mcse_{title}" for title in titles]
    made = []
    for name, (shape, found) in estimates(record, max_rows).items():
        table = np.concatenate([np.atleast_2d(each) for each in found])
        for values, index in zip(table.T, np.ndindex(*shape), strict=False):
            made.append((label(name, index), dict(zip(titles, map(float, values), strict=True))))
    return made


def printed(record: Record, max_rows: int) -> list[tuple[str, dict[str, float]]]:
    """The same without errors, as there is little room."""
    return [
        (name, {title: value for title, value in row.items() if not title.startswith("mcse")})
        for name, row in rows(record, max_rows)
    ]


def frame(record: Record, max_rows: int | None = None) -> Any:
    """See `Posterior.table`."""
    import pandas

    found = rows(record, max_rows)
    return pandas.DataFrame(
        [row for _, row in found], index=pandas.Index([name for name, _ in found], name="parameter")
    )


def summary(record: Record, **kwargs: Any) -> Any:
    """See `Posterior.summary`."""
    from arviz_base import dataset_to_dataframe, extract, rcParams

    given: dict[str, Any] = {"kind": "stats", "ci_kind": rcParams["stats.ci_kind"]} | kwargs
    if (given["kind"], given["ci_kind"]) != ("stats", "eti") or kwargs.keys() - OF_SUMMARY:
        from arviz_stats.summary import summary as of_draws

        tree = to_arviz(record.on_branch, min(1000, len(record.pool)), 0, None, Labels(), None)
        return of_draws(tree, **given)
    options: Any = {name: kwargs[name] for name in ("var_names", "filter_vars") if name in kwargs}
    share = kwargs.get("ci_prob") or rcParams["stats.ci_prob"]
    interval = [f"eti{int(100 * share)}_{end}" for end in ("lb", "ub")]
    titles = ["mean", "sd", *interval]
    tree = as_draws(record, _statistics(record, ((1 - share) / 2, (1 + share) / 2)))
    values: Any = extract(tree, combined=False, keep_dataset=True, **options)
    chosen = values.sel(kwargs.get("coords") or {}).isel(chain=0)
    named = chosen.rename(draw="summary").assign_coords(summary=[*titles, *(f"mcse_{title}" for title in titles)])
    table, decimals = dataset_to_dataframe(named, sample_dims=["summary"]).T, kwargs.get("round_to")
    return table if decimals in (None, "none", "None") else table.round(decimals)


def _statistics(record: Record, probabilities: Sequence[float]) -> dict[str, np.ndarray]:
    """Estimates and their errors `(2 * (2 + probabilities), *shape)` of all that `sample` returns, by name."""
    every = lambda x: record.named(record.on_branch.structure(x))
    numbers = sum(np.size(value) for value in every(record.pool.x[:1]).values())
    weights, order = record.weights, np.random.default_rng(0).permutation(len(record.pool))
    rows = np.sort(order[weights[order] > 0][: max(1, SUMMARY_NUMBERS // max(1, numbers))])
    units = np.unique(record.units[rows], return_inverse=True)[1]
    made = {}
    for name, values in every(np.asarray(record.pool.x[rows])).items():
        columns = np.reshape(np.asarray(values, float), (len(rows), -1))
        found = _known(record, name, estimate(columns, weights[rows] / weights[rows].sum(), units, probabilities))
        flat = np.concatenate([np.atleast_2d(each) for each in found])
        made[name] = flat.reshape(len(flat), *np.shape(values)[1:])
    return made


def describe(record: Record) -> str:
    """A posterior as it is printed."""
    found = printed(record, PRINTED)
    titles, pad, dim = list(found[0][1]), max(len(name) for name, _ in found), record.parameters.dim
    lines = [f"{record.distribution.title} posterior over {dim} coordinate{'s' * (dim > 1)} by {record.method}"]
    lines += [" " * pad + "".join(f"{title:>12}" for title in titles)]
    lines += [f"{name:<{pad}}" + "".join(f"{row[title]:>12.4g}" for title in titles) for name, row in found]
    if record.num_scalars > len(found):
        lines.append(f"... and {record.num_scalars - len(found)} more; summary() has them all")
    source = "importance-weighted" if record.diagnosis.trusted else "plain draws of the approximation"
    source = source if record.diagnosis.chains is None else "draws of chains"
    lines += [f"({source}; sample() likewise)", str(record.diagnosis)]
    if len(record.ladder) > 1:
        lines += ["Tried:", *(f"  {stage}" for stage in record.ladder)]
    lines.append(str(record.cost))
    return "\n".join(lines)
