"""Draws along the directions in which parameters hang together most."""

from typing import Any

import numpy as np

from bbvi.draws.pareto import resample
from bbvi.record import Record
from bbvi.reporting.plots.drawing import BLUE, ORANGE, new_figure, shorten

DRAWS_SHOWN = 400  # draws of each kind in a scatter plot


def directions(posterior: Record, most: int = 3) -> tuple[Any, list[str]] | None:
    """Draws along the directions in which the posterior correlation is largest, and what these directions are.

    They are eigenvectors of the correlation matrix of the unconstrained coordinates; None for a single coordinate.
    """
    pool, weights = posterior.pool, posterior.weights
    used = weights > 0
    dim = pool.x.shape[1]
    if dim < 2 or used.sum() < 10:
        return None
    mean = weights[used] @ pool.x[used]
    x = pool.x - mean
    scale = np.sqrt(weights[used] @ x[used] ** 2)
    if not (np.isfinite(scale) & (scale > 0)).all():
        return None
    x = x / scale
    vectors = np.linalg.eigh((x[used] * weights[used, None]).T @ x[used])[1][:, ::-1][:, : min(most, dim)]
    names = posterior.parameters.coordinate_names()
    described = []
    for vector in vectors.T:
        largest = np.argsort(-np.abs(vector))[:3]
        kept = [i for i in largest if abs(vector[i]) > 0.2] or [largest[0]]
        described.append("  ".join(f"{vector[i]:+.2f} {shorten(names[i])}" for i in kept))
    scores = x @ vectors
    rng = np.random.default_rng(0)
    plain = (rng.permutation(posterior.draws_of_q)[:DRAWS_SHOWN] - mean) / scale @ vectors
    if posterior.diagnosis.chains is not None:
        marked, label = rng.permutation(len(scores))[:DRAWS_SHOWN], "posterior (draws of chains)"
    elif posterior.diagnosis.trusted:
        marked, label = (
            resample(rng, np.log(np.maximum(weights, 1e-300)), DRAWS_SHOWN),
            "posterior (importance-resampled)",
        )
    else:
        log_w = np.where(np.isfinite(pool.log_p), pool.log_p - pool.log_r, -np.inf)
        marked, label = np.argsort(-log_w)[: DRAWS_SHOWN // 8], "draws of largest weight: q has too few there"
    pairs = [(0, 1)] if vectors.shape[1] == 2 else [(0, 1), (0, 2), (1, 2)]
    figure, panels = new_figure(2.1 if len(pairs) > 1 else 3.0, columns=len(pairs))
    for axes, (i, j) in zip(np.atleast_1d(panels), pairs, strict=True):
        marks = {"linestyle": "", "marker": ".", "markeredgewidth": 0, "rasterized": True}
        axes.plot(*plain[:, [i, j]].T, color=ORANGE, markersize=4, alpha=0.6, label="q itself", **marks)
        axes.plot(*scores[marked][:, [i, j]].T, color=BLUE, markersize=4, alpha=0.8, label=label, **marks)
        axes.set(xlabel=f"direction {i + 1}", ylabel=f"direction {j + 1}")
        extent = np.quantile(np.abs(plain), 0.998) * 1.1
        axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
    handles = np.atleast_1d(panels)[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, fontsize=8, markerscale=2)
    return figure, described
