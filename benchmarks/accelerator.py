"""What an accelerator does: its answers against those of a CPU, and its speed against its own limits.

    python -m benchmarks.accelerator [--parts precision steps many flow] [--small]

1. precision: fits of a suite in single precision on the default device, against the same fits in double precision on
   the CPU, which a process of its own makes first. Differences are the largest over all coordinates: of means in
   standard deviations, of standard deviations relative. Some 0.05 are Monte Carlo errors of the draws.
2. steps: the time of a step of stochastic VI over that of the same number of bare gradients, by the slope between few
   and many steps, so that what comes before and after does not count. The share is that of the time that the device
   needs for the arithmetic of the gradients, or to read the data twice, whichever is longer. What it can do in a second
   is measured by a product of two matrices and by a sum of two arrays.
3. many: `fit_many` on logistic regressions with 200 rows and 5 coefficients.
4. flow: a RealNVP in 100 coordinates with 1024 draws in each step, by the slope.

It takes about eight minutes on one GPU. With `--small` it runs anywhere in one or two, to see that it runs.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bbvi
from benchmarks.many import logprob as regression
from benchmarks.many import simulate as simulate_many
from benchmarks.shapes import shapes
from benchmarks.speed import bare_gradients, dense_gaussian, logistic, make_gaussian, make_logistic, seconds
from tests.hierarchies import counts, simulate

DRAWS = 10  # in a step, as in `bare_gradients`


class Sizes(NamedTuple):
    """How much of everything."""

    suite: tuple[str, ...]  # posteriors, all of them where empty
    steps: tuple[tuple[int, int], ...]  # rows and columns of logistic regressions
    few_steps: int  # of which four times as many are taken, too
    fits: int
    flow: tuple[int, int, int]  # coordinates, draws and the fewer of the steps
    matrix: int  # size of the matrices by which the limits are measured
    repeats: int


FULL = Sizes((), ((1000, 10), (1000, 1000), (100_000, 100), (1_000_000, 100)), 2000, 100_000, (100, 1024, 200), 8192, 5)
SMALL = Sizes(("Gaussian, dim 10", "banana"), ((100, 5),), 20, 50, (4, 16, 5), 256, 1)


# -- 1. precision -----------------------------------------------------------------------------------------------------


def suite() -> dict[str, tuple[Callable[..., Any], int, Any]]:
    """Log densities, numbers of coordinates, and data."""
    made = {name: (shape.logprob, shape.dim, None) for name, shape in shapes().items()}
    for dim in (10, 100):
        made[f"Gaussian, dim {dim}"] = dense_gaussian, dim, make_gaussian(dim)
        made[f"logistic regression, dim {dim}"] = logistic, dim, make_logistic(1000, dim)
    for centred in (True, False):
        name = f"Poisson counts of 100 groups, {'centred' if centred else 'non-centred'}"
        made[name] = counts(centred), 102, simulate(counts, 100, 3)
    return made


def fit_suite(names: tuple[str, ...], precision: str) -> dict[str, dict[str, Any]]:
    """Moments and verdicts of the suite, cold and warm seconds, and those of compiling."""
    answers = {}
    for name, (logprob, dim, data) in suite().items():
        if names and name not in names:
            continue
        times, compiling = [], 0.0
        for _ in range(2):
            tick = time.perf_counter()
            posterior = bbvi.fit(logprob, dim, data=data, precision=precision)
            times.append(time.perf_counter() - tick)
            compiling = max(compiling, posterior.cost.compile_seconds)
        mean, sd, status = posterior.mean(), posterior.sd(), posterior.diagnosis.status.name
        answers[name] = {"mean": mean, "sd": sd, "status": status, "times": times, "compiling": compiling}
    return answers


def precision(sizes: Sizes) -> None:
    """Table 1."""
    print("\n1. Single precision here against double precision on the CPU\n")
    print("| posterior | status | on the CPU | mean | sd | cold s | of it compiling | warm s | CPU cold | CPU warm |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.npy"
        command = [sys.executable, "-m", "benchmarks.accelerator", "--write", str(path), *sizes.suite]
        subprocess.run(command, check=True, env={**os.environ, "JAX_PLATFORMS": "cpu"})
        reference = np.load(path, allow_pickle=True).item()
    for name, here in fit_suite(sizes.suite, "single").items():
        there = reference[name]
        mean = np.max(np.abs(here["mean"] - there["mean"]) / there["sd"])
        sd = np.max(np.abs(here["sd"] / there["sd"] - 1))
        figures = [*here["times"][:1], here["compiling"], *here["times"][1:], *there["times"]]
        columns = " | ".join(f"{figure:.2f}" for figure in figures)
        print(f"| {name} | {here['status']} | {there['status']} | {mean:.3f} | {sd:.3f} | {columns} |", flush=True)


# -- 2. steps ---------------------------------------------------------------------------------------------------------


def slope(action: Callable[[int], Any], few: int, repeats: int) -> float:
    """Seconds for one more step, from `few` steps and four times as many."""
    for count in (few, 4 * few):
        seconds(lambda count=count: action(count))
    differences = [seconds(lambda: action(4 * few)) - seconds(lambda: action(few)) for _ in range(repeats)]
    return statistics.median(differences) / (3 * few)


def limits(size: int, repeats: int) -> tuple[float, float]:
    """Multiplications and bytes that the device can do in a second, in single precision."""
    square = jnp.ones((size, size), jnp.float32)
    product, total = jax.jit(jnp.matmul), jax.jit(jnp.add)
    for function in (product, total):
        seconds(lambda function=function: function(square, square))
    fastest = lambda function: min(seconds(lambda: function(square, square)) for _ in range(repeats + 2))
    return size**3 / fastest(product), 3 * square.nbytes / fastest(total)


def steps(sizes: Sizes) -> None:
    """Table 2."""
    multiplications, bandwidth = limits(sizes.matrix, sizes.repeats)
    print(f"\n2. Steps, where {multiplications:.2g} multiplications and {bandwidth:.2g} bytes take a second\n")
    print(
        "| rows | columns | family | us for a step | over gradients | share of the limit |\n|---|---|---|---|---|---|"
    )
    algorithm = bbvi.ADVI(tolerance=0, num_draws=DRAWS)
    for rows, columns in sizes.steps:
        data = jax.device_put(tuple(jnp.asarray(each, jnp.float32) for each in make_logistic(rows, columns)))
        gradients = slope(bare_gradients(logistic, columns, data), sizes.few_steps, sizes.repeats)
        needed = max(2 * DRAWS * rows * columns / multiplications, 2 * 4 * rows * columns / bandwidth)
        for family in ("mean_field", "full_rank"):

            def run(count: int, family: str = family, columns: int = columns, data: Any = data) -> Any:
                options = {"method": algorithm, "family": family, "num_steps": count, "precision": "single"}
                return bbvi.fit(logistic, columns, data=data, **options).pool.log_p

            step = slope(run, sizes.few_steps, sizes.repeats)
            figures = f"{1e6 * step:.0f} | {step / gradients:.2f} | {100 * needed / step:.1f} %"
            print(f"| {rows} | {columns} | {family} | {figures} |", flush=True)


# -- 3. many ----------------------------------------------------------------------------------------------------------


def many(sizes: Sizes) -> None:
    """Seconds of `fit_many`, cold and warm."""
    data, times = simulate_many(sizes.fits, 200, 5), []
    for _ in range(2):
        tick = time.perf_counter()
        posteriors = bbvi.fit_many(regression, 5, data, precision="single")
        times.append(time.perf_counter() - tick)
    print(f"\n3. {sizes.fits} logistic regressions by fit_many: {times[0]:.1f} s cold, {times[1]:.1f} s warm\n")
    print(posteriors, flush=True)


# -- 4. a flow --------------------------------------------------------------------------------------------------------


def flow(sizes: Sizes) -> None:
    """Seconds of compiling and of a step."""
    dim, draws, few = sizes.flow
    options = {"method": bbvi.ADVI(tolerance=0, num_draws=draws), "family": "real_nvp", "precision": "single"}
    matrix = jnp.asarray(make_gaussian(dim), jnp.float32)
    first = bbvi.fit(dense_gaussian, dim, data=matrix, num_steps=few, **options)
    run = lambda count: bbvi.fit(dense_gaussian, dim, data=matrix, num_steps=count, **options).pool.log_p
    step = slope(run, few, sizes.repeats)
    compiling = first.cost.compile_seconds
    print(f"\n4. A RealNVP, dim {dim}, {draws} draws: {compiling:.1f} s compiling, {1e3 * step:.2f} ms for a step\n")


PARTS = {"precision": precision, "steps": steps, "many": many, "flow": flow}


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="of all (default: every one)")
    parser.add_argument("--small", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--write", help="write the answers of the suite in double precision to this file, and end")
    parser.add_argument("names", nargs="*", help="with --write, of the suite")
    given = parser.parse_args()
    if given.write:
        np.save(given.write, fit_suite(tuple(given.names), "double"), allow_pickle=True)
        return
    device = jax.devices()[0]
    print(f"{device.device_kind}, {device.platform}, JAX {jax.__version__}, bbvi {bbvi.__version__}")
    for name in given.parts:
        PARTS[name](SMALL if given.small else FULL)


if __name__ == "__main__":
    main()
