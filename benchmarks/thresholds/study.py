"""What trials teach: which checks and thresholds earn their place, and whether others would do better elsewhere."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from bbvi.diagnostics.checks import CHECKS
from bbvi.outcome import Status
from benchmarks.record.cells import Cell, Table, number, word
from benchmarks.thresholds.trials import FACTORS, SILENT, Trial, thresholds

CLOSE = 0.1  # standard deviations of a mean, and relative error of an sd, within which an answer is right
FAR = 0.2  # the same, beyond which it is of no use
RANKS = [status.name.lower() for status in Status]
PRESENT = "as it is"
WRONG = "false reliable", "false usable", "false alarms", "right but only usable"


class Change(NamedTuple):
    """A check with another threshold; without a threshold, no such check."""

    check: str
    threshold: str = ""
    factor: str = ""

    def __str__(self) -> str:
        return f"{self.check}.{self.threshold} times {self.factor}" if self.threshold else f"without {self.check}"


class Counts(NamedTuple):
    """How often a rule is wrong; fewer are better, the first before the second, and so on."""

    false_reliable: int  # called reliable, and not right
    false_usable: int  # called usable, and of no use
    false_alarms: int  # called unreliable, and right
    doubts: int  # called usable, and right


def count(trials: Iterable[Trial], changes: Sequence[Change] = ()) -> Counts:
    """How often the verdict is wrong with these changes."""
    by_check = {change.check: change for change in changes}
    told = [(_verdict(trial, by_check), trial.error) for trial in trials]
    return Counts(
        sum(says == "reliable" and error > CLOSE for says, error in told),
        sum(says == "usable" and error > FAR for says, error in told),
        sum(says == "unreliable" and error <= CLOSE for says, error in told),
        sum(says == "usable" and error <= CLOSE for says, error in told),
    )


def _verdict(trial: Trial, changes: Mapping[str, Change]) -> str:
    """The status of a trial."""
    allowed = [trial.beside]
    for check, status in trial.found.items():
        change = changes.get(check)
        if change is None:
            allowed.append(status)
        elif change.threshold:
            allowed.append(trial.varied.get(check, {}).get(change.threshold, {}).get(change.factor, status))
    return max(allowed, key=RANKS.index)


def all_changes() -> list[Change]:
    """One threshold by one factor, or one check gone."""
    found = [Change(type(check).__name__) for check in CHECKS]
    for check in CHECKS:
        name = type(check).__name__
        found += [Change(name, each, f"{factor:g}") for each in thresholds(check) for factor in FACTORS]
    return found


def without_table(trials: Sequence[Trial]) -> Table:
    """The verdict as it is, and without one check after the other."""
    titles = ["checks", "speaks in", "alone in", *WRONG]
    rows = [[word("all"), word(""), word(""), *_cells(count(trials))]]
    for check in CHECKS:
        name = type(check).__name__
        speaks = [trial for trial in trials if trial.found.get(name, SILENT) != SILENT]
        alone = [trial for trial in speaks if _verdict(trial, {}) != _verdict(trial, {name: Change(name)})]
        counts = [number(len(each), "{:.0f}") for each in (speaks, alone)]
        rows.append([word(f"without {name}"), *counts, *_cells(count(trials, [Change(name)]))])
    return Table(titles, rows)


def thresholds_table(trials: Sequence[Trial]) -> Table:
    """For every threshold the wrong verdicts, of each kind, when it is scaled.

    Those that change no verdict, whatever the factor, are left out.
    """
    present, rows = count(trials), []
    for check in CHECKS:
        name = type(check).__name__
        for threshold in thresholds(check):
            counts = [count(trials, [Change(name, threshold, f"{factor:g}")]) for factor in FACTORS]
            if any(each != present for each in counts):
                shown = [word("/".join(map(str, each)) if each != present else "") for each in counts]
                value = number(float(getattr(check, threshold)), "{:g}")
                rows.append([word(f"{name}.{threshold}"), value, *shown])
    return Table(["threshold", "value", *(f"times {factor:g}" for factor in FACTORS)], rows)


def idle(trials: Sequence[Trial]) -> list[str]:
    """The thresholds with which no verdict changes."""
    present, found = [_verdict(trial, {}) for trial in trials], []
    for check in CHECKS:
        name = type(check).__name__
        for threshold in thresholds(check):
            changes = [{name: Change(name, threshold, f"{factor:g}")} for factor in FACTORS]
            if all([_verdict(trial, change) for trial in trials] == present for change in changes):
                found.append(f"{name}.{threshold}")
    return found


def learn(trials: Sequence[Trial]) -> list[Change]:
    """Changes that make fewer verdicts wrong, the best one first, one for each check, until none does any more."""
    chosen: list[Change] = []
    possible = all_changes()
    best = count(trials)
    while True:
        free = [change for change in possible if change.check not in {each.check for each in chosen}]
        counts = [count(trials, [*chosen, change]) for change in free]
        if not counts or min(counts) >= best:
            return chosen
        best = min(counts)
        chosen.append(free[counts.index(best)])


def learnt_table(trials: Sequence[Trial]) -> Table:
    """For each kind of posterior: what is learnt from all other kinds, and what comes of it there."""
    rows, present, other = [], list[Counts](), list[Counts]()
    for kind in dict.fromkeys(trial.kind for trial in trials):
        left_out = [trial for trial in trials if trial.kind == kind]
        changes = learn([trial for trial in trials if trial.kind != kind])
        before, after = count(left_out), count(left_out, changes)
        present.append(before)
        other.append(after)
        told = "; ".join(map(str, changes)) or "nothing"
        rows.append([word(kind), number(len(left_out), "{:.0f}"), word(told), _all(before), _all(after)])
    rows.append([word("all"), number(len(trials), "{:.0f}"), word(""), _all(_summed(present)), _all(_summed(other))])
    return Table(["left out", "trials", "learnt from the others", PRESENT, "as learnt"], rows)


def _cells(counts: Counts) -> list[Cell]:
    return [number(each, "{:.0f}") for each in counts]


def _summed(counts: Sequence[Counts]) -> Counts:
    return Counts(*map(sum, zip(*counts, strict=True)))


def _all(counts: Counts) -> Cell:
    return word("/".join(map(str, counts)))
