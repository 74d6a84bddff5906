"""Whether chains agree, and how q differs from what they found."""

from typing import Any

import numpy as np

from bbvi.record import Record
from bbvi.reporting.plots.drawing import BLUE, GREY, new_figure, plain_ticks, short_ticks

LEAST_WIDTH = 0.01  # nats that a histogram shows at least; less may be rounding


def chains(posterior: Record) -> Any:
    """Running means of the superchains in the coordinate where they differ most, and log p - log q at their draws."""
    seen, pool = posterior.diagnosis.chains, posterior.pool
    assert seen is not None
    figure, (upper, lower) = new_figure(4.6, rows=2)
    column = pool.x[:, posterior.parameters.coordinate_names().index(seen.worst)]
    of_starts = column.reshape(seen.draws, seen.starts, -1).mean(axis=2)
    steps = np.arange(1, seen.draws + 1)
    running = np.cumsum(of_starts - column.mean(), axis=0) / steps[:, None] / max(column.std(), 1e-300)
    upper.plot(steps, running, color=BLUE, linewidth=0.7, alpha=0.7)
    upper.axhline(0, color=GREY, linewidth=1)
    upper.set(xlabel="steps", ylabel="mean so far (sd)", title=f"Chains by where they began: {seen.worst}")
    ratios = pool.log_p - pool.log_q
    ratios = ratios[np.isfinite(ratios)]
    ratios = ratios - np.median(ratios)
    low, high = np.quantile(ratios, [0.001, 0.999])
    room = max(high - low, LEAST_WIDTH) / 2
    span = ((low + high) / 2 - room, (low + high) / 2 + room)
    lower.hist(np.clip(ratios, *span), bins=60, range=span, color=BLUE)
    lower.set(xlabel="log p - log q - its median (nats)", ylabel="draws of chains", yscale="log")
    lower.set_title(f"What q misses; k-hat {posterior.diagnosis.k_hat:.2f} for q alone")
    short_ticks(upper.xaxis)
    short_ticks(lower.xaxis)
    plain_ticks(lower.yaxis)
    return figure
