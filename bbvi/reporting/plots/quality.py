"""How near q is: its importance weights, and what other means say of the standard deviations."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from bbvi.draws.pareto import smooth
from bbvi.record import Record
from bbvi.reporting.plots.agreement import chains
from bbvi.reporting.plots.drawing import BLUE, GREY, ORANGE, new_figure, plain_ticks, short_ticks, shorten
from bbvi.reporting.scalars import Row

LEAST_SPREAD = 0.01  # nats that a histogram of log weights shows at least; less may be rounding
LEAST_RATIO = 1e-3  # least ratio in a picture of ratios


def log_weights(posterior: Record) -> Any:
    """Log importance weights of q's draws, and the tail of those that importance sampling uses; or of chains."""
    if posterior.diagnosis.chains is not None:
        return chains(posterior)
    pool, diagnosis = posterior.pool, posterior.diagnosis
    figure, (upper, lower) = new_figure(4.6, rows=2)
    raw = (pool.log_p - pool.log_q)[pool.from_q]
    raw = raw[np.isfinite(raw)]
    if len(raw):
        centred = raw - (diagnosis.log_evidence.value if diagnosis.trusted else raw.max())
        low, high = np.quantile(centred, [0.001, 1])
        room = max(high - low, LEAST_SPREAD) / 2
        span = ((low + high) / 2 - room, (low + high) / 2 + room)
        upper.hist(np.clip(centred, low, high), bins=60, range=span, color=BLUE)
        short_ticks(upper.xaxis)
    reference = "log evidence" if diagnosis.trusted else "largest log weight"
    upper.set(xlabel=f"log p - log q - {reference} (nats)", ylabel="draws of q", yscale="log")
    upper.set_title(f"Log weights of q, sd {diagnosis.log_weight_sd:.2f} nats")

    log_w = pool.log_p - pool.log_r
    finite = np.isfinite(log_w)
    if finite.sum() > 10:
        smoothed = np.exp(smooth(log_w).log_weights) * len(log_w)
        order = np.argsort(-np.where(finite, log_w, -np.inf))[: int(3 * len(log_w) ** 0.5)]
        exceedance = np.arange(1, len(order) + 1) / len(log_w)
        relative = np.exp(log_w[order] - np.logaddexp.reduce(log_w[finite])) * len(log_w)
        lower.loglog(exceedance, relative, ".", color=GREY, markersize=4, label="raw")
        lower.loglog(exceedance, np.sort(smoothed[order])[::-1], color=BLUE, label="smoothed")
        for k, dashes in ((0.5, (1, 2)), (0.7, (4, 2))):
            line = relative[-1] * (exceedance / exceedance[-1]) ** -k
            lower.loglog(exceedance, line, color=ORANGE, linewidth=0.9, dashes=dashes, label=f"slope of k = {k}")
        lower.legend(fontsize=8)
        lower.invert_xaxis()
    lower.set(xlabel="share of draws with a larger weight", ylabel="weight / mean weight")
    lower.set_title(f"Largest weights for resampling, k-hat {diagnosis.resampling_k_hat:.2f}")
    plain_ticks(upper.yaxis, lower.xaxis, lower.yaxis)
    return figure


def standard_deviations(rows: Sequence[Row], others: Mapping[str, np.ndarray]) -> Any:
    """Standard deviations by other means, relative to those reported.

    Arguments:
        others: by the name of the means, one for each row.
    """
    figure, axes = new_figure(0.24 * len(rows) + 1.0)
    places = np.arange(len(rows))
    axes.axvline(1, color=GREY, linewidth=1)
    lowest = highest = 1.0
    for (label, values), marker, colour in zip(others.items(), "os^D", (ORANGE, GREY, BLUE, "C4"), strict=False):
        with np.errstate(all="ignore"):
            ratios = np.clip(
                np.nan_to_num(values / np.array([row.sd for row in rows]), nan=1), LEAST_RATIO, 1 / LEAST_RATIO
            )
        axes.plot(ratios, places, linestyle="", marker=marker, color=colour, markersize=5, alpha=0.8, label=label)
        lowest, highest = min(lowest, ratios.min()), max(highest, ratios.max())
    axes.set_yticks(places, [shorten(row.label) for row in rows])
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlim=(min(0.8, lowest / 1.1), max(1.25, highest * 1.1)))
    if highest / lowest > 10:
        axes.set_xscale("log")
        plain_ticks(axes.xaxis)
    axes.set(xlabel="sd / sd reported", title="Standard deviations by other means")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return figure
