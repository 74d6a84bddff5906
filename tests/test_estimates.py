"""Monte Carlo standard errors: over many sets of draws, estimates vary by as much as they say."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtri
from scipy.stats import norm

import bbvi
from bbvi.diagnostics.estimates import estimate

PROBABILITIES = (0.05, 0.5, 0.95)
TRUTH = np.array([0.0, 1.0, *ndtri(PROBABILITIES)])  # of a standard normal: mean, sd, quantiles
SETS, DRAWS = 300, 2000


def independent(rng):
    return rng.standard_normal(DRAWS), np.full(DRAWS, 1 / DRAWS), np.arange(DRAWS)


def weighted(rng):
    """Draws of a wider and shifted normal."""
    x = 0.5 + 1.5 * rng.standard_normal(DRAWS)
    weights = norm.pdf(x) / norm.pdf(x, 0.5, 1.5)
    return x, weights / weights.sum(), np.arange(DRAWS)


def copied(rng):
    """Each draw as eight copies, which lie far from one another and share a weight."""
    x, weights, units = (each[: DRAWS // 8] for each in weighted(rng))
    return np.tile(x, 8), np.tile(weights, 8) / (8 * weights.sum()), np.tile(units, 8)


def chains(rng):
    """64 autoregressive chains, one step of all after the other."""
    steps, chains = 128, 64
    x = np.empty((steps, chains))
    x[0] = rng.standard_normal(chains)
    for i in range(1, steps):
        x[i] = 0.9 * x[i - 1] + np.sqrt(1 - 0.9**2) * rng.standard_normal(chains)
    n = x.size
    return x.ravel(), np.full(n, 1 / n), np.arange(n) % chains


@pytest.mark.parametrize("kind", [independent, weighted, copied, chains])
def test_errors_are_as_large_as_they_say(kind):
    rng, scores = np.random.default_rng(0), []
    for _ in range(SETS):
        x, weights, units = kind(rng)
        found = estimate(x[:, None], weights, units, PROBABILITIES)
        values = np.concatenate([found.mean, found.sd, found.quantiles[:, 0]])
        errors = np.concatenate([found.mean_error, found.sd_error, found.quantile_errors[:, 0]])
        scores.append((values - TRUTH) / errors)
    # Of 300 scores the standard deviation is known to 4 %; an error of an error adds to it.
    np.testing.assert_allclose(np.std(scores, axis=0), 1, atol=0.2)
    within = np.mean(np.abs(scores) < ndtri(0.95), axis=0)
    assert (within > 0.83).all(), within  # nominal: 0.9, with a standard error of 0.017


def test_columns_do_not_mix_and_draws_of_no_weight_do_not_count():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((500, 3)) * [1, 10, 100]
    even = np.full(500, 1 / 500)
    alone = [estimate(x[:, [i]], even, np.arange(500), PROBABILITIES) for i in range(3)]
    padded = np.concatenate([x, np.full((20, 3), np.inf)])
    together = estimate(padded, np.append(even, np.zeros(20)), np.arange(520), PROBABILITIES)
    for name, values in together._asdict().items():
        expected = np.concatenate([getattr(each, name) for each in alone], axis=-1)
        np.testing.assert_allclose(values, expected, err_msg=name)


def test_columns_may_be_of_any_type_and_errors_are_unknown_where_they_cannot_be_told():
    x = np.random.default_rng(2).random((400, 1)) < 0.3
    even, apart = np.full(400, 1 / 400), np.arange(400)
    found = estimate(x, even, apart, PROBABILITIES)
    assert found.mean == pytest.approx(x.mean())
    assert found.mean_error == pytest.approx((x.var() / 399) ** 0.5)
    alone = estimate(x, even, 0 * apart, PROBABILITIES)
    nothing = estimate(x, 0 * even, apart, PROBABILITIES)
    for unknown in (alone.mean_error, alone.sd_error, alone.quantile_errors, *nothing):
        assert np.isnan(unknown).all()
    assert alone.mean == pytest.approx(x.mean())
    assert nothing.effective_sample_size == 0


def test_errors_of_a_posterior_are_those_of_its_draws_and_not_known_without_trust():
    gaussian = bbvi.fit(lambda p: -0.5 * p["a"] ** 2 - jnp.sum(p["b"] ** 2), {"a": (), "b": (2,)})
    table, n = gaussian.table(), gaussian.diagnosis.num_draws
    np.testing.assert_allclose(table["mcse_mean"], table["sd"] / n**0.5, rtol=0.05)
    np.testing.assert_allclose(table["mcse_sd"], table["sd"] / (2 * n) ** 0.5, rtol=0.1)
    assert list(table.columns[5:]) == [f"mcse_{title}" for title in table.columns[:5]]
    summary = gaussian.summary(round_to="none")
    np.testing.assert_allclose(summary["mcse_mean"], table["mcse_mean"], rtol=1e-6)
    np.testing.assert_allclose(summary["mean"], table["mean"], rtol=1e-6)
    assert list(gaussian.summary(var_names=["b"]).index) == ["b[0]", "b[1]"]
    assert "r_hat" in gaussian.summary(kind="all")
    assert list(gaussian.summary(ci_kind="hdi", round_to=2).columns) == ["mean", "sd", "hdi89_lb", "hdi89_ub"]

    cauchy = bbvi.fit(lambda x: -jnp.sum(jnp.log1p(x**2)), 2, method="laplace")
    assert cauchy.table().filter(like="mcse").isna().all(axis=None)
    assert cauchy.table()[["mean", "sd"]].notna().all(axis=None)
