"""`fit` with no options against reference draws of real posteriors (posteriordb); skipped where it is not at hand."""

import pytest

import bbvi
from benchmarks import posteriordb
from benchmarks.posteriordb.ports import find_deviations
from benchmarks.record.judging import judge
from benchmarks.record.posteriors import Entry, Folders, open_subject

NAMES = [
    "eight_schools-eight_schools_noncentered",
    "earnings-earn_height",  # the covariance has a condition number of 2e11
    "kilpisjarvi_mod-kilpisjarvi",  # and this one 7e11
    "nes1980-nes",
    "low_dim_gauss_mix-low_dim_gauss_mix",
    "sblrc-blr",
]


def test_the_reference_draws_are_of_these_densities(posteriordb_folder):
    """By two identities for the gradient; one posterior for each model, in standard errors."""
    chosen = {name.rsplit("-", 1)[-1]: name for name in posteriordb.names(posteriordb_folder)}
    found = {model: find_deviations(posteriordb_folder, name) for model, name in chosen.items()}
    proven = {model: each for model, each in found.items() if each is not None}
    assert len(proven) >= 20
    assert {model: each for model, each in proven.items() if max(each.gradient, each.product) > 5} == {}


@pytest.mark.parametrize("name", NAMES)
def test_means_and_sds(name, posteriordb_folder, tmp_path):
    subject = open_subject(Entry(name, "posteriordb"), Folders(str(posteriordb_folder), None, str(tmp_path)))
    case = subject.case
    posterior = bbvi.fit(case.logprob, case.shapes, data=case.data, constraints=case.constraints)
    errors = judge(subject.reference(), subject.values(posterior.sample(10_000)))
    assert posterior.diagnosis.trusted
    assert errors.mean.raw < 0.08  # in reference standard deviations; both sides have Monte Carlo error
    assert errors.sd.raw < 0.08
