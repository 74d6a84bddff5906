"""The tables of the record, as cells that both pages show."""

import math
from collections.abc import Sequence
from statistics import median

from benchmarks.record.cells import Cell, Table, number, word
from benchmarks.record.lines import Error, Line
from benchmarks.record.overview import Row, Summary
from benchmarks.record.truth import CLOSE, WORDS


def posteriors_table(rows: Sequence[Row], peers: Sequence[str]) -> Table:
    """One row for each posterior: the default, and beside it the others."""
    titles = ["posterior", "dim", "says", "mean", "sd", "quantile", "content", "k-hat of q", "s cold", "s warm"]
    titles += ["evaluations", "stages", *(WORDS.get(peer, peer) for peer in peers)]
    if "nuts" in peers:
        titles.append("NUTS: s to ESS 400")
    return Table(titles, [_posterior(row, peers) for row in rows if "auto" in row.methods])


def _posterior(row: Row, peers: Sequence[str]) -> list[Cell]:
    mine = row.methods["auto"]
    contents = [line.worst_content for line in mine.lines if line.worst_content is not None]
    content = max(contents, key=lambda each: abs(each - 0.9), default=None)
    cells = [
        word(row.posterior),
        number(row.dim, "{:.0f}"),
        word(mine.statuses),
        _error(mine.error("mean"), "{:.3f}", 1),
        _error(mine.error("sd"), "{:.1f} %", 100),
        number(mine.quantile, "{:.3f}"),
        number(None if content is None else 100 * content, "{:.1f} %"),
        number(mine.largest("k_hat"), "{:.2f}"),
        number(mine.largest("cold"), "{:.1f}"),
        number(mine.largest("warm"), "{:.2f}"),
        number(mine.largest("evaluations"), "{:.0f}"),
        word(mine.stages),
        *(_peer(row.methods.get(peer)) for peer in peers),
    ]
    if "nuts" in peers:
        cells.append(number(row.methods["nuts"].largest("ess_seconds") if "nuts" in row.methods else None, "{:.1f}"))
    return cells


def evidence_table(rows: Sequence[Row]) -> Table:
    """Log evidence of the default against that of the reference, and what the bounds of the others lack."""
    titles = ["posterior", "log evidence", "standard error", "default: difference", "its standard error"]
    titles += ["default: ELBO less evidence", f"{WORDS['svi']}: ELBO less evidence"]
    return Table(titles, [cells for row in rows if (cells := _evidence(row)) is not None])


def _evidence(row: Row) -> list[Cell] | None:
    known = [
        (line.reference_log_evidence, line.reference_log_evidence_error)
        for each in row.methods.values()
        for line in each.lines
        if line.reference_log_evidence is not None
    ]
    if not known or "auto" not in row.methods:
        return None
    answer, error = known[0]
    off = [(line.log_evidence - answer, line) for line in row.methods["auto"].lines if line.log_evidence is not None]
    worst, of = max(off, key=lambda pair: abs(pair[0]), default=(None, None))
    lacks = [
        min((line.elbo - answer for line in row.methods[each].lines if line.elbo is not None), default=None)
        if each in row.methods
        else None
        for each in ("auto", "svi")
    ]
    numbers = [answer, error, worst, None if of is None else of.log_evidence_error, *lacks]
    shapes = ["{:.3f}", "{:.4f}", "{:+.4f}", "{:.4f}", "{:+.3f}", "{:+.3f}"]
    return [word(row.posterior), *map(number, numbers, shapes)]


def methods_table(rows: Sequence[Row]) -> Table:
    """How many posteriors each method gets right with all of its seeds, and its seconds."""
    methods = dict.fromkeys(method for row in rows for method in row.methods)
    titles = ["method", "posteriors", f"within {CLOSE:g} sd and {100 * CLOSE:.0f} %", "median s cold", "median s warm"]
    table = Table([*titles, "without an answer"], [])
    for method in methods:
        mine = [row.methods[method] for row in rows if method in row.methods]
        cold, warm = ([each.largest(name) for each in mine] for name in ("cold", "warm"))
        cold, warm = ([value for value in values if value is not None] for values in (cold, warm))
        cells = [
            Cell(WORDS.get(method, method), method),
            number(len(mine), "{:.0f}"),
            number(sum(each.beyond <= CLOSE for each in mine), "{:.0f}"),
            number(median(cold) if cold else None, "{:.1f}"),
            number(median(warm) if warm else None, "{:.2f}"),
            number(sum(not each.answered for each in mine), "{:.0f}"),
        ]
        table.rows.append(cells)
    return table


def runs_table(lines: Sequence[Line]) -> Table:
    """Under what the fits were made."""
    runs: dict[tuple[str, ...], list[Line]] = {}
    for line in lines:
        versions = ", ".join(f"{name} {version}" for name, version in line.run.get("versions", {}).items())
        key = tuple(str(line.run.get(each, "")) for each in ("commit", "machine", "processes"))
        runs.setdefault((*key, versions), []).append(line)
    titles = ["fits", "commit", "from", "to", "machine", "at a time", "median load when they began", "versions"]
    rows = []
    for (commit, machine, processes, versions), mine in runs.items():
        dates = [line.run.get("date", "") for line in mine]
        loads = [line.run["load"] for line in mine if "load" in line.run]
        texts = map(word, (commit, min(dates), max(dates), machine, processes))
        load = number(median(loads) if loads else None, "{:.1f}")
        rows.append([number(len(mine), "{:.0f}"), *texts, load, word(versions)])
    return Table(titles, rows)


def _error(error: Error | None, shape: str, unit: float) -> Cell:
    return number(None if error is None else unit * error.raw, shape)


def _peer(summary: Summary | None) -> Cell:
    if summary is None:
        return word("")
    mean, sd, cold = summary.error("mean"), summary.error("sd"), summary.largest("cold")
    if mean is None or sd is None or cold is None:
        return Cell("no answer", math.inf)
    missing = "" if summary.answered else ", once no answer"
    return Cell(f"{mean.raw:.3f}, {100 * sd.raw:.1f} %, {cold:.1f} s{missing}", summary.raw)
