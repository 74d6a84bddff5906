"""Marginals of models with many random effects, whose optima others have published (TMB, github.com/kaskr/adcomp)."""

import json
import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.nn import sigmoid
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import gammaln
from jax.scipy.stats import norm

from bbvi.nested.conditional import find_mode
from bbvi.nested.marginal import marginal
from bbvi.structure import structure_of
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters

FOLDER = Path(os.environ.get("BBVI_YARDSTICKS", Path(__file__).parents[2] / "shared" / "yardsticks"))
pytestmark = [
    pytest.mark.usefixtures("x64"),
    pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the published optima: set BBVI_YARDSTICKS to their folder"),
]


def orange_big(f, r, data):
    """Growth of five orange trees, copied a thousand times; an effect for each tree and copy."""
    log_sigma, log_sigma_u = f[3], f[4]
    u = r.reshape(-1, 5)
    mean = (192 + f[0] + u[..., None]) / (1 + jnp.exp(-(data["t"] - 726 - f[1]) / (356 + f[2])))
    prior = jnp.sum(-log_sigma_u - 0.5 * (u * jnp.exp(-log_sigma_u)) ** 2)
    return prior + jnp.sum(-log_sigma - 0.5 * ((data["y"] - mean) * jnp.exp(-log_sigma)) ** 2)


def thetalog(f, r, data):
    """Theta-logistic growth of a population that is observed with errors."""
    r0, theta, capacity = jnp.exp(f[0]), jnp.exp(f[1]), jnp.exp(f[2])
    expected = r[:-1] + r0 * (1 - (jnp.exp(r[:-1]) / capacity) ** theta)
    return norm.logpdf(r[1:], expected, jnp.exp(f[3] / 2)).sum() + norm.logpdf(data["Y"], r, jnp.exp(f[4] / 2)).sum()


def nmix(f, r, data):
    """Abundance at sites from repeated counts, with effects of observers on what is seen."""
    p = sigmoid(f[1] + f[2] * data["x"][:, None] + jnp.exp(f[3]) * r[data["observer"]])[..., None]
    y, n = data["y"][..., None].astype(float), jnp.arange(21.0)
    fits = n >= y
    log_choose = gammaln(n + 1) - gammaln(y + 1) - gammaln(jnp.where(fits, n - y, 0.0) + 1)
    log_seen = log_choose + y * jnp.log(p + 1e-12) + jnp.where(fits, n - y, 0.0) * jnp.log(1 - p + 1e-12)
    log_seen = jnp.where(fits.all(axis=1), jnp.where(fits, log_seen, 0.0).sum(axis=1), -jnp.inf)
    poisson = n * f[0] - jnp.exp(f[0]) - gammaln(n + 1)
    return -0.5 * jnp.sum(r**2) + jnp.sum(jnp.log(1e-12 + jnp.exp(poisson + log_seen).sum(axis=1)))


def socatt(f, r, data):
    """Ordinal answers of persons in four years."""
    thresholds = jnp.cumsum(jnp.concatenate([f[4:5], jnp.exp(f[5:])]))
    eta = data["X"] @ f[:3] + jnp.exp(f[3]) * r[data["person"]]
    below = sigmoid(thresholds - eta[:, None])
    edges = jnp.concatenate([jnp.zeros((len(eta), 1)), below, jnp.ones((len(eta), 1))], axis=1)
    chances = jnp.take_along_axis(jnp.diff(edges, axis=1), data["y"][:, None], axis=1)
    return norm.logpdf(r).sum() + jnp.log(chances).sum()


def mvrw_sparse(f, r, data):
    """Three correlated random walks, observed with errors."""
    u, rho, sd = r.reshape(-1, 3), jnp.tanh(f[0]), jnp.exp(f[1:4])
    covariance = sd[:, None] * sd * rho ** np.abs(np.subtract.outer(np.arange(3), np.arange(3))).astype(float)
    factor = jnp.linalg.cholesky(covariance)
    white = solve_triangular(factor, jnp.diff(u, axis=0).T, lower=True)
    log_volume = jnp.sum(jnp.log(jnp.diag(factor))) + 1.5 * np.log(2 * np.pi)
    seen = norm.logpdf(data["obs"][1:], u[1:], jnp.exp(f[4:])).sum()
    return norm.logpdf(u[0]).sum() - 0.5 * jnp.sum(white**2) - 99 * log_volume + seen


# log density, fewest blocks, size of the largest
MODELS = {
    "orange_big": (orange_big, 5000, 1),
    "socatt": (socatt, 264, 1),
    "nmix": (nmix, 20, 2),
    "thetalog": (thetalog, 10, 20),
    "mvrw_sparse": (mvrw_sparse, 6, 40),
}


def _log_density(values, data, model):
    return model(values["f"], values["r"], data)


@pytest.mark.parametrize("name", MODELS)
def test_the_published_optimum_is_found_again(name):
    """Minimum, a Newton step from there that goes nowhere, and the mode of the random effects."""
    model, blocks, size = MODELS[name]
    answer = json.loads((FOLDER / "gym" / "reference.json").read_text())["laplace"][name]
    data = {key: jnp.asarray(each) for key, each in np.load(FOLDER / "gym" / "data" / f"{name}.npz").items()}
    f, k = np.array(answer["fixed"]), answer["n_fixed"]
    shapes = {"f": (k,), "r": (answer["n_random"],)}
    with jax.numpy_dtype_promotion("standard"):
        problem = Problem(make_parameters(shapes), data, partial(_log_density, model=model))
        start = np.concatenate([f, np.asarray(data["Y"]) if name == "thetalog" else np.zeros(answer["n_random"])])
        structure = structure_of(problem, ["r"], start, np.ones(len(start)))
        assert structure.blocks.shape[0] >= blocks
        assert structure.blocks.shape[1] <= size
        split = structure.split()
        z = split.latent(jnp.asarray(start))
        value, gradient, found = jax.jit(lambda phi: marginal(problem, split, z).values_and_gradients(phi))(f[None])
        mode = jax.jit(lambda phi: find_mode(problem, split, phi, z))(jnp.asarray(f))
    assert found.all()
    np.testing.assert_allclose(-value[0], answer["minimum"], rtol=1e-7, atol=1e-6)
    newton = np.array(answer["fixed_cov"]) @ gradient[0]
    assert np.abs(newton / np.array(answer["fixed_se"])).max() < 1e-3
    np.testing.assert_allclose(split.join(jnp.asarray(f), mode.z)[k:], answer["random_mode"], atol=1e-4)
