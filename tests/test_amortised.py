"""Networks in place of the search for modes: bounds and gaps against closed forms, trainings, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import multivariate_normal, norm

import bbvi
from bbvi.data.groups import Grouped, key_of
from bbvi.models.amortised import Trained
from bbvi.models.local import Gaussian, log_average

RNG = np.random.default_rng(1)
GROUPS, ROWS = 30, 4
LABELS = np.repeat(np.arange(GROUPS) * 10, ROWS)
Y = (RNG.normal(1, 2, GROUPS)[:, None] + RNG.standard_normal((GROUPS, ROWS))).ravel()
SHARED = {"mean": np.array([0.3]), "log_sd": np.array([0.2])}
SMALL = bbvi.SetEncoder(hidden=(8,))


def log_prior(p):
    return norm.logpdf(p["mean"], 0, 2) + norm.logpdf(p["log_sd"])


def normal(p, own):
    return norm.logpdf(own["a"], p["mean"], jnp.exp(p["log_sd"])).sum()


def hierarchy(amortise=SMALL, shape=(), y=Y, group=LABELS, **more):
    """A group's own mean a, or a vector of them, with rows around it."""
    return bbvi.from_groups(
        log_prior,
        normal,
        lambda p, own, rows: norm.logpdf(rows["y"].reshape(-1, max(own["a"].size, 1)), own["a"], 1.0).sum(axis=1),
        **{"dim": {"mean": (), "log_sd": ()}, "local": {"a": shape}, "data": {"y": y}, "group": group, **more},
        amortise=amortise,
    )


class Shifted:
    """The exact answer for a hierarchy, moved and stretched by its weights; with the methods of a module of Flax."""

    def init(self, key, group):
        size = max(group.rows["y"].size // len(group.used), 1)
        return {"params": {"shift": jnp.zeros(size), "log_factor": jnp.zeros(size)}}

    def apply(self, variables, group):
        weights, y = variables["params"], group.rows["y"].reshape(len(group.used), -1)
        used = group.used[:, None]
        prior, count = jnp.exp(-2 * group.shared["log_sd"]), used.sum().astype(y.dtype)
        precision = prior + count
        loc = (prior * group.shared["mean"] + jnp.where(used, y, 0).sum(axis=0)) / precision
        sd = precision**-0.5
        return loc + sd * weights["shift"], jnp.log(sd) + weights["log_factor"]


def weights_of(*, shift=0.0, log_factor=0.0, size=1):
    return {"params": {"shift": np.full(size, shift), "log_factor": np.full(size, log_factor)}}


def exact_evidence(p, y=Y, shape=(GROUPS, ROWS)):
    """The log evidence of each group."""
    covariance = np.eye(shape[1]) + np.exp(2 * p["log_sd"])
    return multivariate_normal.logpdf(y.reshape(shape), np.full(shape[1], p["mean"]), covariance)


AT = {name: value[0] for name, value in SHARED.items()}

# -- a network that is known -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 10])
def test_around_the_exact_answer_the_integral_is_exact(x64, dim):
    y = RNG.standard_normal((GROUPS * ROWS, dim))
    model = hierarchy(Shifted(), (dim,), y).with_weights(weights_of(size=dim))
    by_coordinate = [exact_evidence(AT, column) for column in y.T]
    found = model.log_likelihood(SHARED)["of_group"]
    np.testing.assert_allclose(found[0], np.sum(by_coordinate, axis=0), rtol=1e-10)
    means, sds = model.encode(SHARED, [20])
    draws = model.local({name: np.resize(value, 3000) for name, value in SHARED.items()}, [20])["a"][:, 0]
    assert np.max(np.abs(draws.mean(axis=0) - means[0, 0]) / sds[0, 0]) < 0.08
    assert np.max(np.abs(draws.std(axis=0) / sds[0, 0] - 1)) < 0.08


def test_random_nodes_have_no_error_on_average(x64):
    """Around a Gaussian that is too narrow, where the logarithm of an average alone is too small."""
    dim, narrow = 9, 0.85
    there = Gaussian(jnp.zeros(dim), narrow * jnp.eye(dim), jnp.zeros((), int))
    at = jax.vmap(lambda key: log_average(lambda x: norm.logpdf(x).sum(), there, key))
    found = np.asarray(at(jax.random.split(jax.random.key(0), 400)))
    error = found.std() / 20
    assert abs(found.mean()) < 3 * error + 0.1 * found.std() ** 2  # what is added is right to first order
    assert 0.01 < found.std() < 0.2


def test_a_group_has_nodes_of_its_own_whatever_fills_it_up(x64):
    rows, used = np.arange(6.0).reshape(3, 2), np.array([True, True, False])
    key = lambda rows, used: jax.random.key_data(key_of(Grouped({"y": rows}, used))).tolist()
    assert key(rows, used) == key(np.where(used[:, None], rows, 7.0), used) == key(rows[:2], None)
    assert key(rows, used) != key(rows + 1, used)


class Deaf:
    """A network that does not hear the shared parameters, and is too sure."""

    def init(self, key, group):
        return jnp.zeros(())

    def apply(self, weights, group):
        mean = group.rows["y"].reshape(len(group.used), -1).mean(axis=0)
        return mean, jnp.full_like(mean, -1.2)


@pytest.mark.parametrize(("network", "rough"), [(Shifted(), False), (Deaf(), True)])
def test_rough_integrals_are_told(network, rough):
    y, few = RNG.standard_normal((5 * ROWS, 9)), LABELS[: 5 * ROWS]
    weights = weights_of(size=9) if isinstance(network, Shifted) else np.zeros(())
    posterior = bbvi.fit(hierarchy(network, (9,), y, few).with_weights(weights), method="laplace")
    told = [reason for reason in posterior.diagnosis.reasons if "better integrals over groups' own" in reason]
    assert bool(told) == rough
    assert (posterior.diagnosis.status is bbvi.Status.RELIABLE) != rough


@pytest.mark.parametrize(("shift", "log_factor"), [(0.0, 0.0), (0.7, 0.0), (-0.4, 0.5), (0.0, -0.6)])
def test_the_gap_is_the_divergence_that_steps_remove(x64, shift, log_factor):
    model = hierarchy(Shifted()).with_weights(weights_of(shift=shift, log_factor=log_factor))
    gap = model.amortisation_gap(SHARED, num=20)
    divergence = 0.5 * (np.exp(2 * log_factor) + shift**2 - 1) - log_factor
    assert abs(gap.value - divergence) < 3 * gap.standard_error + 1e-3
    assert abs(gap.after - gap.before - gap.value) < 1e-12
    assert f"{gap.value:.3f} ± " in str(gap)


def test_the_gap_leaves_out_what_independent_coordinates_miss(x64):
    covariance = jnp.array([[1.0, 0.8], [0.8, 1.0]])

    class Standard:
        def init(self, key, group):
            return {"loc": jnp.zeros(2)}

        def apply(self, weights, group):
            return jnp.concatenate([weights["loc"], jnp.zeros(2)])

    model = bbvi.from_groups(
        log_prior,
        lambda p, own: multivariate_normal.logpdf(own["a"], jnp.zeros(2), covariance),
        lambda p, own, rows: jnp.zeros(len(rows)),
        dim={"mean": (), "log_sd": ()},
        local={"a": (2,)},
        data=Y,
        group=LABELS,
        amortise=Standard(),
    ).with_weights({"loc": np.zeros(2)})
    gap = model.amortisation_gap(SHARED, num=20)
    trace, log_det = 2 / 0.36, np.log(0.36)
    assert abs(gap.before - -0.5 * (trace - 2 + log_det)) < 4 * 0.36**-1 * 0.05
    assert abs(gap.after - 0.5 * log_det) < 0.02  # sd 0.6 of both: KL = -log(0.6^2) + log(0.36) / 2


def test_refined_draws_are_those_of_the_mode(x64):
    model = hierarchy(Shifted()).with_weights(weights_of(shift=6.0, log_factor=-1.0))
    draws = {name: np.resize(value, 300) for name, value in SHARED.items()}
    by_search = hierarchy(None).local(draws)["a"]
    np.testing.assert_allclose(model.local(draws, refine=True)["a"], by_search, rtol=1e-6)
    assert np.abs(model.local(draws)["a"].mean(axis=0) - by_search.mean(axis=0)).min() > 1
    wide = hierarchy(Shifted(), (9,), np.tile(Y[:, None], 9)).with_weights(weights_of(shift=6.0, size=9))
    refined = wide.local(draws, [0], refine=True)["a"][:, 0]
    np.testing.assert_allclose(refined.mean(axis=0), by_search[:, 0].mean(), atol=0.15)


def test_new_groups_are_read_like_old_ones(x64):
    model = hierarchy(Shifted()).with_weights(weights_of())
    draws = {name: np.resize(value, 5) for name, value in SHARED.items()}
    new = {"y": np.array([5.0, 1.0, 4.0])}
    means, sds = model.encode(draws, data=new, group=["x", "z", "x"])
    assert means.shape == sds.shape == (5, 2, 1)
    prior = np.exp(-0.4)
    np.testing.assert_allclose(means[0, :, 0], [(0.3 * prior + 9) / (prior + 2), (0.3 * prior + 1) / (prior + 1)])
    assert model.local(draws, ["z"], data=new, group=["x", "z", "x"])["a"].shape == (5, 1)
    assert hierarchy(None).local(draws, data=new, group=["x", "z", "x"])["a"].shape == (5, 2)
    with pytest.raises(ValueError, match="data and group go together"):
        model.local(draws, data=new)


# -- the set encoder ---------------------------------------------------------------------------------------------------


def test_a_set_has_no_order_and_nothing_that_fills_it_up(x64):
    def group(rows, count):
        return bbvi.Group(rows={"y": jnp.asarray(rows)}, used=jnp.arange(len(rows)) < count, shared={"m": jnp.ones(2)})

    network = bbvi.SetEncoder(hidden=(8, 5), outputs=4)
    first = group(Y[:3], 3)
    weights = network.init(jax.random.key(0), first)
    answer = network.apply(weights, first)
    for other in (group(Y[[2, 0, 1]], 3), group(np.concatenate([Y[:3], [99.0, -7.0]]), 3)):
        np.testing.assert_allclose(network.apply(weights, other), answer, rtol=1e-10)
    assert np.abs(network.apply(weights, group(Y[:3], 2)) - answer).min() > 1e-4
    assert answer.shape == (4,)


UNEQUAL = np.repeat(np.arange(25), [60, 1, 9, 2, 1, *[3] * 20])


def test_groups_of_very_different_sizes_mean_the_same_in_classes_and_filled_up(x64):
    y = RNG.standard_normal(len(UNEQUAL))
    model = hierarchy(y=y, group=UNEQUAL)
    model = model.with_weights(model.first_weights(0))
    at = {name: jnp.asarray(value) for name, value in AT.items()}
    filled = model.data.take(np.arange(25))
    exact = model.logprob.log_likelihood(at, filled)
    np.testing.assert_allclose(model.logprob.of_groups(at, model.data), exact, rtol=1e-10)


# -- trainings ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    return bbvi.train(hierarchy(), batch_size=10, num_steps=1500)


@pytest.fixture(scope="module")
def posterior(trained):
    return bbvi.fit(trained)


@pytest.fixture(scope="module")
def exact():
    """Means and sds of mean and log_sd on a grid."""
    mean, log_sd = np.meshgrid(np.linspace(-2, 4, 201), np.linspace(-0.4, 1.8, 201))
    own, spread = Y.reshape(GROUPS, ROWS).mean(axis=1), np.exp(2 * log_sd)[..., None] + 1 / ROWS
    log_p = -0.5 * (mean / 2) ** 2 - 0.5 * log_sd**2
    log_p += np.sum(-0.5 * (own - mean[..., None]) ** 2 / spread - 0.5 * np.log(spread), axis=-1)
    weights = np.exp(log_p - log_p.max())
    weights /= weights.sum()

    def moments(values):
        first = np.sum(weights * values)
        return first, np.sqrt(np.sum(weights * values**2) - first**2)

    return {"mean": moments(mean), "log_sd": moments(log_sd)}


def test_a_training_finds_the_exact_answer_of_every_group(trained, posterior):
    draws = posterior.sample(20)
    shared = {name: np.resize(draws[name], GROUPS) for name in SHARED}
    gap = trained.amortisation_gap(draws, GROUPS)
    evidence = np.mean([exact_evidence({k: v[i] for k, v in shared.items()})[i] for i in range(GROUPS)])
    assert gap.value < 0.01
    assert abs(gap.before - evidence) < 0.02
    assert abs(gap.after - evidence) < 0.01


def test_a_fit_has_the_exact_shared_parameters_and_tells_the_gap(posterior, exact):
    assert posterior.diagnosis.status is bbvi.Status.RELIABLE
    for name, (mean, sd) in exact.items():
        assert abs(posterior.mean()[name] - mean) / sd < 0.08, name
        assert abs(posterior.sd()[name] / sd - 1) < 0.08, name
    assert "network: amortisation gap 0.00" in str(posterior)


def test_what_other_grouped_models_have_goes_with_a_network(trained, posterior, tmp_path):
    tree = posterior.to_arviz(50)
    assert tree["posterior"]["a"].sel(group=290).shape == (1, 50)
    assert tree["log_likelihood"]["of_group"].dims == ("chain", "draw", "group")
    posterior.save(tmp_path / "posterior.npz")
    again = hierarchy().with_weights(trained.weights)
    loaded = bbvi.load(tmp_path / "posterior.npz", logprob=again)
    np.testing.assert_array_equal(loaded.sample(20)["a"], posterior.sample(20)["a"])
    assert min(trained.poorest(posterior.sample(50)).values()) > 13


def test_a_training_that_was_interrupted_ends_with_the_same_bits(tmp_path):
    model = hierarchy()
    short = lambda steps, **more: bbvi.train(model, batch_size=10, num_steps=steps, **more).weights
    path = tmp_path / "training.npz"
    short(70, checkpoint=path)
    resumed = short(130, checkpoint=path)
    jax.tree.map(np.testing.assert_array_equal, resumed, short(130))
    with pytest.raises(ValueError, match="belongs to a run with other arguments"):
        short(130, checkpoint=path, seed=1)


def test_fit_trains_a_network_and_resumes_with_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr("bbvi.training.TRAINING_STEPS", 150)
    model = hierarchy()
    fit = lambda: bbvi.fit(model, batch_size=10, num_steps=200, checkpoint=tmp_path / "fit.npz")
    first = fit()
    assert first.method == "advi"
    assert first.model.local(first.sample(3), [20])["a"].shape == (3, 1)
    np.testing.assert_array_equal(fit().mean()["mean"], first.mean()["mean"])


def test_a_network_for_rows_in_files(tmp_path):
    y = np.memmap(tmp_path / "y", Y.dtype, "w+", shape=Y.shape)
    y[:] = Y
    in_files = bbvi.train(hierarchy(bbvi.MLP(hidden=(8,)), y=y), batch_size=10, num_steps=100)
    means, _ = in_files.encode(SHARED)
    in_memory = hierarchy(bbvi.MLP(hidden=(8,))).with_weights(in_files.weights)
    np.testing.assert_allclose(in_memory.encode(SHARED)[0], means)


def test_parameters_can_be_maximised_with_the_network(exact):
    found = bbvi.train(hierarchy(Shifted(), maximise=["mean"]), num_steps=600)
    assert set(found.dim) == set(found.start) == {"log_sd"}
    assert abs(found.point["mean"] - exact["mean"][0]) / exact["mean"][1] < 0.2
    posterior = bbvi.fit(found)
    assert posterior.parameters.names == ("log_sd",)
    with pytest.raises(ValueError, match="nothing left to fit"):
        bbvi.fit(bbvi.train(hierarchy(Shifted(), maximise=["mean", "log_sd"]), num_steps=10))


# -- bad input ---------------------------------------------------------------------------------------------------------


class Returning:
    """A network that returns one thing."""

    def __init__(self, *output):
        self.output = output

    def init(self, key, group):
        return {"w": jnp.zeros(1)}

    def apply(self, weights, group):
        return jax.tree.map(lambda each: each + weights["w"][0], self.output[0])


BAD = {  # arguments, type of error, words
    "no network": ({"amortise": 3}, TypeError, r"amortise=3 is no network: it needs init"),
    "a class": ({"amortise": bbvi.SetEncoder}, TypeError, "is no network"),
    "an MLP of unequal groups": ({"amortise": bbvi.MLP(), "group": np.sort(LABELS % 70)}, ValueError, "SetEncoder"),
    "too few numbers": (
        {"amortise": Returning(jnp.zeros(1))},
        ValueError,
        r"network returned the shape \(1,\) for a group, and a group has 1 free",
    ),
    "numbers in two axes": ({"amortise": Returning(jnp.zeros((1, 2)))}, ValueError, r"the shape \(1, 2\)"),
    "a pair of other lengths": (
        {"amortise": Returning((jnp.zeros(1), jnp.zeros(3)))},
        ValueError,
        r"the shapes \(1,\) and \(3,\).* or a pair of \(1,\) and \(1,\)",
    ),
    "maximised and unknown": ({"maximise": ["maen"]}, ValueError, "maximise names 'maen'.*mean"),
    "maximised without a network": ({"maximise": ["mean"], "amortise": None}, ValueError, "give amortise, too"),
}


@pytest.mark.parametrize(("given", "error", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_by_name(given, error, words):
    with pytest.raises(error, match=words):
        bbvi.train(hierarchy(**given), num_steps=1)


def test_groups_without_density_are_named():
    y = np.where(LABELS == 70, -1.0, np.abs(Y))
    model = bbvi.from_groups(
        log_prior,
        normal,
        lambda p, own, rows: jnp.sqrt(rows) * norm.logpdf(own["a"]),
        dim={"mean": (), "log_sd": ()},
        local={"a": ()},
        data=y,
        group=LABELS,
        amortise=SMALL,
    )
    with pytest.raises(FloatingPointError, match=r"1 of 30 groups have no finite density.*: 70\."):
        bbvi.train(model, num_steps=1)


def test_a_model_that_has_not_been_trained_says_so():
    with pytest.raises(ValueError, match=r"has not been trained. Take model = bbvi\.train"):
        hierarchy().local(SHARED)
    with pytest.raises(TypeError, match="model has no network"):
        bbvi.train(hierarchy(None))


def test_the_bound_is_a_function_of_its_noise(x64):
    model = hierarchy()
    weights = model.first_weights(0)
    bounds = jax.jit(lambda u: model.bound.of_groups(Trained(u, AT, ({}, weights)), model.data))
    np.testing.assert_array_equal(bounds(0.3), bounds(0.3))
    assert (bounds(0.3) != bounds(0.30000001)).all()
