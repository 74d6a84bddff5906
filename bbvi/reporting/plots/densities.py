"""Densities and intervals of single parameters."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bbvi.record import Record
from bbvi.reporting.plots.drawing import BLUE, ORANGE, new_figure, short_ticks, shorten
from bbvi.reporting.scalars import Row

WIDEST_AXIS = 30  # how much wider than a scalar's 90 % interval the axis may be that it shares with others


def marginals(posterior: Record, rows: Sequence[Row]) -> Any:
    """Density, median, 50 % and 90 % interval of each row. Dotted: q itself.

    Neighbours of one variable share an axis where none of them would be a spike on it.
    """
    groups: list[list[Row]] = []
    for row in rows:
        if groups and row.variable == groups[-1][0].variable and _share([*groups[-1], row]):
            groups[-1].append(row)
        else:
            groups.append([row])
    heights = [0.34 * len(group) + 0.42 for group in groups]
    figure, panels = new_figure(sum(heights) + 0.3, rows=len(groups), heights=heights)
    for axes, group in zip(np.atleast_1d(panels), groups, strict=True):
        low = min(row.quantiles[0] - 1.2 * (row.quantiles[2] - row.quantiles[0]) for row in group)
        high = max(row.quantiles[-1] + 1.2 * (row.quantiles[-1] - row.quantiles[2]) for row in group)
        inside = [row.draws[posterior.weights > 0] for row in group]
        low, high = max(low, min(map(np.min, inside))), min(high, max(map(np.max, inside)))
        if not np.isfinite([low, high]).all() or low >= high:
            low, high = 0.0, 1.0
        grid = np.linspace(low, high, 160)
        for place, row in enumerate(group):
            density = _density(row.draws, posterior.weights, grid)
            plain = _density(row.plain, np.full(len(row.plain), 1 / len(row.plain)), grid)
            top = max(density.max(), plain.max(), 1e-300)
            axes.fill_between(grid, place, place - 0.62 * density / top, color=BLUE, alpha=0.35, linewidth=0)
            axes.plot(grid, place - 0.62 * plain / top, color=ORANGE, linewidth=0.8, linestyle=":")
            axes.plot(row.quantiles[::4], [place, place], color=BLUE, linewidth=1)
            axes.plot(row.quantiles[1:4:2], [place, place], color=BLUE, linewidth=3, solid_capstyle="butt")
            axes.plot(row.quantiles[2], place, "o", color=BLUE, markersize=4)
        axes.set_yticks(range(len(group)), [shorten(row.label) for row in group])
        axes.set(xlim=(low, high), ylim=(len(group) - 0.6, -0.75))
        axes.tick_params(left=False)
        short_ticks(axes.xaxis)
        axes.spines["left"].set_visible(False)
    return figure


def _share(rows: Sequence[Row]) -> bool:
    low, high = min(row.quantiles[0] for row in rows), max(row.quantiles[-1] for row in rows)
    return high - low <= WIDEST_AXIS * min(row.quantiles[-1] - row.quantiles[0] for row in rows)


def _density(draws: np.ndarray, weights: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Gaussian kernel estimate on an even grid, reflected at its ends, from weighted draws `(n,)`."""
    used = (weights > 0) & np.isfinite(draws)
    draws, weights = draws[used], weights[used] / max(weights[used].sum(), 1e-300)
    if not len(draws):
        return np.zeros(len(grid))
    sd = np.sqrt(weights @ (draws - weights @ draws) ** 2)
    spread = np.diff(np.quantile(draws, [0.25, 0.75], weights=weights, method="inverted_cdf"))[0] / 1.34
    width = 0.9 * min(sd, spread or sd) * (1 / (weights**2).sum()) ** -0.2
    step = grid[1] - grid[0]
    inside = (draws >= grid[0]) & (draws <= grid[-1])
    counts = np.histogram(draws[inside], bins=len(grid), range=(grid[0], grid[-1]), weights=weights[inside])[0] / step
    offsets = np.arange(-len(grid) + 1, len(grid)) * step
    kernel = np.exp(-0.5 * (offsets / max(width, 0.7 * step)) ** 2)
    smoothed = np.convolve(np.pad(counts, len(grid), mode="symmetric"), kernel / kernel.sum(), mode="same")
    return smoothed[len(grid) : -len(grid)]
