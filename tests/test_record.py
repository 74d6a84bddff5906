"""The record: what is counted, what is kept, what the pages say; and ten fits, none of them falsely reliable."""

import math
import re

import numpy as np
import pytest

from bbvi.diagnostics.estimates import Estimates
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters
from benchmarks.record import __main__ as command
from benchmarks.record import evidence, html, page, pictures
from benchmarks.record.answers import ANSWERS
from benchmarks.record.campaign import Settings, plan, run
from benchmarks.record.judging import count_covered, judge
from benchmarks.record.lines import Error, Line, append, read
from benchmarks.record.overview import overview, read_notes
from benchmarks.record.posteriors import Entry, Folders, choose, entries
from benchmarks.record.references import of_draws, of_shape
from benchmarks.record.truth import claims, false_claims, truth_table
from benchmarks.shapes import shapes
from tests.targets import COVARIANCE, DIM, LOG_EVIDENCE, MEAN, gaussian

BRIDGED = "banana", "heavy_10", "skewed_2", "four_modes_8"  # shapes that a Gaussian overlaps enough
NOWHERE = Folders(None, None, "references")
RUN = {"commit": "abc", "date": "2020-01-01 00:00", "versions": {"jax": "0"}, "machine": "a <machine>", "processes": 1}


def line(posterior="p", method="auto", seed=0, status="reliable", mean=0.01, sd=0.01, **fields):
    errors = {
        "mean": Error(mean, mean, "theta[1]", 0.01),
        "sd": Error(sd, sd, "tau", None),
        "low": Error(2 * mean, 2 * mean, "tau", None),
        "high": Error(mean, mean, "tau", None),
    }
    known = {"dim": 3, "k_hat": 0.1, "content": 0.9, "worst_content": 0.88, "cold": 4.0, "warm": 0.1, "wall": 5.0}
    known |= {"evaluations": 100.0, "stages": "newton (full_rank)", "elbo": -3.2, "log_evidence": -3.0}
    known |= {"log_evidence_error": 0.01, "reference_log_evidence": -3.01, "reference_log_evidence_error": 0.001}
    known |= {"kind": "shapes", "run": RUN} | errors | fields
    return Line(posterior=posterior, method=method, seed=seed, status=status, **known)


def unanswered(posterior="p", method="auto", seed=0):
    return Line(posterior=posterior, kind="shapes", method=method, seed=seed, ended="ended after 600 s", run=RUN)


MADE_UP = [
    line("right"),
    line("right", seed=1, k_hat=0.9),
    line("right", "svi", status="", mean=0.7),
    line("right", "nuts", status="converged", k_hat=None, ess=900.0, ess_seconds=8.0),
    line("a lie", mean=0.3, k_hat=0.6),
    line("an alarm", status="unreliable", k_hat=math.inf),
    line("far off", status="unreliable", mean=math.inf, k_hat=1.2),
    unanswered("slow"),
]


# -- lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("held", [*MADE_UP, line(k_hat=-math.inf)])
def test_a_line_comes_back_from_its_text(held):
    text = held.to_json()
    assert "\n" not in text
    assert not re.search(r"NaN|[^\"]Infinity", text)
    assert Line.from_json(text) == held


def test_a_fit_is_what_its_last_line_says_and_a_truncated_one_is_not_made(tmp_path):
    path = tmp_path / "record.jsonl"
    assert read(path) == []
    for each in (line("a"), line("b"), line("a", mean=0.5)):
        append(path, each)
    path.write_text(path.read_text() + line("c").to_json()[:40])
    assert {each.posterior: each.mean.raw for each in read(path)} == {"a": 0.5, "b": 0.01}
    append(path, line("d"))
    assert {each.posterior for each in read(path)} == {"a", "b", "d"}
    path.write_text("{damaged}\n")
    with pytest.raises(ValueError, match=r"Line 1 of .* is no JSON"):
        read(path)


# -- campaigns -------------------------------------------------------------------------------------------------------


def make(job, settings):
    return line(job.entry.name, job.method, job.seed)


@pytest.mark.parametrize("processes", [1, 3])
def test_a_campaign_goes_on_where_it_was_stopped(tmp_path, processes):
    jobs = plan([Entry("a", "shapes"), Entry("b", "shapes")], ["auto", "nuts"], [0, 1])
    order = [(job.seed, job.method, job.entry.name) for job in jobs]
    assert order == sorted(order)  # so that everything is covered once before a second seed
    settings = Settings(NOWHERE, tmp_path / "kept", processes)
    append(settings.kept, line("a"))
    append(settings.kept, unanswered("b"))
    made = []
    lines = run(jobs, settings, lambda job, settings: made.append(job.key) or make(job, settings))
    assert sorted(made) == sorted(job.key for job in jobs[2:])
    assert [each.key for each in lines] == [job.key for job in jobs]
    assert {each.key for each in read(settings.kept)} == {job.key for job in jobs}
    assert run(jobs, settings, None) == lines


def test_no_fit_begins_when_the_time_is_over(tmp_path, capsys):
    assert run(plan([Entry("a", "shapes")], ["auto"], [0]), Settings(NOWHERE, tmp_path / "kept", minutes=-1)) == []
    assert "Stopped after -1 min with 1 fits to make" in capsys.readouterr().out


def test_a_process_that_fails_or_is_late_leaves_a_line(tmp_path):
    jobs = [plan([Entry(name, "shapes")], ["auto"], [0])[0] for name in ("unheard of", "banana")]
    settings = Settings(NOWHERE, tmp_path / "kept")
    (failed,) = run(jobs[:1], settings)
    (late,) = run(jobs[1:], settings._replace(limit=0.01))
    assert "ValueError: There is no unheard of" in failed.ended
    assert late.ended == "ended after 0 s"
    assert failed.error == late.error == math.inf
    assert set(failed.run) == {"commit", "date", "versions", "machine", "processes", "load"}


def test_without_folders_there_are_the_shapes():
    found = entries(NOWHERE)
    assert [entry.name for entry in found] == list(shapes()) == list(ANSWERS)
    assert choose(found, ["banana"]) == [Entry("banana", "shapes")]
    with pytest.raises(ValueError, match="There is no cow"):
        choose(found, ["cow"])


# -- judging ---------------------------------------------------------------------------------------------------------


def test_errors_are_those_that_were_made():
    rng = np.random.default_rng(0)
    draws = np.append(rng.normal([1, 2], [1, 3], (20_000, 2)), rng.integers(0, 2, (20_000, 1)), axis=1)
    reference = of_draws(["a", "b", "switch"], draws, "draws")
    assert np.isnan(reference.quantiles[:, 2]).all()
    np.testing.assert_allclose(reference.mean_error[:2], 20_000**-0.5, rtol=0.1)
    np.testing.assert_allclose(reference.sd_error[:2], 40_000**-0.5, rtol=0.1)
    values = np.append(rng.normal([1.5, 2], [1, 6], (50_000, 2)), rng.integers(0, 2, (50_000, 1)), axis=1)
    found = judge(reference, values)
    assert (found.mean.quantity, found.sd.quantity) == ("a", "b")
    assert found.sd.raw == pytest.approx(1, abs=0.05)
    assert found.mean.raw == pytest.approx(0.5, abs=0.03)
    assert found.mean.raw - found.mean.beyond == pytest.approx(2 * found.mean.reference)
    assert found.high.quantity == "b"
    assert found.high.raw == pytest.approx(1.645, abs=0.05)
    assert found.worst_content == pytest.approx(1, abs=0.01)  # 90 % of N(2, 6) hold 99.9 % of N(2, 3)
    assert 0.85 < found.content < found.worst_content


@pytest.mark.usefixtures("x64")
def test_estimates_are_as_near_as_their_errors_say():
    """A reference with an error of its own; errors that are not known do not count."""
    reference = of_draws(["a", "b", "c"], np.random.default_rng(0).standard_normal((4000, 3)), "draws")
    ones, zeros = np.ones(3), np.zeros(3)
    error = np.array([0.1, 0.1, np.nan])
    found = Estimates(
        mean=reference.mean + np.array([0.1, 0.3, 0.0]),
        sd=reference.sd,
        quantiles=reference.quantiles + np.array([[0.1, 0.1, 0.1], [1.0, 1.0, 1.0]]),
        mean_error=error,
        sd_error=zeros,
        quantile_errors=np.stack([0.1 * ones, 0.1 * ones]),
    )
    assert count_covered(reference, found) == {"mean": [1, 2], "sd": [3, 3], "5 %": [3, 3], "95 %": [0, 3]}


@pytest.mark.parametrize("name", [name for name, answer in ANSWERS.items() if answer.draw is not None])
def test_draws_of_a_shape_have_its_moments(name):
    shape = shapes()[name]
    reference = of_shape(name, shape)
    found = judge(reference, reference.draws)
    assert found.mean.raw < 0.02
    assert found.sd.raw < 0.05  # of bent tails, which few draws reach
    assert found.content is None or found.content == pytest.approx(0.9, abs=1e-3)


EVIDENCE = {
    "a Gaussian": (gaussian, DIM, LOG_EVIDENCE),
    **{name: (shapes()[name].logprob, shapes()[name].dim, ANSWERS[name].log_evidence) for name in BRIDGED},
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", EVIDENCE)
def test_the_bridge_finds_the_evidence(name):
    logprob, dim, exact = EVIDENCE[name]
    rng = np.random.default_rng(0)
    x = ANSWERS[name].draw(rng, 10_000) if name in ANSWERS else rng.multivariate_normal(MEAN, COVARIANCE, 10_000)
    value, error = evidence.by_bridge(Problem(make_parameters(dim), None, logprob), x)
    assert 0 < error < 0.1
    assert value == pytest.approx(exact, abs=4 * error)


# -- truth and pages -------------------------------------------------------------------------------------------------

TRUTH = {  # fits, and those within 0.05, 0.1 and 0.2
    ("bbvi's verdict", "reliable"): (3, 2, 2, 2),
    ("bbvi's verdict", "unreliable"): (2, 1, 1, 1),
    ("bbvi's verdict", "no answer"): (1, 0, 0, 0),
    ("k-hat of q alone", "below 0.5"): (1, 1, 1, 1),
    ("k-hat of q alone", "0.5 to 0.7"): (1, 0, 0, 0),
    ("k-hat of q alone", "above 0.7"): (3, 2, 2, 2),
    ("k-hat of q alone", "no answer"): (1, 0, 0, 0),
    ("NumPyro SVI, full rank", "nothing"): (1, 0, 0, 0),
    ("NumPyro NUTS", "converged"): (1, 1, 1, 1),
}


def test_the_truth_is_counted():
    found = {
        (claim.by, claim.says): (len(claim.lines), *(claim.within(each) for each in (0.05, 0.1, 0.2)))
        for claim in claims(MADE_UP)
    }
    assert found == TRUTH
    assert [each.posterior for each in false_claims(MADE_UP)] == ["a lie"]
    table = truth_table(MADE_UP)
    alarms = table.titles.index("false alarms")
    assert {(row[0].text, row[1].text): row[alarms].text for row in table.rows if row[alarms].text} == {
        ("bbvi's verdict", "unreliable"): "1",
        ("k-hat of q alone", "above 0.7"): "2",
    }


def test_what_falls_short_is_named():
    assert {row.posterior for row in overview(MADE_UP) if row.falls_short} == {"a lie", "an alarm", "far off", "slow"}
    assert all(note.endswith(".") for note in read_notes().values())


def test_the_page_of_markdown_says_it_all():
    text = page.make_page(MADE_UP, {"slow": "It is slow."})
    assert "further off than 0.2 sd or 20 %, beyond two standard errors of the reference: a lie (seed 0, 0.30)." in text
    assert (
        "has 8 fits of 5 posteriors, made from 2020-01-01 00:00 to 2020-01-01 00:00 (UTC) at abc on a <m"
        in " ".join(text.split())
    )
    assert "- slow (no answer): It is slow." in text
    assert "- a lie (reliable): a mean off by 0.300 sd (theta[1]), an sd by 1.0 % (tau); no note" in text
    assert "| 8 | abc | 2020-01-01 00:00 |" in text
    assert "| right | -3.010 | 0.0010 | +0.0100 | 0.0100 | -0.190 | -0.190 |" in text
    assert max(map(len, (part for part in text.splitlines() if not part.startswith("|")))) <= 120


def test_the_page_of_html_needs_nothing_else():
    text = html.make_page(MADE_UP, {})
    assert text.count("<svg") == 2
    assert "a &lt;machine&gt;" in text
    assert not re.search(r"(?:src|href)=\"(?!#)|@import|url\((?!#)", text)
    assert 'data-value="Infinity"' in text


@pytest.mark.parametrize("name", ["picture.png", "picture.svg"])
def test_the_picture_is_drawn(name, tmp_path):
    pictures.write(MADE_UP, tmp_path / name)
    assert (tmp_path / name).stat().st_size > 1000


def test_pages_are_written_from_the_kept_file(tmp_path):
    for each in MADE_UP:
        append(tmp_path / "kept", each)
    options = [f"--{name}={tmp_path / 'pages' / name}" for name in ("page", "html")]
    assert command.main([f"--kept={tmp_path / 'kept'}", *options]) == MADE_UP
    assert len(list((tmp_path / "pages").iterdir())) == 2


# -- fits ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_of_ten_fits_none_is_falsely_reliable(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = command.main(["--quick"])
    assert len(lines) >= 8  # those that need no folder
    assert [each.ended for each in lines if each.ended] == []
    assert false_claims(lines) == []
    assert sum(each.status == "reliable" for each in lines) >= 6
