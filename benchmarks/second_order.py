"""What methods take to get means and standard deviations right: evaluations and seconds, all in one run.

    python benchmarks/second_order.py FOLDER [NAME ...] [--methods a,b,c] [--dims 50,200,500] [--seeds 3]
        [--seconds-per-method 60] [--linear-response] [--large]

FOLDER holds `posterior_database/`; NAME is a posterior in it. Without --linear-response and --large, one table for each
posterior and for a logistic regression in each of the dims, then a summary. With them, those tables alone.

Cost. In gradient-equivalent evaluations: a gradient of the log density counts 1, a Hessian-vector product 2, a value
without gradient 1/3; the start and what is done at the end count, the verdict only where that is said.

Goal. All means within 0.1 posterior standard deviations and all standard deviations within 10 % of the reference, over
all quantities on the constrained scale: "to reach" is the smallest cost from which on every fit tried is within. For
that bbvi's methods run without a budget, and then with budgets halved until they miss, refined by bisection; NumPyro's
SVI is looked at now and then, and its NUTS, whose warm-up counts, is judged by the first draws of one long chain.
"means only" asks for no standard deviations. Both judge plain draws of the approximation. "weighted" judges what
`posterior.mean()` and `posterior.sd()` give, importance-weighted where the verdict allows it, and counts the verdict.

Methods. Those of bbvi as they come; "textbook" is ADVI from N(0, I) without a start, full-rank up to 100 coordinates
and mean-field above; so is the family of "svi" (NumPyro's, with Adam at rate 0.01 and one draw in each step); "nuts" is
NumPyro's with its defaults and 1000 iterations of warm-up.

Figures are medians over the seeds. Cold is the first fit with nothing compiled; warm are others: to the end, and with
the budget that just reaches the goal. SVI has no rule to stop by: its end is where this script gives up or has seen
enough.

References. Draws that come with posteriordb; else NUTS in coordinates whitened at the mode, whose averages are
corrected by Stein's identity: with y about N(0, I), g = grad log p(y) and r = y + g,

    E[y] = E[r],    E[y y^T] = I + E[y r^T],

where r is zero for a Gaussian. Their standard errors, from batches, are printed.
"""

import argparse
import math
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import NUTS, SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoDiagonalNormal, AutoMultivariateNormal
from numpyro.optim import Adam

import bbvi
from bbvi.algorithms.start import find_start
from bbvi.arguments import METHODS
from bbvi.diagnostics.pareto import smooth
from bbvi.distributions import Distribution
from bbvi.driver import drive
from bbvi.parameters import make_parameters
from bbvi.problem import Problem
from benchmarks import posteriordb
from benchmarks.speed import logistic

POSTERIORS = [
    "earnings-earn_height",  # a regression on the raw scale: the covariance has a condition number of 2e11
    "mesquite-logmesquite",
    "nes1980-nes",
    "sblrc-blr",
    "arK-arK",  # time series
    "wells_data-wells_dist100ars_model",  # logistic
    "eight_schools-eight_schools_noncentered",
    "gp_pois_regr-gp_regr",
    "low_dim_gauss_mix-low_dim_gauss_mix",
    "hudson_lynx_hare-lotka_volterra",  # differential equations
]
SECOND_ORDER = ("laplace", "pathfinder", "dadvi", "newton", "natural_gradient", "ivon")
NAMES = ("textbook", "advi", *SECOND_ORDER, "bam", "gsm", "svi", "nuts")
BASELINES = ("textbook", "svi", "advi")
MEAN_TOLERANCE, SD_TOLERANCE = 0.1, 0.1  # in posterior standard deviations, and relative
BISECTIONS = 3  # after halving the budget: the cost to reach is known to a factor 2^(1/8)
FULL_RANK_UP_TO = 100  # coordinates, for the textbook methods
SVI_STEPS = [round(200 * 2 ** (i / 2)) for i in range(19)]  # at which SVI is looked at, the last one 102 400
BLOCK = 50  # iterations of NUTS in one call
NUTS_DRAWS = [BLOCK * round(1.28 * 2 ** (i / 2)) for i in range(13)]  # at which it is looked at, the last one 4100
WARM_UP = 1000
HELD = 4  # looks in a row within tolerance, after which SVI and NUTS have shown enough


# -- cases ------------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A posterior, what `bbvi.fit` takes for it, and what is known of it."""

    name: str
    arguments: dict[str, Any]  # of fit
    problem: Problem
    quantities: Callable[[Any], Any]  # unconstrained (n, dim) -> (n, quantities)
    mean: np.ndarray  # (quantities,)
    sd: np.ndarray  # (quantities,)
    reference: str  # in words

    @property
    def dim(self) -> int:
        """Unconstrained coordinates."""
        return self.problem.dim


def make_problem(logprob: Callable[..., Any], dim: Any, data: Any, constraints: Any = None) -> Problem:
    """The density that `fit` sees, for the methods that are not bbvi's."""
    return Problem(make_parameters(dim, constraints), jax.tree.map(jnp.asarray, data), logprob)


def posteriordb_case(folder: str, name: str) -> Case:
    """A posterior of posteriordb."""
    source, draws = posteriordb.load(folder, name), posteriordb.reference_draws(folder, name)
    arguments = {
        "logprob": source.logprob,
        "dim": source.shapes,
        "data": source.data,
        "constraints": source.constraints,
    }
    problem = make_problem(**arguments)
    if draws is None:
        return sampled_case(name, arguments, problem)

    def flat(values: dict[str, Any]) -> Any:
        return jnp.concatenate([jnp.ravel(values[key]) for key in sorted(draws)])

    def quantities(xs: Any) -> Any:
        return jax.vmap(lambda x: flat(posteriordb.quantities(source, problem.parameters.constrain(x)[0])))(xs)

    exact = np.concatenate([draws[key].reshape(len(draws[key]), -1) for key in sorted(draws)], axis=1)
    words = f"{len(exact)} draws of posteriordb"
    return Case(name, arguments, problem, jax.jit(quantities), exact.mean(axis=0), exact.std(axis=0), words)


def logistic_case(dim: int) -> Case:
    """A logistic regression with standard normal weights; neighbouring columns have a correlation of 0.7."""
    rng, rows = np.random.default_rng(0), 5 * dim
    correlation = 0.7 ** np.abs(np.subtract.outer(np.arange(dim), np.arange(dim)))
    inputs = rng.standard_normal((rows, dim)) @ np.linalg.cholesky(correlation).T
    logits = inputs @ rng.standard_normal(dim) / dim**0.5
    outputs = (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(float)
    arguments = {"logprob": logistic, "dim": dim, "data": (inputs, outputs)}
    return sampled_case(f"logistic regression, dim {dim}, {rows} rows", arguments, make_problem(**arguments))


def sampled_case(name: str, arguments: dict[str, Any], problem: Problem) -> Case:
    """A log-concave posterior whose reference is sampled here; its quantities are its coordinates, unconstrained."""
    mean, sd, words = sample_reference(problem)
    return Case(name, arguments, problem, jax.jit(lambda xs: xs), mean, sd, words)


# -- references -------------------------------------------------------------------------------------------------------


def sample_reference(problem: Problem, draws: int = 4000, batches: int = 20) -> tuple[np.ndarray, np.ndarray, str]:
    """Means and standard deviations of a log-concave posterior, and how they were found."""
    tick = time.perf_counter()
    mode, scale = laplace(problem)
    white = problem.in_coordinates(mode, scale)
    chain = Chain(white, warm_up=300)
    chain.start(0)
    ys = np.concatenate([chain.advance()[0] for _ in range(draws // BLOCK)])
    gradients = jax.jit(lambda problem, ys: jax.lax.map(jax.grad(problem.log_density), ys, batch_size=100))
    rest = ys + np.asarray(gradients(white, ys))
    mean, sd = stein_moments(mode, scale, ys, rest)
    parts = zip(np.split(ys, batches), np.split(rest, batches), strict=True)
    spread = [np.stack(each) for each in zip(*(stein_moments(mode, scale, *part) for part in parts), strict=True)]
    mean_error, sd_error = ((each.std(axis=0, ddof=1) / batches**0.5 / sd).max() for each in spread)
    return (
        mean,
        sd,
        f"{draws} draws of NUTS corrected by Stein's identity; largest standard errors {mean_error:.3f} posterior sd "
        f"of a mean and {100 * sd_error:.1f} % of an sd; {time.perf_counter() - tick:.0f} s",
    )


def laplace(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Mode of a log-concave density, and a lower triangular root of its inverse curvature there."""
    derivatives = jax.jit(lambda problem, x: (jax.grad(problem.log_density)(x), jax.hessian(problem.log_density)(x)))
    height = jax.jit(lambda problem, x: problem.log_density(x))
    x = np.zeros(problem.dim)
    for _ in range(50):
        gradient, hessian = map(np.asarray, derivatives(problem, x))
        move = np.linalg.solve(-hessian, gradient)
        gain = gradient @ move
        if gain < 1e-12:
            return x, np.linalg.cholesky(np.linalg.inv(-hessian))
        size = 1.0
        while not height(problem, x + size * move) > height(problem, x) + 0.1 * size * gain and size > 1e-6:
            size /= 2
        x = x + size * move
    raise ValueError("Newton's method found no mode: the reference is for log-concave posteriors.")


def stein_moments(
    mode: np.ndarray, scale: np.ndarray, ys: np.ndarray, rest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of `mode + scale y` by Stein's identity; `rest` is y + grad log p(y)."""
    mean, xs = rest.mean(axis=0), ys @ scale.T
    variance = np.sum(scale**2, axis=1) + np.mean(xs * (rest @ scale.T), axis=0) - (scale @ mean) ** 2
    return mode + scale @ mean, np.sqrt(variance)


# -- errors -----------------------------------------------------------------------------------------------------------


class Errors(NamedTuple):
    """Largest errors over all quantities."""

    mean: float  # in posterior standard deviations
    sd: float  # relative


def errors(case: Case, values: np.ndarray, weights: np.ndarray | None = None) -> Errors:
    """Errors of the moments of draws `(n, quantities)`."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.average(values, axis=0, weights=weights)
        sd = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weights))
        found = np.abs(mean - case.mean) / case.sd, np.abs(sd / case.sd - 1)
    return Errors(*(float(np.nan_to_num(each, nan=np.inf).max()) for each in found))


_push = jax.jit(lambda q, noise: q.push(noise))


def plain_errors(case: Case, q: Distribution) -> Errors:
    """Of draws of q, with the same noise for all q: 20 000 antithetic ones, or fewer above 200 coordinates."""
    half = np.random.default_rng(0).standard_normal((min(10_000, 2**21 // case.dim), q.noise_dim))
    return errors(case, np.asarray(case.quantities(_push(q, np.concatenate([half, -half])))))


def weighted_errors(case: Case, posterior: bbvi.Posterior) -> Errors:
    """Of the draws behind the verdict, with the weights that `posterior.mean()` gives them."""
    pool, weights = posterior.pool, posterior.pool.from_q.astype(float)
    if posterior.diagnosis.trusted:
        weights = np.exp(smooth(pool.log_p - pool.log_r).log_weights)
    keep = weights > 0
    return errors(case, np.asarray(case.quantities(pool.x))[keep], weights[keep])


class Point(NamedTuple):
    """What some cost bought."""

    cost: float  # gradient-equivalent evaluations without the verdict
    cost_with_verdict: float
    start: float  # the part of it before the first step
    plain: Errors
    weighted: Errors
    seconds: float


class Goal(NamedTuple):
    """What is to be reached, and what counts as its cost."""

    met: Callable[[Point], bool]
    cost: Callable[[Point], float]


def within(found: Errors) -> bool:
    """Whether means and standard deviations are within tolerance."""
    return found.mean <= MEAN_TOLERANCE and found.sd <= SD_TOLERANCE


GOALS = {
    "both": Goal(lambda point: within(point.plain), lambda point: point.cost),
    "means": Goal(lambda point: point.plain.mean <= MEAN_TOLERANCE, lambda point: point.cost),
    "weighted": Goal(lambda point: within(point.weighted), lambda point: point.cost_with_verdict),
}


def reached(points: Sequence[Point], goal: Goal) -> Point | None:
    """The first point from which on all meet the goal."""
    found = None
    for point in reversed(points):
        if not goal.met(point):
            break
        found = point
    return found


# -- methods ----------------------------------------------------------------------------------------------------------


class Attempt(NamedTuple):
    """What one run, or one run and its repetitions with smaller budgets, showed."""

    points: list[Point]  # with more and more effort; at the last one the method stops by itself
    verdict: str = ""
    note: str = ""
    late: bool = False  # whether time ran out before the end

    @property
    def end(self) -> Point:
        """Where the method stops by itself."""
        return self.points[-1]


Method = Callable[[int, float, bool], Attempt]  # of seed, deadline and whether to look for the smallest budget


def bbvi_method(case: Case, options: dict[str, Any]) -> Method:
    """A method of bbvi, with the options of fit that choose it."""

    def fit(seed: int, deadline: float, gradients: int | None = None) -> tuple[bbvi.Posterior, Point]:
        tick = time.perf_counter()
        budget = bbvi.Budget(seconds=max(deadline - tick, 0.1), gradients=gradients)
        posterior = bbvi.fit(**case.arguments, **options, seed=seed, budget=budget, progress=False)
        seconds = time.perf_counter() - tick
        plain, weighted = plain_errors(case, posterior.distribution), weighted_errors(case, posterior)
        return posterior, Point(*evaluations(posterior), plain, weighted, seconds)

    def attempt(seed: int, deadline: float, search: bool) -> Attempt:
        posterior, end = fit(seed, deadline)
        verdict = f"{posterior.diagnosis.k_hat:.2f} {posterior.diagnosis.status.name.lower()}"
        if posterior.diagnosis.stop is bbvi.Stop.BUDGET:
            return Attempt([end], verdict, late=True)
        points = lower(lambda gradients: fit(seed, deadline, gradients)[1], end, deadline) if search else [end]
        note = "" if posterior.diagnosis.stop is bbvi.Stop.CONVERGED else posterior.diagnosis.stop.value
        return Attempt(points, verdict, note)

    return attempt


def evaluations(posterior: bbvi.Posterior) -> tuple[float, float, float]:
    """Gradient-equivalent evaluations without and with those of the verdict, and those of the start."""
    cost, history, draws = posterior.cost, posterior.history, len(posterior.pool)
    around = cost.log_densities - int(history.log_densities.sum())
    verdict = around // draws * draws  # a start takes fewer than that
    total = cost.gradients + 2 * cost.hessian_vector_products + cost.log_densities / 3
    return total - verdict / 3, total, cost.gradients - int(history.gradients.sum()) + (around - verdict) / 3


def lower(fit: Callable[[int], Point], end: Point, deadline: float) -> list[Point]:
    """Fits with smaller budgets than that of `end`, down to where the goals are missed."""
    tried = {1: fit(1), int(end.cost): end}  # by budget
    wanted = [goal for goal in GOALS.values() if goal.met(end)]
    budget, late = int(end.cost) // 2, lambda: time.perf_counter() > deadline
    while wanted and budget > tried[1].cost and not late():
        tried[budget] = fit(budget)
        wanted = [goal for goal in wanted if goal.met(tried[budget])]
        budget //= 2
    goal = GOALS["both"] if GOALS["both"].met(end) else GOALS["means"]
    for _ in range(BISECTIONS):
        missed = max((budget for budget, point in tried.items() if not goal.met(point)), default=None)
        enough = min((budget for budget in tried if missed is not None and budget > missed), default=None)
        if missed is None or enough is None or late():
            break
        middle = math.isqrt(int(max(missed, tried[missed].cost)) * enough)
        if not missed < middle < enough:
            break
        tried[middle] = fit(middle)
    return [tried[budget] for budget in sorted(tried)]


def log_density_model(problem: Problem) -> None:
    """The density as a NumPyro model over the same unconstrained coordinates."""
    real = dist.constraints.independent(dist.constraints.real, 1)
    x = numpyro.sample("x", dist.ImproperUniform(real, (), (problem.dim,)))
    numpyro.factor("log_density", problem.log_density(x))


def svi_method(case: Case) -> Method:
    """NumPyro's stochastic variational inference with common choices: Adam with rate 0.01, one draw in each step."""
    guide = (AutoMultivariateNormal if case.dim <= FULL_RANK_UP_TO else AutoDiagonalNormal)(log_density_model)
    svi = SVI(log_density_model, guide, Adam(0.01), Trace_ELBO())
    update = lambda problem, state: svi.update(state, problem)[0]
    run = jax.jit(lambda problem, state, n: jax.lax.fori_loop(0, n, lambda _, state: update(problem, state), state))

    def approximation(state: Any) -> Distribution:
        params = svi.get_params(state)
        if "auto_scale_tril" in params:
            return bbvi.FullRank.from_scale_tril(params["auto_loc"], params["auto_scale_tril"])
        return bbvi.MeanField(params["auto_loc"], jnp.log(params["auto_scale"]))

    def attempt(seed: int, deadline: float, search: bool) -> Attempt:
        tick = time.perf_counter()
        state, taken = svi.init(jax.random.key(seed), case.problem), 0
        seconds, points = time.perf_counter() - tick, []
        for steps in SVI_STEPS:
            tick = time.perf_counter()
            state, taken = jax.block_until_ready(run(case.problem, state, steps - taken)), steps
            seconds += time.perf_counter() - tick
            found = plain_errors(case, approximation(state))
            points.append(Point(steps, steps, 0, found, found, seconds))
            if settled(points) or time.perf_counter() > deadline:
                break
        return Attempt(points, late=not settled(points) and steps < SVI_STEPS[-1])

    return attempt


def settled(points: Sequence[Point]) -> bool:
    """Whether the last few points are all within tolerance."""
    return len(points) >= HELD and all(GOALS["both"].met(point) for point in points[-HELD:])


class Chain:
    """NumPyro's NUTS, a block of iterations at a time, with the gradients that it takes."""

    def __init__(self, problem: Problem, warm_up: int) -> None:
        self._problem, self._warm_up, self._kernel = problem, warm_up, NUTS(log_density_model)

        def iterate(problem: Problem, state: Any, _: Any) -> tuple[Any, tuple[Any, Any]]:
            state = self._kernel.sample(state, (problem,), {})
            return state, (state.z["x"], state.num_steps)

        self._run = jax.jit(lambda problem, state: jax.lax.scan(partial(iterate, problem), state, length=BLOCK))

    def start(self, seed: int, deadline: float = np.inf) -> int:
        """Warm up; returns the gradients taken."""
        key = jax.random.key(seed)
        self._state = self._kernel.init(key, self._warm_up, None, (self._problem,), {})
        taken = 0
        for _ in range(self._warm_up // BLOCK):
            taken += self.advance()[1]
            if time.perf_counter() > deadline:
                break
        return taken

    def advance(self) -> tuple[np.ndarray, int]:
        """The next draws `(BLOCK, dim)`, and the gradients taken for them."""
        self._state, (xs, steps) = self._run(self._problem, self._state)
        return np.asarray(xs), int(steps.sum())


def nuts_method(case: Case) -> Method:
    """NumPyro's NUTS with its defaults."""
    chain = Chain(case.problem, WARM_UP)

    def attempt(seed: int, deadline: float, search: bool) -> Attempt:
        tick = time.perf_counter()
        cost = warm_up = chain.start(seed, deadline)
        seconds, points, blocks = time.perf_counter() - tick, [], []
        for draws in NUTS_DRAWS:
            tick = time.perf_counter()
            while len(blocks) < draws // BLOCK and not (blocks and time.perf_counter() > deadline):
                xs, taken = chain.advance()
                blocks, cost = [*blocks, xs], cost + taken
            seconds += time.perf_counter() - tick
            found = errors(case, np.concatenate([np.asarray(case.quantities(xs)) for xs in blocks]))
            points.append(Point(cost, cost, warm_up, found, found, seconds))
            if settled(points) or time.perf_counter() > deadline:
                break
        enough = reached(points, GOALS["both"])
        note = "" if enough is None else f"{NUTS_DRAWS[points.index(enough)]} draws"
        return Attempt(points, note=note, late=not settled(points) and draws < NUTS_DRAWS[-1])

    return attempt


def make_method(name: str, case: Case) -> Method | None:
    """The method of that name, or None where there is none."""
    if name == "svi":
        return svi_method(case)
    if name == "nuts":
        return nuts_method(case)
    if name == "textbook":
        family = bbvi.FullRank if case.dim <= FULL_RANK_UP_TO else bbvi.MeanField
        return bbvi_method(case, {"method": "advi", "init": family.standard(case.dim)})
    return bbvi_method(case, {"method": name}) if name in METHODS else None


# -- tables -----------------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """What is reported of a method on a case: medians over seeds, infinite where a goal is not reached."""

    to_reach: dict[str, float]  # cost by goal
    seconds_to_reach: float
    end: Point
    cold: float
    verdict: str
    note: str


def compare(method: Method, seeds: int, seconds: float) -> Row:
    """Run a method once cold and for each of the seeds warm, within about that many seconds."""
    jax.clear_caches()
    cold = method(0, time.perf_counter() + seconds / 2, False)
    attempts, deadline = [], time.perf_counter() + seconds / 2
    for seed in range(1, seeds + 1):
        tick = time.perf_counter()
        if cold.late:
            attempts = [cold]
            break
        attempts.append(method(seed, deadline, True))
        if 2 * time.perf_counter() - tick > deadline:  # no time for another like this
            break
    best = {name: [reached(attempt.points, goal) for attempt in attempts] for name, goal in GOALS.items()}
    median = lambda values: statistics.median(np.inf if value is None else value for value in values)
    to_reach = {name: median(point and GOALS[name].cost(point) for point in points) for name, points in best.items()}
    middle = lambda field: statistics.median(field(attempt.end) for attempt in attempts)
    typical = lambda field: Errors(*(middle(lambda end, i=i: field(end)[i]) for i in range(2)))
    end = Point(
        middle(lambda end: end.cost),
        middle(lambda end: end.cost_with_verdict),
        middle(lambda end: end.start),
        typical(lambda end: end.plain),
        typical(lambda end: end.weighted),
        middle(lambda end: end.seconds),
    )
    seconds_to_reach = median(point and point.seconds for point in best["both"])
    notes = [each for each in (attempts[0].note, "time ran out" * attempts[0].late) if each]
    return Row(to_reach, seconds_to_reach, end, cold.end.seconds, attempts[0].verdict, ", ".join(notes))


TITLES = (
    "method",
    "to reach",
    "means only",
    "at the end",
    "start",
    "mean error",
    "sd error",
    "weighted: to reach",
    "mean error",
    "sd error",
    "k-hat, verdict",
    "cold s",
    "warm s",
    "warm s to reach",
    "note",
)


def number(value: float, digits: int = 0) -> str:
    """A number, or a dash where there is none."""
    if not np.isfinite(value):
        return "-"
    return f"{value:.{digits}f}" if value < 1e6 else f"{value:.1e}"


def print_row(cells: Iterable[str]) -> None:
    """A line of a Markdown table."""
    print("| " + " | ".join(cells) + " |", flush=True)


def print_titles(titles: Sequence[str]) -> None:
    """The first two lines of a Markdown table."""
    print_row(titles)
    print("|" + "---|" * len(titles), flush=True)


def cells(row: Row) -> list[str]:
    """The cells of a row."""
    return [
        number(row.to_reach["both"]),
        number(row.to_reach["means"]),
        number(row.end.cost),
        number(row.end.start),
        number(row.end.plain.mean, 3),
        number(row.end.plain.sd, 3),
        number(row.to_reach["weighted"]),
        number(row.end.weighted.mean, 3),
        number(row.end.weighted.sd, 3),
        row.verdict,
        number(row.cold, 2),
        number(row.end.seconds, 3),
        number(row.seconds_to_reach, 3),
        row.note,
    ]


def table(case: Case, names: Sequence[str], seeds: int, seconds: float) -> dict[str, Row]:
    """Print the table of a case."""
    print(f"\n### {case.name}\n\n{case.dim} coordinates. Reference: {case.reference}.\n")
    print_titles(TITLES)
    rows = {}
    for name in names:
        method = make_method(name, case)
        if method is None:
            print_row([name, *[""] * (len(TITLES) - 2), "not there yet"])
            continue
        try:
            rows[name] = compare(method, seeds, seconds)
        except Exception as error:  # a method that fails is a result
            print_row([name, *[""] * (len(TITLES) - 2), f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"])
            continue
        print_row([name, *cells(rows[name])])
    return rows


Results = dict[str, dict[str, Row]]  # by case and method


def ratios(results: Results, name: str, baseline: str, goal: str) -> tuple[list[float], int]:
    """Cost of the baseline over cost of the method where that reaches the goal, and how many of them are bounds.

    Where the baseline does not reach it, what it took until its end is a lower bound.
    """
    found, bounds = [], 0
    for rows in results.values():
        if name in rows and baseline in rows and np.isfinite(rows[name].to_reach[goal]):
            theirs = rows[baseline].to_reach[goal]
            bounds += not np.isfinite(theirs)
            theirs = theirs if np.isfinite(theirs) else GOALS[goal].cost(rows[baseline].end)
            found.append(theirs / rows[name].to_reach[goal])
    return found, bounds


def median_ratio(found: list[float], bounds: int) -> str:
    """The median of ratios, and how many of them are lower bounds."""
    if not found:
        return "-"
    return f"{statistics.median(found):.1f}" + (f" ({bounds} of {len(found)} are bounds)" if bounds else "")


def summary(results: Results, names: Sequence[str]) -> None:
    """Print what the tables say together."""
    print(f"\n### Summary over {len(results)} cases\n")
    print(
        "Ratios are the evaluations of a baseline over those of the method, medians over the cases that the method "
        "reaches. Where the baseline does not reach one, what it took in all is a lower bound.\n"
    )
    columns = [(goal, baseline) for goal in GOALS for baseline in ("", *BASELINES)]
    print_titles(
        ["method", *(f"{goal}: {f'{baseline} over it' if baseline else 'reached'}" for goal, baseline in columns)]
    )
    for name in names:
        print_row([name, *(summary_cell(results, name, *column) for column in columns)])
    best_of_second_order(results)


def summary_cell(results: Results, name: str, goal: str, baseline: str) -> str:
    """How many cases a method reaches, or the median of the ratios to a baseline."""
    if baseline:
        return median_ratio(*ratios(results, name, baseline, goal))
    return str(sum(name in rows and np.isfinite(rows[name].to_reach[goal]) for rows in results.values()))


def best_of_second_order(results: Results) -> None:
    """Print the cheapest second-order method of each case."""
    print("\nThe second-order method that reaches the goal with fewest evaluations:\n")
    print_titles(["case", "method", "to reach", *(f"{baseline} over it" for baseline in BASELINES)])
    collected: dict[str, list[float]] = {baseline: [] for baseline in BASELINES}
    for case, rows in results.items():
        costs = {name: rows[name].to_reach["both"] for name in SECOND_ORDER if name in rows}
        best = min(costs, key=costs.__getitem__, default=None)
        if best is None or not np.isfinite(costs[best]):
            print_row([case, "none", "-", "-", "-"])
            continue
        shown = []
        for baseline, values in collected.items():
            found, bounds = ratios({case: rows}, best, baseline, "both")
            values += found
            shown.append(f"{'> ' * bounds}{found[0]:.1f}" if found else "-")
        print_row([case, best, number(costs[best]), *shown])
    print_row(["median", "", "", *(median_ratio(values, 0) for values in collected.values())])


# -- linear response --------------------------------------------------------------------------------------------------


def candidates(problem: Problem, algorithm: bbvi.Algorithm, family: Distribution) -> Sequence[Distribution]:
    """What an algorithm ends with, without the verdict and its choice."""
    rng = np.random.default_rng(0)
    start, draws = find_start(problem, rng, None, algorithm.begins), algorithm.draws(rng, problem.dim)
    begin = jax.jit(lambda problem, start, draws: algorithm.init(problem, family.near(*start), draws))
    run = drive(algorithm, problem, begin(problem, (start.loc, start.scale), draws), 0, num_steps=20_000)
    return algorithm.finish(problem, run.state).candidates


def linear_response(cases: Iterable[Case], threshold: float = 0.2) -> None:
    """Print the errors of standard deviations where those of a mean-field Gaussian are large."""
    print(
        "\n### Linear response\n\nLargest relative error of a standard deviation over all quantities, of plain draws, "
        f"in the cases in which that of the mean-field Gaussian is more than {100 * threshold:.0f} %.\n"
    )
    print_titles(["case", "dim", "mean-field", "linear response", "Laplace", "mean-field / linear response"])
    found = []
    for case in cases:
        jax.clear_caches()
        first, *others = candidates(case.problem, METHODS["dadvi"](), bbvi.MeanField.standard(case.dim))
        mean_field = plain_errors(case, first).sd
        if mean_field <= threshold:
            continue
        (laplace,) = candidates(case.problem, METHODS["laplace"](), bbvi.FullRank.standard(case.dim))
        response = plain_errors(case, others[0]).sd if others else np.inf
        found.append(mean_field / response)
        shown = [mean_field, response, plain_errors(case, laplace).sd]
        print_row([case.name, str(case.dim), *(number(value, 3) for value in shown), number(found[-1], 1)])
    if found:
        print_row(["median", "", "", "", "", number(statistics.median(found), 1)])


# -- large ------------------------------------------------------------------------------------------------------------


def wide_inputs(rows: int, dim: int) -> np.ndarray:
    """More columns than rows; the first columns have large scales, so that data and prior both matter."""
    scales = 1 / (1 + np.arange(dim) / 50)
    return np.random.default_rng(0).standard_normal((rows, dim)) * scales


def gaussian(w: Any, data: Any) -> Any:
    """Linear regression with unit noise and standard normal weights."""
    inputs, outputs = data
    return -0.5 * jnp.sum((outputs - inputs @ w) ** 2) - 0.5 * jnp.sum(w**2)


def poisson(w: Any, data: Any) -> Any:
    """Poisson regression with standard normal weights."""
    inputs, outputs = data
    return jnp.sum(outputs * (inputs @ w) - jnp.exp(inputs @ w)) - 0.5 * jnp.sum(w**2)


class Link(NamedTuple):
    """A regression: its log density, mean and variance of an output given its linear predictor, outputs given means."""

    logprob: Callable[..., Any]
    mean: Callable[[np.ndarray], np.ndarray]
    variance: Callable[[np.ndarray], np.ndarray]
    draw: Callable[[np.random.Generator, np.ndarray], np.ndarray]


LINKS = {
    "linear": Link(gaussian, lambda eta: eta, np.ones_like, lambda rng, mean: rng.normal(mean)),
    "logistic": Link(
        logistic,
        lambda eta: 1 / (1 + np.exp(-eta)),
        lambda eta: 0.25 / np.cosh(eta / 2) ** 2,
        lambda rng, mean: rng.binomial(1, mean),
    ),
    "Poisson": Link(poisson, np.exp, np.exp, lambda rng, mean: rng.poisson(mean)),
}


def exact_laplace(link: Link, inputs: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mode and standard deviations of Laplace's approximation, with matrices of size rows only (Woodbury).

    With weights v = variance(X w), Newton's method from w goes to X^T (1/v + X X^T)^-1 (X w + (y - mean(X w)) / v),
    and diag (I + X^T v X)^-1 = 1 - diag X^T (1/v + X X^T)^-1 X.
    """
    gram, w = inputs @ inputs.T, np.zeros(inputs.shape[1])
    for _ in range(100):
        eta = inputs @ w
        v = link.variance(eta)
        inner = np.diag(1 / v) + gram
        full = inputs.T @ np.linalg.solve(inner, eta + (outputs - link.mean(eta)) / v)
        w = w + (full - w) / max(1.0, np.abs(inputs @ (full - w)).max())  # no linear predictor moves by more than 1
    return w, np.sqrt(1 - np.sum(inputs * np.linalg.solve(inner, inputs), axis=0))


def peak_memory() -> float:
    """The most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


LARGE_TITLES = (
    "regression",
    "largest mean error",
    "largest sd error",
    "median sd error",
    "prior: largest sd error",
    "gradients",
    "products",
    "s",
    "MB before",
    "MB after",
    "whole fit: s",
    "MB after",
    "k-hat, verdict",
)


def large(dim: int = 10_000, rows: int = 300) -> None:
    """Print Laplace's approximation at a size at which a matrix of the Hessian would be large."""
    print(
        f"\n### Laplace by Hessian-vector products: {dim} coordinates, {rows} rows\n\nEach in a process of its own. "
        "Errors against the exact mode and curvature by Woodbury's identity, and those of the prior for comparison. "
        "Memory is the peak of the process: before, after the approximation, and after a whole fit with its verdict. A "
        f"matrix would add {8 * dim**2 / 1e6:.0f} MB.\n"
    )
    print_titles(LARGE_TITLES)
    for name in LINKS:
        process = multiprocessing.get_context("spawn").Process(target=large_row, args=(name, dim, rows))
        process.start()
        process.join()


def large_row(name: str, dim: int, rows: int) -> None:
    """A row of that table."""
    jax.config.update("jax_enable_x64", True)
    link, rng, inputs = LINKS[name], np.random.default_rng(1), wide_inputs(rows, dim)
    eta = inputs @ rng.standard_normal(dim) * (1.0 if name == "linear" else 0.3)
    outputs = link.draw(rng, link.mean(eta)).astype(float)
    mode, sd = exact_laplace(link, inputs, outputs)
    problem = make_problem(link.logprob, dim, (inputs, outputs))
    family = bbvi.Spiked.standard(dim, rank=rows + 20)

    before, tick = peak_memory(), time.perf_counter()
    (q,) = candidates(problem, METHODS["laplace"](), family)
    mean_error, sd_error = np.abs(np.asarray(q.mean()) - mode) / sd, np.abs(np.asarray(q.sd()) / sd - 1)
    seconds, between, tick = time.perf_counter() - tick, peak_memory(), time.perf_counter()
    posterior = bbvi.fit(link.logprob, dim, data=(inputs, outputs), method="laplace", family=family, progress=False)
    whole, diagnosis, cost = time.perf_counter() - tick, posterior.diagnosis, posterior.cost
    print_row(
        [
            name,
            f"{mean_error.max():.2g}",
            f"{sd_error.max():.2g}",
            f"{np.median(sd_error):.2g}",
            f"{np.abs(1 / sd - 1).max():.2g}",
            str(cost.gradients),
            str(cost.hessian_vector_products),
            f"{seconds:.1f}",
            f"{before:.0f}",
            f"{between:.0f}",
            f"{whole:.1f}",
            f"{peak_memory():.0f}",
            f"{diagnosis.k_hat:.2f} {diagnosis.status.name.lower()}",
        ]
    )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("names", nargs="*", help="posteriors; without any, ten of different kinds")
    parser.add_argument("--methods", default=",".join(NAMES), help="with commas between them")
    parser.add_argument("--dims", default="50,200,500", help="of logistic regressions")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds-per-method", type=float, default=60, help="on each case, about")
    parser.add_argument("--linear-response", action="store_true")
    parser.add_argument("--large", action="store_true")
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    if arguments.large:
        large()
        return
    cases = (
        make(each)
        for make, values in (
            (partial(posteriordb_case, arguments.folder), arguments.names or POSTERIORS),
            (logistic_case, [int(dim) for dim in arguments.dims.split(",") if dim]),
        )
        for each in values
    )
    if arguments.linear_response:
        linear_response(cases)
        return
    names = arguments.methods.split(",")
    results = {case.name: table(case, names, arguments.seeds, arguments.seconds_per_method) for case in cases}
    summary(results, names)


if __name__ == "__main__":
    main()
