"""Latent sites inside a subsampled plate of a NumPyro model: densities, draws and fits against exact answers."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.special import logsumexp
from jax.scipy.stats import multivariate_normal, norm
from numpyro.handlers import reparam, scale
from numpyro.infer.reparam import LocScaleReparam

import bbvi
from bbvi.models import own as own_parameters

RNG = np.random.default_rng(0)
SHOPS, VISITS = 24, 4
Y = RNG.normal(1, 1.5, SHOPS)[:, None] + RNG.standard_normal((SHOPS, VISITS))
USED = RNG.random((SHOPS, VISITS)) < 0.7
AT = {"mean": 0.3, "spread": 1.2}


def normal_level(mean, spread, i):
    return numpyro.sample("level", dist.Normal(mean, spread))


def visits(level, y):
    numpyro.sample("y", dist.Normal(level, 1), obs=y)


def shops(level=normal_level, likelihood=visits, after=None):
    """A model of visits to shops, in its parts; `after` is outside of the plate."""

    def model(y):
        mean = numpyro.sample("mean", dist.Normal(0, 2))
        spread = numpyro.sample("spread", dist.HalfNormal(1))
        with numpyro.plate("shops", len(y), subsample_size=6, dim=-2) as i:
            own = level(mean, spread, i)
            with numpyro.plate("visits", VISITS, dim=-1):
                likelihood(own, y[i])
        if after is not None:
            after(mean, own)

    return model


def read(model, y=Y, **more):
    return bbvi.from_numpyro(model, y, **more)


def log_density(model, values=AT, data=None, weight=1.0):
    given = model.data if data is None else data
    at = {name: jnp.asarray(value, float) for name, value in values.items()}
    return jax.jit(lambda at, given: model.logprob.estimate(at, given, weight, at_once=False))(at, given)


def log_prior(mean=AT["mean"], spread=AT["spread"]):
    return norm.logpdf(mean, 0, 2) + jnp.log(2) + norm.logpdf(spread)


GAUSSIAN = read(shops())
GRID = np.linspace(-12, 12, 8001)[:, None]


def by_grid(likelihood):
    """The log density with each shop's level integrated out on a grid."""
    each = [norm.logpdf(GRID[:, 0], 0.3, 1.2) + likelihood(GRID, k).sum(axis=1) for k in range(SHOPS)]
    return log_prior() + sum(logsumexp(values) for values in each) + SHOPS * np.log(GRID[1, 0] - GRID[0, 0])


# -- the density -------------------------------------------------------------------------------------------------------


def test_the_density_of_a_gaussian_hierarchy_is_exact_and_that_of_groups(x64):
    found = log_density(GAUSSIAN)
    covariance = np.eye(VISITS) + 1.2**2
    exact = log_prior() + multivariate_normal.logpdf(Y, 0.3 * np.ones(VISITS), covariance).sum()
    np.testing.assert_allclose(found, exact, rtol=1e-10)
    by_groups = bbvi.from_groups(
        lambda p: log_prior(p["mean"], p["spread"]),
        lambda p, own: norm.logpdf(own["level"], p["mean"], p["spread"]),
        lambda p, own, rows: norm.logpdf(rows, own["level"], 1.0),
        dim={"mean": (), "spread": ()},
        local={"level": ()},
        data=Y.ravel(),
        group=np.repeat(np.arange(SHOPS), VISITS),
    )
    at = {name: jnp.asarray(value) for name, value in AT.items()}
    np.testing.assert_allclose(found, jax.jit(by_groups.logprob)(at, by_groups.data), rtol=1e-9)


def test_batches_of_an_epoch_have_the_density_as_their_mean(x64):
    at = {name: jnp.asarray(value) for name, value in AT.items()}
    of_batch = jax.jit(lambda rows, data: GAUSSIAN.logprob.estimate(at, (*data, rows), SHOPS / 6, at_once=False))
    batches = [of_batch(rows, GAUSSIAN.data) for rows in RNG.permutation(SHOPS).reshape(-1, 6)]
    np.testing.assert_allclose(np.mean(batches), log_density(GAUSSIAN), rtol=1e-12)


def doubled(level, y):
    with scale(scale=2.0):
        visits(level, y)


def by_factor(level, y):
    numpyro.factor("likelihood", norm.logpdf(y, level, 1.0))


def either(level, y):
    visits(level + numpyro.sample("is_higher", dist.Bernoulli(0.3)), y)


PLAIN = lambda level, k: norm.logpdf(Y[k], level, 1.0)
VARIANTS = {
    "reparam": (reparam(shops(), config={"level": LocScaleReparam(0)}), PLAIN),
    "scale": (shops(likelihood=doubled), lambda level, k: 2 * PLAIN(level, k)),
    "factor": (shops(likelihood=by_factor), PLAIN),
    "discrete": (
        shops(likelihood=either),
        lambda level, k: np.logaddexp(np.log(0.7) + PLAIN(level, k), np.log(0.3) + PLAIN(level + 1, k)),
    ),
}


@pytest.mark.parametrize(("model", "likelihood"), VARIANTS.values(), ids=VARIANTS)
def test_what_works_in_plates_of_rows_works_inside(x64, model, likelihood):
    if model is VARIANTS["discrete"][0]:
        pytest.importorskip("funsor")
    np.testing.assert_allclose(log_density(read(model)), by_grid(likelihood), atol=1e-5)


def with_mask(y, used):
    mean = numpyro.sample("mean", dist.Normal(0, 2))
    spread = numpyro.sample("spread", dist.HalfNormal(1))
    with numpyro.plate("shops", len(y), subsample_size=6):
        rows, seen = numpyro.subsample(y, event_dim=1), numpyro.subsample(used, event_dim=1)
        level = numpyro.sample("level", dist.Normal(mean, spread))
        numpyro.sample("y", dist.Normal(level[:, None], 1).mask(seen).to_event(1), obs=rows)


def test_masked_rows_do_not_count(x64):
    model = bbvi.from_numpyro(with_mask, Y, USED)
    np.testing.assert_allclose(
        log_density(model), by_grid(lambda level, k: jnp.where(USED[k], PLAIN(level, k), 0)), atol=1e-5
    )


def test_supports_may_differ_between_elements(x64):
    low = np.linspace(-40.0, -20.0, SHOPS)[:, None]

    def model(y, low):
        mean = numpyro.sample("mean", dist.Normal(0, 2))
        with numpyro.plate("shops", len(y), subsample_size=6, dim=-2) as i:
            level = numpyro.sample("level", dist.Uniform(low[i], low[i] + 60))
            with numpyro.plate("visits", VISITS, dim=-1):
                numpyro.sample("y", dist.Normal(level + mean, 1), obs=y[i])

    found = bbvi.from_numpyro(model, Y, low)
    deviations = Y - Y.mean(axis=1, keepdims=True)
    flat = norm.logpdf(deviations).sum() + SHOPS * (0.5 * np.log(2 * np.pi / VISITS) - np.log(60))
    np.testing.assert_allclose(log_density(found, {"mean": 0.3}), norm.logpdf(0.3, 0, 2) + flat, atol=0.02)
    assert found.local({"mean": np.zeros(3)}, [23, 1])["level"].shape == (3, 2, 1)


def test_other_data_have_the_same_density_so_that_nothing_compiles_anew():
    model = shops()
    assert read(model).logprob == read(model, Y + 1).logprob != GAUSSIAN.logprob


# -- draws and fits ----------------------------------------------------------------------------------------------------


def test_own_parameters_are_drawn_exactly():
    draws = GAUSSIAN.local({name: np.full(4000, value) for name, value in AT.items()}, [5, 2])["level"]
    variance = 1 / (VISITS + 1.2**-2)
    mean = variance * (Y[[5, 2]].sum(axis=1) + 0.3 * 1.2**-2)
    assert draws.shape == (4000, 2, 1)
    np.testing.assert_allclose(draws[..., 0].mean(axis=0), mean, atol=0.06 * np.sqrt(variance))
    np.testing.assert_allclose(draws[..., 0].std(axis=0), np.sqrt(variance), rtol=0.06)
    with pytest.raises(KeyError, match="there is no group 24"):
        GAUSSIAN.local({name: np.zeros(2) for name in AT}, [24])


@pytest.fixture(scope="module")
def posterior():
    with_sum = shops(
        likelihood=lambda level, y: (numpyro.deterministic("twice", 2 * level), visits(level, y)),
        after=lambda mean, own: numpyro.deterministic("highest", jnp.max(own)),
    )
    return bbvi.fit(read(with_sum))


def test_a_fit_by_batches_has_the_exact_answer(posterior):
    assert posterior.method == "advi"
    assert posterior.diagnosis.status is bbvi.Status.RELIABLE
    mean, spread = np.meshgrid(np.linspace(-1, 3, 201), np.linspace(0.6, 3.5, 201))
    each, within = Y.mean(axis=1), 1 / VISITS
    log_p = log_prior(mean, spread) + norm.logpdf(each, mean[..., None], np.sqrt(spread**2 + within)[..., None]).sum(-1)
    weights = np.exp(log_p - log_p.max())
    for name, values in (("mean", mean), ("spread", spread)):
        centre = np.average(values, weights=weights)
        sd = np.sqrt(np.average((values - centre) ** 2, weights=weights))
        assert abs(posterior.mean()[name] - centre) / sd < 0.1, name
        assert abs(posterior.sd()[name] / sd - 1) < 0.1, name
    share = spread**2 / (spread**2 + within)
    levels = [np.average(share * one + (1 - share) * mean, weights=weights) for one in each]
    np.testing.assert_allclose(posterior.sample(4000)["level"][..., 0].mean(axis=0), levels, atol=0.05)


def test_the_posterior_has_the_sites_by_their_names(posterior):
    tree = posterior.predict(num_samples=50)
    assert tree.posterior["level"].dims == ("chain", "draw", "shops", "level_dim_1")
    np.testing.assert_allclose(tree.posterior["twice"].values, 2 * tree.posterior["level"].values)
    np.testing.assert_allclose(tree.posterior["highest"], tree.posterior["level"].max(("shops", "level_dim_1")))
    assert tree.log_likelihood["of_shops"].dims == ("chain", "draw", "shops")
    assert tree.posterior_predictive["y"].dims == ("chain", "draw", "shops", "visits")
    np.testing.assert_array_equal(tree.observed_data["y"], Y)
    assert "level[3, 0]" in posterior.summary().index
    draws = posterior.sample(50)
    some = posterior.model.local(draws, [7, 0])
    assert set(some) == {"level", "twice"}
    np.testing.assert_allclose(some["level"], draws["level"][:, [7, 0]], rtol=1e-6)


def test_sites_are_left_out_where_they_are_many(posterior, monkeypatch):
    monkeypatch.setattr(own_parameters, "MOST_OWN_NUMBERS", 100 * SHOPS)
    assert "level" in posterior.sample(100)
    assert set(posterior.sample(101)) == {"mean", "spread"}


# -- refusals ----------------------------------------------------------------------------------------------------------


def nine(mean, spread, i):
    return numpyro.sample("level", dist.Normal(mean, spread).expand([9]).to_event(1)).sum(axis=-1)


def twice_subsampled(y):
    mean = numpyro.sample("mean", dist.Normal(0, 2))
    with numpyro.plate("shops", SHOPS, subsample_size=6, dim=-2) as i:
        level = numpyro.sample("level", dist.Normal(mean, 1))
        with numpyro.plate("visits", VISITS, subsample_size=2, dim=-1) as j:
            visits(level, y[i][:, j])


def without_shared(y):
    with numpyro.plate("shops", SHOPS, subsample_size=6, dim=-2) as i:
        visits(numpyro.sample("level", dist.Normal(0, 1)), y[i])


def with_param(mean, spread, i):
    return numpyro.sample("level", dist.Normal(mean, numpyro.param("width", 1.0)))


def shared_and_discrete(y):
    is_higher = numpyro.sample("is_higher", dist.Bernoulli(0.3))
    shops(likelihood=lambda level, y: visits(level + is_higher, y))(y)


REFUSED = {
    "too many coordinates": (shops(nine), {}, r"'shops' has 9 free coordinates .* level.* at most 8"),
    "two subsampled plates": (twice_subsampled, {}, "shops, visits are all subsampled"),
    "nothing shared": (without_shared, {}, "All latent sites lie in the subsampled plate 'shops'"),
    "elements that depend on each other": (
        shops(likelihood=lambda level, y: visits(level + jnp.roll(level, 1, axis=0), y)),
        {},
        "The site 'y' in the subsampled plate 'shops' has another density",
    ),
    "a site outside that depends on those inside": (
        shops(after=lambda mean, own: numpyro.sample("total", dist.Normal(own.sum(), 1), obs=3.0)),
        {},
        "The site 'total' depends on elements of .*'shops' and lies outside.*Move 'total' into the plate",
    ),
    "params to be maximised over": (shops(with_param), {"params": "maximise"}, "does not go with .*'level'"),
    "a discrete site outside": (shared_and_discrete, {}, "'is_higher' is discrete and outside"),
}


def test_elements_whose_data_hold_nan_are_named():
    y = np.where(np.arange(SHOPS)[:, None] == 17, np.nan, Y)
    with pytest.raises(ValueError, match=r"hold NaN. In the plate 'shops' 1 of 24 groups have no .*: 17\. "):
        read(shops(), y)


@pytest.mark.parametrize(("model", "more", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_model_of_groups_is_refused(model, more, words):
    if model is shared_and_discrete:
        pytest.importorskip("funsor")
    with pytest.raises(ValueError, match=words) as error:
        read(model, **more)
    assert model is twice_subsampled or "Leave subsample_size out" in str(error.value)
