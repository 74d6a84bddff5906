"""Going through the fits: each in a process of its own, several at a time, and none that is there already."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import NamedTuple

from benchmarks.record.lines import Key, Line, append, read
from benchmarks.record.posteriors import Entry, Folders
from benchmarks.record.provenance import ROOT, describe

MOST_WORDS = 2000  # characters of an error text that are kept, its end


class Job(NamedTuple):
    """A fit to be made."""

    entry: Entry
    method: str
    seed: int

    @property
    def key(self) -> Key:
        """Of the line that it will have."""
        return Key(self.entry.name, self.method, self.seed)


class Settings(NamedTuple):
    """How a campaign goes about its fits."""

    folders: Folders
    kept: Path
    processes: int = 1  # at a time
    minutes: float | None = None  # after which no fit begins
    limit: float = 600.0  # seconds, after which a process is ended


def plan(found: Sequence[Entry], methods: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """All fits, in an order that covers everything once, whenever it is stopped: by seed, method and posterior."""
    return [Job(entry, method, seed) for seed in seeds for method in methods for entry in found]


def run(jobs: Sequence[Job], settings: Settings, make: Callable[[Job, Settings], Line] | None = None) -> list[Line]:
    """Make the fits that the kept file lacks, and return its lines for all of them that are there.

    Arguments:
        make: makes the line of a job; by default in a new process.
    """
    lines = {line.key: line for line in read(settings.kept)}
    waiting = [job for job in jobs if job.key not in lines]
    print(f"{len(jobs)} fits, of which {len(jobs) - len(waiting)} are in {settings.kept}.", flush=True)
    began, running = time.monotonic(), dict[Future[Line], Job]()
    late = lambda: settings.minutes is not None and time.monotonic() - began > 60 * settings.minutes
    with ThreadPoolExecutor(settings.processes) as pool:
        while running or (waiting and not late()):
            while waiting and len(running) < settings.processes and not late():
                job = waiting.pop(0)
                running[pool.submit(make or in_new_process, job, settings)] = job
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                job, line = running.pop(future), future.result()
                append(settings.kept, line)
                lines[job.key] = line
                left = _seconds_left(list(lines.values()), [*running.values(), *waiting]) / settings.processes
                done = len(jobs) - len(waiting) - len(running)
                print(f"[{done}/{len(jobs)}] {tell(line)} - about {left / 60:.0f} min left", flush=True)
    if waiting:
        print(f"Stopped after {settings.minutes:g} min with {len(waiting)} fits to make: the same command goes on.")
    return [lines[job.key] for job in jobs if job.key in lines]


def in_new_process(job: Job, settings: Settings) -> Line:
    """The line of a job, made by a process of its own, which keeps no programs; also where that one gave none."""
    folders, run, began = settings.folders, describe(settings.processes), time.perf_counter()
    places = [f"--{key}={value}" for key, value in folders._asdict().items() if value is not None]
    command = [sys.executable, "-m", "benchmarks.record.one", job.entry.name, job.method, str(job.seed), *places]
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "BBVI_CACHE": "off", "PYTHONPATH": os.pathsep.join(paths)}
    try:
        done = subprocess.run(
            [*command, f"--launch={time.time()}"],
            capture_output=True,
            text=True,
            timeout=settings.limit,
            env=environment,
        )
        if done.returncode == 0:
            told = json.loads(done.stdout.splitlines()[-1])
            return Line.from_json(json.dumps(told | {"wall": time.perf_counter() - began, "run": run}))
        ended = f"exit status {done.returncode}: {done.stderr.strip()[-MOST_WORDS:]}"
    except subprocess.TimeoutExpired:
        ended = f"ended after {settings.limit:.0f} s"
    wall = time.perf_counter() - began
    entry = job.entry
    return Line(
        posterior=entry.name, kind=entry.kind, method=job.method, seed=job.seed, ended=ended, wall=wall, run=run
    )


def tell(line: Line) -> str:
    """One line for those who watch."""
    start = f"{line.posterior} {line.method} {line.seed}:"
    if line.mean is None or line.sd is None:
        return f"{start} {line.ended.splitlines()[-1] if line.ended else 'no answer'}"
    errors = f"{line.mean.raw:.3f} sd, {100 * line.sd.raw:.1f} %"
    return f"{start} {line.status or 'says nothing'}, {errors}, {line.cold:.1f} s"


def _seconds_left(lines: Sequence[Line], jobs: Sequence[Job]) -> float:
    """By the median time of the fits that were made, those of the same method where there are some."""
    typical = {
        method: statistics.median(line.wall for line in lines if line.method == method)
        for method in {line.method for line in lines}
    }
    every = statistics.median(line.wall for line in lines)
    return sum(typical.get(job.method, every) for job in jobs)
