"""Very many coordinates: draws are made one by one and not kept, and the state is written over.

What counts as very many is lowered, so that the same code runs on small vectors.
"""

import weakref
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import bbvi
from bbvi import policy
from bbvi.algorithms.pages import Pages
from bbvi.draws import importance
from bbvi.draws.lazy import LazyDraws

pytestmark = pytest.mark.usefixtures("x64")
DIM = 42
MEAN, SD = np.linspace(-2, 2, DIM), np.geomspace(0.1, 10, DIM)
METHODS = {
    "mean field": {"method": bbvi.StochasticVI(num_draws=8), "family": "mean_field"},
    "low rank": {"method": bbvi.StochasticVI(num_draws=8), "family": bbvi.LowRank.standard(DIM, rank=2)},
    "antithetic": {
        "method": bbvi.StochasticVI(estimator=bbvi.ELBO(bbvi.Antithetic()), num_draws=8),
        "family": "mean_field",
    },
    "ivon": {"method": bbvi.IVON(num_draws=8)},
}


def logprob(x):
    return -0.5 * jnp.sum(((x - MEAN) / SD) ** 2)


@pytest.fixture(autouse=True)
def long(monkeypatch):
    monkeypatch.setattr(policy, "LIMITS", replace(policy.LIMITS, long=40))
    for module in (policy, importance):
        monkeypatch.setattr(module, "KEPT_NUMBERS", 64 * DIM)
        monkeypatch.setattr(module, "FEWEST_VERDICT_DRAWS", 128)
    monkeypatch.setattr(importance, "MADE_AT_ONCE", 1)
    monkeypatch.setattr(importance, "WORKING_SET", 2 * DIM)


def fit(name="mean field", **options):
    return bbvi.fit(logprob, DIM, progress=False, **METHODS[name], **options)


@pytest.mark.parametrize("name", METHODS)
def test_a_gaussian_is_recovered(name):
    fitted = fit(name)
    np.testing.assert_allclose((fitted.distribution.mean() - MEAN) / SD, 0, atol=0.2)
    np.testing.assert_allclose(fitted.distribution.sd(), SD, rtol=0.2)
    assert fitted.diagnosis.elbo.value == pytest.approx(0.5 * DIM * np.log(2 * np.pi) + np.log(SD).sum(), abs=1)


def test_draws_are_made_again_as_they_were(tmp_path):
    fitted = fit()
    pool, q = fitted.pool, fitted.distribution
    assert isinstance(pool.x, LazyDraws)
    assert fitted.diagnosis.num_draws == 160
    assert (len(pool), pool.from_q.sum()) == (80, 64)  # half of them
    x = np.asarray(pool.x)
    assert pool.x.shape == x.shape == (len(pool), DIM)
    np.testing.assert_allclose(q.log_prob(x), pool.log_q, rtol=1e-12)
    chosen = np.random.default_rng(0).permutation(len(pool))[:9]
    np.testing.assert_array_equal(np.asarray(pool.take(chosen).x), x[chosen])
    np.testing.assert_array_equal(np.concatenate(list(pool.x[chosen].pieces())), x[chosen])
    fitted.save(tmp_path / "posterior.npz")
    loaded = bbvi.load(tmp_path / "posterior.npz")
    np.testing.assert_array_equal(loaded.pool.x, x)
    assert loaded.table(3).equals(fitted.table(3))
    for each in (fitted, loaded):
        np.testing.assert_array_equal(each.mean(), q.mean())
        assert each.table(1)["sd"].iloc[0] == q.sd()[0]
    fitted.report(tmp_path / "report.html")
    assert len(fitted.summary()) == DIM


def test_a_table_of_one_parameter_keeps_no_draws(monkeypatch):
    made, alive = [], []

    def watched(x):
        for piece in x.pieces():
            made.append(weakref.ref(piece))
            alive.append(sum(each() is not None for each in made))
            yield piece

    fitted = fit()
    monkeypatch.setattr("bbvi.record.pieces", watched)
    fitted.table(1)
    assert len(made) > 20
    assert max(alive) <= 2


def test_an_interrupt_between_blocks_returns_what_was_reached():
    def interrupt(progress):
        if progress.step > 2:
            raise KeyboardInterrupt

    fitted = fit(num_steps=100, callbacks=[interrupt])
    assert 0 < len(fitted.history.elbo) < 100
    assert fitted.diagnosis.stop is bbvi.Stop.INTERRUPTED


def test_an_interrupt_within_a_block_takes_it_to_its_end(monkeypatch):
    prefetch, calls = Pages.prefetch, []

    def interrupt(pages, step):
        calls.append(step)
        if len(calls) == 3:
            raise KeyboardInterrupt
        prefetch(pages, step)

    monkeypatch.setattr(Pages, "prefetch", interrupt)
    fitted = fit(num_steps=100, init=bbvi.MeanField.standard(DIM))  # without paths, which are blocks of steps as well
    assert calls[-1] < len(fitted.history.elbo) < 100
    assert np.isfinite(fitted.history.elbo).all()


def test_a_checkpoint_goes_on_with_the_same_bits(tmp_path):
    whole = fit(num_steps=60)
    stop = lambda progress: progress.step >= 20
    fit(num_steps=60, checkpoint=tmp_path / "state", callbacks=[stop])
    resumed = fit(num_steps=60, checkpoint=tmp_path / "state")
    np.testing.assert_array_equal(resumed.history.elbo, whole.history.elbo)
    for name, leaf in whole.distribution.leaves().items():
        np.testing.assert_array_equal(resumed.distribution.leaves()[name], leaf)
