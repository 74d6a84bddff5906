"""The pictures of the record: error against seconds, and what is said against error."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bbvi.reporting.plots.drawing import BLUE, GREY, ORANGE, new_figure, plain_ticks
from bbvi.reporting.svg import style
from benchmarks.record.lines import Line
from benchmarks.record.overview import Row, overview
from benchmarks.record.truth import CLOSE, WORDS, claims

LOOKS = {  # colour and mark of each method that is shown
    "auto": (BLUE, "o"),
    "nuts": (ORANGE, "^"),
    "svi": (GREY, "s"),
    "svi_mean_field": (GREY, "x"),
}
SMALLEST, LARGEST = 3e-3, 10.0  # errors beyond which dots lie on the edge
JITTER = 0.22  # of dots, to either side


def write(lines: Sequence[Line], path: Path) -> None:
    """The picture of the front page."""
    with style():
        seconds(overview(lines)).savefig(path, dpi=200, facecolor="white")


def seconds(rows: Sequence[Row]) -> Any:
    """A Figure: of each posterior and method the worst of the seeds, error against cold seconds."""
    from matplotlib.ticker import LogLocator

    figure, axes = new_figure(3.6)
    for method, (colour, mark) in LOOKS.items():
        found = [row.methods[method] for row in rows if method in row.methods]
        answered = [each for each in found if each.answered]
        if not answered:
            continue
        x, y = [each.largest("cold") for each in answered], clipped([each.raw for each in answered])
        words = WORDS[method] + (
            f" ({len(found) - len(answered)} without answer)" if len(answered) < len(found) else ""
        )
        face = {} if mark == "x" else {"edgecolors": "none"}
        axes.scatter(x, y, s=22, c=colour, marker=mark, alpha=0.75, label=words, linewidths=1, **face)
    _mark_close(axes, "horizontal")
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="seconds, from the start of a fresh process",
        ylabel="largest error (posterior sd)",
    )
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    plain_ticks(axes.xaxis, axes.yaxis)
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def verdicts(lines: Sequence[Line]) -> Any:
    """A Figure: of every fit its error, above what is said of it."""
    shown = [claim for claim in claims(lines) if any(line.mean is not None for line in claim.lines)]
    figure, axes = new_figure(0.6 + 0.32 * max(len(shown), 3))
    rng = np.random.default_rng(0)
    for height, claim in enumerate(reversed(shown)):
        errors = clipped([line.error for line in claim.lines if line.mean is not None])
        colour = BLUE if claim.by.startswith("bbvi's") else GREY
        at = height + rng.uniform(-JITTER, JITTER, len(errors))
        axes.scatter(errors, at, s=14, c=colour, alpha=0.6, edgecolors="none")
    _mark_close(axes, "vertical")
    axes.set(
        xscale="log",
        xlim=(0.7 * SMALLEST, 1.4 * LARGEST),
        xlabel="largest error beyond\nthe reference's own (posterior sd)",
    )
    axes.set_yticks(range(len(shown)), [f"{claim.by}: {claim.says}" for claim in reversed(shown)])
    plain_ticks(axes.xaxis)
    return figure


def clipped(errors: Sequence[float]) -> np.ndarray:
    """Errors as they are drawn."""
    return np.clip(np.asarray(errors, float), SMALLEST, LARGEST)


def _mark_close(axes: Any, direction: str) -> None:
    line = axes.axhline if direction == "horizontal" else axes.axvline
    line(CLOSE, color=GREY, linestyle="--", linewidth=1, zorder=0)
