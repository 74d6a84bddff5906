"""`benchmarks.thresholds`: what checks say of approximations whose errors are known, and what is learnt from it."""

import math

import pytest

from bbvi.diagnostics.checks import CHECKS
from benchmarks.record.posteriors import Entry, Folders, open_subject
from benchmarks.thresholds.study import (
    Change,
    Counts,
    count,
    idle,
    learn,
    learnt_table,
    thresholds_table,
    without_table,
)
from benchmarks.thresholds.trials import Trial, read, try_all, write

WEIGHTS, MODE = "ImportanceWeights", "MissedMode"


def trial(error: float, kind: str = "shapes", **found: str) -> Trial:
    """One in which the checks named find something; a threshold of the first would have let it pass, at twice."""
    varied = {WEIGHTS: {"poor_k": {"2": "reliable"}}} if found.get(WEIGHTS) == "unreliable" else {}
    said = {type(check).__name__: "reliable" for check in CHECKS} | found
    common = {
        "posterior": "a",
        "kind": kind,
        "method": "laplace",
        "stage": 0,
        "commit": "a",
        "chains": False,
        "beside": "reliable",
    }
    return Trial(error=error, found=said, varied=varied, **common)


GOOD, WRONG = trial(0.01), trial(0.5)
CAUGHT, ALARM = trial(0.5, **{MODE: "unreliable"}), trial(0.02, **{WEIGHTS: "unreliable"})
DOUBT = trial(0.02, **{WEIGHTS: "usable"})


@pytest.mark.parametrize(
    ("trials", "changes", "expected"),
    [
        ([GOOD, WRONG, CAUGHT, ALARM, DOUBT], [], Counts(1, 0, 1, 1)),
        ([CAUGHT], [Change(MODE)], Counts(1, 0, 0, 0)),
        ([CAUGHT], [Change(WEIGHTS)], Counts(0, 0, 0, 0)),
        ([ALARM], [Change(WEIGHTS, "poor_k", "2")], Counts(0, 0, 0, 0)),
        ([ALARM], [Change(WEIGHTS, "poor_k", "0.5")], Counts(0, 0, 1, 0)),
        ([trial(math.inf)], [], Counts(1, 0, 0, 0)),
        ([trial(0.15, **{WEIGHTS: "usable"}), trial(0.25, **{WEIGHTS: "usable"})], [], Counts(0, 1, 0, 0)),
    ],
)
def test_wrong_verdicts_are_counted(trials, changes, expected):
    assert count(trials, changes) == expected


def test_a_false_alarm_is_unlearnt_only_where_nothing_gets_worse():
    assert learn([ALARM, CAUGHT]) == [Change(WEIGHTS)]
    needed = trial(0.5, **{WEIGHTS: "unreliable"})
    assert learn([ALARM, needed]) == []
    assert learn([GOOD, CAUGHT]) == []


def test_what_is_learnt_is_tried_on_the_kind_that_was_left_out():
    trials = [trial(0.02, "gym", **{WEIGHTS: "unreliable"}), trial(0.5, "bugs", **{WEIGHTS: "unreliable"})]
    rows = [[cell.text for cell in row] for row in learnt_table(trials).rows]
    assert rows == [
        ["gym", "1", "nothing", "0/0/1/0", "0/0/1/0"],
        ["bugs", "1", "without ImportanceWeights", "0/0/0/0", "1/0/0/0"],
        ["all", "2", "", "0/0/1/0", "1/0/1/0"],
    ]


def test_the_tables_show_what_depends_on_a_check_and_on_a_threshold():
    trials = [ALARM, CAUGHT]
    assert "ImportanceWeights.poor_k" not in idle(trials)
    assert "MissedMode.rival" in idle(trials)
    by_check = {row[0].text: [cell.text for cell in row[1:]] for row in without_table(trials).rows}
    assert by_check["all"][2:] == ["0", "0", "1", "0"]
    assert by_check["without MissedMode"] == ["1", "1", "1", "0", "1", "0"]
    (row,) = thresholds_table(trials).rows
    assert [cell.text for cell in row] == ["ImportanceWeights.poor_k", "0.7", "", "", "", "0/0/0/0"]


def test_a_trial_says_what_the_verdict_says(tmp_path):
    """The Laplace approximation of bent log-gammas is far off, and a wider allowance for its weights would hide it."""
    subject = open_subject(Entry("skewed_2", "shapes"), Folders(None, None, str(tmp_path)))
    (found,) = try_all(subject, "shapes", "laplace")
    write(tmp_path / "trials.jsonl", [found])
    assert read(tmp_path / "trials.jsonl") == [found]
    assert set(found.found) == {type(check).__name__ for check in CHECKS}
    assert found.found[WEIGHTS] == "unreliable"
    assert found.varied[WEIGHTS]["spread"]["2"] != "unreliable"
    assert 0 < found.error < 10
