"""`fit` with no options against reference draws of real posteriors (posteriordb); skipped where it is not at hand."""

import pytest

import bbvi
from benchmarks import posteriordb
from benchmarks.accuracy import errors
from benchmarks.posteriordb.ports import find_deviations

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
def test_means_and_sds(name, posteriordb_folder):
    case = posteriordb.load(posteriordb_folder, name)
    reference = posteriordb.reference_draws(posteriordb_folder, name)
    assert reference is not None
    posterior = bbvi.fit(case.logprob, case.shapes, data=case.data, constraints=case.constraints)
    mean_error, sd_error = errors(case, reference, posterior)
    assert posterior.diagnosis.trusted
    assert mean_error < 0.08  # in reference standard deviations; both sides have Monte Carlo error
    assert sd_error < 0.08
