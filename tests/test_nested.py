"""Nested Laplace: the marginal of the hyper-parameters, exact blocks, and fits of hierarchies."""

from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

import bbvi
from bbvi.distributions import Hierarchical
from bbvi.distributions.affine import Affine
from bbvi.distributions.arrow import ArrowFactor
from bbvi.distributions.scales import Diagonal, Triangular
from bbvi.distributions.split import Split
from bbvi.fitting import hierarchy
from bbvi.fitting.hierarchy import bent_parameter
from bbvi.nested.climb import climb
from bbvi.nested.conditional import curvature, find_mode
from bbvi.nested.lines import along_lines
from bbvi.nested.marginal import log_marginal, marginal
from bbvi.outcome import Status
from bbvi.policy import FEW_CHAINS
from bbvi.start.record import start_at
from bbvi.structure import find_structure
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters
from tests.hierarchies import (
    SCHOOLS,
    counts,
    exact,
    exact_held,
    exact_process,
    exact_walk,
    held_effects,
    held_lattice,
    held_normal,
    lattice,
    process,
    regression,
    schools,
    simulate,
    simulate_held,
    simulate_process,
    simulate_slopes,
    simulate_volatility,
    simulate_walk,
    slopes,
    trials,
    volatility,
    walk,
)

GROUPS = 12
COUNTS = simulate(counts, GROUPS, 3)
PHI = np.array([0.2, -0.3])


def problem(logprob, dim, data):
    return Problem(make_parameters(dim), jax.tree.map(jnp.asarray, data), logprob)


def gaussian(x):
    """Two hyper-parameters, a block of 2 and a block of 1, jointly Gaussian."""
    a, b = x[:2], x[2:]
    rest = jnp.array([b[0] - a[0], b[1] - 0.5 * a[1] + 0.3 * b[0], b[2] - a[0] + a[1]])
    return -0.5 * jnp.sum(a**2) - 0.5 * jnp.sum((rest / jnp.array([0.5, 1.0, 2.0])) ** 2)


UNEVEN = Split.of([0, 1], [[2, 3], [4, 5]], 5)  # 5 fills up the second block


# -- the split, and the family ----------------------------------------------------------------------------------------


def test_a_split_vector_is_joined_again():
    x = np.arange(1.0, 6.0)
    z = UNEVEN.latent(x)
    np.testing.assert_array_equal(z, [3, 4, 5, 0])
    np.testing.assert_array_equal(UNEVEN.join(x[:2], z), x)


def member():
    """A hierarchical distribution of uneven blocks."""
    rng = np.random.default_rng(0)
    hyper = Affine(np.array([0.5, -1.0]), Triangular.of(np.array([[0.7, 0.0], [0.3, 0.4]])))
    used = np.asarray(UNEVEN.used)
    slope = rng.standard_normal((4, 2)) * used[..., None]
    blocks = np.array([[[1.5, 0.0], [0.4, 0.8]], [[2.0, 0.0], [0.0, 1.0]]])
    entries = UNEVEN.entries
    factor = ArrowFactor.plain(blocks, np.zeros(entries.border.shape), np.zeros((0, 0)), entries.touched)
    return Hierarchical(UNEVEN, hyper, rng.standard_normal(4) * used, slope, factor)


def dense(q):
    """Its mean and covariance, from its sampler, which is affine."""
    push = lambda noise: np.asarray(q.push(jnp.asarray(noise)))
    mean = push(np.zeros((1, 5)))[0]
    root = (push(np.eye(5)) - mean).T
    return mean, root @ root.T


@pytest.mark.usefixtures("x64")
def test_density_and_moments_are_those_of_the_sampler():
    q = member()
    mean, covariance = dense(q)
    x = mean + np.random.default_rng(1).standard_normal((4, 5))
    squares = np.einsum("ni,ij,nj->n", x - mean, np.linalg.inv(covariance), x - mean)
    log_volume = 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
    np.testing.assert_allclose(q.log_prob(jnp.asarray(x)), -0.5 * squares - log_volume, rtol=1e-10)
    np.testing.assert_allclose(q.mean(), mean, rtol=1e-10)
    np.testing.assert_allclose(q.sd(), np.sqrt(np.diag(covariance)), rtol=1e-10)
    np.testing.assert_allclose(q.entropy(), 2.5 + log_volume, rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_a_diagonal_map_keeps_the_structure():
    outer = Affine(np.arange(5.0), Diagonal.of(np.array([1.0, 2.0, 0.5, 3.0, 0.1])))
    mean, covariance = dense(member().after(outer))
    before, inner = dense(member())
    scale = np.diag([1.0, 2.0, 0.5, 3.0, 0.1])
    np.testing.assert_allclose(mean, np.arange(5.0) + scale @ before, rtol=1e-10)
    np.testing.assert_allclose(covariance, scale @ inner @ scale, rtol=1e-10)


@pytest.mark.usefixtures("x64")
def test_leaves_give_the_same_distribution_back():
    q = member()
    again = Hierarchical.from_leaves(q.leaves())
    x = np.random.default_rng(1).standard_normal((4, 5))
    np.testing.assert_array_equal(again.log_prob(x), q.log_prob(x))


# -- the climb of the hyper-parameters --------------------------------------------------------------------------------


def near(phi, sd, dim):
    """A member near hyper-parameters `(k,)` with blocks of one coordinate, for a log density of x `(dim,)`."""
    k = len(phi)
    hyper = Affine(np.asarray(phi), Triangular.around(Diagonal.of(np.full(k, sd))))
    return jax.device_get(Hierarchical.of_split(Split.of(np.arange(k), np.arange(k, dim)[:, None], dim), hyper))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("sd", [1e-4, 1.0, 30.0])
def test_a_climb_ends_at_the_mode_whatever_the_scales_of_the_start(sd):
    target = problem(counts(True), GROUPS + 2, COUNTS)
    with jax.numpy_dtype_promotion("standard"):
        q, spent = climb(target, near([3.0, -2.0], sd, GROUPS + 2))
        slope = log_marginal(jnp.asarray(q.hyper.loc), target, q.split, q.centre)[1]
    assert np.linalg.norm(q.hyper.scale.matrix().T @ slope) < 0.3
    assert spent.gradients > 0


def spike(x):
    """A normal density of phi and another coordinate, and a spike in phi that holds a thousandth of the mass."""
    return jnp.logaddexp(-0.5 * x[0] ** 2, jnp.log(1e3) - 0.5 * ((x[0] - 3) * 1e6) ** 2) - 0.5 * x[1] ** 2


@pytest.mark.usefixtures("x64")
def test_a_spike_is_not_climbed():
    start = near([3.0], 1.0, 2)
    with jax.numpy_dtype_promotion("standard"):
        q, _ = climb(problem(lambda x, _: spike(x), 2, 0.0), start)
    np.testing.assert_array_equal(q.hyper.loc, start.hyper.loc)
    np.testing.assert_array_equal(q.hyper.scale.sd(), start.hyper.scale.sd())


# -- chains and lattices ----------------------------------------------------------------------------------------------

WALK = simulate_walk()
FIELD = {"y": np.random.default_rng(0).poisson(1.5, (9, 9)).astype(float)}


@cache
def connected(logprob, dim, seconds=10.0):
    """A problem whose latent coordinates touch each other, its structure, and the dense precision at some point."""
    target = problem(logprob, dim, WALK if logprob is walk else FIELD)
    with jax.numpy_dtype_promotion("standard"):
        structure = find_structure(target, np.full(dim, 0.1), np.ones(dim), seconds)
        x = 0.3 * np.random.default_rng(0).standard_normal(dim)
        hessian = -np.asarray(jax.hessian(target.log_density)(jnp.asarray(x)))
    return target, structure, x, hessian


def at_places(split, hessian):
    """The precision of all places of z."""
    used, at = np.asarray(split.used), np.asarray(split.latents)
    dense = np.eye(split.num_places)
    dense[np.ix_(used, used)] = hessian[np.ix_(at[used], at[used])]
    return dense


CONNECTED = {
    "a chain": (walk, 61),
    "a lattice": (lattice, 82),
    "a lattice whose sum is held": (held_lattice, 82),
    "effects whose sums are held": (held_effects, 82),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", ["a chain", "a lattice"])
def test_blocks_only_touch_separators(name):
    _, structure, _, hessian = connected(*CONNECTED[name])
    assert list(structure.hyper) == [0]
    assert len(structure.separators) > 0
    blocks = [block[block < structure.dim] for block in structure.blocks]
    assert sorted(np.concatenate([*blocks, structure.separators])) == list(range(1, structure.dim))
    for i, block in enumerate(blocks):
        others = np.concatenate(blocks[:i] + blocks[i + 1 :])
        assert not hessian[np.ix_(block, others)].any()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", CONNECTED)
def test_the_arrow_form_is_that_of_the_dense_precision(name):
    """Read from a few products, and then factored, solved and inverted."""
    target, structure, x, hessian = connected(*CONNECTED[name])
    split = structure.split()
    with jax.numpy_dtype_promotion("standard"):
        _, products = curvature(target, split, x[split.hyper], split.latent(jnp.asarray(x)))
    assert len(products) < 20
    factor, dense = split.factor(products), at_places(split, hessian)
    v = np.random.default_rng(1).standard_normal(split.num_places)
    np.testing.assert_allclose(factor.solve_both(v), np.linalg.solve(dense, v), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(factor.log_det(), 0.5 * np.linalg.slogdet(dense)[1], rtol=1e-10)
    np.testing.assert_allclose(factor.multiply_transposed(factor.solve_transposed(v)), v, rtol=1e-8)
    np.testing.assert_allclose(jnp.sum(factor.multiply_transposed(v) ** 2), v @ dense @ v, rtol=1e-8)
    by = np.where(split.used, np.random.default_rng(2).uniform(0.5, 2, split.num_places), 1)
    np.testing.assert_allclose(factor.scaled(by).solve_transposed(v), by * factor.solve_transposed(v), rtol=1e-8)
    of_sums = sum(v @ np.linalg.solve(dense, v) for v in split.sums)
    trace = jnp.sum(split.weights(factor.inverse()) * products)  # with the sums, that of the identity
    np.testing.assert_allclose(trace + of_sums, split.num_latent, rtol=1e-8)


def test_counts_on_a_chain_are_right(tmp_path):
    mean, sd, log_evidence = exact_walk(WALK)
    posterior = bbvi.fit(walk, 61, data=WALK, method="nested_laplace")
    assert posterior.diagnosis.status is Status.RELIABLE, posterior.diagnosis
    np.testing.assert_allclose((posterior.mean() - mean) / sd, 0, atol=0.12)
    np.testing.assert_allclose(posterior.sd() / sd, 1, atol=0.1)
    np.testing.assert_allclose(posterior.diagnosis.log_evidence.value, log_evidence, atol=0.1)
    posterior.save(tmp_path / "chain.npz")
    np.testing.assert_array_equal(bbvi.load(tmp_path / "chain.npz").distribution.sd(), posterior.distribution.sd())
    again = posterior.sample(2000, seed=1)
    np.testing.assert_allclose((again.mean(axis=0) - mean) / sd, 0, atol=0.2)


def test_chains_move_in_the_noise_of_a_hierarchy_that_is_dear_to_factor(monkeypatch):
    monkeypatch.setattr("bbvi.distributions.split.MOST_MULTIPLICATIONS", 0)
    monkeypatch.setattr("bbvi.nested.together.ENOUGH_EFFECTIVE", 1.0)
    data = simulate_volatility(60)
    posterior = bbvi.fit(volatility, 63, data=data, budget=bbvi.Budget(gradients=400_000))
    assert posterior.method == "chains", posterior.diagnosis
    assert isinstance(posterior.distribution, Hierarchical)
    assert posterior.diagnosis.chains.chains == FEW_CHAINS
    np.testing.assert_allclose(posterior.diagnosis.log_evidence.value, 46.7, atol=0.5)  # by 20 000 draws of chains


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("name", "sums"), [("a lattice whose sum is held", 1), ("effects whose sums are held", 2)])
def test_a_sum_that_is_held_is_left_out_of_the_pattern(name, sums):
    _, structure, _, hessian = connected(*CONNECTED[name])
    assert list(structure.hyper) == [0]
    assert f"{sums} sum" in str(structure)
    added = structure.sums.T @ structure.sums
    assert len(structure.sums) == sums
    rest = np.where(structure.pattern.toarray(), 0, hessian - added)
    np.testing.assert_allclose(rest, 0, atol=1e-9 * np.abs(added).max())


def test_effects_whose_sum_is_held_are_right():
    data = simulate_held()
    mean, sd, log_evidence = exact_held(data)
    posterior = bbvi.fit(held_normal, GROUPS + 1, data=data, method="nested_laplace")
    assert posterior.diagnosis.status is Status.RELIABLE, posterior.diagnosis
    np.testing.assert_allclose((posterior.mean() - mean) / sd, 0, atol=0.1)
    np.testing.assert_allclose(posterior.sd() / sd, 1, atol=0.1)
    np.testing.assert_allclose(posterior.diagnosis.log_evidence.value, log_evidence, atol=0.1)


@pytest.mark.parametrize("centred", [True, False])
def test_a_gaussian_process_is_right_in_both_forms(centred):
    """Its values are one dense block, drawn together given amplitude and length."""
    data, shapes = simulate_process(), {"f": (24,), "log_amplitude": (), "log_length": ()}
    mean, sd, log_evidence = exact_process(data)
    posterior = bbvi.fit(process(centred), shapes, data=data, latents=["f"])
    assert posterior.diagnosis.status is Status.RELIABLE, posterior.diagnosis
    assert posterior.diagnosis.chains is None
    draws = posterior.sample(4000, seed=1)
    hyper = np.stack([draws["log_amplitude"], draws["log_length"]], axis=1)
    np.testing.assert_allclose((hyper.mean(axis=0) - mean[:2]) / sd[:2], 0, atol=0.15)
    np.testing.assert_allclose(hyper.std(axis=0) / sd[:2], 1, atol=0.12)
    if centred:
        np.testing.assert_allclose((draws["f"].mean(axis=0) - mean[2:]) / sd[2:], 0, atol=0.15)
    volume = 12 * np.log(2 * np.pi)  # of 24 numbers, whose densities come without constants
    np.testing.assert_allclose(posterior.diagnosis.log_evidence.value, log_evidence + volume, atol=0.1)


@pytest.mark.parametrize(
    ("logprob", "shapes", "data", "sd", "latents"),
    [
        (process(True), {"f": (24,), "log_amplitude": (), "log_length": ()}, simulate_process(), 1.0, ["f"]),
        (
            lambda p, data: regression(jnp.append(p["b"], p["log_sd"]), data),
            {"b": (24,), "log_sd": ()},
            {"X": np.random.default_rng(0).standard_normal((1000, 24)), "y": np.ones(1000)},
            1000**-0.5,
            None,
        ),
    ],
    ids=["process", "regression"],
)
def test_where_newton_is_dear_a_long_parameter_that_others_bend_is_integrated_first(
    logprob, shapes, data, sd, latents, monkeypatch
):
    monkeypatch.setattr(hierarchy, "DEAR_OPERATIONS", 0)
    given = problem(logprob, shapes, data)
    start = start_at(Affine(np.zeros(given.dim), Diagonal(np.full(given.dim, np.log(sd)))))
    assert bent_parameter(given, start) == latents


def bounded(x, data):
    """A random walk that may not rise above a bound."""
    return walk(x, data) + jnp.where(x[1:].max() > 2.0, -jnp.inf, 0.0)


def test_chains_say_when_a_density_is_not_smooth():
    """At a bound the line integrals that clusters are accepted by are not those of the log density."""
    with jax.numpy_dtype_promotion("standard"):
        posterior = bbvi.fit(bounded, 61, data=WALK, method="nested_laplace")
    assert posterior.diagnosis.status in (Status.UNRELIABLE, Status.FAILED)


def test_a_fit_begins_at_another_one():
    posterior, data = fitted(counts, True)
    again = bbvi.fit(counts(True), 42, data=data, method="nested_laplace", init=posterior)
    np.testing.assert_allclose(again.mean()[:2], posterior.mean()[:2], atol=0.02)


# -- the marginal -----------------------------------------------------------------------------------------------------

MARGINALS = {
    "counts": (problem, counts(False), GROUPS + 2, COUNTS, Split.of([0, 1], np.arange(2, GROUPS + 2)[:, None], 14)),
    "pairs": (problem, counts(True), GROUPS + 2, COUNTS, Split.of([0, 1], np.arange(2, GROUPS + 2).reshape(-1, 2), 14)),
    "one large block": (
        problem,
        counts(True),
        26,
        simulate(counts, 24, 3),
        Split.of([0, 1], np.arange(2, 26)[None], 26),
    ),
    "uneven": (problem, lambda x, data: gaussian(x) - 0.1 * jnp.sum(x[2:] ** 4), 5, {}, UNEVEN),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", MARGINALS)
def test_the_gradient_of_the_marginal_is_that_of_its_values(name):
    make, logprob, dim, data, split = MARGINALS[name]
    target = marginal(make(logprob, dim, data), split, jnp.zeros(split.num_places))
    step = 1e-5 * np.array([[1, 0], [-1, 0], [0, 1], [0, -1]])
    values, gradients, finite = target.values_and_gradients(jnp.asarray(PHI + np.concatenate([np.zeros((1, 2)), step])))
    assert finite.all()
    np.testing.assert_allclose(gradients[0], (values[1::2] - values[2::2]) / 2e-5, rtol=3e-5)


@pytest.mark.usefixtures("x64")
def test_the_marginal_of_a_gaussian_is_exact():
    target = marginal(problem(lambda x, data: gaussian(x), 5, {}), UNEVEN, jnp.zeros(4))
    phis = np.random.default_rng(0).standard_normal((5, 2))
    values = target.log_densities(jnp.asarray(phis))
    # The blocks given phi have a precision that does not depend on it, and so a constant integral.
    constant = 1.5 * np.log(2 * np.pi) + np.log(0.5 * 1.0 * 2.0)
    np.testing.assert_allclose(values, -0.5 * np.sum(phis**2, axis=1) + constant, rtol=1e-10)


# -- exact blocks -----------------------------------------------------------------------------------------------------


def bernoulli(z, y, phi):
    """The density of one effect and its outcomes, without constants."""
    eta = phi[0] + np.exp(phi[1]) * z
    return np.exp(np.sum(y * eta - np.logaddexp(0, eta)) - 0.5 * z**2)


@pytest.mark.usefixtures("x64")
def test_blocks_are_integrated_and_drawn_exactly():
    """Against quadrature of each group of Bernoulli data by itself, where Laplace's method is biased."""
    data = simulate(trials, 5, 2)
    target = problem(trials(False), 7, data)
    split, phi = Split.of([0, 1], np.arange(2, 7)[:, None], 7), np.array([0.3, 0.7])
    mode = find_mode(target, split, jnp.asarray(phi), jnp.zeros(5))
    uniforms = np.random.default_rng(0).random((4000, 5, 2))
    made = along_lines(target, split, jnp.asarray(phi), mode, jnp.ones((1, 5, 1)), jnp.asarray(uniforms))
    log_integral, means = 0.0, []
    for group in range(5):
        y = data["y"][data["group"] == group]
        density = partial(bernoulli, y=y, phi=phi)
        integral = quad(density, -10, 10, points=[0])[0]
        log_integral += np.log(integral)
        means.append(quad(lambda z, density=density: z * density(z), -10, 10, points=[0])[0] / integral)
    log_prior = -0.5 * (phi[0] / 5) ** 2 - 0.5 * (phi[1] / 1.5) ** 2
    laplace = made.centre - mode.factor.log_det() + 2.5 * np.log(2 * np.pi)
    assert abs(laplace - log_prior - log_integral) > 0.1
    np.testing.assert_allclose(laplace + made.log_ratio - log_prior, log_integral, atol=1e-3)
    np.testing.assert_allclose(made.z.mean(axis=0), means, atol=0.06)
    assert made.error < 1e-3


@pytest.mark.usefixtures("x64")
def test_gaussian_blocks_need_no_correction():
    target = problem(slopes, 29, simulate_slopes())
    split = Split.of(np.arange(5), np.arange(5, 29).reshape(-1, 2), 29)
    phi = jnp.asarray(np.full(5, 0.1))
    mode = find_mode(target, split, phi, jnp.zeros(24))
    directions = np.random.default_rng(0).standard_normal((8, 12, 2))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    made = along_lines(target, split, phi, mode, jnp.asarray(directions), jnp.full((1, 12, 2), 0.5))
    np.testing.assert_allclose(made.log_ratio, 0, atol=1e-3)


# -- fits -------------------------------------------------------------------------------------------------------------


@cache
def fitted(kind, centred, groups=40, per_group=3):
    data = SCHOOLS if kind is schools else simulate(kind, groups, per_group)
    dim = 10 if kind is schools else groups + 2
    return bbvi.fit(kind(centred), dim, data=data, method="nested_laplace"), data


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize(("kind", "per_group"), [(counts, 3), (trials, 2)])
def test_hierarchies_are_right(kind, per_group, centred):
    posterior, data = fitted(kind, centred, per_group=per_group)
    means, sds, log_evidence = exact(kind, data)
    assert posterior.diagnosis.status is Status.RELIABLE, posterior.diagnosis
    np.testing.assert_allclose(posterior.mean()[:2], means, atol=0.07 * sds.min())
    np.testing.assert_allclose(posterior.sd()[:2], sds, rtol=0.07)
    np.testing.assert_allclose(posterior.diagnosis.log_evidence.value, log_evidence, atol=0.05)


@pytest.mark.parametrize("kind", [schools, counts])
def test_both_forms_of_a_model_cost_and_give_the_same(kind):
    (one, _), (other, _) = fitted(kind, True), fitted(kind, False)
    np.testing.assert_allclose(one.mean()[:2], other.mean()[:2], atol=0.01 * np.min(one.sd()[:2]))
    np.testing.assert_allclose(one.sd()[:2], other.sd()[:2], rtol=0.01)
    np.testing.assert_allclose(*(each.cost.gradients for each in (one, other)), rtol=0.2)


def test_what_was_integrated_out_is_said():
    posterior, _ = fitted(counts, True)
    assert "x[2..41] integrated by Laplace's method, corrected block by block" in str(posterior.diagnosis)


def test_a_posterior_has_what_all_have(tmp_path):
    posterior, _ = fitted(counts, True)
    draws = posterior.sample(500)
    np.testing.assert_allclose(draws.mean(axis=0)[:2], posterior.mean()[:2], atol=0.15 * np.max(posterior.sd()[:2]))
    assert posterior.to_arviz()["posterior"]["x"].shape[-1] == 42
    posterior.save(tmp_path / "posterior.npz")
    again = bbvi.load(tmp_path / "posterior.npz")
    np.testing.assert_array_equal(again.mean(), posterior.mean())
    assert isinstance(again.distribution, Hierarchical)


def test_the_default_finds_a_hierarchy_where_a_gaussian_is_not_enough():
    posterior = bbvi.fit(schools(True), 10, data=SCHOOLS)
    assert [stage.method for stage in posterior.ladder] == ["newton", "chains", "nested_laplace"]
    assert posterior.diagnosis.status is Status.RELIABLE


def test_latents_are_integrated_out_by_name():
    def logprob(values, data):
        return counts(True)(jnp.concatenate([values["phi"], values["effect"]]), data)

    posterior = bbvi.fit(logprob, {"phi": (2,), "effect": (40,)}, data=simulate(counts, 40, 3), latents=["effect"])
    assert [stage.method for stage in posterior.ladder] == ["nested_laplace"]
    np.testing.assert_allclose(posterior.mean()["phi"], fitted(counts, True)[0].mean()[:2], atol=0.01)


def test_an_interrupted_fit_goes_on_with_the_same_bits(tmp_path):
    arguments = {"data": COUNTS, "method": "nested_laplace"}
    part = bbvi.fit(counts(True), GROUPS + 2, num_steps=2, checkpoint=tmp_path / "state", **arguments)
    whole = bbvi.fit(counts(True), GROUPS + 2, checkpoint=tmp_path / "state", **arguments)
    assert len(part.history.elbo) == 2 < len(whole.history.elbo)
    np.testing.assert_array_equal(whole.mean(), bbvi.fit(counts(True), GROUPS + 2, **arguments).mean())


ROWS = {"X": np.random.default_rng(0).standard_normal((50, 3)), "y": np.random.default_rng(1).standard_normal(50)}
REFUSED = {
    "an unknown name": ({"latents": ["w"]}, ValueError, "latents='w' is unknown"),
    "no list": ({"latents": "x"}, TypeError, "a list of names"),
    "another method": ({"latents": ["x"], "method": "newton"}, ValueError, "method='auto' or 'nested_laplace'"),
    "all parameters": ({"latents": ["x"]}, ValueError, r"latents=\['x'\]: no small blocks"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_integrated_out_is_refused(name):
    arguments, error, words = REFUSED[name]
    with pytest.raises(error, match=words):
        bbvi.fit(regression, 4, data=ROWS, **arguments)
