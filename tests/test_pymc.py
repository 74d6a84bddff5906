"""PyMC models; skipped where PyMC is not installed, since it has requirements of its own (`bbvi[pymc]`)."""

import jax.numpy as jnp
import numpy as np
import pytest
from coming_from import assert_as_printed, blocks, run
from jax.scipy.stats import cauchy, norm

import bbvi
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters

pymc = pytest.importorskip("pymc")
pytestmark = pytest.mark.filterwarnings("ignore")  # PyMC and PyTensor warn of their own matters

Y = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])
SIGMA = np.array([15.0, 10, 16, 11, 9, 11, 10, 18])


@pytest.fixture(scope="module")
def schools():
    with pymc.Model(coords={"school": list("ABCDEFGH")}) as model:
        sigma = pymc.Data("sigma", SIGMA, dims="school")
        mu, tau = pymc.Normal("mu", 0, 5), pymc.HalfCauchy("tau", 5)
        raw = pymc.Normal("raw", 0, 1, dims="school")
        theta = pymc.Deterministic("theta", mu + tau * raw, dims="school")
        pymc.Normal("y", theta, sigma, observed=Y, dims="school")
    return model


@pytest.fixture(scope="module")
def posterior(schools):
    return bbvi.fit(bbvi.from_pymc(schools))


def test_the_density_is_the_one_written_by_hand(schools, x64):
    def by_hand(v):
        tau = jnp.exp(v["tau_log__"])
        prior = norm.logpdf(v["mu"], 0, 5) + jnp.log(2) + cauchy.logpdf(tau, 0, 5) + v["tau_log__"]
        prior += norm.logpdf(v["raw"]).sum()
        return prior + norm.logpdf(Y, v["mu"] + tau * v["raw"], SIGMA).sum()

    model = bbvi.from_pymc(schools)
    parameters = make_parameters(model.dim)
    xs = np.random.default_rng(0).normal(size=(5, 10))
    ours, theirs = (Problem(parameters, None, f).values_and_gradients(xs) for f in (model.logprob, by_hand))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-7)  # PyMC has some constants in single precision


def test_names_dims_and_coords_are_carried_over(posterior):
    tree = posterior.to_arviz(100)
    assert posterior.diagnosis.trusted
    assert set(tree.posterior.data_vars) == {"mu", "tau", "raw", "theta"}
    assert list(tree.posterior["school"].values) == list("ABCDEFGH")
    assert tree.log_likelihood["y"].dims == ("chain", "draw", "school")
    draws = posterior.sample(100)
    np.testing.assert_allclose(draws["theta"], draws["mu"][:, None] + draws["tau"][:, None] * draws["raw"])
    expected = norm.logpdf(Y, tree.posterior["theta"].values, SIGMA)
    np.testing.assert_allclose(tree.log_likelihood["y"], expected, rtol=1e-5)
    assert "tau_log__" not in str(posterior)
    assert posterior.mean()["mu"] == pytest.approx(4.4, abs=0.3)  # the reference draws of posteriordb


def test_prediction_keeps_the_posterior_draws(posterior, schools):
    draws = posterior.sample(4000)
    made = posterior.predict(num_samples=4000).posterior_predictive["y"]
    np.testing.assert_allclose(made.mean(("chain", "draw")), draws["theta"].mean(axis=0), atol=1.0)
    precise = posterior.predict(num_samples=4000, sigma=SIGMA / 1000)
    np.testing.assert_allclose(precise.predictions["y"], precise.posterior["theta"], atol=0.2)
    np.testing.assert_array_equal(schools["sigma"].get_value(), SIGMA)  # put back
    with pytest.raises(ValueError, match="Did you mean 'sigma'"):
        posterior.predict(sigmas=SIGMA)


def test_prediction_for_another_number_of_rows():
    x = np.linspace(-1, 1, 30)
    with pymc.Model() as model:
        rows = pymc.Data("x", x)
        a, b = pymc.Normal("a"), pymc.Normal("b")
        observed = 1 + 2 * x + 0.1 * np.random.default_rng(0).normal(size=30)
        pymc.Normal("y", a + b * rows, 0.1, observed=observed, shape=rows.shape)
    posterior = bbvi.fit(bbvi.from_pymc(model))
    made = posterior.predict(x=np.array([0.0, 10.0])).predictions["y"][0].mean("draw")
    np.testing.assert_allclose(made, [1, 21], atol=0.5)


def test_the_model_of_the_page_for_those_who_come_from_pymc():
    (model,), (here,) = blocks("py", "pymc.Model"), blocks("py", "from_pymc")
    names = run(model, here)
    assert names["posterior"].diagnosis.trusted
    assert_as_printed(names["posterior"])
    assert names["idata"].posterior["a"].dims == ("chain", "draw", "rail")


def test_models_that_cannot_be_fitted():
    with pymc.Model() as discrete:
        pymc.Poisson("k", 3.0)
    with pytest.raises(ValueError, match="k are discrete"):
        bbvi.from_pymc(discrete)
    with pymc.Model() as empty:
        pymc.Normal("y", 0, 1, observed=1.0)
    with pytest.raises(ValueError, match="no free variable"):
        bbvi.from_pymc(empty)
    with pytest.raises(TypeError, match=r"must be a pymc\.Model"):
        bbvi.from_pymc(3)


def test_a_model_starts_at_draws_of_its_prior():
    with pymc.Model() as model:
        level = pymc.Normal("level", 300.0, 2.0)
        scale = pymc.LogNormal("scale", 3.0, 0.1)
        pymc.Potential("near", pymc.math.switch(level > 250, -0.5 * (305.0 - level) ** 2, -np.inf))
        pymc.Normal("y", 0.0, scale, observed=np.zeros(3))
    fitted = bbvi.from_pymc(model)
    draws = fitted.prior(0, 500)
    assert draws["level"].mean() == pytest.approx(300, abs=0.5)
    assert draws["scale_log__"].std() == pytest.approx(0.1, abs=0.02)
    assert bbvi.fit(fitted, method="newton").mean()["level"] == pytest.approx(304, abs=0.1)
