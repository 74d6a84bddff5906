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
from benchmarks.thresholds.study import PRESENT, WRONG, idle, learnt_table, thresholds_table, without_table
from benchmarks.thresholds.trials import Trial, read, try_all, write

METHODS = "laplace,dadvi,pathfinder,auto"
HEAD = """# The thresholds of the verdict

The [verdict](how_it_works.md#the-verdict) is made by [checks](methods/checks.md) with thresholds. What each of them is
good for is seen on approximations whose errors are known, good ones and poor ones:

    python -m benchmarks.thresholds --posteriordb FOLDER --yardsticks FOLDER --page thresholds.md

A trial is an approximation that a fit judged on its way, of a posterior of the [record](record.md). Its answer is that
of its weighted draws; it is right when no mean is off by more than 0.1 sd, and no standard deviation by more than 10 %,
beyond two standard errors of the reference, and of no use when it is off by twice as much. A verdict is wrong when it
says reliable of an answer that is not right, or usable of one that is of no use; a false alarm says unreliable of a
right one."""
ELSEWHERE = (
    "These are for posteriors that the record does not hold, such as improper ones, or for what a check costs; for "
    "each check the tests have a posterior about which it alone speaks."
)
LEARNING = (
    "Of the trials of all kinds of posterior but one, those changes are chosen, one for each check, after which fewest "
    "verdicts are wrong, a false reliable counting for more than any number of false usable ones, and so on; they are "
    "then tried on the kind that was left out."
)


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
    posteriors, methods = ({getattr(trial, of) for trial in trials} for of in ("posterior", "method"))
    commits = ", ".join(sorted({trial.commit for trial in trials}))
    return [
        *HEAD.splitlines(),
        "",
        f"Here are {len(trials)} trials of {len(posteriors)} posteriors by {', '.join(sorted(methods))}, at {commits}.",
        "",
        "## Without one check after the other",
        "",
        "A check speaks alone where the verdict would be better without it.",
        "",
        *without_table(trials).to_markdown(),
        "",
        "## With a threshold scaled",
        "",
        f"Wrong verdicts, {' / '.join(WRONG)}, where they are others than with the present value.",
        "",
        *thresholds_table(trials).to_markdown(),
        "",
        f"No verdict depends on {', '.join(f'`{name}`' for name in idle(trials)) or 'none'}. {ELSEWHERE}",
        "",
        "## Learnt from the other kinds",
        "",
        f"{LEARNING} The last two columns are wrong verdicts, as above, {PRESENT} and as learnt.",
        "",
        *learnt_table(trials).to_markdown(),
    ]


if __name__ == "__main__":
    main()
