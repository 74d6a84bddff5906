"""Where true values lie in their posteriors, over many fits to simulated data."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

PIT_BINS = 20


def pit_histograms(pit: Mapping[str, np.ndarray], names: Sequence[str]) -> Any:
    """A histogram for each of `names`, with the range in which 99 % of uniform bars lie.

    Arguments:
        pit: by the name of a parameter the probabilities of lying below the true value, `(fits,)`.
    """
    from matplotlib.figure import Figure
    from scipy.stats import binom

    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(2.4 * columns, 1.9 * rows), layout="constrained")
    panels = np.ravel(figure.subplots(rows, columns, squeeze=False))
    for axes in panels[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(panels, names, strict=False):
        low, high = binom.ppf([0.005, 0.995], len(pit[name]), 1 / PIT_BINS)
        axes.axhspan(low, high, color="0.5", alpha=0.25, linewidth=0)
        axes.hist(pit[name], bins=np.linspace(0, 1, PIT_BINS + 1), color="C0")
        axes.set(title=name, xlim=(0, 1), xlabel="PIT", ylabel="fits")
    return figure
