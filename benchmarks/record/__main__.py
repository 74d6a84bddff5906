"""A record that anyone can check: every posterior with a known answer, by bbvi and by others, and what came of it.

    python -m benchmarks.record --posteriordb FOLDER --yardsticks FOLDER [--methods auto,svi,svi_mean_field,nuts]
        [--seeds 0 1 2] [--names A B] [--processes 1] [--minutes M] [--limit 600] [--kept record.jsonl]
        [--references references] [--sample-references]
    python -m benchmarks.record --quick
    python -m benchmarks.record --kept record.jsonl --page record.md --html record.html --picture record.png

The first makes the fits: of posteriordb's posteriors, of the classic BUGS examples and the inference gym's, and of
shapes that no Gaussian has, whose answers are exact. Without one of the folders (or BBVI_POSTERIORDB and
BBVI_YARDSTICKS in its place) its posteriors are left out. Each fit is made by a process of its own that finds no
compiled programs, and a line of JSON is added to the kept file when it ends, by itself, by the limit or by an error;
the same command goes on where it was stopped. The order is by seed, then by method, so that a run that is stopped has
covered everything once. Of posteriordb's posteriors without draws, those are taken whose reference is in the folder of
references, or with `--sample-references` all: NUTS then finds it first, which takes long.

`--quick` makes ten fits, two at a time, in a few minutes, and prints the verdicts' truth;
without the folders they are eight. The last form makes no fit: it writes a page, a page of HTML with tables that can be
sorted, and a picture, from the kept file.

In a line: errors are the largest over all quantities, of means and quantiles in posterior standard deviations, of
standard deviations relative; `beyond` is what is left when two standard errors of the reference are taken off.
`content` is the share of the reference in the fit's central 90 % interval. Cold seconds run from the start of the
process to the printed table without reading the posterior, warm ones are those of another fit, with the next seed.
Evaluations are of the gradient; a Hessian-vector product counts as two and a value without gradient as a third; NUTS's
are without its warm-up. For NUTS there are seconds to an effective sample size of 400, its warm-up included.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from benchmarks.posteriordb.contestants import CONTESTANTS
from benchmarks.record.campaign import Settings, plan, run
from benchmarks.record.lines import Line, read
from benchmarks.record.one import add_folders
from benchmarks.record.posteriors import Entry, Folders, choose, entries
from benchmarks.record.truth import false_claims, truth_table

METHODS = "auto,svi,svi_mean_field,nuts"
QUICK = (  # posteriors that take a few seconds each; the last two need the folders
    "funnel_10",
    "funnel_100",
    "banana",
    "two_modes_10",
    "four_modes_8",
    "two_moons",
    "heavy_10",
    "skewed_2",
    "kidiq-kidscore_momiq",
    "eight_schools-noncentred",
)


def main(arguments: Sequence[str] | None = None) -> list[Line]:
    """Make the fits, or write the pages; returns the lines."""
    given = read_arguments(arguments)
    kept = Path(given.kept)
    if given.page or given.html or given.picture:
        write(given, kept)
        return read(kept)
    folders = Folders(given.posteriordb, given.yardsticks, given.references)
    found = entries(folders, given.sample_references)
    settings = Settings(folders, kept, given.processes, given.minutes, given.limit)
    lines = run(plan(chosen(found, given), given.methods.split(","), given.seeds), settings)
    print("\n" + "\n".join(truth_table(lines).to_markdown()))
    lies = [f"{line.posterior} (seed {line.seed})" for line in false_claims(lines)]
    print(f"\nCalled reliable and further off than 0.2 sd or 20 %: {', '.join(lies) or 'none'}.")
    return lines


def read_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; those of a quick run where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    places = (os.environ.get(f"BBVI_{each}") for each in ("POSTERIORDB", "YARDSTICKS"))
    add_folders(parser, Folders(*places, references="references"))
    parser.add_argument("--sample-references", action="store_true", help="let NUTS find the answers that are missing")
    parser.add_argument("--methods", help=f"with commas between them, of {', '.join(CONTESTANTS)} (default: {METHODS})")
    parser.add_argument("--seeds", type=int, nargs="+", help="(default: 0 1 2)")
    parser.add_argument("--names", nargs="+", help="posteriors, all by default")
    parser.add_argument("--processes", type=int, help="at a time (default: 1)")
    parser.add_argument("--minutes", type=float, help="after which no fit begins")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds of a process (default: %(default)s)")
    parser.add_argument("--kept", default="record.jsonl", help="file of the lines (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="ten posteriors, two at a time, one seed, the default")
    parser.add_argument("--page", help="write a page of Markdown, and make no fit")
    parser.add_argument("--html", help="write a page of HTML, and make no fit")
    parser.add_argument("--picture", help="write a picture (.svg or .png), and make no fit")
    given = parser.parse_args(arguments)
    given.methods = given.methods or ("auto" if given.quick else METHODS)
    if unknown := set(given.methods.split(",")) - set(CONTESTANTS):
        parser.error(f"there is no method {', '.join(sorted(unknown))}. There are {', '.join(CONTESTANTS)}")
    given.seeds = given.seeds or ([0] if given.quick else [0, 1, 2])
    given.processes = given.processes or (2 if given.quick else 1)
    return given


def chosen(found: Sequence[Entry], given: argparse.Namespace) -> list[Entry]:
    """The posteriors that are asked for; of those of a quick run the ones that are there."""
    if given.names:
        return choose(found, given.names)
    return [entry for entry in found if not given.quick or entry.name in QUICK]


def write(given: argparse.Namespace, kept: Path) -> None:
    """The pages and the picture that are asked for."""
    from benchmarks.record import html, page, pictures

    lines = read(kept)
    for path, make in ((given.page, page.write), (given.html, html.write), (given.picture, pictures.write)):
        if path is not None:
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            make(lines, Path(path))
            print(f"Wrote {path}.")


if __name__ == "__main__":
    main()
