"""Every estimator x the laws of a gradient estimator, and the laws of noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import bbvi
from bbvi import arguments
from bbvi.parameters import make_parameters
from bbvi.problem import Problem
from bbvi.random import DeviceRandom, HostRandom
from tests.targets import COVARIANCE, DIM, LOG_EVIDENCE, MEAN, PRECISION, gaussian, smooth
from tests.test_distributions import member

ESTIMATORS = [estimator() for estimator in arguments.ESTIMATORS.values()]
NOISES = [bbvi.IID(), bbvi.Antithetic(), bbvi.Sobol()]
pytestmark = pytest.mark.usefixtures("x64")


def problem(logprob, dim=DIM):
    return Problem(make_parameters(dim), None, logprob)


def draws(sets, n, dim=DIM, noise=NOISES[0], seed=0):
    return jnp.asarray(noise(HostRandom((seed,)), sets, n, dim))


def gradients(estimator, q, target, noise):
    """Gradient estimates of -ELBO, one per set of noise."""
    loss = lambda q, eps: estimator(q, target, eps)[0]
    return jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(q, noise)


def exact_gaussian():
    return bbvi.FullRank.from_scale_tril(jnp.asarray(MEAN), jnp.linalg.cholesky(COVARIANCE))


UNBIASED = [(e, noise) for e in ESTIMATORS for noise in NOISES if e.uses_gradients or noise == bbvi.IID()]


@pytest.mark.parametrize(("estimator", "noise"), UNBIASED, ids=lambda each: type(each).__name__)
def test_gradient_is_unbiased(estimator, noise):
    """For a Gaussian target the gradient of -ELBO is P (m - mu) in the mean, and P_ii s_i^2 - 1 in log s_i."""
    q = member(bbvi.MeanField, DIM)
    sets = 20_000
    estimates = gradients(estimator, q, problem(gaussian), draws(sets, 8, noise=noise))
    s = jnp.exp(q.log_scale)
    exact = {"loc": PRECISION @ (q.loc - MEAN), "log_scale": jnp.diag(PRECISION) * s**2 - 1}
    for name, estimate in estimates.leaves().items():
        se = estimate.std(axis=0) / sets**0.5
        assert jnp.all(jnp.abs(estimate.mean(axis=0) - exact[name]) < 5 * se + 1e-10), name


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: estimator.name)
def test_elbo_is_unbiased_with_a_true_standard_error(estimator):
    q, target = exact_gaussian().affine(jnp.zeros(DIM), jnp.full(DIM, 1.3)), problem(gaussian)
    values = jax.jit(jax.vmap(lambda eps: estimator(q, target, eps)[1]))(draws(4000, 10))
    difference = q.mean() - MEAN
    scale = q.scale_tril
    exact = -0.5 * (jnp.trace(PRECISION @ scale @ scale.T) + difference @ PRECISION @ difference) + q.entropy()
    assert abs(values.value.mean() - exact) < 5 * values.value.std() / 4000**0.5
    np.testing.assert_allclose(jnp.sqrt((values.standard_error**2).mean()), values.value.std(), rtol=0.1)


def test_sticking_the_landing_is_zero_at_the_truth():
    target, q = problem(gaussian), exact_gaussian()
    zero = gradients(bbvi.StickingTheLanding(), q, target, draws(3, 5))
    np.testing.assert_allclose(zero.loc, 0, atol=1e-12)
    np.testing.assert_allclose(jnp.tril(zero.raw_tril), 0, atol=1e-12)
    estimate = bbvi.StickingTheLanding()(q, target, draws(1, 5)[0])[1]
    np.testing.assert_allclose(estimate.value, LOG_EVIDENCE, rtol=1e-12)
    assert float(estimate.standard_error) < 1e-12


def test_closed_form_entropy_is_noisy_at_the_truth():
    noisy = gradients(bbvi.ELBO(), exact_gaussian(), problem(gaussian), draws(50, 5))
    assert noisy.loc.std() > 0.1


def test_elbo_reads_like_the_tweet():
    """Loss and gradient are those of -(entropy + mean log p), differentiated by JAX."""
    q, eps = member(bbvi.FullRank, DIM), draws(1, 6)[0]
    tweet = lambda q: -(q.entropy() + jax.vmap(smooth)(q.push(eps)).mean())
    ours = lambda q: bbvi.ELBO()(q, problem(smooth), eps)[0]
    np.testing.assert_allclose(ours(q), tweet(q), rtol=1e-12)
    for a, b in zip(jax.tree.leaves(jax.grad(ours)(q)), jax.tree.leaves(jax.grad(tweet)(q)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("noise", NOISES[1:], ids=lambda noise: type(noise).__name__)
def test_leave_one_out_baseline_refuses_dependent_draws(noise):
    with pytest.raises(ValueError, match="independent"):
        bbvi.ScoreFunction(noise)


def test_score_function_divides_by_n_minus_one():
    """Two draws give an unbiased gradient too; the population variance would halve it."""
    q, sets = member(bbvi.MeanField, 1), 200_000
    estimate = gradients(bbvi.ScoreFunction(), q, problem(lambda x: -0.5 * jnp.sum(x**2), 1), draws(sets, 2, 1)).loc
    assert abs(estimate.mean() - q.loc[0]) < 5 * estimate.std() / sets**0.5


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: estimator.name)
@pytest.mark.parametrize("bad", [jnp.nan, -jnp.inf, jnp.inf])
def test_draws_without_density_do_not_spread(estimator, bad):
    target = problem(lambda x: jnp.where(x[0] > 0, -0.5 * jnp.sum(x**2), bad))
    q, eps = bbvi.MeanField.standard(DIM), draws(1, 64)[0]
    (loss, estimate), gradient = jax.value_and_grad(estimator, has_aux=True)(q, target, eps)
    assert int(estimate.non_finite) == int((eps[:, 0] <= 0).sum())
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((loss, gradient, estimate.value)))
    assert gradient.loc[0] < 0  # away from the bad region


@pytest.mark.parametrize("random", [HostRandom, DeviceRandom])
@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: type(noise).__name__)
def test_noise_is_standard_normal(noise, random):
    points = np.asarray(noise(random((7,)), 500, 16, 3))
    assert points.shape == (500, 16, 3)
    firsts = points[:, 0]  # one draw of each set: independent under every scheme
    for column in firsts.T:
        assert stats.kstest(column, "norm").pvalue > 1e-4
    assert np.abs(np.corrcoef(firsts.T) - np.eye(3)).max() < 0.2


def test_antithetic_draws_cancel_odd_functions():
    points = draws(10, 8, noise=bbvi.Antithetic())
    np.testing.assert_allclose((points**3).sum(axis=1), 0, atol=1e-12)


def test_sobol_draws_fill_space_evenly():
    """Each of n equal cells of every axis holds exactly one of n points, after every scramble."""
    points = stats.norm.cdf(draws(20, 16, noise=bbvi.Sobol()))
    cells = np.sort((points * 16).astype(int), axis=1)
    np.testing.assert_array_equal(cells, np.broadcast_to(np.arange(16)[None, :, None], cells.shape))
    assert len(np.unique(points)) == points.size


def test_better_noise_has_less_variance():
    q, target = member(bbvi.MeanField, DIM), problem(smooth)
    spread = {
        type(noise): float(gradients(bbvi.ELBO(), q, target, draws(300, 16, noise=noise)).loc.var(axis=0).sum())
        for noise in NOISES
    }
    assert spread[bbvi.Antithetic] < 0.7 * spread[bbvi.IID]
    assert spread[bbvi.Sobol] < 0.3 * spread[bbvi.IID]
