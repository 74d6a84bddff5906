"""The structure of a hierarchy: which entries of its precision are not zero."""

from typing import Any

import numpy as np

from bbvi.distributions.hierarchical import Hierarchical
from bbvi.record import Record
from bbvi.reporting.plots.drawing import BLUE, GREY, ORANGE, new_figure
from bbvi.structure.arrangement import entries_of

MOST_DOTS = 40_000  # of the latent coordinates


def structure(posterior: Record) -> Any | None:
    """The pattern of the precision, hyper-parameters first, then blocks, then separators; None without a structure."""
    q = posterior.distribution
    if not isinstance(q, Hierarchical):
        return None
    split, k = q.split, q.split.num_hyper
    rank = k - 1 + np.cumsum(np.asarray(split.used))
    row, column, _ = (np.asarray(each) for each in entries_of(split))
    shown = slice(None, None, -(-len(row) // MOST_DOTS))
    first_separator = rank[split.shape[0] * split.shape[1] - 1] + 1
    figure, axes = new_figure(4.4)
    size = float(np.clip(250 / split.dim, 0.6, 8))
    marks = {"linestyle": "", "marker": "s", "markersize": size, "markeredgewidth": 0, "rasterized": True}
    axes.axhspan(-0.5, k - 0.5, color=GREY, alpha=0.35, linewidth=0, label="hyper-parameters")
    axes.axvspan(-0.5, k - 0.5, color=GREY, alpha=0.35, linewidth=0)
    touches = np.maximum(rank[row], rank[column])[shown] >= first_separator
    for of_separators, color, label in ((False, BLUE, "blocks"), (True, ORANGE, "separators")):
        chosen = touches == of_separators
        if chosen.any():
            axes.plot(rank[column][shown][chosen], rank[row][shown][chosen], color=color, label=label, **marks)
    axes.set(xlim=(-0.5, split.dim - 0.5), ylim=(split.dim - 0.5, -0.5), aspect="equal")
    axes.set(xlabel="coordinate, rearranged", ylabel="coordinate, rearranged")
    figure.legend(loc="outside lower center", ncols=3, fontsize=8)
    return figure
