"""Every algorithm x its laws, and the parts of the start."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.scipy.special import logsumexp

import bbvi
from bbvi.algorithms.base import Initialisation
from bbvi.algorithms.numerics.paths import advance, at_start, look_ahead
from bbvi.algorithms.numerics.quasi_newton import Compact, Dense, Limited
from bbvi.algorithms.optimizer import Optimizer
from bbvi.distributions.affine import Affine
from bbvi.distributions.scales import Diagonal
from bbvi.policy import LIMITS
from bbvi.runtime import timing
from bbvi.start.bulk import polish
from bbvi.start.find import find_start
from bbvi.start.paths import ITERATIONS, climb
from bbvi.start.record import Hints
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters
from tests.targets import COVARIANCE, DIM, LOG_EVIDENCE, MEAN, PRECISION, gaussian, independent, smooth

SD = np.sqrt(np.diag(COVARIANCE))
FAMILIES = ["full_rank", "low_rank", "mean_field"]
ESTIMATORS = ["sticking_the_landing", "elbo", "score_function"]


def problem(logprob, dim=DIM):
    return Problem(make_parameters(dim), None, logprob)


@pytest.mark.parametrize("family", FAMILIES)
def test_recovers_a_gaussian(family):
    """Exactly where the family holds it; a mean-field Gaussian has the means and the conditional variances."""
    posterior = bbvi.fit(gaussian, DIM, family=family, num_steps=3000)
    q = posterior.distribution
    assert posterior.diagnosis.stop is bbvi.Stop.CONVERGED
    if family == "full_rank":
        np.testing.assert_allclose(q.loc, MEAN, atol=1e-6)
        np.testing.assert_allclose(q.scale.matrix() @ q.scale.matrix().T, COVARIANCE, atol=1e-6)
        np.testing.assert_allclose(posterior.diagnosis.elbo.value, LOG_EVIDENCE, rtol=1e-8)
    else:
        np.testing.assert_allclose(q.loc, MEAN, atol=0.1 * SD.min())
    if family == "mean_field":
        np.testing.assert_allclose(q.sd(), 1 / np.sqrt(np.diag(PRECISION)), rtol=0.05)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_recovers_independent_coordinates(family, estimator):
    """A target in every family, by every estimator."""
    posterior = bbvi.fit(independent, DIM, family=family, estimator=estimator, num_steps=4000)
    np.testing.assert_allclose(posterior.distribution.mean(), MEAN, atol=0.1)
    np.testing.assert_allclose(posterior.distribution.sd(), 1 / np.arange(1, 5), rtol=0.1)
    assert posterior.diagnosis.status is bbvi.Status.RELIABLE


@pytest.mark.parametrize(
    "optimizer", [optax.adam(0.05), optax.sgd(0.1), optax.chain(optax.clip(1.0), optax.adam(0.02))]
)
def test_any_optax_transformation(optimizer):
    posterior = bbvi.fit(gaussian, DIM, optimizer=optimizer, init=np.zeros(DIM), num_steps=2000)
    np.testing.assert_allclose(posterior.distribution.mean(), MEAN, atol=0.05)


def test_terrible_scales_and_starts():
    """Standard deviations from 1e-5 to 1e6, far from the origin: no step size to choose."""
    scales = jnp.array([1e-5, 1e-1, 1e3, 1e6])

    def badly_scaled(x):
        return gaussian(x / scales.astype(x.dtype) - 100)

    posterior = bbvi.fit(badly_scaled, DIM)
    np.testing.assert_allclose(posterior.distribution.mean(), (MEAN + 100) * scales, rtol=1e-4)
    np.testing.assert_allclose(posterior.distribution.sd(), SD * scales, rtol=1e-4)
    assert posterior.diagnosis.status is bbvi.Status.RELIABLE


def test_a_mode_at_infinity_does_not_attract():
    """The centred funnel has no mode, but it has a best Gaussian, at moderate scales."""

    def funnel(x):
        return -0.5 * (x[0] / 3) ** 2 - 0.5 * jnp.sum(x[1:] ** 2) * jnp.exp(-x[0]) - 2 * x[0]

    posterior = bbvi.fit(funnel, 5)
    assert -8 < posterior.distribution.mean()[0] < 2
    assert posterior.diagnosis.elbo.value > 2.0  # the evidence is log(3 (2 pi)^(5/2)) = 5.7


@pytest.mark.parametrize("dim", [DIM, 300])
def test_climb_reaches_the_mode(dim, x64):
    """Both kinds of curvature, from both sides of the limit of dense ones."""
    assert (dim <= LIMITS.dense_start) == (dim == DIM)
    target = problem(lambda x: -0.5 * jnp.sum((x - 2) ** 2 * jnp.linspace(0.1, 10, dim)), dim)
    rng = np.random.default_rng(0)
    ends = climb(target, rng.uniform(-2, 2, (2, dim)), Hints(rng=rng), judged=True)
    assert 0 < ends.evaluations.gradients < ITERATIONS * 2 * (1 + 4)  # none was cut short
    np.testing.assert_allclose([gaussian.loc for gaussian in ends.gaussians], 2, atol=0.5)
    assert np.isfinite(ends.elbo).all()


def test_modes_far_from_the_first_one_are_met(x64):
    """Three modes, of which paths near the origin only find the one there, where q begins."""
    far = lambda x: logsumexp(jnp.array([-0.5 * jnp.sum((x - centre) ** 2) for centre in (-8, 0, 8)]))
    start = find_start(problem(far, 3), Initialisation.BULK, Hints())
    np.testing.assert_allclose(start.gaussian.loc, 0, atol=0.1)
    assert {round(float(path.loc.mean()) / 8) for path in start.paths} == {-1, 0, 1}
    near = find_start(problem(far, 3), Initialisation.BULK, Hints(point=np.zeros(3)))
    assert len(near.paths) == 1  # who names a point wants that one


@pytest.mark.parametrize("kind", [Dense, Limited, Compact])
def test_quasi_newton_satisfies_the_secant_equation(kind, x64):
    """H' y = s after each update; draws have covariance H; the dense log-determinant is that of the factor."""
    rng = np.random.default_rng(1)
    curvature = kind.identity(DIM, jnp.float64)
    x = np.zeros(DIM)
    for _ in range(6):
        g = -PRECISION @ (x - MEAN)
        step = rng.uniform(0.2, 0.8)
        s = step * curvature.solve(g)
        y = PRECISION @ s
        curvature = curvature.update(s, y, jnp.asarray(step), jnp.asarray(g))
        np.testing.assert_allclose(curvature.solve(y), s, rtol=1e-6)
        x = x + s
    eye = jnp.eye(DIM)
    if kind is Compact:  # the closed form equals the recursion
        inverse = jax.vmap(curvature.solve)(eye)
        root = curvature.scale_by(eye)
        np.testing.assert_allclose(root.T @ root, inverse, rtol=1e-6, atol=1e-10)
        np.testing.assert_allclose(curvature.log_det, 0.5 * jnp.linalg.slogdet(inverse)[1], rtol=1e-8)
    if kind is Dense:
        scale = curvature.scale().matrix()
        inverse = scale @ scale.T
        np.testing.assert_allclose(jax.vmap(curvature.solve)(eye), inverse, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(curvature.log_det, 0.5 * jnp.linalg.slogdet(inverse)[1], rtol=1e-8)


def test_polish_is_exact_for_gaussians_from_any_start(x64):
    """Even where the start knows nothing of half the directions."""
    rng = np.random.default_rng(0)
    start = Affine(jnp.full(DIM, 50.0), Diagonal.of(jnp.array([1e-6, 1e3, 1.0, 1e-2])))
    polished = polish(problem(gaussian), start, rng)
    tril = polished.gaussian.scale.matrix()
    np.testing.assert_allclose(polished.gaussian.loc, MEAN, atol=1e-5)
    np.testing.assert_allclose(tril @ tril.T, COVARIANCE, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(polished.elbo, LOG_EVIDENCE, atol=1e-6)


def test_the_gaussians_of_a_path_are_nearer_to_the_mode_than_its_points(x64):
    """x + H g points uphill: a gradient of the wrong sign would put them on the other side."""
    target = problem(gaussian)
    noise = jnp.asarray([[1.0, -1.0, 0.5, 0.2], [-1.0, 1.0, -0.5, -0.2]])
    paths = at_start(np.zeros((1, DIM)), Dense.identity(DIM, np.float64), judged=True)
    path = jax.tree.map(lambda leaf: leaf[0], paths)
    for _ in range(12):
        at = look_ahead(noise, path)
        path = advance(path, at, *target.values_and_gradients(at.points))
        mean = path.x + path.curvature.solve(path.gradient)
        energy = lambda x: (x - MEAN) @ PRECISION @ (x - MEAN)
        assert path.curvature.seen == 0 or energy(mean) < energy(path.x) + 1e-12


def test_a_second_fit_compiles_nothing():
    options = {"num_steps": 300, "optimizer": lambda: optax.adam(0.03)}
    fit = lambda seed: bbvi.fit(smooth, DIM, seed=seed, num_steps=300, optimizer=options["optimizer"]())
    fit(0).sample(10)
    before = timing.compilations()
    posterior = fit(1)
    posterior.sample(10)
    repr(posterior)
    assert timing.compilations() == before
    assert posterior.cost.compile_seconds == 0


def test_new_data_of_the_same_shape_compile_nothing():
    def logprob(x, data):
        return -0.5 * jnp.sum((x - data["y"]) ** 2)

    bbvi.fit(logprob, 2, data={"y": np.zeros(2)})
    before = timing.compilations()
    posterior = bbvi.fit(logprob, 2, data={"y": np.array([3.0, -1.0])})
    assert timing.compilations() == before
    np.testing.assert_allclose(posterior.distribution.mean(), [3, -1], atol=1e-6)


def test_the_users_python_runs_once():
    runs = []

    def logprob(x):
        runs.append(x)
        return -0.5 * jnp.sum(x**2)

    bbvi.fit(logprob, 2).sample(5)
    assert len(runs) == 1


SAME = [
    (lambda: optax.adam(0.01), lambda: optax.adam(0.01), True),
    (lambda: optax.adam(0.01), lambda: optax.adam(0.02), False),
    (lambda: optax.adam(0.01), lambda: optax.sgd(0.01), False),
    (
        lambda: optax.chain(optax.clip(1.0), optax.sgd(0.1)),
        lambda: optax.chain(optax.clip(1.0), optax.sgd(0.1)),
        True,
    ),
    (
        lambda: optax.adam(optax.cosine_decay_schedule(0.1, 100)),
        lambda: optax.adam(optax.cosine_decay_schedule(0.1, 100)),
        True,
    ),
    (
        lambda: optax.adam(optax.cosine_decay_schedule(0.1, 100)),
        lambda: optax.adam(optax.cosine_decay_schedule(0.1, 200)),
        False,
    ),
]


@pytest.mark.parametrize(("first", "second", "same"), SAME)
def test_optimizers_are_compared_by_what_they_do(first, second, same):
    assert (Optimizer(first()) == Optimizer(second())) == same
    if same:
        assert hash(Optimizer(first())) == hash(Optimizer(second()))


def test_same_seed_same_bits():
    first, second, other = (bbvi.fit(smooth, DIM, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.distribution.scale.raw_tril, second.distribution.scale.raw_tril)
    assert np.array_equal(first.sample(5), second.sample(5))
    assert not np.array_equal(first.sample(5), other.sample(5))
