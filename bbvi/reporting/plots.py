"""Pictures of a posterior, as matplotlib Figures. Those that arviz has are left to arviz and `to_arviz()`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bbvi.diagnostics.pareto import resample, smooth
from bbvi.outcome import Status
from bbvi.reporting.scalars import Row

if TYPE_CHECKING:
    from bbvi.posterior import Posterior

WIDTH = 5.2  # inches: half a desktop page, a whole phone
BLUE, ORANGE, GREY = "#3b82c4", "#d9731a", "#8c8c8c"  # stand out on white and on black, and from one another
COLOURS = {Status.RELIABLE: "#2e9e5b", Status.USABLE: "#c98a00", Status.UNRELIABLE: "#d64545", Status.FAILED: "#d64545"}
POINTS = 300  # of a trace; longer ones are averaged over blocks of steps
LEAST_GAP = 5.0  # nats below the end that a trace shows at least
SHOWN = 400  # draws of each kind in a scatter plot
LEAST_SPREAD = 0.01  # nats that a histogram of log weights shows at least; less may be rounding
TINY = 1e-3  # least ratio in a picture of ratios
WIDEST = 30  # how much wider than a scalar's 90 % interval the axis may be that it shares with others
SUFFIXES = {1e9: "G", 1e6: "M", 1e3: "k"}


def elbo(posterior: "Posterior") -> Any:
    """ELBO estimates of each rung against the gradients spent, with a band of two standard errors."""
    history = posterior.history
    figure, axes = _figure(2.8)
    spent = np.cumsum(history.gradient_equivalents + history.log_densities)
    rungs = posterior.ladder
    ends = np.cumsum([rung.steps for rung in rungs]) if rungs else np.array([len(spent)])
    begin, finals = 0, []
    for i, end in enumerate(ends):
        x, y, error = _blocks(spent[begin:end], history.elbo[begin:end], history.standard_error[begin:end])
        if len(x):
            label = f"{i + 1}: {rungs[i].method} ({rungs[i].family})" if rungs else posterior.method
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
    _short_ticks(axes.xaxis)
    axes.yaxis.set_major_formatter("{x:,.10g}")
    return figure


def ladder(posterior: "Posterior") -> Any:
    """What was tried: evaluations spent on each rung, its verdict, k-hat and ELBO."""
    rungs = posterior.ladder
    figure, axes = _figure(0.9 + 0.45 * len(rungs))
    places = np.arange(len(rungs))
    costs = [max(rung.gradient_equivalents, 1) for rung in rungs]
    axes.barh(places, costs, height=0.45, color=[COLOURS[rung.status] for rung in rungs])
    for place, rung in zip(places, rungs, strict=True):
        text = f"{rung.status.name.lower()}, k-hat {rung.k_hat:.2f}, ELBO {rung.elbo:.2f}"
        axes.annotate(text, (0, place - 0.28), (4, 0), textcoords="offset points", va="bottom", fontsize=8)
    axes.set_yticks(places, [f"{i + 1}: {rung.method}\n{rung.family}" for i, rung in enumerate(rungs)])
    axes.set(xlabel="gradient equivalents", ylim=(len(rungs) - 0.5, -0.8), title="Approximations tried, in order")
    _short_ticks(axes.xaxis)
    return figure


def log_weights(posterior: "Posterior") -> Any:
    """Log importance weights of q's draws, and the tail of those that importance sampling uses."""
    pool, diagnosis = posterior.pool, posterior.diagnosis
    figure, (upper, lower) = _figure(4.6, rows=2)
    raw = (pool.log_p - pool.log_q)[pool.from_q]
    raw = raw[np.isfinite(raw)]
    if len(raw):
        centred = raw - (diagnosis.log_evidence.value if diagnosis.trusted else raw.max())
        low, high = np.quantile(centred, [0.001, 1])
        room = max(high - low, LEAST_SPREAD) / 2
        span = ((low + high) / 2 - room, (low + high) / 2 + room)
        upper.hist(np.clip(centred, low, high), bins=60, range=span, color=BLUE)
        _short_ticks(upper.xaxis)
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
    _plain_ticks(upper.yaxis, lower.xaxis, lower.yaxis)
    return figure


def marginals(posterior: "Posterior", rows: Sequence[Row]) -> Any:
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
    figure, panels = _figure(sum(heights) + 0.3, rows=len(groups), heights=heights)
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
            plain = _density(row.draws, posterior.pool.from_q / posterior.pool.from_q.sum(), grid)
            top = max(density.max(), plain.max(), 1e-300)
            axes.fill_between(grid, place, place - 0.62 * density / top, color=BLUE, alpha=0.35, linewidth=0)
            axes.plot(grid, place - 0.62 * plain / top, color=ORANGE, linewidth=0.8, linestyle=":")
            axes.plot(row.quantiles[::4], [place, place], color=BLUE, linewidth=1)
            axes.plot(row.quantiles[1:4:2], [place, place], color=BLUE, linewidth=3, solid_capstyle="butt")
            axes.plot(row.quantiles[2], place, "o", color=BLUE, markersize=4)
        axes.set_yticks(range(len(group)), [_shorten(row.label) for row in group])
        axes.set(xlim=(low, high), ylim=(len(group) - 0.6, -0.75))
        axes.tick_params(left=False)
        _short_ticks(axes.xaxis)
        axes.spines["left"].set_visible(False)
    return figure


def directions(posterior: "Posterior", most: int = 3) -> tuple[Any, list[str]] | None:
    """Draws along the directions in which the posterior correlation is largest, and what these directions are.

    They are eigenvectors of the correlation matrix of the unconstrained coordinates; None for a single coordinate.
    """
    pool, weights = posterior.pool, posterior.weights
    used = weights > 0
    dim = pool.x.shape[1]
    if dim < 2 or used.sum() < 10:
        return None
    x = pool.x - weights[used] @ pool.x[used]
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
        described.append("  ".join(f"{vector[i]:+.2f} {_shorten(names[i])}" for i in kept))
    scores = x @ vectors
    rng = np.random.default_rng(0)
    plain = rng.permutation(np.flatnonzero(pool.from_q))[:SHOWN]
    if posterior.diagnosis.trusted:
        marked, label = resample(rng, np.log(np.maximum(weights, 1e-300)), SHOWN), "posterior (importance-resampled)"
    else:
        log_w = np.where(np.isfinite(pool.log_p), pool.log_p - pool.log_r, -np.inf)
        marked, label = np.argsort(-log_w)[: SHOWN // 8], "draws of largest weight: q has too few there"
    pairs = [(0, 1)] if vectors.shape[1] == 2 else [(0, 1), (0, 2), (1, 2)]
    figure, panels = _figure(2.1 if len(pairs) > 1 else 3.0, columns=len(pairs))
    for axes, (i, j) in zip(np.atleast_1d(panels), pairs, strict=True):
        marks = {"linestyle": "", "marker": ".", "markeredgewidth": 0, "rasterized": True}
        axes.plot(*scores[plain][:, [i, j]].T, color=ORANGE, markersize=4, alpha=0.6, label="q itself", **marks)
        axes.plot(*scores[marked][:, [i, j]].T, color=BLUE, markersize=4, alpha=0.8, label=label, **marks)
        axes.set(xlabel=f"direction {i + 1}", ylabel=f"direction {j + 1}")
        extent = np.quantile(np.abs(scores[plain]), 0.998) * 1.1
        axes.set(xlim=(-extent, extent), ylim=(-extent, extent), aspect="equal")
    handles = np.atleast_1d(panels)[0].get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, fontsize=8, markerscale=2)
    return figure, described


def standard_deviations(rows: Sequence[Row], others: Mapping[str, np.ndarray]) -> Any:
    """Standard deviations by other means, relative to those reported.

    Arguments:
        others: by the name of the means, one for each row.
    """
    figure, axes = _figure(0.24 * len(rows) + 1.0)
    places = np.arange(len(rows))
    axes.axvline(1, color=GREY, linewidth=1)
    lowest = highest = 1.0
    for (label, values), marker, colour in zip(others.items(), "os^D", (ORANGE, GREY, BLUE, "C4"), strict=False):
        with np.errstate(all="ignore"):
            ratios = np.clip(np.nan_to_num(values / np.array([row.sd for row in rows]), nan=1), TINY, 1 / TINY)
        axes.plot(ratios, places, linestyle="", marker=marker, color=colour, markersize=5, alpha=0.8, label=label)
        lowest, highest = min(lowest, ratios.min()), max(highest, ratios.max())
    axes.set_yticks(places, [_shorten(row.label) for row in rows])
    axes.set(ylim=(len(rows) - 0.5, -0.5), xlim=(min(0.8, lowest / 1.1), max(1.25, highest * 1.1)))
    if highest / lowest > 10:
        axes.set_xscale("log")
        _plain_ticks(axes.xaxis)
    axes.set(xlabel="sd / sd reported", title="Standard deviations by other means")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return figure


def predictive(name: str, observed: np.ndarray, replicated: np.ndarray) -> Any:
    """Distribution function of the observed numbers against that of replications.

    Arguments:
        observed: any shape.
        replicated: `(n, *shape)`.
    """
    figure, axes = _figure(2.6)
    seen, made = np.sort(np.ravel(observed)), np.sort(replicated.reshape(len(replicated), -1), axis=1)
    grid = np.unique(np.quantile(np.concatenate([seen, made.ravel()]), np.linspace(0, 1, 200)))
    curves = np.stack([np.searchsorted(row, grid, side="right") / len(row) for row in made])
    low, high = np.quantile(curves, [0.05, 0.95], axis=0)
    axes.fill_between(grid, low, high, step="post", color=BLUE, alpha=0.35, linewidth=0, label="90 % of replications")
    own = np.searchsorted(seen, grid, side="right") / len(seen)
    axes.step(grid, own, where="post", color=ORANGE, linewidth=1.3, label="observed")
    axes.set(xlabel=_shorten(name), ylabel="share at or below", title=f"Observed and replicated {_shorten(name)}")
    axes.legend(fontsize=8)
    return figure


def loo_k_hats(name: str, k_hats: np.ndarray) -> Any:
    """Pareto k-hat of leaving out each observation."""
    figure, axes = _figure(2.2)
    k = np.ravel(k_hats)
    axes.plot(k, ".", color=BLUE, markersize=4, rasterized=len(k) > 500)
    axes.axhline(0.7, color=ORANGE, linewidth=1, dashes=(4, 2))
    axes.set(xlabel=f"observation in {_shorten(name)}", ylabel="k-hat", title="Leaving one out: k-hat, poor from 0.7")
    return figure


def _figure(height: float, rows: int = 1, columns: int = 1, heights: Sequence[float] | None = None) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots(rows, columns, height_ratios=heights)


def _share(rows: Sequence[Row]) -> bool:
    low, high = min(row.quantiles[0] for row in rows), max(row.quantiles[-1] for row in rows)
    return high - low <= WIDEST * min(row.quantiles[-1] - row.quantiles[0] for row in rows)


def _short_ticks(axis: Any) -> None:
    """Few numbers, large ones as 10k and 1M, and each of them whole: none is said once for all of them."""
    from matplotlib.ticker import MaxNLocator

    axis.set_major_locator(MaxNLocator(5))
    axis.set_major_formatter(lambda x, _: _short(x, axis.get_majorticklocs()))


def _short(x: float, ticks: np.ndarray) -> str:
    """As 10k or 1M where that takes no more than one decimal for any tick."""
    for unit, suffix in SUFFIXES.items():
        tenths = 10 * np.asarray(ticks) / unit
        if x and 1e5 <= np.abs(tenths * unit).max() < 1e13 and np.allclose(tenths, np.round(tenths), rtol=0, atol=1e-6):
            return f"{x / unit:.10g}{suffix}"
    return f"{x:,.10g}"


def _plain_ticks(*logarithmic: Any) -> None:
    """Numbers rather than powers of ten, which need formulas."""
    from matplotlib.ticker import NullFormatter

    for axis in logarithmic:
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())


def _blocks(x: np.ndarray, y: np.ndarray, error: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Means over at most `POINTS` blocks of steps, with their standard errors; what is not finite is left out."""
    finite = np.isfinite(y)
    x, y, error = x[finite], y[finite], np.nan_to_num(error[finite], posinf=0)
    starts = np.unique(np.linspace(0, len(x), min(POINTS, len(x)) + 1).astype(int))[:-1]
    if not len(starts):
        return x, y, error
    counts = np.diff([*starts, len(x)])
    mean = lambda values: np.add.reduceat(values, starts) / counts
    return mean(x.astype(float)), mean(y), np.sqrt(np.add.reduceat(error**2, starts)) / counts


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


def _shorten(name: str, most: int = 24) -> str:
    return name if len(name) <= most else f"{name[: most - 8]}…{name[-7:]}"
