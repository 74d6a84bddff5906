"""Fits of hierarchies: right against exact answers, in all forms, and with all that a posterior has."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm

import bbvi
from bbvi.distributions import Hierarchical
from bbvi.distributions.affine import Affine
from bbvi.distributions.scales import Diagonal
from bbvi.fitting import hierarchy
from bbvi.fitting.hierarchy import bent_parameter
from bbvi.outcome import Status
from bbvi.policy import FEW_CHAINS
from bbvi.start.record import start_at
from tests.hierarchies import (
    SCHOOLS,
    abilities,
    counts,
    exact,
    exact_abilities,
    exact_held,
    exact_motion,
    exact_process,
    exact_walk,
    held_normal,
    motion,
    process,
    regression,
    schools,
    simulate,
    simulate_abilities,
    simulate_held,
    simulate_motion,
    simulate_process,
    simulate_volatility,
    trials,
    volatility,
    walk,
)
from tests.test_nested import COUNTS, GROUPS, WALK, problem


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
    monkeypatch.setattr("bbvi.nested.together.EVEN_COPIES", 1.0)
    data = simulate_volatility(60)
    posterior = bbvi.fit(volatility, 63, data=data, budget=bbvi.Budget(gradients=400_000))
    assert posterior.method == "chains", posterior.diagnosis
    assert isinstance(posterior.distribution, Hierarchical)
    assert posterior.diagnosis.chains.chains == FEW_CHAINS
    np.testing.assert_allclose(posterior.diagnosis.log_evidence.value, 46.7, atol=0.5)  # by 20 000 draws of chains


def test_effects_whose_sum_is_held_are_right():
    data = simulate_held()
    mean, sd, log_evidence = exact_held(data)
    posterior = bbvi.fit(held_normal, GROUPS + 1, data=data, method="nested_laplace")
    assert posterior.diagnosis.status is Status.RELIABLE, posterior.diagnosis
    np.testing.assert_allclose((posterior.mean() - mean) / sd, 0, atol=0.1)
    np.testing.assert_allclose(posterior.sd() / sd, 1, atol=0.1)
    np.testing.assert_allclose(posterior.diagnosis.log_evidence.value, log_evidence, atol=0.1)


@pytest.mark.parametrize("centred", [True, False])
def test_scales_that_data_hardly_tell_apart_follow_their_weights(centred):
    """Two scales of a short series are far from Gaussian, and its states are exactly so given them."""
    data, shapes = simulate_motion(), {"log_step": (), "log_noise": (), "x": (16,)}
    mean, sd, log_evidence = exact_motion(data)
    posterior = bbvi.fit(motion(centred), shapes, data=data, latents=["x"])
    assert posterior.diagnosis.status is Status.RELIABLE, posterior.diagnosis
    assert posterior.diagnosis.chains is None
    assert (
        np.sum(~posterior.pool.from_q) > posterior.pool.from_q.sum() / 4
    )  # those of kernels, beside the wider version
    found, spread = posterior.mean(), posterior.sd()
    for i, name in enumerate(("log_step", "log_noise")):
        assert (found[name] - mean[i]) / sd[i] == pytest.approx(0, abs=0.1)
        assert spread[name] / sd[i] == pytest.approx(1, abs=0.1)
    volume = 8 * np.log(2 * np.pi)  # of 16 numbers, whose densities come without constants
    np.testing.assert_allclose(posterior.diagnosis.log_evidence.value, log_evidence + volume, atol=0.1)


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
    assert bent_parameter(given, start)[0] == latents


def test_a_hierarchy_is_found_from_a_spike_of_all_its_coordinates():
    data = simulate_abilities(200)
    mean, sd = exact_abilities(data)
    posterior = bbvi.fit(abilities, 201, data=data)
    assert posterior.method == "nested_laplace"
    assert posterior.diagnosis.trusted, posterior.diagnosis
    np.testing.assert_allclose((posterior.mean()[0] - mean) / sd, 0, atol=0.15)
    np.testing.assert_allclose(posterior.sd()[0] / sd, 1, atol=0.15)


def bounded(x, data):
    """A random walk that may not rise above a bound."""
    return walk(x, data) + jnp.where(x[1:].max() > 2.0, -jnp.inf, 0.0)


def test_chains_say_when_a_density_is_not_smooth():
    """At a bound the line integrals that clusters are accepted by are not those of the log density."""
    with jax.numpy_dtype_promotion("standard"):
        posterior = bbvi.fit(bounded, 61, data=WALK, method="nested_laplace")
    assert posterior.diagnosis.status in (Status.UNRELIABLE, Status.FAILED)


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
    np.testing.assert_allclose(*(each.cost.gradients for each in (one, other)), rtol=0.25)  # a Newton step more or less


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
    assert [stage.method for stage in posterior.ladder] == ["newton", "nested_laplace"]
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


def test_a_fit_begins_at_another_one():
    posterior, data = fitted(counts, True)
    again = bbvi.fit(counts(True), 42, data=data, method="nested_laplace", init=posterior)
    np.testing.assert_allclose(again.mean()[:2], posterior.mean()[:2], atol=0.02)


def plateau(p, groups):
    """Groups with known errors, whose spread may be nearly zero: log tau has a plateau where it is large."""
    scale, effects = jnp.exp(-0.5 * p["log_tau"]), p["effects"]
    prior = 1e-3 * (p["log_tau"] - jnp.exp(p["log_tau"])) - 0.5 * (p["centre"] / 10) ** 2
    between = jnp.sum(norm.logpdf(effects, p["centre"], scale))
    return prior + between + jnp.sum(norm.logpdf(groups, effects, 1.0))


def test_a_plateau_of_a_log_scale_is_found_beside_the_mode():
    """A Gaussian of phi misses it, as it goes on for many standard deviations."""
    groups = 0.8 * np.array([-1.9, 2.2, 0.3, -2.4, 1.6, 2.8, -0.7, -2.0])
    posterior = bbvi.fit(
        plateau,
        {"log_tau": (), "centre": (), "effects": (8,)},
        data=groups,
        latents=["effects"],
        method="nested_laplace",
    )
    log_tau = np.linspace(-6, 9, 3001)
    variances = 1 + np.exp(-log_tau)
    spread = 1 / (len(groups) / variances + 0.01)  # of the centre
    means = spread * groups.sum() / variances
    fit = -0.5 * (np.sum(groups**2) / variances - means**2 / spread) - 0.5 * len(groups) * np.log(variances)
    weights = np.exp(fit + 0.5 * np.log(spread) + 1e-3 * (log_tau - np.exp(log_tau)))
    weights /= weights.sum()
    mean = weights @ log_tau
    sd = np.sqrt(weights @ (log_tau - mean) ** 2)
    assert weights[log_tau > 2].sum() > 0.1  # the plateau
    assert posterior.diagnosis.trusted
    assert abs(posterior.mean()["log_tau"] - mean) < 0.1 * sd
    assert posterior.sd()["log_tau"] == pytest.approx(sd, rel=0.1)
    assert posterior.table().loc["log_tau", "mcse_mean"] < 0.1 * sd
