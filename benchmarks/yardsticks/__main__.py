"""The yardsticks, each fitted by `bbvi.fit` with no options, and what is wrong with it.

    python -m benchmarks.yardsticks [FOLDER [NAME ...]] [--seed 0]

FOLDER holds `bugs/` and `gym/`; without one, the environment variable BBVI_YARDSTICKS is it. NAMEs are those of
posteriors, all by default. Errors are those of 10 000 draws, over all quantities with published moments: the largest
error of a mean beyond two Monte Carlo errors of the published one, in posterior standard deviations, and the largest
relative error of a standard deviation, each with its quantity. In gradients, a Hessian-vector product counts as two.
Seconds are of the fit, compiling included. Stages are what was tried in turn; the answer need not be the last.
"""

import time

import bbvi
from benchmarks.yardsticks import compute_quantities, find_errors, load, read_reference
from benchmarks.yardsticks.command import read_arguments

SAMPLES = 10_000  # draws by which an approximation is judged


def main() -> None:
    """Print the table."""
    folder, names, seed = read_arguments(__doc__, "--seed", 0, "of the fits")
    print("| posterior | dim | answer | stages | status | k-hat | error of a mean | of an sd | gradients | s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in names:
        print(row(folder, name, seed), flush=True)


def row(folder: str, name: str, seed: int) -> str:
    """Fit a posterior, and judge it."""
    case = load(folder, name)
    tick = time.perf_counter()
    posterior = bbvi.fit(case.logprob, case.shapes, data=case.data, constraints=case.constraints, seed=seed)
    seconds = time.perf_counter() - tick
    errors = find_errors(read_reference(folder, name), compute_quantities(case, posterior.sample(SAMPLES)))
    cost, diagnosis = posterior.cost, posterior.diagnosis
    columns = [
        name,
        str(posterior.parameters.dim),
        f"{posterior.method} ({posterior.distribution.title})",
        ", ".join(f"{stage.method} ({stage.family})" for stage in posterior.ladder),
        diagnosis.status.name.lower(),
        f"{diagnosis.resampling_k_hat:.2f}",
        *(f"{error.value:.3f} {error.quantity}" for error in errors),
        str(cost.gradients + 2 * cost.hessian_vector_products),
        f"{seconds:.1f}",
    ]
    return f"| {' | '.join(columns)} |"


if __name__ == "__main__":
    main()
