"""Bad input, thousands of times: each ends in a right result or in an error of bbvi that says what is wrong.

python -m benchmarks.campaign --examples 2000 --minutes 5
python -m benchmarks.campaign --only "log densities" --seed 1
python -m benchmarks.campaign --repeats 1000
"""

import argparse
import gc
import itertools
import json
import os
import tempfile
import time
import warnings
import weakref
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import bbvi
from bbvi.runtime.storage import read_arrays, write_arrays
from benchmarks import bad_input as bad

METHODS = [
    ("newton", None), ("auto", None), ("laplace", None), ("advi", "mean_field"), ("pathfinder", None), ("dadvi", None),
    ("natural_gradient", None), ("bam", None), ("ivon", None), ("advi", "student_t"), ("gsm", None),
]  # fmt: skip
BATCH = 50  # inputs, after which the time is looked at: making them takes some too
SLOW = 120.0  # seconds for one input, beyond which it counts as hanging


def sweep(kind, strategy, attempt, examples, until, start=0):
    """Try inputs until there are enough or the time is over; returns counts of outcomes, and the defects."""
    counts, defects, slowest = Counter(), {}, (0.0, None)

    @settings(max_examples=BATCH, deadline=None, database=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(strategy)
    def one(case):
        if time.monotonic() > until:
            return
        tick = time.monotonic()
        said = attempt(case)
        nonlocal slowest
        slowest = max(slowest, (took := time.monotonic() - tick, case), key=lambda pair: pair[0])
        if took > SLOW:
            said = f"took {took:.0f} s"
        known = said in ("right", "taken", "refused")
        counts[said if known else "defect"] += 1
        if not known:
            defects.setdefault(said[-120:], (case, said))

    for batch in range(-(-examples // BATCH)):
        if time.monotonic() < until:
            seed(1000 * start + batch)(one)()
    print(f"| {kind} | {sum(counts.values())} | {counts['right'] + counts['taken']} | {counts['refused']} | "
          f"{counts['defect']} | {slowest[0]:.1f} |", flush=True)  # fmt: skip
    if os.environ.get("SLOWEST"):
        print(slowest)
    return defects


def files(folder):
    """Tries of a posterior's file with changed bytes, and with changed contents."""
    path = Path(folder) / "fit.npz"
    data = {"which": np.int32(0), "loc": 0.0, "scale": 1.0, "height": 0.0, "alone": np.bool_(False),
            "y": np.ones(3)}  # fmt: skip
    bbvi.fit(bad.density, 2, data=data, method="newton").save(path)
    content, arrays = path.read_bytes(), read_arrays(path)
    header, tries = json.loads(str(arrays.pop("header"))), itertools.count()

    def bytes_of(change):
        damaged = bad.edited(content, change)
        said = bad.try_file(path, damaged)
        return "a change went unnoticed" if said == "right" and damaged != content else said

    def contents_of(change):
        held, said = bad.rewritten(arrays, header, change)
        write_arrays(path, {"header": np.array(json.dumps(said)), **held})
        report = next(tries) % 10 == 0  # which takes a second
        return bad.try_file(path, path.read_bytes(), report)

    return bytes_of, contents_of


def campaign(examples, minutes, start=0, only=None):
    """All kinds of input, or only one, each for its share of the time."""
    jax.config.update("jax_traceback_filtering", "off")  # so that errors of JAX do not pass for bbvi's
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.chdir(folder)
        bytes_of, contents_of = files(folder)
        began = time.monotonic()
        kinds = [
            ("arguments", bad.odd_arguments(), bad.try_arguments, 0.1),
            ("init", bad.inits(), bad.try_init, 0.05),
            ("pytrees of shapes", bad.structures(), bad.try_structure, 0.1),
            ("constraints", bad.constrained(), bad.try_constraints, 0.1),
            ("data", bad.odd_data(), bad.try_data, 0.1),
            ("what logprob returns", st.sampled_from(list(bad.RETURNS)), bad.try_return, 0.05),
            ("bytes of files", bad.edits(), bytes_of, 0.05),
            ("contents of files", bad.rewrites(), contents_of, 0.1),
            ("log densities", bad.densities(METHODS), bad.try_density, 0.35),
        ]
        kinds = [kind for kind in kinds if only in (None, kind[0])]
        whole = sum(part for *_, part in kinds)
        print("| input | tried | right | refused | defects | longest s |\n|---|---|---|---|---|---|", flush=True)
        found, share = {}, 0.0
        for kind, strategy, attempt, part in kinds:
            share += part / whole
            until = began + 60 * minutes * share
            for said, case in sweep(kind, strategy, attempt, examples, until, start).items():
                found[kind, said] = case
    for (kind, _), (case, said) in found.items():
        print(f"\n{kind}: {str(case)[:400]}\n    {said}")
    return found


def megabytes():
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def repeated(times):
    """Fits of one function to fresh data."""

    def logprob(x, data):
        return -0.5 * jnp.sum((x - data) ** 2)

    rng, worst = np.random.default_rng(0), 0.0
    for i in range(times):
        data = rng.standard_normal(3)
        posterior = bbvi.fit(logprob, 3, data=data, seed=i)
        worst = max(worst, float(np.abs(posterior.distribution.mean() - data).max()))
        if i + 1 in (times // 100, times // 10, times // 2, times):
            gc.collect()
            print(f"{i + 1} fits of one function: {megabytes():.0f} MB, means off by {worst:.0e} at most", flush=True)


def closures(times):
    """Fits of functions that are made anew each time, and forgotten."""
    held = []

    def make(scale):
        return lambda x: -0.5 * jnp.sum((x / scale) ** 2)

    for i in range(times):
        logprob = make(1.0 + i)
        held.append(weakref.ref(logprob))
        bbvi.fit(logprob, 2, method="laplace")
        del logprob
        if i + 1 in (times // 10, times // 2, times):
            gc.collect()
            alive = sum(ref() is not None for ref in held)
            print(f"{i + 1} functions: {megabytes():.0f} MB, {alive} of them still alive", flush=True)
    jax.clear_caches()
    gc.collect()
    alive = sum(ref() is not None for ref in held)
    print(f"after jax.clear_caches(): {megabytes():.0f} MB, {alive} of them still alive", flush=True)


def main():
    parser = argparse.ArgumentParser(description="Bad input, thousands of times.")
    parser.add_argument("--examples", type=int, default=2000, help="of each kind, at most")
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--only", help="one kind of input, such as 'log densities'")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=0, help="fits in a row instead")
    parser.add_argument("--closures", type=int, default=0, help="fits in a row of fresh functions instead")
    arguments = parser.parse_args()
    if arguments.repeats:
        repeated(arguments.repeats)
    if arguments.closures:
        closures(arguments.closures)
    if not arguments.repeats and not arguments.closures:
        found = campaign(arguments.examples, arguments.minutes, arguments.seed, arguments.only)
        raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
