"""Draws by chains: the laws of their kernel, when they end, and what is made of them."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbvi
from bbvi.chains.adaptation import best_length, roots
from bbvi.chains.draws import draws_of_chains
from bbvi.chains.frame import Frame
from bbvi.chains.verdict import find_in_chains, summarise_chains
from bbvi.draws.agreement import agree, agreement, mean_error, sd_error
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters
from tests.test_distributions import member
from tests.test_nested import member as hierarchical

DIM = 3
CONSTANT = 0.7  # nats, that the log density is above a normalised one
RNG = np.random.default_rng


def skewed(x):
    """log G of independent G ~ Gamma(4, 1): mean psi(4) = 1.256, variance psi'(4) = 0.2838, evidence Gamma(4)^3."""
    return jnp.sum(4 * x - jnp.exp(x))


MEAN, SD, LOG_EVIDENCE = 1.256118, 0.532751, DIM * np.log(6)


@cache
def chained(**options):
    return bbvi.fit(skewed, DIM, method=bbvi.Chains(error=0.015), **options)


@pytest.mark.parametrize("family", [bbvi.MeanField, bbvi.FullRank, bbvi.Mixture, bbvi.RealNVP, bbvi.Hierarchical])
@pytest.mark.usefixtures("x64")
def test_a_density_in_the_frame_of_q_is_q_as_it_is_there(family):
    """With p = q the log ratio is nothing, by whatever map."""
    q = hierarchical() if family is bbvi.Hierarchical else member(family)
    frame, problem = Frame.of(q), Problem(make_parameters(q.dim), None, q.log_prob_one)
    y = frame.wide.push(RNG(0).standard_normal((5, frame.wide.noise_dim)))
    values, gradients = frame.values_and_gradients(problem, y)
    np.testing.assert_allclose(values, frame.q.log_prob(y), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(values, frame.log_densities(problem, y))
    np.testing.assert_allclose(gradients, jax.vmap(jax.grad(frame.q.log_prob_one))(y), rtol=1e-6, atol=1e-8)


def test_moments_evidence_and_quantiles_are_right():
    posterior = chained()
    assert posterior.diagnosis.status is bbvi.Status.RELIABLE
    np.testing.assert_allclose(posterior.mean(), MEAN, atol=0.06 * SD)
    np.testing.assert_allclose(posterior.sd(), SD, rtol=0.06)
    found = posterior.diagnosis.log_evidence
    assert abs(found.value - LOG_EVIDENCE) < 5 * found.standard_error < 0.2
    samples = posterior.sample(4000)
    assert samples.shape == (4000, DIM)
    np.testing.assert_allclose(np.quantile(np.exp(samples), 0.5), 3.672, rtol=0.05)


def test_the_verdict_says_how_far_the_chains_agree_and_how_far_q_is_off():
    posterior = chained()
    seen, q = posterior.diagnosis.chains, posterior.distribution
    off = np.abs(posterior.pool.x.mean(axis=0) - q.mean()) / posterior.pool.x.std(axis=0)
    assert seen.off == pytest.approx(off.max())
    assert seen.r_hat < 1.02
    assert seen.error < 0.015
    assert f"{seen.chains} chains of {seen.draws} draws agree: nested R-hat {seen.r_hat:.3f}" in str(posterior)
    assert f"q itself is off by up to {seen.off:.2g} sd" in str(posterior)
    assert posterior.diagnosis.effective_sample_size == pytest.approx(1 / seen.error**2, rel=0.01)


def test_the_approximation_stays_what_it_was():
    gaussian = bbvi.fit(skewed, DIM, method="laplace").distribution
    posterior = bbvi.fit(skewed, DIM, method="chains", init=gaussian, num_steps=16)
    jax.tree.map(np.testing.assert_array_equal, posterior.distribution.leaves(), gaussian.leaves())
    plain = posterior.sample(2000, resample=False)
    np.testing.assert_allclose(plain.std(axis=0), gaussian.sd(), rtol=0.1)


def test_draws_are_the_same_after_saving(tmp_path):
    chained().save(tmp_path / "fit.npz")
    again = bbvi.load(tmp_path / "fit.npz")
    assert again.diagnosis == chained().diagnosis
    np.testing.assert_array_equal(again.sample(100_000), chained().sample(100_000))


def test_arviz_has_an_axis_of_chains():
    import arviz_stats

    posterior = chained()
    tree = posterior.to_arviz(500)
    assert dict(tree.posterior.sizes) == {"chain": 64, "draw": 8, "x_dim_0": DIM}
    assert tree.sample_stats.log_p.shape == (64, 8)
    x = tree.posterior["x"].values
    np.testing.assert_allclose(jax.vmap(jax.vmap(skewed))(x), tree.sample_stats.log_p, rtol=1e-3, atol=1e-4)
    whole = posterior.to_arviz(10**6)
    assert whole.posterior.sizes["draw"] == posterior.diagnosis.chains.draws
    assert float(arviz_stats.rhat(whole)["x"].max()) < 1.05


def test_a_run_that_is_stopped_goes_on_with_the_same_bits(tmp_path):
    options = {"method": bbvi.Chains(error=0.05), "checkpoint": tmp_path / "state"}
    first = bbvi.fit(skewed, DIM, **options, callbacks=[lambda progress: progress.step >= 20])
    assert first.diagnosis.stop is bbvi.Stop.CALLBACK
    again = bbvi.fit(skewed, DIM, **options)
    whole = bbvi.fit(skewed, DIM, method=bbvi.Chains(error=0.05))
    assert first.ladder[0].steps < again.ladder[0].steps == whole.ladder[0].steps
    jax.tree.map(np.testing.assert_array_equal, again.pool, whole.pool)


def test_a_cost_that_is_counted():
    """Each chain evaluates a gradient for each leapfrog step, and one for a leap."""
    posterior = chained()
    of_chains = posterior.history.gradients
    assert (of_chains % 64 == 0).all()
    assert (of_chains >= 2 * 64).all()
    assert of_chains.sum() < posterior.cost.gradients < of_chains.sum() + 1000


def test_chains_in_two_regions_do_not_agree():
    """A Gaussian that covers both modes, 60 standard deviations apart, lets chains begin in both; none changes over."""

    def apart(x):
        return jnp.logaddexp(-0.5 * jnp.sum((x - 30) ** 2), -0.5 * jnp.sum((x + 30) ** 2))

    q = bbvi.FullRank.standard(DIM).around(bbvi.fit(lambda x: -0.5 * jnp.sum((x / 30) ** 2), DIM).distribution.affine)
    posterior = bbvi.fit(apart, DIM, method=bbvi.Chains(max_steps=128), init=q)
    assert posterior.diagnosis.status is bbvi.Status.UNRELIABLE
    assert posterior.diagnosis.chains.r_hat > 1.2
    assert "do not agree" in str(posterior)


def test_leaps_go_from_one_mode_of_a_mixture_to_another():
    def modes(x):
        return jnp.logaddexp(
            np.log(0.7) - 0.5 * jnp.sum((x - 8) ** 2),
            np.log(0.3) - 0.5 * jnp.sum(((x + 8) / 0.5) ** 2) + DIM * np.log(2),
        )

    members = [bbvi.MeanField(np.full(DIM, at), np.full(DIM, np.log(scale))) for at, scale in ((8.0, 1.2), (-8.0, 0.7))]
    posterior = bbvi.fit(modes, DIM, method="chains", init=bbvi.Mixture.of(members))
    assert posterior.diagnosis.chains.r_hat < 1.02
    assert np.mean(posterior.sample(20_000)[:, 0] > 0) == pytest.approx(0.7, abs=0.03)


def test_a_bound_does_not_stop_chains():
    """Beyond it the log density is not finite: x_0 > 0, half normal."""
    posterior = bbvi.fit(lambda x: jnp.where(x[0] > 0, -0.5 * jnp.sum(x**2), -jnp.inf), 2, method="chains")
    assert posterior.mean()[0] == pytest.approx((2 / np.pi) ** 0.5, abs=0.05)
    assert (posterior.sample(1000)[:, 0] > 0).all()


@pytest.mark.parametrize(("num_chains", "num_starts"), [(64, 1), (60, 16), (16, 16)])
def test_numbers_of_chains_that_cannot_be_compared_are_refused(num_chains, num_starts):
    with pytest.raises(ValueError, match="must be a multiple of 2 x num_starts"):
        bbvi.Chains(num_chains=num_chains, num_starts=num_starts)


# -- agreement ---------------------------------------------------------------------------------------------------------


def independent(shape, seed=0):
    return RNG(seed).standard_normal(shape)


def test_nested_r_hat_of_independent_draws_is_one_and_of_apart_ones_is_not():
    x = independent((50, 64, 2))
    assert agreement(x, 16).r_hat.max() < 1.01
    x[:, :32, 1] += 1
    found = agreement(x, 16).r_hat
    assert found[0] < 1.01
    assert found[1] > 1.1


def test_nested_r_hat_sees_scales_that_differ():
    x = independent((50, 64, 1))
    x[:, :32] *= 2
    assert agreement(x, 16).r_hat[0] > 1.05


def test_nested_r_hat_needs_no_moments():
    x = independent((50, 64, 1)) / independent((50, 64, 1), 1)
    assert agreement(x, 16).r_hat.max() < 1.01
    np.testing.assert_allclose(agreement(x, 16).r_hat, agreement(3 * x - 7, 16).r_hat, rtol=1e-12)
    assert agreement(x + np.repeat([0, 2], 32)[:, None], 16).r_hat[0] > 1.05


def test_the_error_of_a_mean_is_that_over_repetitions():
    errors = [mean_error(independent((20, 32, 1), seed))[0] for seed in range(40)]
    assert np.mean(errors) == pytest.approx(1 / np.sqrt(20 * 32), rel=0.05)


def test_the_error_of_a_standard_deviation_is_that_over_repetitions():
    errors = [sd_error(independent((20, 32, 1), seed))[0] for seed in range(40)]
    assert np.mean(errors) == pytest.approx(1 / np.sqrt(2 * 20 * 32), rel=0.08)


@pytest.mark.parametrize(("power", "doubted"), [(1, False), (3, True)])
def test_a_standard_deviation_that_rests_on_few_draws_is_doubted(power, doubted):
    """A cubed Gaussian has an excess kurtosis of 43."""
    x = independent((2000, 64, 2)) ** np.array([1, power])
    zeros = np.zeros(x.shape[:2])
    made = draws_of_chains(x, zeros, zeros, zeros[0], agreement(x, 16))
    findings = list(find_in_chains(made, summarise_chains(made, np.zeros(2), ["a", "b"])))
    assert any("b (unconstrained) rests on few draws" in finding.message for finding in findings) == doubted
    assert any(finding.status is bbvi.Status.USABLE for finding in findings) == doubted


REGIONS = {
    "two": (np.repeat([0.0, 9.0], [40, 24]), "40 of them stay near -0.00", "24 of them stay near 9.0"),
    "three, in no order": (
        np.repeat([9.0, 0.0, -9.0, 9.0], 16),
        "16 of them stay near -8.99",
        "32 of them stay near 9.02",
    ),
    "overlapping": (np.repeat([0.0, 2.0], 32), None, None),
    "all apart": (9.0 * np.arange(64), None, None),
}


@pytest.mark.parametrize(("shifts", "first", "last"), REGIONS.values(), ids=REGIONS)
def test_chains_that_have_not_met_say_where_they_stay(shifts, first, last):
    x = 0.01 * independent((200, 64, 2))
    x[:, :, 1] = independent((200, 64)) + shifts
    zeros = np.zeros(x.shape[:2])
    made = draws_of_chains(x, zeros, zeros, zeros[0], agreement(x, 16))
    finding = next(find_in_chains(made, summarise_chains(made, np.zeros(2), ["a", "b"])))
    assert finding.message.startswith("the chains differ most in b")
    assert finding.status is bbvi.Status.UNRELIABLE
    if first is None:
        assert "stay near" not in finding.message
    else:
        assert first in finding.message
        assert last in finding.message
        assert "init=" in finding.remedy


def test_agreement_needs_both_limits():
    x = independent((50, 64, 2))
    assert agree(x, 16, 1.01, 0.03)
    assert not agree(x, 16, 1.01, 0.001)
    assert not agree(x + np.repeat(independent((1, 16, 1)), 4, axis=1), 16, 1.01, 1.0)


# -- adaptation --------------------------------------------------------------------------------------------------------


def test_roots_of_one_half_are_of_the_covariance_of_the_other():
    covariance = np.array([[2.0, 0.6], [0.6, 0.5]])
    half = independent((400, 16, 2))
    y = np.concatenate([half @ np.linalg.cholesky(covariance).T, half], axis=1)
    first, second = roots(y, dense=True)
    np.testing.assert_allclose(first @ first, np.eye(2), atol=0.1)
    np.testing.assert_allclose(second @ second, covariance, atol=0.1)
    np.testing.assert_allclose(second, second.T)
    np.testing.assert_allclose(roots(y, dense=False)[1], np.sqrt(np.diag(covariance)), atol=0.05)


def test_the_best_length_moves_the_slowest_coordinate_most_for_a_gradient():
    lengths = np.array([1, 2, 4, 1, 2, 4])
    slowest = {1: 0.1, 2: 0.4, 4: 0.5}
    distances = np.array([[1.0, slowest[length]] for length in lengths])
    assert best_length(distances, lengths) == 2
