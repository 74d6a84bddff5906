"""Modes that paths are climbed to, one after the other, until no new one is met."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm

import bbvi
from bbvi.algorithms.base import Initialisation
from bbvi.diagnostics.modes import Modes, find_modes
from bbvi.outcome import NOTHING
from bbvi.start.bulk import polish
from bbvi.start.find import find_start
from bbvi.start.record import Hints
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters

CENTRES = (-3.0, 0.0, 3.0)
ROWS = np.concatenate([np.random.default_rng(1).normal(centre, 0.7, 30) for centre in CENTRES])


def clusters(x, rows):
    """A mixture of three normal densities with means x[:3] and log standard deviations x[3:], in any order."""
    prior = norm.logpdf(x[:3], 0, 5).sum() + norm.logpdf(x[3:]).sum()
    return prior + logsumexp(norm.logpdf(rows[:, None], x[:3], jnp.exp(x[3:])), axis=1).sum()


def two_each(x, rows):
    """Independent coordinates with modes at -4 and 4, the second twice as likely."""
    return jnp.logaddexp(norm.logpdf(x, -4.0, 1.0), np.log(2) + norm.logpdf(x, 4.0, 1.0)).sum()


def slab_and_spike(x, rows):
    """N(0, I), and with the same weight N(0, 0.05^2 I) in its midst."""
    return jnp.logaddexp(norm.logpdf(x).sum(), norm.logpdf(x, 0.0, 0.05).sum()) - np.log(2)


def modes_of(logprob, dim):
    problem = Problem(make_parameters(dim, None), jnp.asarray(ROWS), logprob)
    start = find_start(problem, Initialisation.BULK, Hints())
    best = polish(problem, start.gaussian, np.random.default_rng(0))
    return find_modes(problem, start, best.gaussian, best.elbo, 0)


@pytest.mark.usefixtures("x64")
def test_every_order_of_the_components_of_a_mixture_is_met():
    modes = modes_of(clusters, 6)
    orders = {tuple(np.argsort(np.asarray(mode.loc)[:3])) for mode in modes.gaussians}
    assert len(orders) == len(modes.gaussians) == 6
    np.testing.assert_allclose(modes.elbos, modes.elbos[0], atol=0.3)
    assert min(modes.met) > 1
    assert not list(modes.findings())


@pytest.mark.usefixtures("x64")
def test_modes_of_several_coordinates_are_met_in_all_combinations():
    modes = modes_of(two_each, 3)
    signs = {tuple(np.sign(np.asarray(mode.loc)).astype(int)) for mode in modes.gaussians}
    assert len(signs) == len(modes.gaussians) == 8
    above = np.array([(np.asarray(mode.loc) > 0).sum() for mode in modes.gaussians])
    np.testing.assert_allclose(np.subtract(modes.elbos, modes.elbos[0]), np.log(2) * (above - above[0]), atol=0.1)


@pytest.mark.usefixtures("x64")
def test_a_spike_in_the_midst_of_a_slab_is_a_mode_of_its_own():
    modes = modes_of(slab_and_spike, 5)
    np.testing.assert_allclose(
        sorted(mode.scale.log_det() / 5 for mode in modes.gaussians), [np.log(0.05), 0], atol=0.01
    )
    np.testing.assert_allclose(modes.elbos, np.log(0.5), atol=0.01)


@pytest.mark.parametrize(
    ("met", "doubted"), [([9, 8], False), ([20, 9, 1], False), ([3, 1, 1, 1], True), ([2] * 65, True)]
)
def test_modes_that_were_met_once_or_have_no_end_promise_others(met, doubted):
    findings = list(Modes([], [0.0] * len(met), met, NOTHING).findings())
    assert [finding.status for finding in findings] == [bbvi.Status.UNRELIABLE] * doubted
    said = f"{sum(met)} paths ended in {len(met)} modes, in {met.count(1)} of them only once: there are others"
    assert all(finding.message == said for finding in findings)
