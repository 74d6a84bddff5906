"""Checks beyond the verdict, by closed forms: bounds, Stein test, bridge sampling, evidence, calibration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import betaln, gammaln
from jax.scipy.stats import norm
from numpyro.distributions import constraints
from scipy import stats

import bbvi
from bbvi.diagnostics.bounds import find_bounds
from bbvi.diagnostics.stein import stein_kernel, stein_test
from bbvi.draws.bridge import bridge

RNG = np.random.default_rng(0)
N = 200_000


def gaussians(mean, sd):
    """Draws of q = N(0, 1) in one dimension and log weights of p = N(mean, sd^2) with evidence e^2."""
    x = RNG.standard_normal((N, 1))
    return x, 2 + stats.norm.logpdf(x[:, 0], mean, sd) - stats.norm.logpdf(x[:, 0])


# mean and sd of p; D = log E_q[w^2] of a shift by m is m^2
CASES = {"shifted": (0.1, 1.0), "far": (0.5, 1.0), "narrow": (0.0, 0.8), "both": (0.2, 0.9)}


@pytest.mark.parametrize("name", CASES)
def test_bounds_hold_and_are_not_loose(name):
    mean, sd = CASES[name]
    bounds = find_bounds(*gaussians(mean, sd))
    assert abs(mean) <= bounds.mean[0] + 1e-3
    assert abs(sd - 1) <= bounds.sd[0]
    assert bounds.elbo.value < 2 < bounds.cubo.value + 3 * bounds.cubo.standard_error
    assert abs(bounds.log_evidence.value - 2) < 5 * bounds.log_evidence.standard_error
    if name == "shifted":
        assert bounds.mean[0] == pytest.approx(np.expm1(0.01) ** 0.5, rel=0.05)  # 0.1002: the bound is sharp


def test_bounds_of_all_coordinates_together():
    """p = N(m, S) with q = N(0, I) in three dimensions: W_2 of Gaussians is known, and the covariance."""
    mean, sds = np.array([0.1, 0.0, -0.1]), np.array([0.9, 1.0, 0.95])
    x = RNG.standard_normal((N, 3)) @ np.diag([1.0, 10.0, 0.1])  # the bounds do not depend on units
    z = x / [1.0, 10.0, 0.1]
    log_weights = (stats.norm.logpdf(z, mean, sds) - stats.norm.logpdf(z)).sum(axis=1)
    bounds = find_bounds(x, log_weights)
    exact = (np.sum(mean**2) + np.sum((sds - 1) ** 2)) ** 0.5
    assert np.linalg.norm(mean) < bounds.wasserstein[0]
    assert exact < bounds.wasserstein[1]
    assert np.abs(sds**2 - 1).max() < bounds.covariance
    whitened = find_bounds(z, log_weights)
    np.testing.assert_allclose(whitened.wasserstein, bounds.wasserstein, rtol=1e-6)


def test_there_is_no_bound_where_the_weights_have_no_variance():
    x = RNG.standard_normal((N, 1))
    bounds = find_bounds(x, stats.t.logpdf(x[:, 0], 3) - stats.norm.logpdf(x[:, 0]))
    assert bounds.cubo.value == np.inf
    assert np.isinf(bounds.mean).all()


def test_the_stein_kernel_is_that_of_its_definition(x64):
    """u = (grad_x + s_x) . (grad_y + s_y) k, differentiated by JAX."""
    kernel = lambda x, y: (1 + jnp.sum((x - y) ** 2)) ** -0.5
    x, s = RNG.standard_normal((2, 4, 3))

    def by_hand(i, j):
        a, b = jax.grad(kernel, 0)(x[i], x[j]), jax.grad(kernel, 1)(x[i], x[j])
        mixed = jnp.trace(jax.jacfwd(jax.grad(kernel, 0), 1)(x[i], x[j]))
        return mixed + s[i] @ b + s[j] @ a + s[i] @ s[j] * kernel(x[i], x[j])

    expected = [[float(by_hand(i, j)) for j in range(4)] for i in range(4)]
    np.testing.assert_allclose(stein_kernel(x, s), expected, rtol=1e-10, atol=1e-12)


def test_the_stein_test_knows_draws_of_p_from_others():
    draws = RNG.standard_normal((600, 3)) * [1.0, 10.0, 0.1]
    scale = np.array([1.0, 10.0, 0.1])
    assert stein_test(draws, -draws / scale**2, np.random.default_rng(0)).p_value > 0.01
    shifted = draws + 0.3 * scale
    assert stein_test(shifted, -shifted / scale**2, np.random.default_rng(0)).p_value < 0.01
    p_values = [
        stein_test(x, -x, np.random.default_rng(1)).p_value for x in np.random.default_rng(2).normal(size=(200, 100, 2))
    ]
    assert 0.02 < np.mean(np.array(p_values) < 0.1) < 0.2  # about a tenth


def test_bridge_sampling_finds_the_evidence_of_a_heavy_tail():
    """p is a Student t with 3 degrees of freedom, times e^5; importance sampling from N(0, 1) has no variance."""
    log_ratio = lambda x: 5 + stats.t.logpdf(x, 3) - stats.norm.logpdf(x)
    found = np.array(
        [
            bridge(log_ratio(rng.standard_t(3, 4000)), log_ratio(rng.standard_normal(4000)), 4000)
            for rng in map(np.random.default_rng, range(100))
        ]
    )
    values, errors = found.T
    assert abs(values.mean() - 5) < 5 * values.std() / 10
    np.testing.assert_allclose(np.median(errors), values.std(), rtol=0.25)


ROWS = 20
X = np.column_stack([np.ones(ROWS), np.linspace(-1, 1, ROWS)])
Y = X @ [1.0, 2.0] + 0.5 * RNG.standard_normal(ROWS)
A, B = 3.0, 2.0


def regression(p):
    """sigma^2 ~ InverseGamma(A, B), beta ~ N(0, sigma^2 I), y ~ N(X beta, sigma^2)."""
    variance = p["variance"]
    prior = A * jnp.log(B) - gammaln(A) - (A + 1) * jnp.log(variance) - B / variance
    prior += norm.logpdf(p["beta"], 0, jnp.sqrt(variance)).sum()
    return prior + norm.logpdf(Y, X @ p["beta"], jnp.sqrt(variance)).sum()


def regression_evidence():
    precision = np.eye(2) + X.T @ X
    mean = np.linalg.solve(precision, X.T @ Y)
    a, b = A + ROWS / 2, B + 0.5 * (Y @ Y - mean @ precision @ mean)
    constant = -ROWS / 2 * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(precision)[1]
    return constant + A * np.log(B) - a * np.log(b) + float(gammaln(a) - gammaln(A))


def beta_binomial(p):
    """theta ~ Beta(2, 3); 7 of 10."""
    theta = p["theta"]
    return -betaln(2.0, 3.0) + 8 * jnp.log(theta) + 5 * jnp.log1p(-theta)


EVIDENCE = {
    "normal-inverse-gamma": (
        regression,
        {"beta": 2, "variance": ()},
        {"variance": constraints.positive},
        regression_evidence(),
    ),
    "beta-binomial": (
        beta_binomial,
        {"theta": ()},
        {"theta": constraints.unit_interval},
        float(betaln(9.0, 6.0) - betaln(2.0, 3.0)),
    ),
}


@pytest.mark.parametrize("name", EVIDENCE)
def test_evidence_of_conjugate_models(name):
    logprob, dim, constraint, exact = EVIDENCE[name]
    posterior = bbvi.fit(logprob, dim, constraints=constraint, method="newton")
    quick, full = posterior.diagnosis.log_evidence, posterior.diagnose(level="full")
    for value in (quick, full.bounds.log_evidence):
        assert abs(value.value - exact) < 5 * value.standard_error + 1e-6
    assert full.bounds.elbo.value < exact < full.bounds.cubo.value + 3 * np.nan_to_num(full.bounds.cubo.standard_error)
    assert set(full.k_hat) == ({"beta[0]", "beta[1]", "variance"} if "beta" in dim else {"theta"})
    assert "Stein test" in str(full)


def test_bridge_from_nuts():
    logprob, dim, constraint, exact = EVIDENCE["normal-inverse-gamma"]
    posterior = bbvi.fit(logprob, dim, constraints=constraint, method="laplace")
    found = posterior.bridge(posterior.to_nuts(300, num_warmup=100, num_chains=4))
    assert abs(found.value - exact) < 5 * found.standard_error
    assert found.standard_error < 0.1


def test_the_stein_test_tells_a_poor_fit():
    banana = lambda x: -0.5 * (x[0] / 2) ** 2 - 0.5 * (x[1] - x[0] ** 2) ** 2
    poor = bbvi.fit(banana, 2, method="newton").diagnose(level="full")
    assert poor.stein.p_value < 0.01
    assert "differs from the posterior" in str(poor)
    assert "no bound" in str(poor)


def test_levels_of_diagnose(tmp_path):
    posterior = bbvi.fit(lambda x: -0.5 * jnp.sum(x**2), 2, method="newton")
    assert posterior.diagnose() is posterior.diagnosis
    with pytest.raises(ValueError, match="Known: quick, full"):
        posterior.diagnose(level="fast")
    posterior.save(tmp_path / "fit.npz")
    for ask in (lambda p: p.diagnose(level="full"), lambda p: p.bridge(None)):
        with pytest.raises(ValueError, match="logprob="):
            ask(bbvi.load(tmp_path / "fit.npz"))


# Calibration


def correlated(beta, data):
    """beta ~ N(0, I); y ~ N(X beta, 1), with columns that are nearly the same."""
    return -0.5 * jnp.sum(beta**2) - 0.5 * jnp.sum((data["y"] - data["x"] @ beta) ** 2)


def simulate_rows(rng, beta):
    x = rng.normal(size=(20, 1)) + 0.3 * rng.normal(size=(20, 2))
    return {"x": x, "y": x @ beta + rng.normal(size=20)}


def calibrate(**options):
    return bbvi.calibrate(lambda rng: rng.normal(size=2), simulate_rows, correlated, 2, **options)


def test_a_conjugate_model_is_calibrated():
    found = calibrate(resample=False)
    assert found.passed
    assert found.statuses == {bbvi.Status.RELIABLE: 256}
    assert set(found.pit) == {"x[0]", "x[1]"}
    assert "calibrated, as far" in str(found)


def test_a_mean_field_fit_of_correlated_parameters_is_not():
    """Its standard deviations are too small: the probabilities heap at both ends."""
    found = calibrate(family="mean_field", resample=False)
    assert not found.passed
    assert all(values.std() * 12**0.5 > 1.15 for values in found.pit.values())
    assert min(found.symmetry.values()) > 0.001  # but its means are right
    assert "not calibrated" in str(found)
    figure = found.plot()
    assert len([axes for axes in figure.axes if axes.get_title()]) == 2
    assert "<svg" in found._repr_html_()
