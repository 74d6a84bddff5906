"""Are the models here those that were published? NumPyro's NUTS, set upon the ports, says so.

    python -m benchmarks.yardsticks.ports [FOLDER [NAME ...]] [--draws 2000]

For each posterior this prints the errors of four chains of so many draws against the published moments, with the
smallest effective sample size and the largest R-hat of a quantity. NUTS is slow to cross funnels: of models with two
forms, the one that mixes better is the one to believe.
"""

import argparse
import os
import time

import jax
import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from bbvi.target.problem import Problem
from benchmarks.posteriordb.contestants import Sampler, make_problem
from benchmarks.posteriordb.parts import Params
from benchmarks.yardsticks import MODELS, compute_quantities, find_errors, load, read_reference

CHAINS, WARM_UP = 4, 1000
MU = np.array([5.0, 2.0, -6.0])
ORANGE = {"mu": MU, "tau": np.full(3, 30.0), "tau_c": np.array(0.015)}
STARTS: dict[str, Params] = {  # growth curves are flat far from the data, and chains stay there
    "orange": ORANGE | {"theta": np.tile(MU, (5, 1))},
    "orange-noncentred": ORANGE | {"theta_raw": np.zeros((5, 3))},
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", default=os.environ.get("BBVI_YARDSTICKS"), metavar="FOLDER")
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--draws", type=int, default=2000, help="of each chain (default: %(default)s)")
    given = parser.parse_args()
    if given.folder is None:
        parser.error("give the folder that holds bugs/ and gym/, or set BBVI_YARDSTICKS to it")
    if unknown := set(given.names) - set(MODELS):
        parser.error(f"there is no {', '.join(sorted(unknown))}. There are {', '.join(MODELS)}")
    print("| posterior | dim | error of a mean | of an sd | ESS | R-hat | divergences | s |")
    print("|---|---|---|---|---|---|---|---|")
    for name in given.names or MODELS:
        print(row(given.folder, name, given.draws), flush=True)


def row(folder: str, name: str, draws: int) -> str:
    """Sample a posterior, and judge the draws."""
    case, tick = load(folder, name), time.perf_counter()
    problem = make_problem(case)
    with jax.enable_x64(True):
        start = _unconstrained(problem, STARTS[name]) if name in STARTS else None
        chains = Sampler(problem, WARM_UP, draws, CHAINS).run(0, start)
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


def _unconstrained(problem: Problem, start: Params) -> np.ndarray:
    return np.asarray(problem.parameters.unconstrain([start[k] for k in problem.parameters.names])[0])


if __name__ == "__main__":
    main()
