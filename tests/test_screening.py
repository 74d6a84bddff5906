"""Verdicts told for many fits at once: those that the checks would give, with the same numbers."""

from dataclasses import fields, replace

import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import constraints

import bbvi
from bbvi.diagnostics.checks.base import Evidence
from bbvi.diagnostics.verdict import diagnose
from bbvi.draws.pareto import effective_sample_size, log_sum_exp, smooth
from bbvi.runtime.precision import scope
from bbvi.start.record import start_at

FITS = 24
QUICK, THOROUGH = 320, 1280  # draws
RNG = np.random.default_rng(0)
COUNTS = RNG.poisson(RNG.gamma(3, 3, (FITS, 1)), (FITS, 8)).astype(float)
X = RNG.normal(size=(FITS, 60, 3))
LABELS = (RNG.random((FITS, 60)) < 0.5).astype(float)
POSITIVE = {"s": constraints.positive}
RANKS = list(bbvi.Status)


def grid(low, high):
    """One number for each fit."""
    return np.linspace(low, high, FITS)


def with_nan(data):
    data = np.array(data)
    data[::3, 0] = np.nan
    return data


def logistic(beta, data):
    logits = data["x"] @ beta
    return jnp.sum(data["y"] * logits - jnp.logaddexp(0.0, logits)) - 0.5 * beta @ beta


def count(p, y):
    return jnp.sum(y * jnp.log(p["s"]) - p["s"]) - p["s"] / 10


def padded(mu, data):
    return -0.5 * mu**2 - 0.5 * jnp.sum(jnp.where(data["there"], data["y"] - mu, 0) ** 2)


def two_modes(x, m):
    return jnp.logaddexp(-0.5 * jnp.sum((x - m) ** 2), -0.5 * jnp.sum((x + m) ** 2))


KINDS = {  # log density, dim, data, constraints
    "regressions": (logistic, 3, {"x": X, "y": LABELS}, None),
    "counts": (count, {"s": ()}, COUNTS, POSITIVE),
    "counts, some NaN": (count, {"s": ()}, with_nan(COUNTS), POSITIVE),
    "padded rows": (padded, (), {"y": COUNTS, "there": np.arange(8) < RNG.integers(1, 9, (FITS, 1))}, None),
    "Gaussians": (lambda x, s: -0.5 * jnp.sum((x / s) ** 2), 4, np.geomspace(1e-3, 1e3, FITS), None),
    "heavy tails": (lambda x, nu: -(nu + 3) / 2 * jnp.log1p(jnp.sum(x**2) / nu), 3, grid(1, 40), None),
    "log-normal": (
        lambda p, s: -0.5 * (jnp.log(p["s"]) / s) ** 2 - jnp.log(p["s"]),
        {"s": ()},
        grid(0.05, 2),
        POSITIVE,
    ),
    "funnel": (lambda x, s: -0.5 * (x[0] / s) ** 2 - 0.5 * (x[1] * jnp.exp(-x[0] / 2)) ** 2, 2, grid(0.05, 2), None),
    "two modes": (two_modes, 2, grid(0, 5), None),
    "banana": (lambda x, b: -0.5 * x[0] ** 2 - 0.5 * (x[1] - b * x[0] ** 2) ** 2, 2, grid(0, 1), None),
    "shoulder": (lambda x, a: jnp.logaddexp(-0.5 * x**2, jnp.log(a) - 0.5 * (x / 5) ** 2), (), grid(1e-3, 0.3), None),
    "improper": (lambda x, a: -0.5 * x[0] ** 2 + a * jnp.tanh(x[1]), 2, grid(0, 3), None),
    "level far out": (lambda x, a: jnp.logaddexp(-0.5 * x**2, -a), (), grid(2, 30), None),
    "rounded": (lambda x, a: 10.0**a - 0.5 * jnp.sum(x**2), 2, grid(0, 15), None),
    "half a line": (lambda x, a: jnp.where(x > -a, -0.5 * x**2, -jnp.inf), (), grid(0.5, 5), None),
}
EASY = {"regressions", "counts", "counts, some NaN", "padded rows", "Gaussians", "rounded"}


@pytest.fixture(scope="module", params=KINDS)
def fits(request):
    logprob, dim, data, constraints = KINDS[request.param]
    return request.param, bbvi.fit_many(logprob, dim, data, constraints=constraints)


def close(one, other, height=0.0):
    """Whether two numbers, or estimates with their errors, are the same up to rounding of log densities so high."""
    return np.allclose(one, other, rtol=1e-6, atol=1e-7 + 100 * np.finfo(float).eps * abs(height), equal_nan=True)


def named(values):
    """The numbers of a structure of parameters, of which there is one here."""
    return values["s"] if isinstance(values, dict) else values


def test_each_verdict_is_that_of_the_checks_with_the_same_numbers(fits):
    name, posteriors = fits
    for i, diagnosis in enumerate(posteriors.diagnoses):
        one, height = posteriors[i], np.nan_to_num(diagnosis.elbo.value, neginf=0.0)
        given = {"problem": one.problem, "q": one.distribution, "draws": one.pool, "stop": diagnosis.stop}
        with scope(True):
            expected = diagnose(Evidence(**given, start=start_at(one.distribution.affine)))
        for field in fields(diagnosis):
            mine, theirs = getattr(diagnosis, field.name), getattr(expected, field.name)
            numeric = isinstance(theirs, float) or field.name in ("elbo", "log_evidence")
            assert close(mine, theirs, height) if numeric else mine == theirs, (i, field.name, mine, theirs)
        kept = posteriors.fits[i]
        assert close(named(kept.mean), named(one.mean()), height)
        assert close(named(kept.sd), named(one.sd()), height)
    few = sum(each.num_draws == QUICK for each in posteriors.diagnoses)
    assert few > FITS // 3 if name in EASY else few < FITS
    assert few == 0 or name != "improper"


def test_no_verdict_is_better_than_with_all_draws(fits):
    name, posteriors = fits
    sure = slice(8 if name == "half a line" else None)  # for the others it is chance whether a draw meets the end
    with scope(True):
        thorough = replace(posteriors.campaign, rounds=posteriors.campaign.rounds[-1:]).run()
    for quick, slow in zip(posteriors.fits[sure], thorough[sure], strict=True):
        one, other = quick.diagnosis, slow.diagnosis
        assert other.num_draws == THOROUGH
        assert RANKS.index(one.status) >= RANKS.index(other.status), other
        assert one.num_draws == QUICK or (one.status, one.reasons) == (other.status, other.reasons)
        assert quick.evaluations.log_densities == (QUICK if one.num_draws == QUICK else QUICK + THOROUGH)


def test_the_few_draws_are_worth_as_many_as_random_ones():
    """Sobol' points make the mean of a nearly Gaussian posterior more exact than four times as many random draws."""
    precision = 8 + 1.0
    exact = COUNTS.sum(axis=1) / precision
    posteriors = bbvi.fit_many(lambda mu, y: -0.5 * mu**2 - 0.5 * jnp.sum((y - mu) ** 2), (), COUNTS)
    assert {each.num_draws for each in posteriors.diagnoses} == {QUICK}
    errors = (posteriors.mean() - exact) * precision**0.5
    assert np.sqrt(np.mean(errors**2)) < THOROUGH**-0.5
    assert np.abs(np.corrcoef(errors[:-1], errors[1:])[0, 1]) < 0.7  # each has its own scrambling
    assert np.unique(errors.round(9)).size == FITS


def test_rows_are_smoothed_as_each_by_itself():
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(12, 400)) * np.geomspace(1e-9, 1e3, 12)[:, None]
    rows[3, :390], rows[4, :200], rows[5] = -np.inf, -np.inf, 0.0
    together = smooth(rows)
    for i, row in enumerate(rows):
        alone = smooth(row)
        assert close(together.k_hat[i], alone.k_hat)
        assert close(np.exp(together.log_weights[i]), np.exp(alone.log_weights))
        assert close(effective_sample_size(rows)[i], effective_sample_size(row))
        assert close(log_sum_exp(rows)[i], log_sum_exp(row))
    assert log_sum_exp(np.full((2, 5), -np.inf)).tolist() == [-np.inf, -np.inf]
