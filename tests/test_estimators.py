"""Every estimator x the laws of a gradient estimator, and the laws of noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from scipy import stats

import bbvi
from bbvi.distributions.affine import Affine
from bbvi.distributions.scales import Diagonal, Triangular
from bbvi.draws.random import DeviceRandom, HostRandom, InProgram
from bbvi.fitting import arguments
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters
from tests.targets import COVARIANCE, DIM, LOG_EVIDENCE, MEAN, PRECISION, gaussian, smooth
from tests.test_distributions import member

ESTIMATORS = [estimator() for estimator in arguments.ESTIMATORS.values()]
RANDOM = {
    "host": lambda: HostRandom((7,)),
    "device": lambda: DeviceRandom(jax.random.key(7)),
    "in a program": lambda: InProgram(jnp.array([0, 7], jnp.uint32)),
}
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
    return bbvi.LocationScale(jnp.asarray(MEAN), Triangular.of(jnp.linalg.cholesky(COVARIANCE)))


def moved(q, by, factor):
    """The distribution of `by + factor x`."""
    return q.after(Affine(jnp.full(DIM, by), Diagonal.of(jnp.full(DIM, factor))))


OF_THE_ELBO = {"elbo", "sticking_the_landing", "monte_carlo_entropy", "score_function"}
UNBIASED = [
    (type(e)(noise), noise)
    for e in ESTIMATORS
    if e.name in OF_THE_ELBO
    for noise in NOISES
    if not e.independent or noise == bbvi.IID()
] + [(bbvi.HessianControl(estimator=bbvi.ELBO(noise)), noise) for noise in NOISES]


@pytest.mark.parametrize(("estimator", "noise"), UNBIASED, ids=lambda each: type(each).__name__)
def test_gradient_is_unbiased(estimator, noise):
    """For a Gaussian target the gradient of -ELBO is P (m - mu) in the mean, and P_ii s_i^2 - 1 in log s_i."""
    q = member(bbvi.MeanField, DIM)
    sets = 20_000
    estimates = gradients(estimator, q, problem(gaussian), draws(sets, 8, noise=noise))
    s = q.scale.diagonal
    exact = {"loc": PRECISION @ (q.loc - MEAN), "log_scale": jnp.diag(PRECISION) * s**2 - 1}
    for name, estimate in estimates.leaves().items():
        se = estimate.std(axis=0) / sets**0.5
        assert jnp.all(jnp.abs(estimate.mean(axis=0) - exact[name]) < 5 * se + 1e-10), name


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda estimator: estimator.name)
def test_elbo_is_unbiased_with_a_true_standard_error(estimator):
    q, target = moved(exact_gaussian(), 0.0, 1.3), problem(gaussian)
    values = jax.jit(jax.vmap(lambda eps: estimator(q, target, eps)[1]))(draws(4000, 10))
    difference = q.mean() - MEAN
    scale = q.scale.matrix()
    exact = -0.5 * (jnp.trace(PRECISION @ scale @ scale.T) + difference @ PRECISION @ difference) + q.entropy()
    assert abs(values.value.mean() - exact) < 5 * values.value.std() / 4000**0.5
    np.testing.assert_allclose(jnp.sqrt((values.standard_error**2).mean()), values.value.std(), rtol=0.1)


def test_sticking_the_landing_is_zero_at_the_truth():
    target, q = problem(gaussian), exact_gaussian()
    zero = gradients(bbvi.StickingTheLanding(), q, target, draws(3, 5))
    np.testing.assert_allclose(zero.loc, 0, atol=1e-12)
    np.testing.assert_allclose(jnp.tril(zero.scale.raw_tril), 0, atol=1e-12)
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
@pytest.mark.parametrize("estimator", [e for e in ESTIMATORS if e.independent], ids=lambda estimator: estimator.name)
def test_dependent_draws_are_refused_where_they_bias(estimator, noise):
    with pytest.raises(ValueError, match="independent"):
        type(estimator)(noise)


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


@pytest.mark.parametrize("random", RANDOM)
@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: type(noise).__name__)
def test_noise_is_standard_normal(noise, random):
    points = np.asarray(noise(RANDOM[random](), 500, 16, 3))
    assert points.shape == (500, 16, 3)
    firsts = points[:, 0]  # one draw of each set: independent under every scheme
    for column in firsts.T:
        assert stats.kstest(column, "norm").pvalue > 1e-4
    assert np.abs(np.corrcoef(firsts.T) - np.eye(3)).max() < 0.2


@pytest.mark.parametrize("noise", NOISES, ids=lambda noise: type(noise).__name__)
@pytest.mark.parametrize("kind", [each for each in arguments.ESTIMATORS.values() if each.additive])
def test_draws_one_by_one_give_the_gradient_of_all_at_once(kind, noise):
    target, estimator, n = problem(smooth), kind(noise), 4
    seeds = jnp.arange(2 * n // noise.together(n), dtype=jnp.uint32).reshape(-1, 2)
    sets = [noise(InProgram(seed), 1, noise.together(n), DIM)[0] for seed in seeds]
    q = member(bbvi.FullRank, DIM)
    gradient, estimate = estimator.gradient_one_by_one(q, target, seeds, n)
    of_all, of_estimate = estimator.gradient(q, target, jnp.concatenate(sets))
    # Normal numbers of single precision may differ in their last bit from one program to another.
    np.testing.assert_allclose(*(ravel_pytree(each)[0] for each in (gradient, of_all)), rtol=1e-5)
    np.testing.assert_allclose(estimate.value, of_estimate.value, rtol=1e-5)
    if isinstance(noise, bbvi.IID):
        np.testing.assert_allclose(estimate.standard_error, of_estimate.standard_error, rtol=1e-5)


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


# Other objectives


POWERS = [bbvi.ImportanceWeighted(), bbvi.Renyi(alpha=0.5), bbvi.CUBO(order=2.0)]


def log_weights(q, target, eps):
    x = q.push(eps)
    return target.log_densities(x) - q.log_prob(x)


def near_gaussian():
    """A q that importance sampling corrects easily: variances 20 % off, mean 0.2 off."""
    return moved(exact_gaussian(), 0.2, 1.1)


@pytest.mark.parametrize("estimator", POWERS, ids=lambda estimator: estimator.name)
def test_doubly_reparameterised_gradients_are_those_of_the_bound(estimator):
    """In expectation those of F_a, differentiated as it stands; and with less noise."""
    q, target, sets = near_gaussian(), problem(gaussian), 40_000
    eps = draws(sets, 5)
    ours = gradients(estimator, q, target, eps)
    loss = lambda q, e: -estimator.sign * estimator.bound(log_weights(q, target, e))
    plain = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(q, eps)
    for name in ("loc", "raw_tril"):
        a, b = (np.tril(each.leaves()[name]) if name == "raw_tril" else each.leaves()[name] for each in (ours, plain))
        se = np.sqrt((a.var(axis=0) + b.var(axis=0)) / sets)
        assert np.all(np.abs(a.mean(axis=0) - b.mean(axis=0)) < 5 * se + 1e-9), name
        assert a.var(axis=0).sum() < 0.5 * b.var(axis=0).sum(), name


@pytest.mark.parametrize("estimator", [*POWERS, bbvi.FisherDivergence()], ids=lambda estimator: estimator.name)
def test_gradients_vanish_at_the_truth(estimator):
    zero = gradients(estimator, exact_gaussian(), problem(gaussian), draws(3, 5))
    np.testing.assert_allclose(zero.loc, 0, atol=1e-10)
    np.testing.assert_allclose(jnp.tril(zero.scale.raw_tril), 0, atol=1e-10)


def test_bounds_enclose_the_evidence():
    """ELBO <= Renyi <= importance-weighted <= log Z <= CUBO; the last is log Z + D_2 / 2 in the limit."""
    q, target = near_gaussian(), problem(gaussian)
    few = jax.vmap(lambda e: log_weights(q, target, e))(draws(20_000, 10))
    of = lambda estimator: float(jax.vmap(estimator.bound)(few).mean())
    elbo, renyi, weighted = float(few.mean()), of(POWERS[1]), of(POWERS[0])
    assert elbo < renyi < weighted < LOG_EVIDENCE
    many = log_weights(q, target, draws(1, 400_000)[0])
    p, r = exact_gaussian(), q  # log E_q[(p / q)^2] for Gaussians, from a larger number of draws of p
    x = p.push(draws(1, 400_000, seed=1)[0])
    chi = jax.scipy.special.logsumexp(p.log_prob(x) - r.log_prob(x)) - jnp.log(400_000)
    assert float(POWERS[2].bound(many)) == pytest.approx(LOG_EVIDENCE + float(chi) / 2, abs=0.02)
    assert float(POWERS[2].bound(many)) > LOG_EVIDENCE


def test_fisher_divergence_of_gaussians():
    """|I - L^T P L|^2 + |L^T P d|^2, with an unbiased gradient."""
    q, target, sets = near_gaussian(), problem(gaussian), 4000

    def exact(q):
        scale, away = q.scale.matrix(), q.loc - MEAN
        inner = jnp.eye(DIM) - scale.T @ PRECISION @ scale
        return jnp.sum(inner**2) + jnp.sum((scale.T @ PRECISION @ away) ** 2)

    eps = draws(sets, 8)
    values = jax.vmap(lambda e: bbvi.FisherDivergence()(q, target, e)[0])(eps)
    assert abs(values.mean() - exact(q)) < 5 * values.std() / sets**0.5
    ours, truth = gradients(bbvi.FisherDivergence(), q, target, eps), jax.grad(exact)(q)
    assert jnp.all(jnp.abs(ours.loc.mean(axis=0) - truth.loc) < 5 * ours.loc.std(axis=0) / sets**0.5 + 1e-10)


def test_hessian_control_takes_the_noise_of_a_quadratic_away():
    q, target = member(bbvi.FullRank, DIM), problem(gaussian)
    plain = gradients(bbvi.ELBO(), q, target, draws(50, 4))
    controlled = gradients(bbvi.HessianControl(), q, target, draws(50, 4))
    assert plain.loc.std() > 0.1
    np.testing.assert_allclose(controlled.loc.std(axis=0), 0, atol=1e-10)
    np.testing.assert_allclose(jnp.tril(controlled.scale.raw_tril).std(axis=0), 0, atol=1e-10)


def mixture_in_one_dimension(x):
    return jnp.logaddexp(-0.5 * (x[0] + 1) ** 2 / 0.25, jnp.log(0.5) - 0.5 * (x[0] - 1.5) ** 2 / 0.25)


def test_the_inclusive_divergence_fits_mean_and_variance():
    """Of a mixture: weights 2/3 and 1/3, means -1 and 1.5, standard deviations 1/2."""
    posterior = bbvi.fit(mixture_in_one_dimension, 1, estimator="inclusive_kl", family="mean_field", seed=1)
    mean = (2 * -1 + 1.5) / 3
    variance = 0.25 + (2 * 1 + 1.5**2) / 3 - mean**2
    assert float(posterior.distribution.mean()[0]) == pytest.approx(mean, abs=0.1)
    assert float(posterior.distribution.sd()[0]) == pytest.approx(variance**0.5, rel=0.1)


@pytest.mark.parametrize("name", ["importance_weighted", "cubo", "fisher", "hessian_control"])
def test_fit_takes_estimators_by_name(name):
    posterior = bbvi.fit(gaussian, DIM, estimator=name, family="full_rank")
    assert posterior.diagnosis.status is bbvi.Status.RELIABLE
    sds = jnp.sqrt(jnp.diagonal(COVARIANCE))
    np.testing.assert_allclose(posterior.distribution.mean(), MEAN, atol=0.15 * float(sds.max()))
    np.testing.assert_allclose(posterior.distribution.sd(), sds, rtol=0.1)


REFUSED = {
    "a mixture in a power bound": lambda: bbvi.fit(
        smooth, DIM, estimator="importance_weighted", family="mixture", method="advi"
    ),
    "a mixture in score matching": lambda: bbvi.fit(smooth, DIM, estimator="fisher", family="mixture", method="advi"),
    "a control variate on sticking the landing": lambda: bbvi.HessianControl(estimator=bbvi.StickingTheLanding()),
    "a control variate for a flow": lambda: bbvi.fit(
        smooth, DIM, estimator="hessian_control", family="flow", method="advi"
    ),
    "an order below one": lambda: bbvi.CUBO(order=1.0),
    "an alpha above one": lambda: bbvi.Renyi(alpha=2.0),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_combinations_are_refused_with_a_remedy(case):
    with pytest.raises(ValueError, match=r"Use|use|bound"):
        REFUSED[case]()
