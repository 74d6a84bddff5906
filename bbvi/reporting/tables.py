"""The parameters of a posterior as rows: to print, as a data frame, and as arviz has them."""

from typing import Any

import numpy as np

from bbvi.diagnostics.weights import mean, quantile, sd
from bbvi.record import Record
from bbvi.reporting.arviz import Labels, to_arviz
from bbvi.runtime.types import Array
from bbvi.target.parameters import label

PRINTED = 20  # rows at most


def rows(record: Record, max_rows: int | None = None) -> list[tuple[str, dict[str, float]]]:
    """Mean, sd and quantiles of each scalar parameter, by name."""
    shapes = {}

    def read(x: Array) -> dict[str, np.ndarray]:
        found, left = {}, max_rows
        for name, values in record.named(record.on_branch.variables(x)).items():
            shapes[name] = np.shape(values)[1:]
            found[name] = np.array(np.reshape(values, (len(x), -1))[:, :left], float)  # no view, which keeps all
            left = None if left is None else left - found[name].shape[1]
        return found

    draws, weights = record.weighted(read)
    made = []
    for name, columns in draws.items():
        statistics = {"mean": mean(columns, weights), "sd": sd(columns, weights)}
        if record.by_q:
            for title, moments in (("mean", record.mean()), ("sd", record.sd())):
                statistics[title] = np.ravel(record.named(moments)[name])[: columns.shape[1]]
        statistics |= {f"{100 * p:g}%": quantile(columns, weights, p) for p in (0.05, 0.5, 0.95)}
        for i, index in zip(range(columns.shape[1]), np.ndindex(*shapes[name]), strict=False):
            made.append((label(name, index), {title: float(values[i]) for title, values in statistics.items()}))
    return made


def frame(record: Record, max_rows: int | None = None) -> Any:
    """See `Posterior.table`."""
    import pandas

    found = rows(record, max_rows)
    return pandas.DataFrame(
        [row for _, row in found], index=pandas.Index([name for name, _ in found], name="parameter")
    )


def summary(record: Record, **kwargs: Any) -> Any:
    """See `Posterior.summary`."""
    from arviz_stats.summary import summary as of_tree

    options: dict[str, Any] = {"kind": "stats"} | kwargs
    return of_tree(to_arviz(record.on_branch, min(1000, len(record.pool)), 0, None, Labels(), None), **options)


def describe(record: Record) -> str:
    """A posterior as it is printed."""
    found = rows(record, PRINTED)
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
