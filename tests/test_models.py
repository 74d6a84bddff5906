"""Front ends: the densities they make, what a posterior knows of its model, and what they refuse."""

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from coming_from import assert_as_printed, blocks, run
from numpyro.distributions import constraints
from numpyro_models import CASES, POSTERIORDB, X, Y, eight_schools, imputed, masked, mixture
from stan_library import needs_stan, stan_library

import bbvi
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters
from benchmarks import posteriordb

SCHOOLS = {
    "y": np.array([28.0, 8, -3, 7, -1, 1, 18, 12]),
    "sigma": np.array([15.0, 10, 16, 11, 9, 11, 10, 18]),
}
MEANS = {"mu": 4.4, "tau": 3.6}  # of the reference draws of posteriordb, rounded


def problem(model: bbvi.Model) -> Problem:
    return Problem(make_parameters(model.dim, model.constraints), model.data, model.logprob)


def assert_same_density(a: Problem, b: Problem) -> None:
    """At random points the log densities differ by a constant, and the gradients do not."""
    xs = 0.7 * np.random.default_rng(1).standard_normal((6, a.dim))
    (values, gradients, good), (others, other_gradients, _) = (each.values_and_gradients(xs) for each in (a, b))
    assert good.all()
    np.testing.assert_allclose(values - values[0], others - others[0], rtol=1e-9, atol=1e-8)
    np.testing.assert_allclose(gradients, other_gradients, rtol=1e-7, atol=1e-8)


# NumPyro


@pytest.mark.parametrize("name", CASES)
def test_a_numpyro_model_has_the_density_written_by_hand(name, x64):
    if name in ("hidden Markov by scan", "mixture, improper and ordered"):
        pytest.importorskip("funsor")
    case = CASES[name]
    model = bbvi.from_numpyro(case.model, *case.args)
    by_hand = Problem(make_parameters(model.dim, model.constraints), None, case.logprob)
    assert_same_density(problem(model), by_hand)


@pytest.mark.parametrize("name", POSTERIORDB)
def test_a_numpyro_model_has_the_density_of_posteriordb(name, posteriordb_folder, x64):
    case = posteriordb.load(posteriordb_folder, name)
    data = {key: value for key, value in case.data.items() if key in ("y", "sigma", "county", "X")}
    model = bbvi.from_numpyro(POSTERIORDB[name], data)
    assert_same_density(
        problem(model), Problem(make_parameters(case.shapes, case.constraints), case.data, case.logprob)
    )


@pytest.fixture(scope="module")
def hierarchy():
    case = CASES["varying intercepts"]
    return bbvi.fit(bbvi.from_numpyro(case.model, *case.args), method="newton")


def test_sites_and_plates_arrive_in_arviz(hierarchy):
    tree = hierarchy.to_arviz(50)
    assert dict(tree.posterior["mean"].sizes) == {"chain": 1, "draw": 50, "row": 20}
    assert tree.posterior["intercept"].dims[-1] == "group"
    assert tree.log_likelihood["y"].dims[-1] == tree.observed_data["y"].dims[-1] == "row"
    draws = hierarchy.sample(50)
    by_hand = draws["intercept"][:, CASES["varying intercepts"].args[0]] + draws["slopes"] @ X.T
    np.testing.assert_allclose(draws["mean"], by_hand)
    assert set(hierarchy.mean()) == {"mu", "tau", "slopes", "sigma", "intercept", "mean"}
    assert "mean[0]" not in str(hierarchy)  # the table has the parameters


@pytest.mark.filterwarnings("ignore:Estimated shape parameter", "ignore:divide by zero:RuntimeWarning:arviz_stats")
def test_leave_one_out_works_on_the_tree(hierarchy):
    loo = arviz_stats.loo(hierarchy.to_arviz(2000))
    plain = hierarchy.to_arviz(2000, resample=False)
    log_p, log_q = (plain.sample_stats[name].values for name in ("log_p", "log_q"))
    corrected = arviz_stats.loo_approximate_posterior(plain, log_p, log_q)
    assert abs(loo.elpd - corrected.elpd) < loo.se / 2
    draws = hierarchy.sample(50)
    expected = jax.scipy.stats.norm.logpdf(Y, draws["mean"], draws["sigma"][:, None])
    np.testing.assert_allclose(hierarchy.to_arviz(50).log_likelihood["y"][0], expected, rtol=1e-5)


def test_prediction_at_the_data_and_elsewhere(hierarchy):
    tree = hierarchy.predict(num_samples=4000)
    draws = hierarchy.sample(4000)
    spread = np.sqrt(draws["mean"].var(axis=0) + (draws["sigma"] ** 2).mean())
    np.testing.assert_allclose(tree.posterior_predictive["y"][0].std("draw"), spread, rtol=0.1)
    elsewhere = hierarchy.predict(np.array([3, 0]), np.zeros((2, 3)), num_samples=4000)
    assert elsewhere.predictions["y"].shape == (1, 4000, 2)
    np.testing.assert_allclose(elsewhere.predictions["mean"][0], draws["intercept"][:, [3, 0]], atol=1e-6)
    assert "posterior_predictive" not in elsewhere


def test_a_model_with_sums_over_discrete_sites_predicts_too():
    pytest.importorskip("funsor")
    posterior = bbvi.fit(bbvi.from_numpyro(mixture, Y), method="laplace")
    assert posterior.predict(num_samples=20).posterior_predictive["y"].shape == (1, 20, 20)
    assert "log_likelihood" not in posterior.to_arviz(20)  # a row's likelihood is no site's
    with pytest.raises(ValueError, match="which observation"):
        posterior.to_arviz(20, log_likelihood=True)


def test_new_data_compile_nothing_and_update_ends_where_a_new_fit_does():
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 10))
        numpyro.sample("y", dist.Normal(mu, 1), obs=y)

    first = bbvi.fit(bbvi.from_numpyro(model, Y))
    again = bbvi.fit(bbvi.from_numpyro(model, Y + 1))
    assert again.cost.compile_seconds == 0
    updated = first.update(bbvi.from_numpyro(model, Y + 1))
    assert updated.mean()["mu"] == pytest.approx(again.mean()["mu"], abs=0.02)


def test_update_takes_new_data_and_keeps_the_options():
    def logprob(p, data):
        return -0.5 * p["mu"] ** 2 / 100 - 0.5 * jnp.sum((data - p["mu"]) ** 2)

    first = bbvi.fit(logprob, {"mu": ()}, data=Y, method="laplace", seed=3)
    updated = first.update(Y + 1)
    assert updated.method == "laplace"
    assert updated.mean()["mu"] == pytest.approx((Y + 1).sum() / 20.01, abs=0.02)
    assert first.update(Y, method="newton").method == "newton"


def test_a_subsampled_plate_is_run_on_minibatches():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(1000, 2))
    y = (rng.random(1000) < jax.nn.sigmoid(x @ np.array([1.0, -1.0]))).astype(int)

    def model(x, y):
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([2]).to_event(1))
        with numpyro.plate("row", len(x), subsample_size=100):
            rows, labels = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
            numpyro.sample("y", dist.Bernoulli(logits=rows @ beta), obs=labels)

    subsampled = bbvi.fit(bbvi.from_numpyro(model, x, y))
    assert subsampled.method == "advi"
    full = bbvi.fit(bbvi.from_numpyro(model, x, y), method="newton")
    np.testing.assert_allclose(subsampled.mean()["beta"], full.mean()["beta"], atol=0.1 * full.sd()["beta"].max())
    tree = subsampled.predict(num_samples=10)
    assert tree.log_likelihood["y"].shape == tree.posterior_predictive["y"].shape == (1, 10, 1000)
    np.testing.assert_array_equal(tree.observed_data["y"], y)


def test_what_is_missing_is_imputed_and_disturbs_nothing():
    case = CASES["missing observations"]
    posterior = bbvi.fit(bbvi.from_numpyro(imputed, *case.args), method="newton")
    without = bbvi.fit(bbvi.from_numpyro(masked, *case.args), method="newton")
    assert posterior.diagnosis.trusted
    assert posterior.mean()["mu"] == pytest.approx(without.mean()["mu"], abs=0.03)
    assert posterior.sample(10)["y"].shape == (10, 20)
    np.testing.assert_allclose(posterior.sample(10)["y"][:, :15], np.tile(Y[:15], (10, 1)))


def test_a_posterior_of_a_model_is_stored_and_finds_its_model_again(hierarchy, tmp_path):
    hierarchy.save(tmp_path / "fit.npz")
    stored = bbvi.load(tmp_path / "fit.npz")
    np.testing.assert_allclose(stored.mean()["mu"], hierarchy.mean()["mu"])
    assert "mean" not in stored.mean()  # no code is stored
    with pytest.raises(ValueError, match="logprob=model"):
        stored.predict()
    case = CASES["varying intercepts"]
    again = bbvi.load(tmp_path / "fit.npz", logprob=bbvi.from_numpyro(case.model, *case.args))
    np.testing.assert_allclose(again.mean()["mean"], hierarchy.mean()["mean"])


def two_runs():
    if not hasattr(two_runs, "seen"):
        two_runs.seen = True
        return numpyro.sample("a", dist.Normal(0, 1))
    return numpyro.sample("b", dist.Normal(0, 1))


BAD = {
    "no latent site": (
        lambda: numpyro.sample("y", dist.Normal(0, 1), obs=1.0),
        ValueError,
        "no continuous latent",
    ),
    "discrete": (lambda: numpyro.sample("k", dist.Poisson(3.0)), ValueError, "'k' is discrete .Poisson."),
    "improper and discrete": (
        lambda: numpyro.sample("k", dist.ImproperUniform(constraints.nonnegative_integer, (), ())),
        ValueError,
        "'k' is discrete",
    ),
    "mutable": (lambda: numpyro.primitives.mutable("w", 1.0), ValueError, "'w' is a numpyro.mutable"),
    "Delta": (lambda: numpyro.sample("d", dist.Delta(1.0)), ValueError, "'d' has a Delta"),
    "shapes": (
        lambda: numpyro.sample("y", dist.Normal(numpyro.sample("a", dist.Normal(jnp.zeros(3), 1)), 1), obs=jnp.ones(4)),
        ValueError,
        "'y'",
    ),
    "sites that come and go": (two_runs, (KeyError, ValueError), "a"),
    "no model": ("not callable", TypeError, "must be a function"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_numpyro_model_is_refused_by_the_name_of_its_site(name):
    model, kind, message = BAD[name]
    with pytest.raises(kind, match=message):
        bbvi.from_numpyro(model)


def test_fit_takes_a_model_alone():
    model = bbvi.from_numpyro(eight_schools, SCHOOLS)
    with pytest.raises(ValueError, match="brings its own"):
        bbvi.fit(model, 3)
    with pytest.raises(TypeError, match="dim is missing"):
        bbvi.fit(lambda x: -(x**2))


# Functions that JAX cannot trace


PRECISION = np.linalg.inv(np.array([[1.0, 0.8, 0.0], [0.8, 1.0, 0.1], [0.0, 0.1, 2.0]]))


def external(hvp: bool) -> tuple:
    """A correlated Gaussian around the data, in NumPy, and its gradient."""

    def logprob(p, centre):
        assert isinstance(p["x"], np.ndarray)
        deviation = p["x"] - centre
        return -0.5 * deviation @ PRECISION @ deviation - 20 * p["rate"] + 20 * np.log(p["rate"])

    def gradient(p, centre):
        return {"x": -PRECISION @ (p["x"] - centre), "rate": -20 + 20 / p["rate"]}

    def product(p, v, centre):
        return {"x": -PRECISION @ v["x"], "rate": -20 / p["rate"] ** 2 * v["rate"]}

    return logprob, gradient, product if hvp else None


EXTERNAL = {"dim": {"x": 3, "rate": ()}, "constraints": {"rate": constraints.positive}}


def traced(p, centre):
    deviation = p["x"] - centre
    return -0.5 * deviation @ PRECISION @ deviation - 20 * p["rate"] + 20 * jnp.log(p["rate"])


def test_an_external_density_has_the_derivatives_of_the_same_in_jax(x64):
    parameters = make_parameters(**EXTERNAL)
    centre = np.array([1.0, 2.0, 3.0])
    outside = Problem(parameters, centre, bbvi.external(*external(hvp=True)))
    inside = Problem(parameters, centre, traced)
    assert_same_density(outside, inside)
    xs, vs = np.random.default_rng(0).normal(size=(2, 5, 4))
    ours, theirs = (jax.jit(Problem.hessian_vector_products)(each, xs, vs) for each in (outside, inside))
    np.testing.assert_allclose(ours, theirs, rtol=1e-10)


@pytest.mark.parametrize("method", ["auto", "advi", "bam", "laplace", "dadvi"])
def test_methods_take_an_external_density(method):
    posterior = bbvi.fit(bbvi.external(*external(hvp=True)), data=np.array([1.0, 2.0, 3.0]), method=method, **EXTERNAL)
    np.testing.assert_allclose(posterior.mean()["x"], [1, 2, 3], atol=0.1)
    assert posterior.mean()["rate"] == pytest.approx(21 / 20, abs=0.05)


@pytest.mark.parametrize("method", ["laplace", "dadvi"])
def test_methods_that_need_second_derivatives_say_so(method):
    with pytest.raises(TypeError, match=r"give bbvi\.external its hvp="):
        bbvi.fit(bbvi.external(*external(hvp=False)), data=np.zeros(3), method=method, **EXTERNAL)


def test_without_second_derivatives_the_default_does_without():
    wide = bbvi.external(lambda x: -0.5 * float(x @ x), lambda x: -x)
    assert bbvi.fit(wide, 1200, num_steps=30).method == "advi"


def test_arrays_that_nuts_has_used_in_single_precision():
    group, y = np.repeat(np.arange(3), 2), np.arange(6.0)

    def model(group, y):
        with numpyro.plate("groups", 3):
            level = numpyro.sample("level", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(level[group], 1), obs=y)

    with jax.numpy_dtype_promotion("standard"):
        chain = numpyro.infer.MCMC(numpyro.infer.NUTS(model), num_warmup=1, num_samples=1, progress_bar=False)
        chain.run(jax.random.key(0), group, y)
        assert bbvi.from_numpyro(model, group, y).dim == {"level": (3,)}


EXTERNAL_MISTAKES = {
    "raises": (lambda x: 1 / 0, lambda x: -x, "ZeroDivisionError"),
    "shape of the gradient": (lambda x: -0.5 * float(x @ x), lambda x: -x[:1], "gradient returned arrays of shapes"),
    "structure of the gradient": (lambda x: -0.5 * float(x @ x), lambda x: {"x": -x}, "gradient"),
    "several numbers": (lambda x: -0.5 * x**2, lambda x: -x, "must return one real number"),
}


@pytest.mark.parametrize("name", EXTERNAL_MISTAKES)
def test_a_mistake_in_an_external_function_ends_the_fit(name):
    logprob, gradient, message = EXTERNAL_MISTAKES[name]
    with pytest.raises(jax.errors.JaxRuntimeError, match=message):
        bbvi.fit(bbvi.external(logprob, gradient), 2)


def test_external_wants_functions():
    with pytest.raises(TypeError, match="gradient=3"):
        bbvi.external(lambda x: 0.0, 3)


# Stan, through BridgeStan and a library with its C interface


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return stan_library(tmp_path_factory.mktemp("stan"))


@pytest.fixture(scope="module")
def stan_model(library):
    from bridgestan import StanModel

    return StanModel(library, warn=False)


def test_a_stan_model_has_the_density_of_the_same_in_numpyro(stan_model, x64):
    stan, other = bbvi.from_stan(stan_model), bbvi.from_numpyro(eight_schools, SCHOOLS)
    points = {"mu": np.array([3.0]), "tau": np.array([0.5]), "theta": np.linspace(-1, 1, 8)[None]}
    a = problem(stan).log_density(jnp.concatenate([points["mu"], points["tau"], points["theta"][0]]))
    b = problem(other).log_density(jnp.concatenate([points["mu"], points["tau"], points["theta"][0]]))
    assert float(a) == pytest.approx(float(b), abs=1e-9)  # constants and log-Jacobian included


@pytest.mark.filterwarnings("ignore:Estimated shape parameter")  # of arviz: eight schools are few
def test_a_stan_model_is_fitted_with_its_names(stan_model):
    posterior = bbvi.fit(bbvi.from_stan(stan_model), method="newton")
    assert posterior.diagnosis.trusted
    assert posterior.mean()["mu"] == pytest.approx(MEANS["mu"], abs=0.3)
    assert posterior.mean()["tau"] == pytest.approx(MEANS["tau"], abs=0.4)
    draws = posterior.sample(20)
    np.testing.assert_allclose(draws["theta"], draws["mu"][:, None] + draws["tau"][:, None] * draws["theta_tilde"])
    np.testing.assert_array_equal(draws["corners"][0], [[11, 12, 13], [21, 22, 23]])  # Stan lists by columns
    tree = posterior.to_arviz(500)
    assert tree.log_likelihood["log_lik"].shape == (1, 500, 8)
    assert arviz_stats.loo(tree, var_name="log_lik").n_data_points == 8
    assert "log_lik" not in tree.posterior


def test_stan_rejections_are_points_without_density(stan_model, x64):
    density = problem(bbvi.from_stan(stan_model))
    *_, good = density.values_and_gradients(np.array([[2000.0] + [0.0] * 9, [0.0] * 10]))
    assert list(good) == [False, True]


def test_the_program_of_the_page_for_those_who_come_from_stan(tmp_path, monkeypatch):
    needs_stan()
    (program,), (here,) = blocks("stan"), blocks("py", 'from_stan("rail.stan"')
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rail.stan").write_text(program)
    names = run(here)
    assert names["posterior"].diagnosis.trusted
    assert_as_printed(names["posterior"])


@pytest.mark.filterwarnings("ignore:Loading a shared object")
def test_stan_mistakes(library):
    with pytest.raises(RuntimeError, match="bad data"):
        bbvi.from_stan(library, {"bad": 1})


class RejectsAll:
    """An object with the methods of a StanModel."""

    def param_unc_num(self):
        return 1

    def param_unc_names(self):
        return ["x"]

    def log_density_gradient(self, x):
        raise RuntimeError("scale is not positive")


def test_a_stan_model_that_rejects_everything_is_refused_with_stans_words():
    with pytest.raises(ValueError, match="scale is not positive"):
        bbvi.from_stan(RejectsAll())
