"""Models of groups: their marginal against closed forms and grids, fits against exact answers, and bad input."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln
from jax.scipy.stats import bernoulli, gamma, multivariate_normal, norm, poisson
from numpyro.distributions import constraints

import bbvi
from bbvi.data.groups import read_groups
from bbvi.models import own as own_parameters
from bbvi.models.local import NODES_ALONG, find_gaussian, nodes
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters

RNG = np.random.default_rng(0)
LABELS = np.repeat(["c", "a", "b", "e", "d"], [4, 2, 3, 1, 4])[RNG.permutation(14)]
NAMES = ["a", "b", "c", "d", "e"]
Y, X = RNG.standard_normal(14) + 0.5, RNG.standard_normal((14, 8))
SHARED = {"mean": 0.3, "log_sd": 0.2}


def log_prior(p):
    return norm.logpdf(p["mean"], 0, 2) + norm.logpdf(p["log_sd"])


def normal(p, own):
    return norm.logpdf(own["a"], p["mean"], jnp.exp(p["log_sd"])).sum()


def slopes(dim):
    """A regression in each group: y = x a + noise, with a ~ N(mean, sd)."""
    return bbvi.from_groups(
        log_prior,
        normal,
        lambda p, own, rows: norm.logpdf(rows["y"], rows["x"] @ own["a"], 0.7),
        dim={"mean": (), "log_sd": ()},
        local={"a": (dim,)},
        data={"y": Y, "x": X[:, :dim]},
        group=LABELS,
    )


def intercepts(log_likelihood, y, labels=LABELS, **more):
    return bbvi.from_groups(
        log_prior,
        normal,
        lambda p, own, rows: log_likelihood(rows["y"], own["a"]),
        **{"dim": {"mean": (), "log_sd": ()}, "local": {"a": ()}, "data": {"y": y}, "group": labels, **more},
    )


def marginals(model, values):
    """The log likelihood of each group."""
    return model.logprob.log_likelihood(values, model.data)


def as_arrays(values):
    return {name: jnp.asarray(value, float) for name, value in values.items()}


# -- the marginal ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 3, 7])
def test_the_marginal_of_a_gaussian_hierarchy_is_exact_with_its_derivatives(x64, dim):
    model = slopes(dim)

    def exact(p):
        def of(label):
            x, y = X[label == LABELS, :dim], Y[label == LABELS]
            covariance = 0.49 * jnp.eye(len(y)) + jnp.exp(2 * p["log_sd"]) * x @ x.T
            return multivariate_normal.logpdf(y, x.sum(axis=1) * p["mean"], covariance)

        return jnp.stack([of(label) for label in NAMES])

    def with_derivatives(f):
        total = lambda p: f(p) @ jnp.array([1.0, 2.0, -1.0, 0.5, 3.0])
        return jax.jit(lambda p: (f(p), jax.grad(total)(p), jax.hessian(total)(p)))(as_arrays(SHARED))

    found, truth = with_derivatives(partial(marginals, model)), with_derivatives(exact)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-8), found, truth)


COUNTS = np.round(np.exp(Y))
LIKELIHOODS = {
    "logistic": (lambda y, a: bernoulli.logpmf(y, jax.nn.sigmoid(a)), (Y > 0.5).astype(float)),
    "all of a group agree": (lambda y, a: bernoulli.logpmf(y, jax.nn.sigmoid(a)), np.ones(14)),
    "poisson": (lambda y, a: poisson.logpmf(y, jnp.exp(a)), COUNTS),
    "large counts": (lambda y, a: poisson.logpmf(y, jnp.exp(a)), 400 * COUNTS),
}


@pytest.mark.parametrize(("log_likelihood", "y"), LIKELIHOODS.values(), ids=LIKELIHOODS)
def test_the_marginal_is_that_of_a_grid_with_its_gradient(x64, log_likelihood, y):
    model, grid = intercepts(log_likelihood, y), jnp.linspace(-12, 12, 40_001)

    def exact(p):
        def of(label):
            rows = y[label == LABELS]
            values = jax.vmap(lambda a: normal(p, {"a": a}) + log_likelihood(rows, a).sum())(grid)
            return jax.nn.logsumexp(values) + jnp.log(grid[1] - grid[0])

        return jnp.stack([of(label) for label in NAMES])

    at = as_arrays(SHARED)
    np.testing.assert_allclose(marginals(model, at), exact(at), atol=3e-6)
    jax.tree.map(
        partial(np.testing.assert_allclose, atol=1e-5),
        jax.jit(jax.jacrev(partial(marginals, model)))(at),
        jax.jit(jax.jacrev(exact))(at),
    )


def test_own_parameters_may_be_constrained(x64):
    model = bbvi.from_groups(
        lambda p: 0.0,
        lambda p, own: gamma.logpdf(own["rate"] * p["b"], p["a"]) + jnp.log(p["b"]),
        lambda p, own, rows: poisson.logpmf(rows, own["rate"]),
        dim={"a": (), "b": ()},
        local={"rate": ()},
        data=COUNTS,
        group=LABELS,
        constraints={"a": constraints.positive, "b": constraints.positive},
        local_constraints={"rate": constraints.positive},
    )
    a, b = 2.5, 1.5
    for label, found in zip(NAMES, marginals(model, as_arrays({"a": a, "b": b})), strict=True):
        y = COUNTS[label == LABELS]
        total = a + y.sum()
        exact = gammaln(total) - gammaln(a) + a * np.log(b) - total * np.log(b + len(y)) - gammaln(y + 1.0).sum()
        np.testing.assert_allclose(found, exact, atol=1e-5)


@pytest.mark.parametrize("dim", range(1, 9))
def test_nodes_are_exact_to_the_fifth_degree(dim):
    t, log_weights = nodes(dim)
    weights = np.exp(log_weights - 0.5 * np.sum(t**2, axis=1))
    moments = np.einsum("k,ki,kj->ij", weights, t**2, t**2)
    np.testing.assert_allclose(weights.sum(), 1)
    np.testing.assert_allclose(np.einsum("k,ki,kj->ij", weights, t, t), np.eye(dim), atol=1e-12)
    np.testing.assert_allclose(moments, 1 + 2 * np.eye(dim))
    assert len(t) <= 272
    assert dim not in NODES_ALONG or len(t) == NODES_ALONG[dim] ** dim


SEARCHES = {  # log density of one coordinate, looks at most
    "a Gaussian far away": (lambda x: -0.5 * jnp.sum((x - 1e3) ** 2) / 1e-4, 2),
    "a logistic regression": (lambda x: 3 * x[0] - 8 * jnp.logaddexp(0.0, x[0]) - 0.5 * x[0] ** 2, 4),
    "a large count": (lambda x: 1e4 * x[0] - jnp.exp(x[0]) - 0.5 * x[0] ** 2, 16),
    "Student's t, convex at the start": (lambda x: -2.5 * jnp.log1p((x[0] - 9) ** 2 / 4), 16),
}


@pytest.mark.parametrize(("f", "looks"), SEARCHES.values(), ids=SEARCHES)
def test_the_mode_of_a_group_is_found_with_few_looks(x64, f, looks):
    found = find_gaussian(f, 1, jnp.float64)
    assert found.looks <= looks
    assert abs(jax.grad(f)(found.loc)[0] * found.scale[0, 0]) < 1e-3


def test_a_search_that_may_end_early_holds_up_no_other_draw(x64):
    def is_irregular(logprob, data):
        return Problem(make_parameters({"mean": (), "log_sd": ()}, None), data, logprob).is_irregular

    def endless(p):
        looked = jax.lax.while_loop(lambda c: (c[0] < 10**6) & (c[1] < p["mean"]), lambda c: (c[0] + 1, c[1]), (0, 0.0))
        return looked[1]

    model = slopes(1)
    assert not is_irregular(model.logprob, model.data)
    assert is_irregular(endless, None)


def test_a_group_without_a_mode_has_no_density(x64):
    assert np.isnan(find_gaussian(lambda x: jnp.sum(x), 1, jnp.float64).scale).all()


# -- fits --------------------------------------------------------------------------------------------------------------

GROUPS, ROWS = 40, 5
TRUE = RNG.normal(1, 2, GROUPS)
MANY = np.repeat(np.arange(GROUPS) * 10, ROWS)
SEEN = TRUE[np.arange(GROUPS * ROWS) // ROWS] + RNG.standard_normal(GROUPS * ROWS)
HIERARCHY = intercepts(lambda y, a: norm.logpdf(y, a, 1.0), SEEN, MANY)


@pytest.fixture(scope="module")
def posterior():
    return bbvi.fit(HIERARCHY)


@pytest.fixture(scope="module")
def exact():
    """Means and sds of mean, log_sd and the groups' own parameters, on a grid of the first two."""
    mean, log_sd = (axis[..., None] for axis in np.meshgrid(np.linspace(-2, 4, 201), np.linspace(-0.2, 1.6, 201)))
    own, prior = SEEN.reshape(GROUPS, ROWS).mean(axis=1), np.exp(2 * log_sd)
    spread = prior + 1 / ROWS
    log_p = -0.5 * (mean[..., 0] / 2) ** 2 - 0.5 * log_sd[..., 0] ** 2
    log_p += np.sum(-0.5 * (own - mean) ** 2 / spread - 0.5 * np.log(spread), axis=-1)
    weights = (np.exp(log_p - log_p.max()) / np.exp(log_p - log_p.max()).sum())[..., None]
    share = prior / spread
    at = share * own + (1 - share) * mean
    moments = {"mean": (mean, 0 * mean), "log_sd": (log_sd, 0 * mean), "a": (at, share / ROWS)}

    def moment(mean, variance):
        first = np.sum(weights * mean, axis=(0, 1))
        return first, np.sqrt(np.sum(weights * (mean**2 + variance), axis=(0, 1)) - first**2)

    return {name: moment(*each) for name, each in moments.items()}


def test_a_fit_has_the_exact_answer(posterior, exact):
    assert posterior.diagnosis.status is bbvi.Status.RELIABLE
    draws = posterior.sample(4000)
    for name, (mean, sd) in exact.items():
        assert np.max(np.abs(draws[name].mean(axis=0) - mean) / sd) < 0.08, name
        assert np.max(np.abs(draws[name].std(axis=0) / sd - 1)) < 0.08, name


def test_own_parameters_of_a_logistic_model_are_drawn_exactly(x64):
    log_likelihood, y = LIKELIHOODS["all of a group agree"]
    model = intercepts(log_likelihood, y)
    draws = model.local({name: np.full(4000, value) for name, value in SHARED.items()}, ["c"])["a"][:, 0]
    grid = np.linspace(-8, 12, 4001)
    log_p = norm.logpdf(grid, 0.3, np.exp(0.2)) - 4 * np.logaddexp(0, -grid)
    weights = np.exp(log_p - log_p.max()) / np.exp(log_p - log_p.max()).sum()
    mean = weights @ grid
    sd = np.sqrt(weights @ grid**2 - mean**2)
    assert abs(draws.mean() - mean) / sd < 0.05
    assert abs(draws.std() / sd - 1) < 0.05


def test_groups_whose_draws_are_poor_are_told_by_name(x64):
    y = np.where(LABELS == "d", 20.0, 0.0)  # its likelihood is a cliff, below which its prior is left as it was
    model = intercepts(lambda y, a: -jnp.exp(y * a), y)
    draws = {name: np.full(200, value) for name, value in SHARED.items()}
    poorest = model.poorest(draws, 3)
    assert next(iter(poorest)) == "d"
    assert len(poorest) == 3
    assert list(poorest.values()) == sorted(poorest.values())
    assert poorest["d"] < 10
    gaussian = intercepts(GAUSS, Y).poorest(draws, 5)
    assert min(gaussian.values()) > 14


def test_draws_of_a_group_do_not_depend_on_the_others(posterior):
    draws = posterior.sample(50)
    every = HIERARCHY.local(draws)["a"]
    np.testing.assert_allclose(HIERARCHY.local(draws, [390, 20])["a"], every[:, [39, 2]], rtol=1e-5)
    np.testing.assert_array_equal(draws["a"], HIERARCHY.local(draws)["a"])
    assert (HIERARCHY.local(draws, seed=1)["a"] != every).any()
    with pytest.raises(KeyError, match=r"there is no group 7"):
        HIERARCHY.local(draws, [7])


def test_own_parameters_are_left_out_where_they_are_many(posterior, monkeypatch):
    monkeypatch.setattr(own_parameters, "MOST_OWN_NUMBERS", 100 * GROUPS)
    assert "a" in posterior.sample(100)
    assert set(posterior.sample(101)) == {"mean", "log_sd"}


def test_arviz_has_the_labels_of_the_groups(posterior, tmp_path):
    tree = posterior.to_arviz(200)
    assert tree["posterior"]["a"].sel(group=390).shape == (1, 200)
    assert tree["log_likelihood"]["of_group"].dims == ("chain", "draw", "group")
    posterior.save(tmp_path / "posterior.npz")
    loaded = bbvi.load(tmp_path / "posterior.npz", logprob=HIERARCHY)
    np.testing.assert_array_equal(loaded.sample(20)["a"], posterior.sample(20)["a"])


# -- data --------------------------------------------------------------------------------------------------------------


def mapped(path, array):
    made = np.memmap(path, array.dtype, "w+", shape=array.shape)
    made[:] = array
    return made


def test_rows_in_files_are_views_and_mean_the_same(x64, tmp_path):
    y = mapped(tmp_path / "y", SEEN)
    labels, found = read_groups({"y": y}, MANY[::-1])
    assert labels == sorted(set(MANY.tolist()), reverse=True)
    assert isinstance(found.rows["y"], np.memmap)
    assert np.shares_memory(found.rows["y"], y)
    model = intercepts(lambda y, a: norm.logpdf(y, a, 1.0), y, MANY)
    draws = {name: np.full(3, value) for name, value in SHARED.items()}
    np.testing.assert_array_equal(model.local(draws)["a"], HIERARCHY.local(draws)["a"])


def test_a_fit_by_batches_of_groups_in_files(exact, tmp_path):
    model = intercepts(lambda y, a: norm.logpdf(y, a, 1.0), mapped(tmp_path / "y", SEEN), MANY)
    found = bbvi.fit(model, batch_size=10)
    assert found.diagnosis.status is bbvi.Status.RELIABLE
    for name in ("mean", "log_sd"):
        mean, sd = exact[name]
        assert abs(found.mean()[name] - mean) / sd < 0.08


def test_groups_of_unequal_sizes_are_filled_up_by_rows_that_do_not_count():
    labels, found = read_groups({"y": Y}, LABELS)
    assert labels == NAMES
    assert found.rows["y"].shape == (5, 4)
    assert found.used.sum() == 14
    for label, y, used in zip(labels, found.rows["y"], found.used, strict=True):
        np.testing.assert_array_equal(y[used], Y[label == LABELS])
    assert read_groups({"y": SEEN}, MANY)[1].used is None


UNEQUAL = np.repeat(np.arange(25), [60, 1, 9, 2, 1, *[3] * 20])[RNG.permutation(133)]


def test_groups_of_very_different_sizes_are_in_classes(x64):
    y = RNG.standard_normal(len(UNEQUAL))
    model, at = intercepts(GAUSS, y, UNEQUAL), as_arrays(SHARED)
    sizes = [len(each.places) for each in model.data.members]
    assert sizes == [3, 60]
    filled = model.data.take(np.arange(25))
    assert filled.rows["y"].shape == (25, 60)
    exact = model.logprob.log_likelihood(at, filled)
    np.testing.assert_allclose(model.logprob.of_groups(at, model.data), exact)
    total = log_prior(at) + exact.sum()
    for at_once in (False, True):
        np.testing.assert_allclose(model.logprob.estimate(at, model.data, 1.0, at_once), total)
    problem = Problem(make_parameters(model.dim, None), model.data, model.logprob)
    assert problem.num_rows == 25
    x = jnp.array([0.2, 0.3])
    of_batch = jax.jit(lambda batch: problem.minibatch(batch).log_density(x))
    batches = [of_batch(np.arange(5) + 5 * i) for i in range(5)]
    np.testing.assert_allclose(np.mean(batches), jax.jit(problem.log_density)(x))


def test_a_fit_to_groups_of_very_different_sizes():
    model = intercepts(GAUSS, UNEQUAL / 10 + RNG.standard_normal(len(UNEQUAL)), UNEQUAL)
    found = bbvi.fit(model, batch_size=10)
    assert found.diagnosis.status is bbvi.Status.RELIABLE
    assert found.to_arviz(100)["log_likelihood"]["of_group"].shape == (1, 100, 25)


def nan_in(y, row):
    return np.where(np.arange(len(y)) == row, np.nan, y)


GAUSS = lambda y, a: norm.logpdf(y, a, 1.0)
BAD = {  # arguments, type of error, words
    "too few labels": ({"labels": LABELS[:-1]}, ValueError, r"data must have the 13 rows of group .* \[\(14,\)\]"),
    "labels in two axes": ({"labels": LABELS[:, None]}, ValueError, r"one label for each row, .* \(14, 1\)"),
    "a NaN label": ({"labels": nan_in(np.arange(14.0), 3)}, ValueError, "no label in row 3"),
    "labels of objects": ({"labels": [None] * 14}, TypeError, "give integers or strings"),
    "NaN in a group": ({"y": nan_in(Y, 5)}, ValueError, rf"data\['y'\] holds NaN .* '{LABELS[5]}', in row 5"),
    "one name twice": ({"dim": {"a": ()}}, ValueError, "'a' is in dim and in local"),
    "dim is no dict": ({"dim": 3}, TypeError, "dim must be a dict"),
    "local is no dict": ({"local": ()}, TypeError, "local must be a dict"),
    "too many of one's own": ({"local": {"a": (9,)}}, ValueError, "9 free coordinates.*nested_laplace"),
}


@pytest.mark.parametrize(("given", "error", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_by_name(given, error, words):
    arguments = {"y": Y, "labels": LABELS} | given
    with pytest.raises(error, match=words):
        intercepts(GAUSS, **arguments)


BAD_FUNCTIONS = {
    "one number for all rows": ({"log_likelihood": lambda p, own, rows: rows["y"].sum()}, "each of the 5 rows"),
    "numbers in two axes": (
        {"log_likelihood": lambda p, own, rows: rows["y"][:, None]},
        r"log_likelihood must return .* shape \(5, 1\)",
    ),
    "local is a vector": ({"log_local": lambda p, own: own["a"] * jnp.ones(2)}, r"log_local must return a scalar"),
}


@pytest.mark.parametrize(("given", "words"), BAD_FUNCTIONS.values(), ids=BAD_FUNCTIONS)
def test_functions_that_return_something_else_are_refused(given, words):
    functions = {
        "log_prior": log_prior,
        "log_local": normal,
        "log_likelihood": lambda p, own, rows: norm.logpdf(rows["y"], own["a"], 1.0),
    } | given
    model = bbvi.from_groups(**functions, dim={"mean": (), "log_sd": ()}, local={"a": ()}, data={"y": SEEN}, group=MANY)
    with pytest.raises(ValueError, match=words):
        bbvi.fit(model)


def test_groups_without_density_are_named():
    model = intercepts(lambda y, a: jnp.sqrt(y) * norm.logpdf(a), np.where(LABELS == "b", -1.0, 1.0))
    with pytest.raises(FloatingPointError, match=r"1 of 5 groups have no finite density or no mode there: 'b'\. "):
        bbvi.fit(model)


def test_a_batch_larger_than_the_number_of_groups_is_refused():
    with pytest.raises(ValueError, match=r"batch_size=41 is more than the 40 rows"):
        bbvi.fit(HIERARCHY, batch_size=41)


def test_files_are_refused_that_would_have_to_be_sorted_or_filled_up(tmp_path):
    with pytest.raises(ValueError, match=r"must follow one another.*Write the file sorted by group"):
        intercepts(GAUSS, mapped(tmp_path / "y", Y), LABELS)
    with pytest.raises(ValueError, match=r"these have 1 to 4. Write the file with 4 rows for each"):
        intercepts(GAUSS, mapped(tmp_path / "z", Y), np.sort(LABELS))
