"""The default method: which posteriors end with which stage, and that the answer is right."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import constraints

import bbvi
from bbvi.distributions.scales import Triangular
from bbvi.draws.importance import draw
from bbvi.fitting.budget import PATIENCE
from bbvi.start.plateau import find_higher_ground
from tests.test_distributions import member


def correlated(x):
    return -0.5 * jnp.sum((x - jnp.arange(1.0, 6.0)) ** 2) - 0.5 * jnp.sum(x) ** 2


def banana(x):
    """x_0 ~ N(0, 2^2), x_1 ~ N(x_0^2, 1)."""
    return -0.5 * (x[0] / 2) ** 2 - 0.5 * (x[1] - x[0] ** 2) ** 2


def two_modes(x):
    """0.75 N(3, I) + 0.25 N(-3, I)."""
    return jnp.logaddexp(jnp.log(0.75) - 0.5 * jnp.sum((x - 3) ** 2), jnp.log(0.25) - 0.5 * jnp.sum((x + 3) ** 2))


def gumbels(x):
    """Independent logarithms of Exp(1) variables: mean -0.5772, sd pi / sqrt(6)."""
    return jnp.sum(x - jnp.exp(x))


def funnel(x):
    """Neal's funnel: x_0 ~ N(0, 3^2), x_i ~ N(0, e^x_0)."""
    return -0.5 * (x[0] / 3) ** 2 - 0.5 * jnp.sum(x[1:] ** 2) * jnp.exp(-x[0]) - 0.5 * (len(x) - 1) * x[0]


TIMES = np.linspace(100, 1500, 25)
COUNTS = 55 * np.exp(-TIMES / 400) + 2 * np.random.default_rng(0).standard_normal(25)


def decay(p):
    """A curve that is zero at all times, but for very small rates: a plateau as wide as the priors."""
    height, rate, log_sd = p[..., 0:1], p[..., 1:2], p[..., 2]
    curve = jnp.exp(height - jnp.exp(rate) * TIMES)
    squares = jnp.sum((COUNTS - curve) ** 2, axis=-1) * jnp.exp(-2 * log_sd)
    return -0.5 * jnp.sum(p**2, axis=-1) / 100 - 0.5 * squares - len(TIMES) * log_sd


# target, dim, methods of the stages, log of its normalising constant, mean and sd of its first coordinate
TARGETS = {
    "Gaussian": (correlated, 5, ["newton"], None, 1 - 15 / 6, (1 - 1 / 6) ** 0.5),
    "banana": (banana, 2, ["newton", "chains"], np.log(4 * np.pi), 0.0, 2.0),
    "two modes": (two_modes, 4, ["newton", "adam"], 2 * np.log(2 * np.pi), 1.5, (1 + 27 / 4) ** 0.5),
    "funnel": (funnel, 4, ["newton", "chains"], 2 * np.log(2 * np.pi) + np.log(3), 0.0, 3.0),
    "decay": (decay, 3, ["newton", "newton"], -31.8489, 4.0393, 0.03677),  # by a sum over a grid of 71^3 points
}


@cache
def fitted(name):
    target, dim, *_ = TARGETS[name]
    return bbvi.fit(target, dim)


@cache
def bent():
    """The banana by a flow."""
    return bbvi.fit(banana, 2, family="flow")


@pytest.mark.parametrize("name", TARGETS)
def test_the_first_stage_that_passes_is_the_last(name):
    posterior, methods = fitted(name), TARGETS[name][2]
    assert [stage.method for stage in posterior.ladder] == methods
    assert posterior.method == methods[-1]
    assert posterior.diagnosis.trusted
    assert [stage.status for stage in posterior.ladder[:-1]] == [bbvi.Status.UNRELIABLE] * (len(methods) - 1)
    assert all(stage.reasons for stage in posterior.ladder[:-1])
    assert sum(stage.steps for stage in posterior.ladder) == len(posterior.history.elbo)
    if len(methods) > 1:
        assert all(f"{method} (" in str(posterior) for method in methods)


def test_a_log_density_that_is_too_costly_for_chains_ends_with_a_flow(monkeypatch):
    monkeypatch.setattr("bbvi.fitting.schedule.CHAIN_EVALUATIONS", np.inf)
    posterior = bbvi.fit(banana, 2)
    assert [stage.family for stage in posterior.ladder] == ["full_rank", "flow"]
    assert posterior.diagnosis.trusted


def test_chains_that_do_not_agree_are_followed_by_a_flow(monkeypatch):
    monkeypatch.setattr("bbvi.chains.verdict.AGREED", 1.0)
    monkeypatch.setattr("bbvi.chains.verdict.NEARLY_AGREED", 1.0)
    posterior = bbvi.fit(banana, 2)
    tried = [(stage.method, stage.family) for stage in posterior.ladder]
    assert (
        tried == [("newton", "full_rank"), ("chains", "full_rank"), ("adam", "flow"), ("chains", "flow")][: len(tried)]
    )
    assert len(tried) > 2


@pytest.mark.parametrize("name", TARGETS)
def test_the_answer_is_right(name):
    posterior, (*_, log_evidence, mean, sd) = fitted(name), TARGETS[name]
    assert abs(posterior.mean()[0] - mean) < 0.1 * sd
    assert abs(posterior.sd()[0] / sd - 1) < 0.1
    if log_evidence is not None:
        assert abs(posterior.diagnosis.log_evidence.value - log_evidence) < 0.1


def centred(p, y):
    """y_j ~ N(theta_j, 1), theta_j ~ N(mu, tau), mu ~ N(0, 5^2), tau ~ HalfNormal(1)."""
    prior = -0.5 * (p["mu"] / 5) ** 2 - 0.5 * p["tau"] ** 2
    groups = -0.5 * jnp.sum(((p["theta"] - p["mu"]) / p["tau"]) ** 2) - len(y) * jnp.log(p["tau"])
    return prior + groups - 0.5 * jnp.sum((y - p["theta"]) ** 2)


def test_a_single_coordinate_that_is_skewed():
    posterior = bbvi.fit(lambda rate: -2 * rate["rate"], {"rate": ()}, constraints={"rate": constraints.positive})
    assert [stage.method for stage in posterior.ladder] == ["newton"]  # with draws from far along its axis
    assert posterior.diagnosis.trusted
    assert posterior.mean()["rate"] == pytest.approx(0.5, abs=0.02)
    assert posterior.sd()["rate"] == pytest.approx(0.5, abs=0.03)


def test_nothing_is_looked_for_where_no_axis_is_wide():
    problem, x = bbvi.fit(correlated, 5, method="laplace").problem, np.random.default_rng(0).standard_normal((100, 5))
    ends, evaluations = find_higher_ground(problem, x, -np.inf, np.random.default_rng(0))
    assert ends is None
    assert evaluations.log_densities == 0


@pytest.mark.slow
def test_a_hierarchy_of_curves_that_starts_on_a_plateau():
    """Thirty of them: nested Laplace comes first, to nothing, and Newton climbs from there."""
    rng = np.random.default_rng(0)
    t, own = np.linspace(10, 900, 10), np.array([4.0, -5.5]) + 0.3 * rng.standard_normal((30, 2))
    y = np.exp(own[:, :1] - np.exp(own[:, 1:]) * t) + 2 * rng.standard_normal((30, 10))

    def curves(p):
        residuals = (y - jnp.exp(p["own"][:, :1] - jnp.exp(p["own"][:, 1:]) * t)) * jnp.exp(-p["log_noise"])
        effects = (p["own"] - p["mean"]) * jnp.exp(-p["log_sd"])
        priors = -0.5 * jnp.sum((p["mean"] / 10) ** 2) - 0.5 * jnp.sum((p["log_sd"] / 2) ** 2)
        volume = y.size * p["log_noise"] + 30 * jnp.sum(p["log_sd"])
        return priors - 0.5 * (jnp.sum(residuals**2) + jnp.sum(effects**2)) - volume

    posterior = bbvi.fit(curves, {"own": (30, 2), "mean": (2,), "log_sd": (2,), "log_noise": ()})
    assert [stage.method for stage in posterior.ladder][:2] == ["nested_laplace", "newton"]
    assert posterior.diagnosis.trusted
    off = (posterior.mean()["own"] - own) / posterior.sd()["own"]
    assert np.sqrt(np.mean(off**2)) < 1.3  # as truths are off from means: about one standard deviation


@pytest.mark.slow
def test_a_hierarchy_in_which_newton_creeps():
    """Against the marginal density of tau, with theta and mu integrated out."""
    y = np.random.default_rng(1).normal(0, 1.12, 30)
    posterior = bbvi.fit(
        centred, {"theta": (30,), "mu": (), "tau": ()}, data=y, constraints={"tau": constraints.positive}
    )
    assert [stage.method for stage in posterior.ladder][:2] == ["newton", "chains"]
    tau = np.linspace(1e-4, 5, 4000)
    precision = 1 / 25 + len(y) / (1 + tau**2)
    quadratic = np.sum(y) ** 2 / (1 + tau**2) ** 2 / precision - np.sum(y**2) / (1 + tau**2)
    log_density = -0.5 * tau**2 + 0.5 * quadratic - 0.5 * np.log(precision) - 0.5 * len(y) * np.log(1 + tau**2)
    density = np.exp(log_density - log_density.max())
    mean = np.average(tau, weights=density)
    sd = np.average((tau - mean) ** 2, weights=density) ** 0.5
    assert abs(posterior.mean()["tau"] - mean) < 0.1 * sd
    assert abs(posterior.sd()["tau"] / sd - 1) < 0.1
    assert posterior.diagnosis.trusted


def test_the_stages_are_kept_in_the_file(tmp_path):
    fitted("banana").save(tmp_path / "fit.npz")
    again = bbvi.load(tmp_path / "fit.npz")
    assert again.ladder == fitted("banana").ladder
    x = fitted("banana").sample(5)
    np.testing.assert_allclose(again.log_prob(x), fitted("banana").log_prob(x), rtol=1e-12)


def test_a_budget_holds_for_all_stages_together():
    posterior = bbvi.fit(banana, 2, budget=bbvi.Budget(gradients=20_000))
    assert [stage.method for stage in posterior.ladder][:2] == ["newton", "chains"]
    assert 15_000 < posterior.cost.gradients < 21_000  # steps of chains are not of one length
    assert posterior.diagnosis.stop is bbvi.Stop.BUDGET or "was not finished" in str(posterior)
    assert "raise the budget" in posterior.diagnosis.advice


def test_nothing_new_is_begun_once_the_time_is_up(first_stage_only):
    assert PATIENCE == 60
    posterior = bbvi.fit(banana, 2)
    assert [stage.family for stage in posterior.ladder] == ["full_rank"]
    assert posterior.diagnosis.status is bbvi.Status.UNRELIABLE
    assert any("chains (full_rank) was not tried" in reason for reason in posterior.diagnosis.reasons)
    assert "raise the budget" in posterior.diagnosis.advice


def test_an_interrupted_schedule_goes_on_where_it_was(tmp_path):
    path = tmp_path / "state"
    stops = []

    def stop(progress):
        stops.append(progress.method)
        return progress.method == "chains" and progress.step >= 40

    first = bbvi.fit(banana, 2, checkpoint=path, callbacks=[stop])
    assert stops[-1] == "chains"
    assert first.ladder[-1].steps < fitted("banana").ladder[-1].steps
    again = bbvi.fit(banana, 2, checkpoint=path)
    jax.tree.map(np.testing.assert_array_equal, again.pool, fitted("banana").pool)
    stops.clear()
    assert bbvi.fit(banana, 2, checkpoint=path, callbacks=[stop]).diagnosis == again.diagnosis
    assert stops == []  # both methods are restored, and neither is run again


@pytest.mark.parametrize("family", ["sinh_arcsinh", "mixture", "flow", "spline_flow"])
def test_each_family_is_fitted_by_name(family):
    """Its ELBO, at most the log evidence 0, is above the best Gaussian's: -0.16."""
    posterior = bbvi.fit(gumbels, 2, family=family)
    assert posterior.distribution.name == family
    assert posterior.diagnosis.elbo.value > (-0.12 if family == "mixture" else -0.05)
    np.testing.assert_allclose(posterior.mean(), -0.5772, atol=0.05)
    np.testing.assert_allclose(posterior.sd(), np.pi / 6**0.5, rtol=0.05)


@pytest.mark.usefixtures("x64")
def test_a_student_t_holds_its_own_kind():
    target = member(bbvi.StudentT)
    posterior = bbvi.fit(lambda x, target: target.log_prob_one(x), 3, data=target, family="student_t")
    assert abs(posterior.diagnosis.elbo.value) < 0.005
    np.testing.assert_allclose(posterior.mean(), target.mean(), atol=0.05)


def test_a_flow_begins_at_its_gaussian():
    """Its first ELBO is that of the Gaussian, on the same draws."""
    gaussian = bbvi.LocationScale(np.zeros(2), Triangular.of(np.diag([1.5, 2.0])))
    flow, full_rank = (
        bbvi.fit(banana, 2, method=bbvi.Adam(num_draws=512), family=family, init=gaussian, num_steps=1).history.elbo[0]
        for family in ("flow", "full_rank")
    )
    np.testing.assert_allclose(flow, full_rank, rtol=1e-9)


def test_nuts_from_a_fit_has_the_right_moments():
    chains = bent().to_nuts(500, num_warmup=200)
    assert chains.samples.shape == (2000, 2)
    assert chains.r_hat < 1.1
    assert chains.effective_sample_size > 50
    assert chains.gradients >= 2000  # no trajectory is shorter than a step
    np.testing.assert_allclose(chains.samples[:, 0].std(), 2, rtol=0.2)
    assert "to_nuts" in " ".join(bbvi.fit(banana, 2, method="newton").diagnosis.advice)


def test_nuts_needs_the_log_density(tmp_path):
    fitted("Gaussian").save(tmp_path / "fit.npz")
    with pytest.raises(ValueError, match="to_nuts needs the log density"):
        bbvi.load(tmp_path / "fit.npz").to_nuts(10)


def test_a_flow_is_drawn_from_like_any_other():
    """Draws of the posterior and of the pool agree with the density that the file holds."""
    posterior = bent()
    pool = draw(posterior.problem, posterior.distribution, (0, 9))
    log_weights = pool.log_p[pool.from_q] - pool.log_q[pool.from_q]
    assert abs(log_weights.mean() - posterior.diagnosis.elbo.value) < 0.02
