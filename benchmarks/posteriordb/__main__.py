"""The posteriors of posteriordb, each fitted by `bbvi.fit` with no options and by others, and what is wrong with it.

    python -m benchmarks.posteriordb [FOLDER] [--names A,B] [--methods auto,svi,pathfinder,nuts] [--seed 0]
        [--references references] [--limit 600]

FOLDER holds `posterior_database/`, in posteriordb's own layout: a clone of it works. Without one, the environment
variable BBVI_POSTERIORDB is it. Every fit is made by a process of its own. Cold seconds run from its start to the
printed table; warm ones are those of another fit, with another seed, in the same process. Errors are those of 10 000
draws (4000 of NUTS), over all quantities on the constrained scale: the largest error of a mean in posterior standard
deviations, and the largest |log of the ratio of standard deviations|. Evaluations are of the gradient; a Hessian-vector
product counts as two and a value without gradient as a third; NUTS's are without its warm-up.

References are the draws that come with posteriordb, which are themselves uncertain by about 0.01 in both; where there
are none, NUTS is run for 4 x (2000 + 4000) iterations, and what it found is kept in the folder `references`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from benchmarks.posteriordb.contestants import CONTESTANTS
from benchmarks.posteriordb.database import load, names
from benchmarks.posteriordb.reference import compute_quantities, find_errors, read_reference

METHODS = "auto", "svi", "pathfinder", "nuts"  # by default, of the contestants
STRICT, WIDE, WRONG = 0.05, 0.1, 0.2  # largest errors, both of a mean and of a standard deviation (relative)
LONG = 100.0  # cold seconds, above which there is no second fit


class Row(NamedTuple):
    """One method on one posterior."""

    posterior: str
    method: str
    dim: int
    mean: float
    log_sd: float
    says: str
    evaluations: float
    cold: float  # seconds; when the table was printed, where it comes from another process
    warm: float | None
    stages: str

    def within(self, tolerance: float) -> bool:
        """Whether all means and standard deviations are."""
        return self.mean <= tolerance and self.log_sd <= tolerance


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default=os.environ.get("BBVI_POSTERIORDB"))
    parser.add_argument("--names", help="posteriors, with commas between them")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--references", default="references", help="folder for the references that NUTS makes")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds, after which a process is ended")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder is None:
        parser.error("give the folder that holds posterior_database/, or set BBVI_POSTERIORDB to it")
    chosen = arguments.names.split(",") if arguments.names else names(arguments.folder)
    if arguments.one:
        row = one(arguments.folder, chosen[0], arguments.methods, arguments.seed, arguments.references)
        print(json.dumps(row))
        return
    print("| posterior | dim | method | mean | log sd | says | evaluations | cold s | warm s | stages |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    rows = []
    for name in chosen:
        read_reference(arguments.folder, name, arguments.references)
        for method in arguments.methods.split(","):
            row = in_new_process(arguments, name, method)
            if row is None:
                print(f"| {name} | | {method} | | | ended after {arguments.limit:.0f} s | | | | |", flush=True)
            else:
                rows.append(row)
                print(line(row), flush=True)
    summarise(rows)


def one(folder: str, name: str, method: str, seed: int, references: str) -> Row:
    """Fit twice, and judge the first."""
    case = load(folder, name)
    run = CONTESTANTS[method](case)
    tick = time.time()
    look, end = run(seed), time.time()
    warm = None
    if end - tick < LONG:
        tick = time.perf_counter()
        run(seed + 1)
        warm = time.perf_counter() - tick
    found = look()
    errors = find_errors(read_reference(folder, name, references), compute_quantities(case, found.draws))
    return Row(
        name, method, found.dim, errors.mean, errors.log_sd, found.says, found.evaluations, end, warm, found.stages
    )


def in_new_process(arguments: argparse.Namespace, name: str, method: str) -> Row | None:
    """The same, from the start of a process; None where it took too long."""
    options = ["--names", name, "--methods", method, "--seed", str(arguments.seed), "--one"]
    command = [sys.executable, "-m", "benchmarks.posteriordb", arguments.folder, *options]
    launch = time.time()
    try:
        done = subprocess.run(
            [*command, "--references", arguments.references],
            stdout=subprocess.PIPE,
            text=True,
            timeout=arguments.limit,
            check=True,
        )
    except subprocess.TimeoutExpired:
        return None
    row = Row(*json.loads(done.stdout.splitlines()[-1]))
    return row._replace(cold=row.cold - launch)


def line(row: Row) -> str:
    """A row of the table."""
    warm = "" if row.warm is None else f"{row.warm:.2f}"
    return (
        f"| {row.posterior} | {row.dim} | {row.method} | {row.mean:.3f} | {row.log_sd:.3f} | {row.says} "
        f"| {row.evaluations:.0f} | {row.cold:.1f} | {warm} | {row.stages} |"
    )


def summarise(rows: Sequence[Row]) -> None:
    """Print how many posteriors each method gets right, and its seconds."""
    print(f"\n| method | posteriors | within {WIDE} | within {STRICT} | beyond {WRONG} | cold s | warm s |")
    print("|---|---|---|---|---|---|---|")
    for method in dict.fromkeys(row.method for row in rows):
        mine = [row for row in rows if row.method == method]
        wide, strict, right = (sum(row.within(tolerance) for row in mine) for tolerance in (WIDE, STRICT, WRONG))
        cold, warm = (
            statistics.median([value for value in values if value is not None] or [float("nan")])
            for values in ([row.cold for row in mine], [row.warm for row in mine])
        )
        print(f"| {method} | {len(mine)} | {wide} | {strict} | {len(mine) - right} | {cold:.1f} | {warm:.2f} |")
    lies = [row.posterior for row in rows if row.says.startswith("reliable") and not row.within(WRONG)]
    print(f'\n"reliable" with an error beyond {WRONG}: {", ".join(lies) or "none"}')


if __name__ == "__main__":
    main()
