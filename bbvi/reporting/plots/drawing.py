"""What the pictures share: size, colours, numbers on axes, short names."""

from collections.abc import Sequence
from typing import Any

import numpy as np

FIGURE_WIDTH = 5.2  # inches: half a desktop page, a whole phone
BLUE, ORANGE, GREY = "#3b82c4", "#d9731a", "#8c8c8c"  # stand out on white and on black, and from one another
SUFFIXES = {1e9: "G", 1e6: "M", 1e3: "k"}


def new_figure(
    height: float, rows: int = 1, columns: int = 1, heights: Sequence[float] | None = None
) -> tuple[Any, Any]:
    """A Figure of so many inches, and its axes: one, or an array of them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(FIGURE_WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, height_ratios=heights)


def short_ticks(axis: Any) -> None:
    """Few numbers, large ones as 10k and 1M, and each of them whole: none is said once for all of them."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(5))
    axis.set_major_formatter(lambda x, _: short_number(x, axis.get_majorticklocs()))


def short_number(x: float, ticks: np.ndarray) -> str:
    """As 10k or 1M where that takes no more than one decimal for any tick."""
    for unit, suffix in SUFFIXES.items():
        tenths = 10 * np.asarray(ticks) / unit
        if x and 1e5 <= np.abs(tenths * unit).max() < 1e13 and np.allclose(tenths, np.round(tenths), rtol=0, atol=1e-6):
            return f"{x / unit:.10g}{suffix}"
    return f"{x:,.10g}"


def plain_ticks(*logarithmic: Any) -> None:
    """Numbers rather than powers of ten, which need formulas."""
    from matplotlib.ticker import NullFormatter

    for axis in logarithmic:
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def shorten(name: str, most: int = 24) -> str:
    """A name with its middle left out where it is long."""
    return name if len(name) <= most else f"{name[: most - 8]}…{name[-7:]}"
