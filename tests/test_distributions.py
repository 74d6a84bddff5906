"""Every family x the laws of a variational distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import special

import bbvi
from bbvi.distributions.affine_couplings import AffineCouplings
from bbvi.distributions.reading import FAMILIES as NAMED
from bbvi.distributions.spline_couplings import SplineCouplings
from bbvi.ext import (
    Affine,
    Diagonal,
    DiagonalPlusLowRank,
    Family,
    HeavyTailed,
    SinhArcsinhBase,
    SpikedDiagonal,
    Triangular,
    Warped,
)
from tests.targets import smooth

COMBINATIONS = [  # that have no name of their own
    Family(f"{base.name}+{scale.name}", scale, base)
    for base, scale in [
        (HeavyTailed, DiagonalPlusLowRank),
        (SinhArcsinhBase, Diagonal),
        (SinhArcsinhBase, SpikedDiagonal),
    ]
]
FAMILIES = [*dict.fromkeys(NAMED.values()), *COMBINATIONS]
FLOWS = (bbvi.RealNVP, bbvi.NeuralSpline)
SMALL = {"layers": 3, "width": 6}  # networks of flows: the laws hold for any
DIM, FEW, MANY = 3, 6, 100_000
push = jax.jit(lambda q, noise: q.push(noise))
log_prob = jax.jit(lambda q, x: q.log_prob(x))
moments = jax.jit(lambda q: (q.mean(), q.sd(), q.entropy()))
# of a base: standard deviations from the mean within which the density is summed up, and what may lie beyond
HEAVY = {HeavyTailed: (60, 1e-3), SinhArcsinhBase: (20, 1e-4), AffineCouplings: (20, 1e-4), SplineCouplings: (8, 1e-3)}
pytestmark = pytest.mark.usefixtures("x64")


def member(family, dim=DIM, seed=0, dtype=np.float64):
    """A member with no special values."""
    rng, size = np.random.default_rng(seed), 0.04 if family in FLOWS else 0.4
    standard = family.standard(dim, **SMALL) if family in FLOWS else family.standard(dim)
    return jax.tree.map(lambda leaf: jnp.asarray(size * rng.standard_normal(leaf.shape) + leaf, dtype), standard)


def base_of(q):
    """None where q is not made of a scale and a base."""
    return getattr(q, "base", None)


def averaged(q, n):
    """How many draws stand behind a moment that is compared with an average over `n`."""
    closed = isinstance(q, bbvi.LocationScale) and q.base.moments(q.scale) is not None
    return n if closed else 4096


def noise(q, n, seed=1):
    return jnp.asarray(np.random.default_rng(seed).standard_normal((n, q.noise_dim)))


@pytest.fixture(params=FAMILIES, ids=lambda family: family.name)
def q(request):
    return member(request.param)


def test_density_integrates_to_one():
    for family in FAMILIES:
        q = member(family, dim=2)
        reach, rtol = HEAVY.get(type(base_of(q)), (8, 1e-4))
        mean, sd, _ = moments(q)
        axes = [np.linspace(m - reach * s, m + reach * s, 25 * reach + 1) for m, s in zip(mean, sd, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
        mass = jnp.exp(log_prob(q, grid)).sum() * np.prod([a[1] - a[0] for a in axes])
        np.testing.assert_allclose(mass, 1, rtol=rtol, err_msg=family.name)


def test_draws_have_the_moments_claimed(q):
    x, n = push(q, noise(q, MANY)), averaged(q, MANY)
    mean, sd, _ = moments(q)
    assert jnp.all(jnp.abs(x.mean(axis=0) - mean) < 5 * sd / n**0.5)
    assert jnp.all(jnp.abs(x.std(axis=0) / sd - 1) < max(0.015, 4 / n**0.5))


def test_entropy_is_the_mean_of_minus_log_density(q):
    log_q = log_prob(q, push(q, noise(q, MANY)))
    assert abs(moments(q)[2] + log_q.mean()) < 5 * log_q.std() / averaged(q, MANY) ** 0.5


def test_density_agrees_with_numpyro(q):
    x = push(q, noise(q, FEW))
    np.testing.assert_allclose(q.to_numpyro().log_prob(x), log_prob(q, x), rtol=1e-8)


def test_batches_are_points(q):
    eps = noise(q, FEW)
    one, log_prob_one = jax.jit(lambda q, e: q.push_one(e)), jax.jit(lambda q, x: q.log_prob_one(x))
    x = push(q, eps)
    np.testing.assert_allclose(push(q, eps.reshape(2, 3, -1)).reshape(FEW, -1), [one(q, e) for e in eps], rtol=1e-10)
    np.testing.assert_allclose(log_prob(q, x), [log_prob_one(q, each) for each in x], rtol=1e-9)


def test_gradients_agree_with_finite_differences(q):
    eps = noise(q, 3)
    rtol = 1e-3 if isinstance(q, bbvi.NeuralSpline) else 1e-5  # a spline has kinks in its second derivative
    values = jax.jit(lambda q: jnp.stack([q.push(eps).sum(), q.log_prob(jnp.ones((2, DIM))).sum() + q.entropy()]))
    check_grads(values, (q,), 1, modes=["rev"], rtol=rtol)


def test_pathwise_gradient_agrees_with_score_function_gradient(q):
    eps = noise(q, MANY).reshape(100, MANY // 100, -1)
    f = jax.vmap(smooth)

    def average(q, eps):
        x, weights = q.weighted_draws(eps)
        return weights @ f(x)

    def score(q, x):
        return jnp.mean((f(x) - f(x).mean()) * q.log_prob(x))

    @jax.jit
    def both(q, eps):
        return jax.lax.map(lambda eps: (jax.grad(average)(q, eps), jax.grad(score)(q, q.push(eps))), eps)

    for a, b in zip(*map(jax.tree.leaves, both(q, eps)), strict=True):
        gap, se = (a - b).mean(axis=0), (a - b).std(axis=0) / 10
        assert jnp.all(jnp.abs(gap) < (8 if isinstance(q, FLOWS) else 5) * se + 0.003)  # flows have many parameters


def test_standardise_and_after_are_inverse(q):
    affine, local = q.standardise()
    again = local.after(affine)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(q), strict=True):
        used = jnp.tril(jnp.ones_like(a)) if a.shape[-2:] == (DIM, DIM) else jnp.ones_like(a)
        np.testing.assert_allclose(a * used, b * used, rtol=1e-10, atol=1e-12)
    if not isinstance(base_of(q), Warped):
        np.testing.assert_allclose(local.mean(), 0, atol=1e-12)


def test_after_is_the_change_of_variables(q):
    loc, scale = jnp.arange(3.0), jnp.array([0.5, 2.0, 3.0])
    x = push(q, noise(q, FEW))
    moved = jax.jit(lambda q: q.after(Affine(loc, Diagonal.of(scale))))(q)
    np.testing.assert_allclose(log_prob(moved, loc + scale * x), log_prob(q, x) - jnp.log(scale).sum(), rtol=1e-8)


def test_around_finds_a_gaussian_of_the_family(q):
    """A member's own Gaussian is found again, exactly by the families that can hold it."""
    mean, sd, _ = moments(q)
    covariance = np.cov(push(q, noise(q, MANY)).T)
    gaussian = Affine(mean, Triangular.of(jnp.asarray(np.linalg.cholesky(covariance))))
    found = jax.jit(lambda q, gaussian: q.around(gaussian))(q, gaussian)
    found_mean, found_sd, _ = moments(found)
    np.testing.assert_allclose(found_mean, mean, atol=1e-12)
    rough = isinstance(q, bbvi.Mixture) or isinstance(q.scale, DiagonalPlusLowRank | SpikedDiagonal)
    tolerance = 0.25 if rough else 0.05 if isinstance(q, FLOWS) else 0.02
    np.testing.assert_allclose(found_sd, sd, rtol=tolerance)


def test_pytree_round_trip(q):
    leaves, treedef = jax.tree.flatten(q)
    again = jax.tree.unflatten(treedef, leaves)
    assert type(again) is type(q)
    assert all(a is b for a, b in zip(q.leaves().values(), again.leaves().values(), strict=True))


def test_a_distribution_prints_its_family_and_size_not_its_arrays(q):
    assert repr(q) == f"{q.title}(dim={q.dim})"


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_single_precision_stays_single(family):
    q = member(family, dtype=np.float32)
    eps = jnp.asarray(noise(q, 4), jnp.float32)
    laws = lambda q, eps: (q.push(eps), q.log_prob(q.push(eps)), q.entropy(), q.mean(), q.sd())
    values = jax.eval_shape(laws, q, eps)
    assert {value.dtype for value in values} == {jnp.dtype("float32")}


def test_the_wide_version_is_a_distribution(q):
    """Its draws have its density: E[q / t] = 1 under draws of t, with a variance that is bounded."""
    wide = q.widened()
    x = push(wide, noise(wide, MANY))
    ratio = jnp.exp(log_prob(q, x) - log_prob(wide, x))
    assert abs(ratio.mean() - 1) < 5 * ratio.std() / MANY**0.5
    mean, sd, _ = moments(q)
    share = jnp.mean(jnp.abs(x - mean) > 6 * sd, axis=0)
    assert (share > 1e-4).all()  # a Gaussian has 2e-9 of its draws there


def test_many_components_are_gone_through_in_a_loop_with_the_same_result():
    """Nine components, of which the last six hardly count: what three give, which are not."""
    few = member(bbvi.Mixture)
    many = bbvi.Mixture.of(3 * few.members, jnp.concatenate([few.log_weights, jnp.full(6, -60.0)]))
    x = few.push(np.random.default_rng(0).standard_normal((5, few.noise_dim)))
    np.testing.assert_allclose(many.log_prob(x), few.log_prob(x), rtol=1e-12)
    np.testing.assert_allclose(many.mean(), few.mean(), rtol=1e-12)
    np.testing.assert_allclose(many.sd(), few.sd(), rtol=1e-6)


def test_draws_of_a_mixture_take_turns():
    """Each component has as many draws as any other, weighted so that averages are those of the mixture."""
    q = member(bbvi.Mixture)
    x, weights = q.weighted_draws(noise(q, 300_000))
    np.testing.assert_allclose(weights.reshape(-1, 3).sum(axis=0), jax.nn.softmax(q.log_weights), rtol=1e-10)
    np.testing.assert_allclose(weights @ x, q.mean(), atol=0.02)
    with pytest.raises(ValueError, match="num_draws=2 is too few for a mixture of 3 components"):
        q.weighted_draws(noise(q, 2))


def test_a_new_flow_is_its_gaussian_and_inverts_itself():
    for family in FLOWS:
        scale = jnp.asarray([[2.0, 0.0, 0.0], [0.5, 1.0, 0.0], [0.1, -0.3, 0.5]])
        x = noise(family.standard(3), FEW)
        affine = Affine(jnp.ones(3), Triangular.of(scale))
        new, gaussian = family.standard(3).around(affine), bbvi.LocationScale(affine.loc, affine.scale)
        np.testing.assert_allclose(log_prob(new, x), log_prob(gaussian, x), rtol=1e-10)
        there_and_back = jax.jit(jax.vmap(lambda q, e: q.inverse_one(q.push_one(e))[0], (None, 0)))
        np.testing.assert_allclose(there_and_back(member(family), x), x, atol=1e-10)


def test_spiked_widens_and_narrows():
    """D (I + V (S^2 - I) V^T) D is exactly the covariance of its draws, with any S."""
    rng = np.random.default_rng(0)
    vectors, d, s = np.linalg.qr(rng.standard_normal((6, 2)))[0], rng.uniform(0.5, 2, 6), np.array([0.1, 3.0])
    scale = SpikedDiagonal.of_eigenvectors(jnp.asarray(d), jnp.asarray(vectors), jnp.asarray(s))
    q = bbvi.LocationScale(jnp.zeros(6), scale)
    covariance = d[:, None] * (np.eye(6) + vectors @ np.diag(s**2 - 1) @ vectors.T) * d
    dense = bbvi.LocationScale(q.loc, Triangular.of(jnp.linalg.cholesky(covariance)))
    x = q.push(noise(q, 9))
    np.testing.assert_allclose(q.log_prob(x), dense.log_prob(x), rtol=1e-10)
    np.testing.assert_allclose(q.entropy(), dense.entropy(), rtol=1e-10)
    np.testing.assert_allclose(q.sd(), dense.sd(), rtol=1e-10)


def test_low_rank_holds_a_factor_model():
    """diag(d^2) + F F^T is exactly the covariance of its draws: solve and determinant by Woodbury agree with dense."""
    q = member(bbvi.LowRank, dim=8)
    covariance = jnp.diag(jnp.exp(2 * q.scale.log_diagonal)) + q.scale.factor @ q.scale.factor.T
    dense = bbvi.LocationScale(q.loc, Triangular.of(jnp.linalg.cholesky(covariance)))
    x = q.push(noise(q, 9))
    np.testing.assert_allclose(q.log_prob(x), dense.log_prob(x), rtol=1e-10)
    np.testing.assert_allclose(q.entropy(), dense.entropy(), rtol=1e-10)


def test_a_skewed_family_is_fitted_in_ten_thousand_coordinates(monkeypatch):
    """Independent logarithms of Gamma(1, 1) variables on scales of their own, whose moments are polygamma functions."""
    monkeypatch.setattr("bbvi.policy.VERDICT_DRAWS", 256)
    dim = 10_000
    scales = jnp.logspace(0, 1, dim)

    def log_gamma(x):
        y = x / scales.astype(x.dtype)
        return jnp.sum(y - jnp.exp(y))

    family = bbvi.LocationScale(jnp.zeros(dim), Diagonal.standard(dim), SinhArcsinhBase.standard(dim))
    method = bbvi.PathGradient(num_draws=2, rate=0.05)
    q = bbvi.fit(log_gamma, dim, family=family, method=method, num_steps=400).distribution
    assert q.name == "sinh_arcsinh+mean_field"
    found_mean, found_sd, _ = moments(q)
    mean, sd = special.digamma(1.0), special.polygamma(1, 1.0) ** 0.5
    np.testing.assert_allclose(found_mean / scales, mean, atol=0.4 * sd)  # of each coordinate, with noise
    np.testing.assert_allclose(jnp.mean(found_mean / scales), mean, atol=0.05 * sd)
    np.testing.assert_allclose(jnp.mean(found_sd / scales), sd, rtol=0.05)
    skewness = jnp.mean(((push(q, noise(q, 300)) - found_mean) / found_sd) ** 3)
    np.testing.assert_allclose(skewness, special.polygamma(2, 1.0) / sd**3, rtol=0.25)
