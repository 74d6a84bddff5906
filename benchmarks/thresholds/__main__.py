"""What each threshold of the verdict is good for, by approximations whose errors are known.

    python -m benchmarks.thresholds --posteriordb FOLDER --yardsticks FOLDER [--methods laplace,dadvi,pathfinder,auto]
        [--names A B] [--most 150] [--minutes M] [--kept trials.jsonl] [--page thresholds.md]

Posteriors are those of the record (see `python -m benchmarks.record --help`), up to `--most` coordinates. Each is
fitted by every method, good ones and poor ones, and everything that is judged on the way is a trial: the error of its
weighted draws is known, and every check says what it finds, with its thresholds as they are and with each of them
scaled by 0.5 to 2. A verdict is wrong when it says reliable and a mean is off by more than 0.1 sd or an sd by more than
10 %, beyond two standard errors of the answer; when it says usable and the errors are twice as large; when it says
unreliable of a right answer, a false alarm; and it could do better when it says usable of one.

The page has the wrong verdicts without each check, those with each threshold scaled, the thresholds that are idle, and
what is learnt from all kinds of posterior but one, tried on that one. Trials are added to the kept file, and the same
command goes on where it was stopped.
"""

import argparse
import time
from pathlib import Path

import jax

from benchmarks.posteriordb.contestants import make_problem
from benchmarks.record.one import add_folders
from benchmarks.record.posteriors import Entry, Folders, choose, entries, open_subject
from benchmarks.record.provenance import commit
from benchmarks.thresholds.study import PRESENT, WRONG, idle, learnt_table, thresholds_table, without_table
from benchmarks.thresholds.trials import Trial, read, try_all, write

METHODS = "laplace,dadvi,pathfinder,newton,auto"


def main() -> None:
    """Make the trials that are missing, and print or write what they teach."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_folders(parser, Folders(None, None, "references"))
    parser.add_argument("--methods", default=METHODS, help="with commas between them (default: %(default)s)")
    parser.add_argument("--names", nargs="+", help="posteriors, all by default")
    parser.add_argument("--most", type=int, default=150, help="coordinates (default: %(default)s)")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="after which no fit begins")
    parser.add_argument("--kept", default="trials.jsonl", help="file of the trials (default: %(default)s)")
    parser.add_argument("--page", help="write a page of Markdown")
    given = parser.parse_args()
    folders, kept = Folders(given.posteriordb, given.yardsticks, given.references), Path(given.kept)
    found = entries(folders)
    began = time.monotonic()
    for entry in choose(found, given.names) if given.names else found:
        if time.monotonic() - began < 60 * given.minutes:
            _make(entry, folders, given.methods.split(","), given.most, kept)
            jax.clear_caches()
    page = "\n".join(tell(read(kept)))
    if given.page:
        Path(given.page).write_text(page + "\n")
    print(page)


def _make(entry: Entry, folders: Folders, methods: list[str], most: int, kept: Path) -> None:
    """The trials of a posterior that the file lacks."""
    done = {trial.method for trial in read(kept) if trial.posterior == entry.name}
    subject = open_subject(entry, folders)
    if make_problem(subject.case).dim > most:
        return
    for method in methods:
        if method not in done:
            tick = time.perf_counter()
            trials = try_all(subject, entry.kind, method)
            write(kept, trials)
            errors = ", ".join(f"{trial.error:.3f}" for trial in trials)
            print(f"{entry.name} {method}: {errors} ({time.perf_counter() - tick:.0f} s)", flush=True)


def tell(trials: list[Trial]) -> list[str]:
    """The page."""
    posteriors = len({trial.posterior for trial in trials})
    return [
        f"{len(trials)} trials of {posteriors} posteriors, at {commit()}.",
        "",
        *without_table(trials).to_markdown(),
        "",
        f"Wrong verdicts when a threshold is scaled, where they are others than now ({' / '.join(WRONG)}):",
        "",
        *thresholds_table(trials).to_markdown(),
        "",
        f"No verdict depends on {', '.join(idle(trials)) or 'none'}.",
        "",
        f"Learnt from all kinds but one, and tried on that one (wrong verdicts, {PRESENT} and as learnt):",
        "",
        *learnt_table(trials).to_markdown(),
    ]


if __name__ == "__main__":
    main()
