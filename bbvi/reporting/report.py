"""A posterior as one page of HTML that needs nothing else: for a colleague, a browser without network, or paper."""

from collections.abc import Iterator
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bbvi.policy import Regime
from bbvi.record import Record
from bbvi.reporting import plots
from bbvi.reporting.arviz import Labels, num_observations, predict, to_arviz
from bbvi.reporting.full import diagnose_further
from bbvi.reporting.linear_response import respond
from bbvi.reporting.scalars import PROBABILITIES, Row, Variable, read_variables, worst
from bbvi.reporting.svg import INK, inline, style
from bbvi.runtime.precision import scope
from bbvi.target.parameters import label

ROWS = 50  # scalars shown one by one; of more, those that are worst determined
VARIABLES = 100  # named arrays in a summary
REPLICATIONS = 400  # draws behind predictive checks and LOO
MOST_LIKELIHOODS = 2**22  # numbers in the log likelihoods that LOO is worked out from: some 15 seconds
CALIBRATED = 16  # parameters whose histograms are shown, the worst first


class Picture(NamedTuple):
    """A figure on the page."""

    svg: str
    caption: str


class Table(NamedTuple):
    """A table on the page: the first column holds names."""

    titles: tuple[str, ...]
    rows: list[tuple[str, ...]]


def report(posterior: Record, path: str | Path, level: str, calibration: Any) -> None:
    """See `Posterior.report`."""
    from jinja2 import Environment

    full = diagnose_further(posterior, level) if level != "quick" else None
    variables = read_variables(posterior)
    total = sum(len(variable.effective_sample_size) for variable in variables)
    rows = worst(posterior, variables, ROWS if total <= ROWS else ROWS // 2)
    page = _Page()
    name = posterior.origin.name if posterior.origin else ""
    count = f"{total} parameter{'s' * (total != 1)}"
    with style(INK):
        context = {
            "title": f"{name}: posterior report" if name else f"Posterior of {count}",
            "name": name,
            "count": count,
            "posterior": posterior,
            "diagnosis": posterior.diagnosis,
            "words": posterior.diagnosis.words,
            "total": total,
            "overview": _overview(variables) if total > len(rows) else None,
            "parameters": _parameters(rows),
            "shown": len(rows),
            "marginals": page.add(plots.marginals(posterior, rows), "Densities and intervals of the parameters."),
            "quality": [*_quality(posterior, rows, page)],
            "directions": _directions(posterior, page),
            "course": [*_course(posterior, page)],
            "checks": [*_predictive(posterior, page)],
            "full": None if full is None else str(full),
            "calibration": None if calibration is None else str(calibration),
            "ranks": None if calibration is None else _ranks(calibration, page),
            "origin": None if posterior.origin is None else asdict(posterior.origin),
        }
    template = files("bbvi.reporting").joinpath("report.html").read_text(encoding="utf-8")
    html = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(template).render(context)
    Path(path).write_text(html, encoding="utf-8")


class _Page:
    """Numbers the figures, so that their ids do not meet."""

    def __init__(self) -> None:
        self._count = 0

    def add(self, figure: Any, caption: str) -> Picture:
        self._count += 1
        return Picture(inline(figure, f"figure{self._count}", caption), caption)


def _overview(variables: list[Variable]) -> Table:
    """One line for each named array."""
    titles = ("", "shape", "means from", "to", "sds from", "to", "least ESS")
    spans = lambda values: (f"{np.min(values):.4g}", f"{np.max(values):.4g}")
    return Table(
        titles,
        [
            (
                variable.name,
                " × ".join(map(str, variable.shape)) or "scalar",
                *spans(variable.estimates.mean),
                *spans(variable.estimates.sd),
                f"{variable.effective_sample_size.min():.0f}",
            )
            for variable in variables[:VARIABLES]
            if len(variable.effective_sample_size)
        ],
    )


def _parameters(rows: list[Row]) -> Table:
    shown = [PROBABILITIES.index(p) for p in (0.05, 0.5, 0.95)]
    titles = ("", "mean", "sd", *(f"{100 * PROBABILITIES[i]:g} %" for i in shown), "ESS", "k-hat of square")

    def cells(row: Row) -> Iterator[str]:
        yield row.label
        yield _number(row.mean, row.sd, row.mean_error)
        yield _number(row.sd, row.sd, row.sd_error)
        yield from (_number(row.quantiles[i], row.sd, row.quantile_errors[i]) for i in shown)
        yield f"{row.effective_sample_size:.0f}"
        yield f"{row.k_hat:.2f}"

    return Table(titles, [tuple(cells(row)) for row in rows])


def _number(value: float, sd: float, error: float = np.nan) -> str:
    """With digits enough to tell it from values a hundredth of `sd` away; its standard error where that is known."""
    size = np.log10(abs(value)) if value and np.isfinite(value) else 0.0
    digits = 3 + size - np.log10(sd) if 0 < sd < np.inf else 4
    shown = f"{value:.{int(np.clip(max(digits, size + 1 if size < 7 else 4), 4, 15))}g}"
    return f"{shown} ± {error:.2g}" if np.isfinite(error) else shown


def _quality(posterior: Record, rows: list[Row], page: _Page) -> Iterator[Picture | str]:
    """How near q is: its weights, and what other means say of the standard deviations."""
    if posterior.diagnosis.chains is None:
        yield page.add(plots.log_weights(posterior), "Log importance weights of the draws behind the verdict.")
    else:
        yield page.add(plots.chains(posterior), "Whether the chains agree, and how q differs from their draws.")
    if (figure := plots.structure(posterior)) is not None:
        yield page.add(figure, "The structure: entries of the precision of the latent coordinates that are not zero.")
    others = {f"q itself ({posterior.distribution.name})": np.array([row.plain.std() for row in rows])}
    try:
        others |= _linear_response(posterior, rows)
    except FloatingPointError as error:
        yield f"Linear response of a mean-field Gaussian was left out. {error}"
    source = "importance-weighted" if posterior.diagnosis.trusted else "of plain draws of q"
    source = source if posterior.diagnosis.chains is None else "of draws by chains"
    yield page.add(plots.standard_deviations(rows, others), f"Standard deviations against those reported, {source}.")


def _linear_response(posterior: Record, rows: list[Row]) -> dict[str, np.ndarray]:
    problem = posterior.problem
    if problem is None or not Regime.of(problem.dim).dense_start:
        return {}
    with scope(posterior.double):
        if problem.is_irregular or problem.why_not_differentiable(2):
            return {}
    if any(row.variable not in posterior.parameters.names for row in rows):
        return {}  # a model whose variables JAX does not compute
    import jax.numpy as jnp

    names = dict.fromkeys(row.variable for row in rows)
    every = lambda values: jnp.concatenate([jnp.ravel(posterior.named(values)[name]) for name in names])
    labels = [
        label(name, index)
        for name in names
        for index in np.ndindex(*posterior.parameters.shapes[posterior.parameters.names.index(name)])
    ]
    chosen = np.array([labels.index(row.label) for row in rows])
    found = respond(posterior, lambda values: every(values)[chosen])
    return {"mean field": found.mean_field_sd, "mean field with linear response": found.sd}


def _directions(posterior: Record, page: _Page) -> tuple[Picture, list[str]] | None:
    found = plots.directions(posterior) if Regime.of(posterior.parameters.dim).newton else None
    if found is None:
        return None
    figure, described = found
    return page.add(figure, "Draws along the worst-determined directions."), described


def _course(posterior: Record, page: _Page) -> Iterator[Picture]:
    if len(posterior.history.elbo):
        yield page.add(plots.elbo(posterior), "The evidence lower bound in the course of the fit.")
    if posterior.ladder:
        yield page.add(plots.ladder(posterior), "The approximations that were tried.")


def _predictive(posterior: Record, page: _Page) -> Iterator[Picture | Table | str]:
    """Posterior predictive checks, and LOO, as far as the model allows them; what is left out, and why."""
    model = posterior.model
    if model is None:
        yield (
            "Predictive checks, leave-one-out cross-validation (LOO) and linear response are left out: they need the "
            "log density, which a file doesn't hold; bbvi.load(path, logprob=...) takes it."
        )
        return
    if model.predicts:
        tree = predict(posterior, (), {}, REPLICATIONS, 0, None)
        for name, made in tree["posterior_predictive"].data_vars.items():
            if name not in tree["observed_data"]:
                continue
            seen, made = tree["observed_data"][name].values, made.values[0]
            yield page.add(plots.predictive(name, seen, made), f"Posterior predictive check of {name}.")
            yield _predictive_table(name, np.ravel(seen), made.reshape(len(made), -1))
    else:
        yield "Predictive checks are left out: a log density does not say how to make data."
    if REPLICATIONS * (count := num_observations(posterior)) > MOST_LIKELIHOODS:
        yield (
            f"Leave-one-out cross-validation (LOO) is left out: {REPLICATIONS} draws of the log likelihoods of "
            f"{count:,} observations are more than {MOST_LIKELIHOODS:,} numbers."
        )
        return
    tree = to_arviz(posterior, REPLICATIONS, 0, None, Labels(), None)
    if "log_likelihood" not in tree:
        yield (
            "Leave-one-out cross-validation (LOO) is left out: no log likelihood of each observation is at hand, as a "
            "model or a bbvi.Factorized log density with its data in memory has it."
        )
        return
    from arviz_stats.loo import loo

    table = Table(("LOO", "elpd", "standard error", "p", "k-hat above 0.7"), [])
    for name, each in tree["log_likelihood"].data_vars.items():
        if each[0, 0].size == 1:
            yield f"Leave-one-out cross-validation (LOO) of {name} is left out: it is a single observation."
            continue
        try:
            found: Any = loo(tree, var_name=name, reff=1.0, pointwise=True)
        except ValueError as error:  # where a log likelihood is the same at all draws, as that of a masked row is
            yield f"Leave-one-out cross-validation (LOO) of {name} is left out, where arviz says: {error}."
            continue
        k = np.asarray(found.pareto_k).ravel()
        numbers = (f"{found.elpd:.2f}", f"{found.se:.2f}", f"{found.p:.2f}", f"{(k > 0.7).sum()} of {len(k)}")
        table.rows.append((str(name), *numbers))
        yield page.add(plots.loo_k_hats(str(name), k), f"Pareto k-hat of leaving out each observation of {name}.")
    if table.rows:
        yield table


def _predictive_table(name: str, seen: np.ndarray, made: np.ndarray) -> Table:
    rows = []
    statistics: tuple[Any, ...] = (np.mean, np.std, np.min, np.max)
    for title, statistic in zip(("mean", "sd", "minimum", "maximum"), statistics, strict=True):
        replicated, own = statistic(made, axis=1), float(statistic(seen))
        low, high = np.quantile(replicated, [0.05, 0.95])
        share = np.mean(replicated > own) + np.mean(replicated == own) / 2
        rows.append((title, f"{own:.4g}", f"{low:.4g} to {high:.4g}", f"{share:.2f}"))
    return Table((name, "observed", "90 % of replications", "share above"), rows)


def _ranks(calibration: Any, page: _Page) -> Picture:
    caption = "Where true values lie in their posteriors over simulated data: even bars within the band are right."
    return page.add(calibration.plot(CALIBRATED), caption)
