"""What a posterior gives: draws, densities, tables, files and arviz."""

import json
import zipfile

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import constraints
from scipy import stats

import bbvi
from bbvi.fitting.arguments import FAMILIES
from bbvi.runtime.storage import write_arrays
from bbvi.target.reading import make_parameters

DATA = {"y": np.array([1.2, 0.7, 2.1, 1.6, 0.9, 1.4, 1.1, 2.5, 1.3, 0.2, 1.8, 1.0])}


def logprob(p, data):
    """Normal data with unknown mean and scale; the mean has name `<mu>` to see that names are escaped."""
    mu, sigma = p["<mu>"], p["sigma"]
    return -0.5 * jnp.sum(((data["y"] - mu) / sigma) ** 2) - 12 * jnp.log(sigma) - 0.5 * mu**2 - sigma


@pytest.fixture(scope="module")
def posterior():
    return bbvi.fit(logprob, {"<mu>": (), "sigma": ()}, data=DATA, constraints={"sigma": constraints.positive}, seed=1)


@pytest.fixture(scope="module")
def exact():
    """Means and sds by quadrature."""
    mu, sigma = np.meshgrid(np.linspace(-4, 6, 1500), np.linspace(1e-3, 8, 1500), indexing="ij")
    y = DATA["y"][:, None, None]
    log_p = -0.5 * (((y - mu) / sigma) ** 2).sum(axis=0) - 12 * np.log(sigma) - 0.5 * mu**2 - sigma
    weights = np.exp(log_p - log_p.max())
    moments = {}
    for name, values in {"<mu>": mu, "sigma": sigma}.items():
        mean = np.average(values, weights=weights)
        moments[name] = (mean, np.average((values - mean) ** 2, weights=weights) ** 0.5)
    cell = (10 / 1499) * ((8 - 1e-3) / 1499)
    return moments, np.log(weights.sum() * cell) + log_p.max()


def test_draws_and_moments_are_corrected(posterior, exact):
    moments, log_evidence = exact
    draws = posterior.sample(10_000)
    for name, (mean, sd) in moments.items():
        assert abs(draws[name].mean() - mean) < 0.06 * sd
        assert abs(draws[name].std() / sd - 1) < 0.06
        assert abs(posterior.mean()[name] - mean) < 0.06 * sd
        assert abs(posterior.sd()[name] / sd - 1) < 0.08
    value, error = posterior.diagnosis.log_evidence
    assert abs(value - log_evidence) < 4 * error
    assert posterior.diagnosis.elbo.value < value


def test_resampled_draws_hardly_repeat(posterior):
    draws = posterior.sample(4000)["sigma"]
    assert len(np.unique(draws)) > 3900


def test_seeds_and_plain_draws(posterior):
    assert np.array_equal(posterior.sample(20, seed=7)["sigma"], posterior.sample(20, seed=7)["sigma"])
    assert not np.array_equal(posterior.sample(20, seed=7)["sigma"], posterior.sample(20, seed=8)["sigma"])
    plain = np.log(posterior.sample(4000, resample=False)["sigma"])  # constrained by exp
    q = posterior.distribution
    assert stats.kstest(plain, stats.norm(q.mean()[1], q.sd()[1]).cdf).pvalue > 1e-4


def test_log_prob_is_a_density_on_the_constrained_scale(posterior):
    mu, sigma = np.meshgrid(np.linspace(-6, 8, 400), np.geomspace(1e-2, 50, 400), indexing="ij")
    log_q = posterior.log_prob({"<mu>": mu.ravel(), "sigma": sigma.ravel()})
    density = np.exp(log_q).reshape(mu.shape)
    assert np.trapezoid(np.trapezoid(density, sigma, axis=1), mu[:, 0]) == pytest.approx(1, abs=1e-3)
    one = posterior.log_prob({"<mu>": 1.0, "sigma": 1.0})
    assert isinstance(one, float)
    with pytest.raises(ValueError, match="leading axis"):
        posterior.log_prob({"<mu>": np.zeros((2, 2)), "sigma": 1.0})


def test_quantiles(posterior):
    draws = posterior.sample(10_000)["sigma"]
    quantiles = posterior.quantile([0.1, 0.5, 0.9])["sigma"]
    assert quantiles.shape == (3,)
    np.testing.assert_allclose(quantiles, np.quantile(draws, [0.1, 0.5, 0.9]), rtol=0.06)
    assert np.ndim(posterior.quantile(0.5)["sigma"]) == 0
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        posterior.quantile(2)


def test_num_samples_is_checked(posterior):
    for wrong in (0, -1, 2.5):
        with pytest.raises(ValueError, match="num_samples"):
            posterior.sample(wrong)


def test_printed(posterior):
    text = str(posterior)
    for part in ("<mu>", "sigma", "Status: ", "k-hat", "ELBO", "Cost: ", "importance-weighted"):
        assert part in text
    html = posterior._repr_html_()
    assert "&lt;mu&gt;" in html
    assert "<mu>" not in html


def test_costs_are_counted(posterior):
    cost, steps = posterior.cost, len(posterior.history.elbo)
    assert cost.gradients > 10 * steps
    looked_along = 1 + 8 * posterior.parameters.dim
    assert cost.log_densities == posterior.diagnosis.num_draws + looked_along
    assert cost.run_seconds > 0


def test_arviz(posterior):
    import arviz_stats

    tree = posterior.to_arviz(500)
    assert tree.posterior["sigma"].shape == (1, 500)
    assert set(tree.sample_stats) == {"log_p", "log_q"}
    np.testing.assert_array_equal(tree.observed_data["y"], DATA["y"])
    assert tree.attrs["status"] == posterior.diagnosis.status.name.lower()
    table = posterior.summary()
    assert list(table.index) == ["<mu>", "sigma"]
    assert list(arviz_stats.summary(tree, kind="stats").columns) == list(table.columns[:4])
    assert posterior.summary(kind="all", round_to=1).shape == arviz_stats.summary(tree).shape


def test_arviz_coordinates():
    posterior = bbvi.fit(lambda p: -0.5 * jnp.sum(p["theta"] ** 2), {"theta": (3,)})
    tree = posterior.to_arviz(10, coords={"school": ["A", "B", "C"]}, dims={"theta": ["school"]})
    with pytest.raises(ValueError, match=r"no variable 'thata'. There are .*theta"):
        posterior.to_arviz(10, dims={"thata": ["school"]})
    assert list(tree.posterior["theta"].coords["school"].values) == ["A", "B", "C"]


def test_weights_in_sample_stats_are_the_ones_judged(posterior):
    tree = posterior.to_arviz(2000, resample=False)
    log_w = (tree.sample_stats["log_p"] - tree.sample_stats["log_q"]).values.ravel()
    value, error = posterior.diagnosis.elbo
    assert abs(log_w.mean() - value) < 5 * (error + log_w.std() / 2000**0.5)


def test_saved_and_loaded(posterior, tmp_path):
    path = tmp_path / "fit.npz"
    posterior.save(path)
    loaded = bbvi.load(path)
    assert str(loaded) == str(posterior)
    assert loaded.diagnosis == posterior.diagnosis
    assert loaded.cost == posterior.cost
    assert np.array_equal(loaded.history.elbo, posterior.history.elbo)
    assert loaded.log_prob({"<mu>": 1.0, "sigma": 2.0}) == posterior.log_prob({"<mu>": 1.0, "sigma": 2.0})
    draws = loaded.sample(1000)
    assert draws["sigma"].shape == (1000,)
    assert draws["sigma"].min() > 0
    with pytest.raises(ValueError, match="logprob="):
        loaded.sample(50_000)
    whole = bbvi.load(path, logprob, DATA)
    assert np.array_equal(whole.sample(2000)["sigma"], posterior.sample(2000)["sigma"])
    assert set(loaded.to_arviz(100).observed_data) == {"y"}


NO_DENSITIES = {
    "vector": (lambda values, data: values["<mu>"] * data["y"], ValueError),
    "none": (lambda values, data: None, TypeError),
}


@pytest.mark.parametrize(("wrong", "error"), NO_DENSITIES.values(), ids=NO_DENSITIES)
def test_a_loaded_posterior_refuses_what_is_no_log_density(wrong, error, posterior, tmp_path):
    posterior.save(tmp_path / "fit.npz")
    with pytest.raises(error, match="logprob returned"):
        bbvi.load(tmp_path / "fit.npz", wrong, DATA)


STORED = [
    *((3, None, family) for family in FAMILIES if family != "mean_field"),
    ([((1, 2), (2,)), ((2, 1), (1,))], None, "mean_field"),
    ({"a": [(2,), ()], "b": {"c": ()}}, {"b": {"c": constraints.interval(-1.0, 2.0)}}, "mean_field"),
    ({"a": (2,)}, {"a": constraints.interval(np.zeros(2), np.array([1.0, 3.0]))}, "mean_field"),
    ({"a": (3,), "b": (2, 2)}, {"a": constraints.simplex, "b": constraints.lower_cholesky}, "mean_field"),
]


def square(values):
    return -0.5 * sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(values))


@pytest.mark.parametrize(("dim", "given", "family"), STORED, ids=lambda each: str(each)[:20])
def test_every_structure_and_family_is_stored(dim, given, family, tmp_path):
    size = make_parameters(dim, given).dim
    posterior = bbvi.fit(
        square, dim, constraints=given, init=FAMILIES[family].standard(size), method="adam", num_steps=1
    )
    posterior.save(tmp_path / "fit.npz")
    loaded = bbvi.load(tmp_path / "fit.npz")
    ours, theirs = posterior.mean(), loaded.mean()
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_array_equal(a, b)
    assert type(loaded.distribution) is type(posterior.distribution)


def test_foreign_files(tmp_path):
    bad = tmp_path / "bad.npz"
    np.savez(bad, header=np.array([{"a": 1}], dtype=object))  # a pickle: never loaded
    with pytest.raises(ValueError, match="is no bbvi posterior"):
        bbvi.load(bad)
    write_arrays(bad, {"header": np.array(json.dumps({"format": "bbvi posterior 99"}))})
    with pytest.raises(ValueError, match="bbvi posterior 99"):
        bbvi.load(bad)
    with pytest.raises(FileNotFoundError):
        bbvi.load(tmp_path / "nowhere.npz")
    with pytest.raises(TypeError, match="path=3 must be the path"):
        bbvi.load(3)


def test_a_file_that_cannot_be_written(posterior, tmp_path):
    with pytest.raises(OSError, match="cannot be written"):
        posterior.save(tmp_path / "nowhere" / "fit.npz")


def test_files_hold_numbers_and_text_only(posterior, tmp_path):
    posterior.save(tmp_path / "fit.npz")
    with zipfile.ZipFile(tmp_path / "fit.npz") as archive:
        assert all(name.endswith(".npy") for name in archive.namelist())


def test_numpyro_distribution(posterior):
    with jax.enable_x64(True):
        q = posterior.distribution
        x = jnp.array([[0.3, -0.2]])
        np.testing.assert_allclose(q.to_numpyro().log_prob(x), q.log_prob(x), rtol=1e-10)
