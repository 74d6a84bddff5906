"""Are the models here those that were published? NumPyro's NUTS, set upon the ports, says so.

    python -m benchmarks.yardsticks.ports [FOLDER [NAME ...]] [--draws 2000]

For each posterior this prints the errors of four chains of so many draws against the published moments, as the suite
does for fits, with the smallest effective sample size and the largest R-hat of a quantity. NUTS is slow to cross
funnels: of models with two forms, the one that mixes better is the one to believe.
"""

import argparse
import os
import time

import jax
import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from benchmarks.posteriordb.contestants import Sampler, make_problem
from benchmarks.yardsticks import MODELS, compute_quantities, find_errors, load, read_reference

CHAINS, WARM_UP = 4, 1000


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default=os.environ.get("BBVI_YARDSTICKS"))
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--draws", type=int, default=2000, help="of each chain")
    arguments = parser.parse_args()
    if arguments.folder is None:
        parser.error("give the folder that holds bugs/ and gym/, or set BBVI_YARDSTICKS to it")
    print("| posterior | dim | error of a mean | of an sd | ESS | R-hat | divergences | s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in arguments.names or MODELS:
        print(row(arguments.folder, name, arguments.draws), flush=True)


def row(folder: str, name: str, draws: int) -> str:
    """Sample a posterior, and judge the draws."""
    case, tick = load(folder, name), time.perf_counter()
    problem = make_problem(case)
    with jax.enable_x64(True):
        chains = Sampler(problem, WARM_UP, draws, CHAINS).run(0)
    found = compute_quantities(case, problem.parameters.structure(chains.x.reshape(-1, problem.dim)))
    errors = find_errors(read_reference(folder, name), found)
    by_chain = [each.reshape(CHAINS, draws, -1) for each in found.values()]
    ess = min(np.min(effective_sample_size(each)) for each in by_chain)
    r_hat = max(np.max(split_gelman_rubin(each)) for each in by_chain)
    return (
        f"| {name} | {problem.dim} | {errors.mean.value:.3f} {errors.mean.quantity} "
        f"| {errors.sd.value:.3f} {errors.sd.quantity} | {ess:.0f} | {r_hat:.3f} | {chains.divergences} "
        f"| {time.perf_counter() - tick:.0f} |"
    )


if __name__ == "__main__":
    main()
