"""The record as one page of HTML that needs nothing else, with two pictures and tables that sort by any column."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

from bbvi.reporting.svg import INK, inline, style
from benchmarks.record import pictures
from benchmarks.record.cells import Cell, Table
from benchmarks.record.lines import Line
from benchmarks.record.overview import overview, read_notes
from benchmarks.record.page import NOTHING, TITLES, peers, tell_lies, tell_shortcomings
from benchmarks.record.tables import evidence_table, methods_table, posteriors_table, runs_table
from benchmarks.record.truth import errors_table, truth_table

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .6rem; text-align: left; border-bottom: 1px solid #8884; white-space: nowrap; }
th { vertical-align: bottom; white-space: normal; }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:focus-visible { outline: 2px solid; }
th[aria-sort=ascending] button::after { content: " \\25B2"; }
th[aria-sort=descending] button::after { content: " \\25BC"; }
.wide { overflow-x: auto; }
svg { width: 100%; max-width: 40rem; height: auto; display: block; }
"""
SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const title = button.parentNode, table = title.closest("table"), at = title.cellIndex;
  const up = title.getAttribute("aria-sort") !== "ascending";
  const key = row => { const v = row.cells[at].dataset.value, n = Number(v); return isNaN(n) ? v : n; };
  const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  const known = row => row.cells[at].dataset.value !== "", all = [...table.tBodies[0].rows];
  const rows = all.filter(known).sort((a, b) => (up ? 1 : -1) * compare(key(a), key(b)));
  rows.push(...all.filter(row => !known(row)));
  for (const other of title.parentNode.cells) other.removeAttribute("aria-sort");
  title.setAttribute("aria-sort", up ? "ascending" : "descending");
  table.tBodies[0].append(...rows);
};
"""


def write(lines: Sequence[Line], path: Path) -> None:
    """Write the page."""
    path.write_text(make_page(lines, read_notes()))


def make_page(lines: Sequence[Line], notes: dict[str, str]) -> str:
    """Its text."""
    rows = overview(lines)
    with style(INK):
        seconds = inline(pictures.seconds(rows), "seconds", "Error against cold seconds, a dot for each posterior.")
        verdicts = inline(pictures.verdicts(lines), "verdicts", "Errors of the fits, by what is said of them.")
    short = "".join(f"<li>{escape(each)}</li>" for each in tell_shortcomings(rows, notes) or [NOTHING])
    parts = [
        "<h1>The record</h1>",
        f"<p>{len(lines)} fits of {len(rows)} posteriors whose answer is known. Press a title to sort by it.</p>",
        "<h2>Are the verdicts true?</h2>",
        _html(truth_table(lines)),
        f"<p>{escape(tell_lies(lines))}</p>",
        verdicts,
        "<h2>Are the errors true?</h2>",
        _html(errors_table(lines)),
        f"<h2>What falls short</h2><ul>{short}</ul>",
        "<h2>All methods</h2>",
        _html(methods_table(rows)),
        seconds,
        "<h2>Every posterior</h2>",
    ]
    for kind in dict.fromkeys(row.kind for row in rows):
        mine = [row for row in rows if row.kind == kind]
        parts += [f"<h3>{TITLES.get(kind, kind)}</h3>", _html(posteriors_table(mine, peers(rows)))]
    parts += ["<h2>Evidence</h2>", _html(evidence_table(rows)), "<h2>What was run</h2>", _html(runs_table(lines))]
    body = f"{''.join(parts)}<script>{SCRIPT}</script>"
    head = f'<meta charset="utf-8"><title>The record of bbvi</title><style>{STYLE}</style>'
    return f'<!doctype html>\n<html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def _html(table: Table) -> str:
    titles = "".join(f'<th scope="col"><button>{escape(title)}</button></th>' for title in table.titles)
    rows = "".join(
        "<tr>" + "".join(f'<td data-value="{_value(cell)}">{escape(cell.text)}</td>' for cell in row) + "</tr>"
        for row in table.rows
    )
    return f'<div class="wide"><table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table></div>'


def _value(cell: Cell) -> str:
    """As JavaScript reads it."""
    text = escape(str(cell.value))
    return text.replace("inf", "Infinity") if isinstance(cell.value, float) else text
