"""One fit, in this process: the line of the record for it is printed at the end.

    python -m benchmarks.record.one NAME METHOD SEED [--posteriordb FOLDER] [--yardsticks FOLDER] [--references FOLDER]

The fit is judged; another one with the next seed tells the warm seconds, unless the first took longer than 100 s.
"""

import argparse
import math
import time

from benchmarks.posteriordb.contestants import CONTESTANTS, NUTS_DRAWS, NUTS_WARM_UP, Outcome
from benchmarks.record.judging import count_covered, judge
from benchmarks.record.lines import Line
from benchmarks.record.posteriors import Entry, Folders, choose, entries, open_subject

LONG = 100.0  # cold seconds, above which there is no second fit
ENOUGH = 400.0  # effective draws, to which the seconds of NUTS are counted


def fit(entry: Entry, method: str, seed: int, folders: Folders, launch: float) -> Line:
    """Fit twice, and judge the first. The cold seconds leave out reading the posterior and its answer."""
    loaded = time.time() - launch
    subject = open_subject(entry, folders)
    tick = time.perf_counter()
    run = CONTESTANTS[method](subject.case)
    look = run(seed)
    cold, warm, ended = loaded + time.perf_counter() - tick, None, ""
    if cold <= LONG:
        tick = time.perf_counter()
        try:
            run(seed + 1)
            warm = time.perf_counter() - tick
        except Exception as error:  # of whatever the method raises; the line says so, beside the first answer
            ended = f"the fit with the next seed ended in an error: {error}"
    found, reference, evidence = look(), subject.reference(), subject.log_evidence()
    claims = found.claims
    return Line(
        posterior=entry.name,
        kind=entry.kind,
        method=method,
        seed=seed,
        ended=ended,
        dim=found.dim,
        status=claims.status,
        k_hat=_known(claims.k_hat),
        resampling_k_hat=_known(claims.resampling_k_hat),
        r_hat=_known(claims.r_hat),
        stages=found.stages,
        **judge(reference, subject.values(found.draws))._asdict(),
        covered={} if found.estimates is None else count_covered(reference, found.estimates(subject.values)),
        reference=reference.words,
        log_evidence=_known(claims.log_evidence.value),
        log_evidence_error=_known(claims.log_evidence.standard_error),
        elbo=_known(claims.elbo),
        reference_log_evidence=None if evidence is None else evidence.value,
        reference_log_evidence_error=None if evidence is None else evidence.standard_error,
        evaluations=float(found.evaluations),
        cold=cold,
        warm=warm,
        ess=_known(claims.ess),
        ess_seconds=_seconds_to_enough(found, cold, warm),
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _seconds_to_enough(found: Outcome, cold: float, warm: float | None) -> float | None:
    """Seconds of NUTS to enough effective draws: start, compiling, warm-up, and of the sampling as much as it takes.

    An iteration of the warm-up counts as costly as one after it, since NumPyro does not tell them apart.
    """
    ess = found.claims.ess
    if math.isnan(ess):
        return None
    running = cold if warm is None else min(warm, cold)
    sampling = running * NUTS_DRAWS / (NUTS_WARM_UP + NUTS_DRAWS)
    return cold - sampling + sampling * ENOUGH / ess


def add_folders(parser: argparse.ArgumentParser, defaults: Folders) -> None:
    """The options that say where answers lie."""
    parser.add_argument("--posteriordb", default=defaults.posteriordb, help="folder with posterior_database/")
    parser.add_argument("--yardsticks", default=defaults.yardsticks, help="folder with bugs/ and gym/")
    parser.add_argument("--references", default=defaults.references, help="folder for references that are kept")


def main() -> None:
    """Print the line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name")
    parser.add_argument("method", choices=CONTESTANTS)
    parser.add_argument("seed", type=int)
    parser.add_argument("--launch", type=float, help="when the process was started, in Unix seconds (default: now)")
    add_folders(parser, Folders(None, None, "references"))
    given = parser.parse_args()
    folders = Folders(given.posteriordb, given.yardsticks, given.references)
    (entry,) = choose(entries(folders, sample=True), [given.name])
    print(fit(entry, given.method, given.seed, folders, given.launch or time.time()).to_json())


if __name__ == "__main__":
    main()
