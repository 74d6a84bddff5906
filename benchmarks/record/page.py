"""The record as a page of Markdown."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import fill

from benchmarks.record.lines import Line
from benchmarks.record.overview import Row, overview, read_notes
from benchmarks.record.tables import evidence_table, methods_table, posteriors_table, runs_table
from benchmarks.record.truth import TOLERANCES, WRONG, errors_table, false_claims, truth_table

WIDTH = 120  # characters of a line of text
TITLES = {
    "posteriordb": "Posteriors of posteriordb",
    "bugs": "Classic BUGS examples",
    "gym": "Posteriors of the inference gym",
    "shapes": "Shapes that no Gaussian has",
}
INTRODUCTION = """\
Every posterior whose answer is known, fitted by `bbvi.fit` without options and by others, and what came of it. The
answers are draws that come with posteriordb, published moments of the BUGS examples and of the inference gym, and exact
ones of the shapes. Anyone can make the record again, on another machine or at another commit:

    python -m benchmarks.record --posteriordb FOLDER --yardsticks FOLDER --kept record.jsonl
    python -m benchmarks.record --kept record.jsonl --page record.md --html record.html

and ten fits of it, of which eight need no folder, in a few minutes:

    python -m benchmarks.record --quick

Each fit is a process of its own that finds no compiled programs. `python -m benchmarks.record --help` says what the
numbers are."""
OF_TRUTH = """\
Of the fits of which something is said, how many are right. A fit is within a tolerance when all its means are, in
posterior standard deviations, and all its standard deviations, relative, beyond two standard errors of the reference.
False alarms are fits that are warned of and are within {close:g} sd and {percent:.0f} %. Going by the k-hat of the
approximation alone is what others do; it is counted for the same answers, which importance weights or chains may have
corrected. The last four columns are of the fits whose reference has quantiles or draws: errors of the 5 and 95 %
quantiles in posterior standard deviations, and the share of the reference in the fit's central 90 % intervals, averaged
and for the quantity in which it is worst."""
OF_ERRORS = """\
Every mean, standard deviation and quantile of a fit that is trusted has a Monte Carlo standard error. These are the
estimates whose 90 % intervals, of their own error and the reference's together, hold the answer. Those of one fit are
not independent, and posteriors with many quantities count for more."""
OF_ROWS = """\
*mean*, *sd* and *quantile* are the largest errors over all quantities: of a mean and of a 5 or 95 % quantile in
posterior standard deviations, of a standard deviation relative, with nothing taken off for the reference's own error.
*content* is the share of the reference in the 90 % interval of the worst quantity. Every number is the worst of the
seeds, by itself. Beside it the others: the errors of mean and sd, and cold seconds."""
NOTHING = "No posterior is off by more than 0.1 sd or 10 %, and every answer is trusted."
OF_EVIDENCE = """\
Of posteriordb the answer is bridge sampling between half of the reference draws and a Gaussian that is fitted to the
other half, up to 100 coordinates and where its standard error is at most 0.05 nats; of the shapes a closed form. The
densities are unnormalised as they stand, on unconstrained space. The differences are those of the worst seed."""


def write(lines: Sequence[Line], path: Path) -> None:
    """Write the page."""
    path.write_text(make_page(lines, read_notes()))


def make_page(lines: Sequence[Line], notes: dict[str, str]) -> str:
    """Its text."""
    rows = overview(lines)
    truth = OF_TRUTH.format(close=TOLERANCES[1], percent=100 * TOLERANCES[1])
    parts = [
        "# The record",
        INTRODUCTION,
        tell_runs(lines, len(rows)),
        "## Are the verdicts true?",
        truth,
        *_block(truth_table(lines).to_markdown()),
    ]
    parts += [tell_lies(lines), "## What falls short", tell_list(rows, notes)]
    parts += ["## Are the errors true?", OF_ERRORS, *_block(errors_table(lines).to_markdown())]
    parts += ["## All methods", *_block(methods_table(rows).to_markdown())]
    parts += ["## Every posterior", OF_ROWS]
    for kind in dict.fromkeys(row.kind for row in rows):
        mine = [row for row in rows if row.kind == kind]
        parts += [f"### {TITLES.get(kind, kind)}", *_block(posteriors_table(mine, peers(rows)).to_markdown())]
    evidence = evidence_table(rows)
    if evidence.rows:
        parts += ["## Evidence", OF_EVIDENCE, *_block(evidence.to_markdown())]
    parts += ["## What was run", *_block(runs_table(lines).to_markdown())]
    return "\n\n".join(parts) + "\n"


def tell_runs(lines: Sequence[Line], posteriors: int) -> str:
    """A sentence on what was run; the table at the end has more."""
    values = lambda key: [str(line.run[key]) for line in lines if key in line.run]
    unlike = lambda key: ", ".join(dict.fromkeys(values(key))) or "unknown"
    dates = sorted(values("date")) or ["unknown"]
    words = (
        f"This one has {len(lines)} fits of {posteriors} posteriors, made from {dates[0]} to {dates[-1]} (UTC) at "
        f"{unlike('commit')} on {unlike('machine')}, {unlike('processes')} at a time."
    )
    return fill(words, WIDTH, break_long_words=False, break_on_hyphens=False)


def peers(rows: Sequence[Row]) -> list[str]:
    """The methods beside the default."""
    return [each for each in dict.fromkeys(method for row in rows for method in row.methods) if each != "auto"]


def tell_lies(lines: Sequence[Line]) -> str:
    """Which fits are called reliable and are wrong."""
    lies = [f"{line.posterior} (seed {line.seed}, {line.error:.2f})" for line in false_claims(lines)]
    limit = f"{WRONG:g} sd or {100 * WRONG:.0f} %, beyond two standard errors of the reference"
    return f"Called reliable and further off than {limit}: {', '.join(lies) or 'none'}."


def tell_list(rows: Sequence[Row], notes: dict[str, str]) -> str:
    """The shortcomings as a list."""
    return "\n".join(f"- {each}" for each in tell_shortcomings(rows, notes)) or NOTHING


def tell_shortcomings(rows: Sequence[Row], notes: dict[str, str]) -> list[str]:
    """A sentence for each posterior that the default does not get right, or does not trust, or that has a note."""
    told = [row for row in rows if row.falls_short or (row.posterior in notes and "auto" in row.methods)]
    return [tell_shortcoming(row, notes.get(row.posterior, "no note")) for row in told]


def tell_shortcoming(row: Row, note: str) -> str:
    """What is wrong with the default's answers."""
    mine = row.methods["auto"]
    mean, sd, errors = mine.error("mean"), mine.error("sd"), ""
    if mean is not None and sd is not None:
        errors = f"a mean off by {mean.raw:.3f} sd ({mean.quantity}), an sd by {100 * sd.raw:.1f} % ({sd.quantity}); "
    return f"{row.posterior} ({mine.statuses}): {errors}{note}"


def _block(lines: Sequence[str]) -> list[str]:
    return ["\n".join(lines)]
