"""`fit_many`: each fit is the single fit of its data, and none disturbs another."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import constraints

import bbvi

FITS, ROWS = 300, 30  # more than one chunk, and a last one that is not full
RNG = np.random.default_rng(0)
Y = RNG.normal(RNG.normal(0, 2, (FITS, 1)), 1.0, (FITS, ROWS))


def gaussian(p, data):
    """mu ~ N(0, 2); rows ~ N(mu, 1)."""
    return -0.5 * (p["mu"] / 2) ** 2 - 0.5 * jnp.sum((data["y"] - p["mu"]) ** 2)


def scaled(p, data):
    """The same with an unknown standard deviation."""
    centred = (data["y"] - p["mu"]) / p["sigma"]
    return -0.5 * p["mu"] ** 2 / 4 - p["sigma"] - 0.5 * jnp.sum(centred**2) - ROWS * jnp.log(p["sigma"])


@pytest.fixture(scope="module")
def conjugate():
    return bbvi.fit_many(gaussian, {"mu": ()}, {"y": Y}, labels=[f"shop {i}" for i in range(FITS)], coord="shop")


@pytest.fixture(scope="module")
def scales():
    return bbvi.fit_many(scaled, {"mu": (), "sigma": ()}, {"y": Y[:4]}, constraints={"sigma": constraints.positive})


def test_a_conjugate_model_has_its_closed_form(conjugate):
    precision = ROWS + 1 / 4
    error = (conjugate.mean()["mu"] - Y.sum(axis=1) / precision) * precision**0.5
    assert np.abs(error).max() < 0.15  # standard deviations; 1280 draws each
    assert np.abs(error.mean()) < 0.01  # the errors of different fits are independent
    np.testing.assert_allclose(conjugate.sd()["mu"], precision**-0.5, rtol=0.12)
    exact = -0.5 * np.sum(Y**2, axis=1) + 0.5 * Y.sum(axis=1) ** 2 / precision + 0.5 * np.log(2 * np.pi / precision)
    evidence = np.array([each.log_evidence.value for each in conjugate.diagnoses])
    np.testing.assert_allclose(evidence, exact, atol=0.02)


def test_a_mean_field_gaussian_has_its_closed_form():
    """Its precision is the diagonal of the posterior's; importance weights put right what it leaves out."""
    precision = np.array([[4.0, 0.4], [0.4, 1.0]])
    means = RNG.normal(0, 3, (3, 2))
    logprob = lambda x, mean: -0.5 * (x - mean) @ precision @ (x - mean)
    found = bbvi.fit_many(logprob, 2, means, family="mean_field")
    assert {each.num_draws for each in found.diagnoses} == {320}  # those of the first round
    for one, mean in zip(found, means, strict=True):
        np.testing.assert_allclose(one.distribution.mean(), mean, atol=0.1)
        np.testing.assert_allclose(one.distribution.sd(), np.diag(precision) ** -0.5, rtol=0.02)
        np.testing.assert_allclose(one.sd(), np.diag(np.linalg.inv(precision)) ** 0.5, rtol=0.08)


def test_each_has_its_own_verdict_and_is_a_posterior(conjugate):
    assert len(conjugate) == len(list(conjugate.diagnoses)) == FITS
    assert {each.status for each in conjugate.diagnoses} == {bbvi.Status.RELIABLE}
    one = conjugate[-1]
    assert isinstance(one, bbvi.Posterior)
    assert one.mean()["mu"] == pytest.approx(conjugate.mean()["mu"][-1], rel=1e-12)
    assert one.diagnosis == conjugate.diagnoses[-1]
    assert one.sample(10)["mu"].shape == (10,)
    assert conjugate.at("shop 7").mean() == conjugate[7].mean()
    assert len(conjugate[2:5]) == 3


def test_each_is_what_a_single_fit_gives(scales):
    for i, many in enumerate(scales):
        one = bbvi.fit(scaled, {"mu": (), "sigma": ()}, data={"y": Y[i]}, constraints={"sigma": constraints.positive})
        for name in ("mu", "sigma"):
            assert many.mean()[name] == pytest.approx(one.mean()[name], abs=0.12 * one.sd()[name])
            assert many.sd()[name] == pytest.approx(one.sd()[name], rel=0.12)


def test_what_a_fit_gives_does_not_depend_on_those_beside_it(conjugate):
    few = bbvi.fit_many(gaussian, {"mu": ()}, {"y": Y[:3]})
    np.testing.assert_allclose(few.mean()["mu"], conjugate.mean()["mu"][:3], rtol=1e-9)


def test_a_fit_that_fails_does_not_touch_the_others():
    broken = Y[:3].copy()
    broken[1, 0] = np.nan
    fits = bbvi.fit_many(gaussian, {"mu": ()}, {"y": broken})
    assert [each.status for each in fits.diagnoses] == [bbvi.Status.RELIABLE, bbvi.Status.FAILED, bbvi.Status.RELIABLE]
    assert np.isfinite(fits.mean()["mu"][[0, 2]]).all()
    assert "1 failed" in str(fits)


def test_rows_may_be_padded():
    def masked(p, data):
        return -0.5 * p["mu"] ** 2 / 4 - 0.5 * jnp.sum(jnp.where(data["there"], data["y"] - p["mu"], 0) ** 2)

    there = np.arange(ROWS) < np.array([[10], [30]])
    fits = bbvi.fit_many(masked, {"mu": ()}, {"y": Y[:2], "there": there})
    np.testing.assert_allclose(fits.sd()["mu"], 1 / np.sqrt(np.array([10, 30]) + 0.25), rtol=0.12)


def test_exports_carry_the_coordinate(conjugate, scales):
    tree = conjugate.to_arviz(20)
    assert dict(tree.posterior["mu"].sizes) == {"chain": 1, "draw": 20, "shop": FITS}
    assert tree.posterior["shop"].values[3] == "shop 3"
    assert set(tree["diagnosis"].data_vars) == {"status", "k_hat", "log_evidence"}
    table = conjugate.table()
    assert list(table.columns) == ["status", "k_hat", "log_evidence", "mu mean", "mu sd"]
    assert table.loc["shop 3", "mu mean"] == conjugate.mean()["mu"][3]
    draws = scales.sample(2000)
    np.testing.assert_allclose(draws["sigma"].mean(axis=1), scales.mean()["sigma"], rtol=0.02)
    assert (draws["sigma"] > 0).all()


MISTAKES = {
    "data is missing": {"data": None},
    "share their leading axis": {"data": {"y": Y, "x": Y[:2]}},
    "holds no fit": {"data": {"y": Y[:0]}},
    "labels must be 300 different names": {"labels": ["a"] * FITS},
    "multiple of 4": {"num_checks": 10},
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes(message):
    with pytest.raises(ValueError, match=message):
        bbvi.fit_many(gaussian, {"mu": ()}, **({"data": {"y": Y}} | MISTAKES[message]))


def test_an_unknown_label_is_told(conjugate):
    with pytest.raises(KeyError, match="shop 299"):
        conjugate.at("shop 2999")
