"""Files that earlier versions wrote, in `tests/saved/`."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import bbvi

SAVED = Path(__file__).parent / "saved"
POSTERIORS = sorted(SAVED.glob("posterior_*.npz"))


@pytest.mark.parametrize("path", POSTERIORS, ids=lambda path: path.stem)
def test_posteriors_of_version_0_1_load(path, tmp_path):
    posterior = bbvi.load(path)
    assert str(posterior.diagnosis) in repr(posterior)
    draws = posterior.parameters.named(posterior.sample(50))
    assert all(np.isfinite(each).all() and len(each) == 50 for each in draws.values())
    q = posterior.distribution
    of_q = posterior.pool.from_q
    with bbvi.runtime.precision.scope(posterior.double):
        log_q = np.asarray(q.log_prob(jnp.asarray(posterior.pool.x)))
    np.testing.assert_allclose(log_q, posterior.pool.log_q, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(posterior.pool.x[of_q].mean(axis=0), q.mean(), atol=0.5 * np.max(q.sd()))
    posterior.save(tmp_path / "again.npz")
    assert repr(bbvi.load(tmp_path / "again.npz")) == repr(posterior)


def test_a_checkpoint_of_an_older_version_is_refused_by_name(tmp_path):
    path = tmp_path / "checkpoint.npz"
    path.write_bytes((SAVED / "checkpoint.npz").read_bytes())
    with pytest.raises(ValueError, match="older version"):
        bbvi.fit(lambda x: -0.5 * jnp.sum(x**2), 3, method="advi", num_steps=60, checkpoint=path)
