"""Stochastic methods besides ADVI x their laws: batch and match, score matching, natural gradients, IVON."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm

import bbvi
from bbvi.algorithms.bam import bam_update, bam_update_low_rank, gsm_update, symmetric_kl
from bbvi.algorithms.ivon import new_curvature
from bbvi.algorithms.natural_gradient import (
    DELTA,
    cross_entropy,
    full_rank_step,
    mean_field_step,
    natural_gradient,
    new_precision,
)
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters
from tests.targets import COVARIANCE, DIM, MEAN, PRECISION, gaussian, independent

SD = np.sqrt(np.diag(COVARIANCE))


def equal(n):
    return jnp.full(n, 1 / n)


def draws(n, dim, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.standard_normal((n, dim))), jnp.asarray(rng.standard_normal((n, dim)))


# -- batch and match ---------------------------------------------------------------------------------------------------


def test_one_large_step_of_bam_is_exact_for_a_gaussian(x64):
    """With B = dim + 2 draws and no regularisation to speak of."""
    z = draws(DIM + 2, DIM)[0]
    loc, factor = bam_update(z, -(z - MEAN) @ PRECISION, equal(DIM + 2), jnp.asarray(1e8))
    np.testing.assert_allclose(loc, MEAN, atol=1e-5)
    np.testing.assert_allclose(factor @ factor.T, COVARIANCE, atol=1e-5)


def test_bam_converges_to_a_gaussian_of_eight_coordinates(x64):
    """Ten draws in each of 30 steps of lambda = B dim."""
    rng, dim, n = np.random.default_rng(3), 8, 10
    root = rng.standard_normal((dim, dim)) + 2 * np.eye(dim)
    precision, mean = root @ root.T, rng.standard_normal(dim)
    loc, scale = jnp.zeros(dim), jnp.eye(dim)
    update = jax.jit(bam_update)
    for _ in range(30):
        z = rng.standard_normal((n, dim))
        g = -((loc + z @ scale.T) - mean) @ precision
        move, factor = update(z, g @ scale, equal(n), jnp.asarray(float(n * dim)))
        loc, scale = loc + scale @ move, scale @ factor
    np.testing.assert_allclose(loc, mean, atol=1e-10)
    np.testing.assert_allclose(scale @ scale.T, np.linalg.inv(precision), atol=1e-10)


@pytest.mark.parametrize("regularisation", [0.1, 3.0, 1e4])
@pytest.mark.parametrize(("n", "dim"), [(12, 5), (3, 9)])
def test_forms_of_the_bam_update_agree(n, dim, regularisation, x64):
    """Eigenvalue form, low-rank form, and the formula with the root of a matrix that is not symmetric."""
    (z, g), lam = draws(n, dim), regularisation
    loc, factor = bam_update(z, g, equal(n), jnp.asarray(lam))
    other_loc, other = bam_update_low_rank(z, g, equal(n), jnp.asarray(lam))
    rounding = 1e-9 * (1 + lam)
    np.testing.assert_allclose(other_loc, loc, atol=rounding)
    np.testing.assert_allclose(other @ other.T, factor @ factor.T, atol=rounding)

    zb, gb = np.mean(z, axis=0), np.mean(g, axis=0)
    u = lam * np.cov(g.T, bias=True) + lam / (1 + lam) * np.outer(gb, gb)
    v = np.eye(dim) + lam * np.cov(z.T, bias=True) + lam / (1 + lam) * np.outer(zb, zb)
    formula = 2 * v @ np.linalg.inv(np.eye(dim) + np.real(sqrtm(np.eye(dim) + 4 * u @ v)))
    np.testing.assert_allclose(factor @ factor.T, formula, atol=10 * rounding)
    np.testing.assert_allclose(loc, lam / (1 + lam) * (formula @ gb + zb), atol=10 * rounding)


def test_the_bam_update_minimises_its_objective(x64):
    (z, g), lam, n, dim = draws(7, 3), 2.0, 7, 3

    def objective(loc, covariance):
        inverse = jnp.linalg.inv(covariance)
        mismatch = -(z - loc) @ inverse - g
        fisher = jnp.mean(jnp.sum(mismatch @ covariance * mismatch, axis=1))
        divergence = 0.5 * (jnp.trace(inverse) + loc @ inverse @ loc - dim + jnp.linalg.slogdet(covariance)[1])
        return fisher + 2 / lam * divergence

    loc, factor = bam_update(z, g, equal(n), jnp.asarray(lam))
    slope, matrix = jax.grad(objective, argnums=(0, 1))(loc, factor @ factor.T)
    np.testing.assert_allclose(slope, 0, atol=1e-10)
    np.testing.assert_allclose(matrix + matrix.T, 0, atol=1e-10)  # among symmetric matrices


def test_gsm_matches_the_score(x64):
    """After a step from one draw, the score of q there is that of the target."""
    for seed in range(5):
        z, g = draws(1, 4, seed)
        loc, covariance = gsm_update(z, 3 * g, equal(1))
        np.testing.assert_allclose(-np.linalg.solve(covariance, z[0] - loc), 3 * g[0], rtol=1e-9)


def test_covariances_stay_positive_definite():
    """10 000 random updates, badly scaled ones among them."""
    rng = np.random.default_rng(0)
    z = rng.standard_normal((10_000, 3, 4))
    g = rng.standard_normal((10_000, 3, 4)) * 10.0 ** rng.uniform(-4, 4, (10_000, 1, 1))
    for rule in (bam_update, bam_update_low_rank):
        factors = jax.vmap(lambda z, g, rule=rule: rule(z, g, jnp.full(3, 1 / 3), jnp.asarray(10.0))[1])(z, g)
        assert np.isfinite(factors).all()
        assert (np.linalg.slogdet(np.asarray(factors, float))[1] > -60).all()


def test_symmetric_divergence(x64):
    loc, scale = jnp.array([1.0, 2.0]), jnp.array([[2.0, 0.0], [0.5, 1.5]])
    covariance = scale @ scale.T
    one = 0.5 * (jnp.trace(covariance) + loc @ loc - 2 - jnp.linalg.slogdet(covariance)[1])
    inverse = jnp.linalg.inv(covariance)
    other = 0.5 * (jnp.trace(inverse) + loc @ inverse @ loc - 2 + jnp.linalg.slogdet(covariance)[1])
    np.testing.assert_allclose(symmetric_kl(loc, scale), one + other)


# -- natural gradients -------------------------------------------------------------------------------------------------


def test_a_full_step_is_exact_for_a_gaussian(x64):
    q = bbvi.FullRank.standard(DIM)
    q = full_rank_step(q, jnp.asarray(PRECISION @ MEAN / 100), jnp.asarray(PRECISION), jnp.asarray(1.0))
    np.testing.assert_allclose(q.loc, MEAN / 100, atol=1e-12)
    np.testing.assert_allclose(q.scale.matrix() @ q.scale.matrix().T, COVARIANCE, atol=1e-12)
    d = jnp.arange(1.0, 5.0)
    q = mean_field_step(bbvi.MeanField.standard(DIM), d * 0.1, d, jnp.asarray(1.0))
    np.testing.assert_allclose(q.loc, 0.1, atol=1e-12)
    np.testing.assert_allclose(q.sd(), d**-0.5, rtol=1e-12)


def test_precisions_stay_positive():
    """10 000 random curvatures of either sign, and all rates up to 1."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(10_000) * 10.0 ** rng.uniform(-3, 3, 10_000)
    b = new_precision(x, rng.uniform(0, 1, 10_000))
    assert (b > 0).all()
    assert (new_curvature(x, 0.3) >= 0.5).all()


def test_low_rank_steps_solve_the_damped_fisher_system(x64):
    """The Hessian of the cross-entropy is the Fisher information: that of a dense Gaussian in the same parameters."""
    rng = np.random.default_rng(1)
    q = jax.tree.map(lambda p: p + 0.3 * rng.standard_normal(p.shape), bbvi.LowRank.standard(5, rank=2))
    flat, unravel = jax.flatten_util.ravel_pytree(q)

    def dense(theta):
        p = unravel(theta)
        return p.loc, jnp.diag(jnp.exp(2 * p.scale.log_diagonal)) + p.scale.factor @ p.scale.factor.T

    loc, covariance = dense(flat)
    other = unravel(flat + 0.1)
    other_loc, other_covariance = dense(flat + 0.1)
    inverse = jnp.linalg.inv(other_covariance)
    exact = 0.5 * (jnp.trace(inverse @ covariance) + jnp.linalg.slogdet(other_covariance)[1])
    exact += 0.5 * (loc - other_loc) @ inverse @ (loc - other_loc)
    np.testing.assert_allclose(cross_entropy(q, other), exact, rtol=1e-10)

    inverse = jnp.linalg.inv(covariance)
    jac_loc, jac = jax.jit(jax.jacobian(dense))(flat)
    half = jnp.einsum("ab,bct->act", inverse, jac)
    fisher = jac_loc.T @ inverse @ jac_loc + 0.5 * jnp.einsum("abs,bat->st", half, half)
    gradient = jnp.asarray(rng.standard_normal(flat.size))
    natural = jax.jit(natural_gradient)(q, unravel(gradient))
    np.testing.assert_allclose(natural.loc, covariance @ gradient[:5], rtol=1e-8)
    fisher, gradient = fisher[5:, 5:], gradient[5:]  # the mean has no part in the covariance
    solved = jnp.linalg.solve(fisher + DELTA * jnp.eye(len(fisher)), gradient)
    found = jnp.concatenate([natural.scale.log_diagonal, natural.scale.factor.ravel()])
    np.testing.assert_allclose(found, solved, atol=2e-2 * jnp.abs(solved).max())


# -- through fit -------------------------------------------------------------------------------------------------------

RECOVERED = [  # method, family, target, means, sds
    ("bam", "full_rank", gaussian, MEAN, SD),
    ("gsm", "full_rank", gaussian, MEAN, SD),
    ("natural_gradient", "full_rank", gaussian, MEAN, SD),
    ("natural_gradient", "mean_field", independent, MEAN, 1 / np.arange(1, 5)),
    ("natural_gradient", "low_rank", independent, MEAN, 1 / np.arange(1, 5)),
    ("ivon", "mean_field", independent, MEAN, 1 / np.arange(1, 5)),
]


@pytest.mark.parametrize(("method", "family", "target", "mean", "sd"), RECOVERED)
def test_a_gaussian_is_recovered(method, family, target, mean, sd):
    posterior = bbvi.fit(target, DIM, method=method, family=family, num_steps=4000)
    q, history = posterior.distribution, posterior.history
    assert posterior.diagnosis.stop is bbvi.Stop.CONVERGED
    np.testing.assert_allclose(q.mean(), mean, atol=0.1 * sd.min())
    np.testing.assert_allclose(q.sd(), sd, rtol=0.1)
    products = 4 * DIM if (method, family) == ("natural_gradient", "full_rank") else 0
    assert (history.hessian_vector_products == products).all()
    assert (history.gradients == history.gradients[0]).all()


def walled(x):
    return jnp.where(x[0] < 1.5, gaussian(x), jnp.nan)  # one standard deviation above its mean


@pytest.mark.parametrize("method", ["bam", "gsm", "natural_gradient", "ivon"])
def test_a_region_without_density_does_not_spoil_a_fit(method):
    posterior = bbvi.fit(walled, DIM, method=method, num_steps=400)
    assert np.isfinite(posterior.distribution.mean()).all()
    assert posterior.distribution.mean()[0] < 1.5
    assert posterior.history.non_finite.sum() > 0


def test_ivon_learns_ten_thousand_badly_scaled_coordinates():
    dim = 10_000
    scales = jnp.logspace(-3, 3, dim)
    posterior = bbvi.fit(lambda x: -0.5 * jnp.sum((x / scales.astype(x.dtype) - 1) ** 2), dim, method="ivon")
    q = posterior.distribution
    assert np.max(np.abs(q.mean() - scales) / scales) < 0.1
    error = np.abs(q.sd() / scales - 1)
    assert np.quantile(error, 0.99) < 0.1
    assert error.max() < 0.2


def test_curvature_of_a_quadratic_is_learnt_under_noise(x64):
    """The precision of each coordinate within 5 %, from a start that is wrong by a factor of 4."""
    problem = Problem(make_parameters(DIM), None, independent)
    algorithm = bbvi.IVON()
    q = bbvi.MeanField(jnp.asarray(MEAN), jnp.log(2 / jnp.arange(1.0, 5.0)))
    noise = np.random.default_rng(0).standard_normal((3000, 2, DIM))
    noise = jnp.asarray(np.concatenate([noise, -noise], axis=1))

    def step(carry, noise):
        q, aux = carry
        q, aux, _ = algorithm.update(noise, problem, q, aux, jnp.asarray(0.2))
        return (q, aux), q.sd() ** -2

    _, precisions = jax.lax.scan(step, (q, algorithm.init_aux(q)), noise)
    np.testing.assert_allclose(precisions[1000:].mean(axis=0), np.arange(1, 5) ** 2, rtol=0.05)
    assert (precisions > 0).all()


REFUSED = [
    (lambda: bbvi.BaM(num_draws=1), "needs at least 2"),
    (lambda: bbvi.NaturalGradient(num_draws=3), "must be even"),
    (lambda: bbvi.IVON(num_draws=1), "must be even"),
    (lambda: bbvi.fit(gaussian, DIM, method="bam", family="mean_field"), "fits the families 'full_rank'"),
]


@pytest.mark.parametrize(("call", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_refusals_say_why(call, words):
    with pytest.raises(ValueError, match=words):
        call()
