"""The course of a fit: the ELBO against what was spent, and the approximations that were tried."""

from typing import Any

import numpy as np

from bbvi.outcome import Status
from bbvi.record import Record
from bbvi.reporting.plots.drawing import GREY, new_figure, short_ticks

STATUS_COLOURS = {
    Status.RELIABLE: "#2e9e5b",
    Status.USABLE: "#c98a00",
    Status.UNRELIABLE: "#d64545",
    Status.FAILED: "#d64545",
}
TRACE_POINTS = 300  # of a trace; longer ones are averaged over blocks of steps
LEAST_GAP = 5.0  # nats below the end that a trace shows at least


def elbo(posterior: Record) -> Any:
    """ELBO estimates of each stage against the gradients spent, with a band of two standard errors."""
    history = posterior.history
    figure, axes = new_figure(2.8)
    spent = np.cumsum(history.gradient_equivalents + history.log_densities)
    stages = posterior.ladder
    ends = np.cumsum([stage.steps for stage in stages]) if stages else np.array([len(spent)])
    begin, finals = 0, []
    for i, end in enumerate(ends):
        x, y, error = _blocks(spent[begin:end], history.elbo[begin:end], history.standard_error[begin:end])
        if len(x):
            label = f"{i + 1}: {stages[i].method} ({stages[i].family})" if stages else posterior.method
            axes.fill_between(x, y - 2 * error, y + 2 * error, color=f"C{i}", alpha=0.25, linewidth=0)
            axes.plot(x, y, color=f"C{i}", marker="." if len(x) < 30 else "", linewidth=1.2, label=label)
            finals.append(y[-max(1, len(y) // 2) :])
        if i and begin:
            axes.axvline(spent[begin - 1], color=GREY, linewidth=0.8, linestyle=":")
        begin = int(end)
    if finals:
        top, low = max(final.max() for final in finals), min(final.min() for final in finals)
        lowest = min(line.get_ydata().min() for line in axes.lines if len(line.get_ydata()) > 2) if begin > 2 else low
        room = max(LEAST_GAP, 2 * (top - low))
        axes.set_ylim(max(top - 1.1 * room, lowest - 0.05 * room), top + 0.1 * room)
        axes.legend(loc="lower right", fontsize=8)
    axes.set(xlabel="evaluations after the start", ylabel="ELBO (nats)", title="Evidence lower bound, band of 2 s.e.")
    short_ticks(axes.xaxis)
    axes.yaxis.set_major_formatter("{x:,.10g}")
    return figure


def ladder(posterior: Record) -> Any:
    """What was tried: evaluations spent on each stage, its verdict, k-hat and ELBO."""
    stages = posterior.ladder
    figure, axes = new_figure(0.9 + 0.45 * len(stages))
    places = np.arange(len(stages))
    costs = [max(stage.gradient_equivalents, 1) for stage in stages]
    axes.barh(places, costs, height=0.45, color=[STATUS_COLOURS[stage.status] for stage in stages])
    for place, stage in zip(places, stages, strict=True):
        text = f"{stage.status.name.lower()}, k-hat {stage.k_hat:.2f}, ELBO {stage.elbo:.2f}"
        axes.annotate(text, (0, place - 0.28), (4, 0), textcoords="offset points", va="bottom", fontsize=8)
    axes.set_yticks(places, [f"{i + 1}: {stage.method}\n{stage.family}" for i, stage in enumerate(stages)])
    axes.set(xlabel="gradient equivalents", ylim=(len(stages) - 0.5, -0.8), title="Approximations tried, in order")
    short_ticks(axes.xaxis)
    return figure


def _blocks(x: np.ndarray, y: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means over at most `TRACE_POINTS` blocks of steps, with their standard errors; what is not finite is left out."""
    finite = np.isfinite(y)
    x, y, error = x[finite], y[finite], np.nan_to_num(error[finite], posinf=0)
    starts = np.unique(np.linspace(0, len(x), min(TRACE_POINTS, len(x)) + 1).astype(int))[:-1]
    if not len(starts):
        return x, y, error
    counts = np.diff([*starts, len(x)])
    mean = lambda values: np.add.reduceat(values, starts) / counts
    return mean(x.astype(float)), mean(y), np.sqrt(np.add.reduceat(error**2, starts)) / counts
