"""The parts of nested Laplace: structure in arrow form, the marginal of the hyper-parameters, and exact blocks."""

from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from bbvi.distributions import Hierarchical
from bbvi.distributions.affine import Affine
from bbvi.distributions.arrow import ArrowFactor
from bbvi.distributions.scales import Diagonal, Triangular
from bbvi.distributions.split import Split
from bbvi.nested.chains import run_chains
from bbvi.nested.climb import climb
from bbvi.nested.conditional import curvature, find_mode
from bbvi.nested.lines import along_lines
from bbvi.nested.marginal import log_marginal, marginal
from bbvi.nested.sampling import finished
from bbvi.structure import find_structure
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters
from tests.hierarchies import (
    counts,
    held_effects,
    held_lattice,
    lattice,
    simulate,
    simulate_slopes,
    simulate_walk,
    slopes,
    trials,
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
    return Hierarchical(UNEVEN, hyper, rng.standard_normal(4) * used, slope, np.zeros_like(slope), factor)


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


def widening():
    """A member whose latent coordinates are the wider, the larger the first hyper-parameter is."""
    return replace(member(), widening=np.array([[0.9, 0.1], [0.5, 0.0], [-1.5, 0.3], [0.0, 0.0]]))


@pytest.mark.usefixtures("x64")
def test_a_member_that_widens_has_the_density_and_moments_of_its_sampler():
    q, noise = widening(), np.random.default_rng(1).standard_normal((4, 5))
    volumes = np.linalg.slogdet(jax.vmap(jax.jacfwd(q.push_one))(noise))[1]
    normal = -0.5 * np.sum(noise**2, axis=1) - 2.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(q.log_prob(q.push(noise)), normal - volumes, rtol=1e-10)
    np.testing.assert_allclose(jax.vmap(q.forward_one)(noise)[1], volumes, rtol=1e-10)
    x = np.asarray(q.push(np.random.default_rng(2).standard_normal((100_000, 5))))
    np.testing.assert_allclose(q.mean(), x.mean(axis=0), atol=0.02 * x.std(axis=0).max())
    np.testing.assert_allclose(q.sd(), x.std(axis=0), rtol=0.02)
    np.testing.assert_allclose(q.entropy(), -np.mean(q.log_prob(x)), atol=0.02)


@pytest.mark.usefixtures("x64")
def test_scales_of_blocks_widen_as_along_a_funnel():
    """Given log tau, effects have standard deviation (1 + tau^-2)^(-1/2): its slope in log tau is 1 / (1 + tau^2)."""
    effects = lambda x, _: -0.5 * jnp.sum((x[1:] * jnp.exp(-x[0])) ** 2 + x[1:] ** 2) - 4 * x[0]
    with jax.numpy_dtype_promotion("standard"):
        q, _ = finished(problem(effects, 5, ()), near([-1.0], 0.05, 5), rounds=1)
    np.testing.assert_allclose(q.widening, 1 / (1 + np.exp(2 * q.hyper.loc[0])), rtol=0.01)


@pytest.mark.usefixtures("x64")
def test_a_diagonal_map_of_a_member_that_widens_maps_its_draws():
    q, noise = widening(), np.random.default_rng(1).standard_normal((4, 5))
    scale = np.array([1.0, 2.0, 0.5, 3.0, 0.1])
    mapped = q.after(Affine(np.arange(5.0), Diagonal.of(scale)))
    np.testing.assert_allclose(mapped.push(noise), np.arange(5.0) + scale * q.push(noise), rtol=1e-10)
    np.testing.assert_array_equal(Hierarchical.from_leaves(mapped.leaves()).push(noise), mapped.push(noise))


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


@pytest.mark.usefixtures("x64")
def test_chains_spread_in_all_of_many_hyper_parameters():
    """They begin at few places, of a q that is too narrow."""
    k = 24
    split = Split.of(np.arange(k), [[k], [k + 1]], k + 2)
    narrow = Hierarchical.of_split(split, Affine(np.zeros(k), Triangular.of(0.3 * np.eye(k))))
    target = problem(lambda x: -0.5 * jnp.sum(x**2), k + 2, None)
    x = run_chains(target, narrow, (0,)).draws.pool.x[:, :k]
    np.testing.assert_allclose(x.std(axis=0), 1, atol=0.15)
