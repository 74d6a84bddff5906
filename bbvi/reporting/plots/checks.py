"""Checks against the data: predictions, and observations left out one by one."""

from typing import Any

import numpy as np

from bbvi.reporting.plots.drawing import BLUE, ORANGE, new_figure, shorten


def predictive(name: str, observed: np.ndarray, replicated: np.ndarray) -> Any:
    """Distribution function of the observed numbers against that of replications.

    Arguments:
        observed: any shape.
        replicated: `(n, *shape)`.
    """
    figure, axes = new_figure(2.6)
    seen, made = np.sort(np.ravel(observed)), np.sort(replicated.reshape(len(replicated), -1), axis=1)
    grid = np.unique(np.quantile(np.concatenate([seen, made.ravel()]), np.linspace(0, 1, 200)))
    curves = np.stack([np.searchsorted(row, grid, side="right") / len(row) for row in made])
    low, high = np.quantile(curves, [0.05, 0.95], axis=0)
    axes.fill_between(grid, low, high, step="post", color=BLUE, alpha=0.35, linewidth=0, label="90 % of replications")
    own = np.searchsorted(seen, grid, side="right") / len(seen)
    axes.step(grid, own, where="post", color=ORANGE, linewidth=1.3, label="observed")
    axes.set(xlabel=shorten(name), ylabel="share at or below", title=f"Observed and replicated {shorten(name)}")
    axes.legend(fontsize=8)
    return figure


def loo_k_hats(name: str, k_hats: np.ndarray) -> Any:
    """Pareto k-hat of leaving out each observation."""
    figure, axes = new_figure(2.2)
    k = np.ravel(k_hats)
    axes.plot(k, ".", color=BLUE, markersize=4, rasterized=len(k) > 500)
    axes.axhline(0.7, color=ORANGE, linewidth=1, dashes=(4, 2))
    axes.set(xlabel=f"observation in {shorten(name)}", ylabel="k-hat", title="Leaving one out: k-hat, poor from 0.7")
    return figure
