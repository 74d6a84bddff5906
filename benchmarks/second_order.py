"""What methods take to get means and standard deviations right: evaluations and seconds, all in one run.

    python benchmarks/second_order.py FOLDER [NAME ...] [--methods a,b,c] [--dims 50,200,500] [--seeds 3]
        [--seconds-per-method 60] [--linear-response]

FOLDER holds `posterior_database/`; NAME is a posterior in it. Without --linear-response, one table for each
posterior and for a logistic regression in each of the dims, then a summary. With it, that table alone.

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
import statistics
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import NamedTuple

import jax
import numpy as np

import bbvi
from bbvi.algorithms.pages import StepInputs
from bbvi.distributions import Distribution
from bbvi.fitting.arguments import METHODS
from bbvi.optimise import Allowance, Run, begin, drive
from bbvi.start.find import find_start
from bbvi.start.record import Hints
from bbvi.target.problem import Problem
from benchmarks.cases import (
    GOALS,
    POSTERIORS,
    Case,
    Errors,
    Point,
    logistic_case,
    plain_errors,
    posteriordb_case,
    reached,
)
from benchmarks.contestants import Method, make_method

SECOND_ORDER = ("laplace", "pathfinder", "dadvi", "newton", "natural_gradient", "ivon")
NAMES = ("textbook", "advi", *SECOND_ORDER, "bam", "gsm", "svi", "nuts")
BASELINES = ("textbook", "svi", "advi")


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
    """Run a method once cold and for each of the seeds warm, within about that many seconds besides compiling."""
    jax.clear_caches()
    cold = method(0, time.perf_counter() + seconds / 2, False)
    attempts, deadline = [], time.perf_counter() + seconds / 2
    for seed in range(1, seeds + 1):
        tick = time.perf_counter()
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
    first = attempts[0]
    cut = "time ran out" if first.late else "the cold run was cut short" if cold.late else ""
    note = ", ".join(each for each in (first.note, cut) if each)
    return Row(to_reach, seconds_to_reach, end, cold.end.seconds, first.verdict, note)


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
    bounded = dict.fromkeys(BASELINES, 0)
    for case, rows in results.items():
        costs = {name: rows[name].to_reach["both"] for name in SECOND_ORDER if name in rows}
        best = min(costs, key=costs.__getitem__, default=None)
        if best is None or not np.isfinite(costs[best]):
            print_row([case, "none", *["-"] * (1 + len(BASELINES))])
            continue
        shown = []
        for baseline, values in collected.items():
            found, bounds = ratios({case: rows}, best, baseline, "both")
            values += found
            bounded[baseline] += bounds
            shown.append(f"{'> ' * bounds}{found[0]:.1f}" if found else "-")
        print_row([case, best, number(costs[best]), *shown])
    print_row(["median", "", "", *(median_ratio(collected[baseline], bounded[baseline]) for baseline in BASELINES)])


# -- linear response --------------------------------------------------------------------------------------------------


def candidates(problem: Problem, algorithm: bbvi.Algorithm, family: Distribution) -> Sequence[Distribution]:
    """What an algorithm ends with, without the verdict and its choice."""
    rng, needs = np.random.default_rng(0), algorithm.needs(problem.dim, family)
    start = find_start(problem, needs.start, Hints(rng=rng))
    state = begin(algorithm, problem, family, start.gaussian, needs.draws(rng))
    run = drive(algorithm, problem, Run(state), Allowance(20_000), inputs=StepInputs.of(needs, problem, 0))
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
    arguments = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
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
