"""Further importance draws: kernels, the weights of draws from several densities, and where mass is looked for."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import bbvi
from bbvi.distributions import LocationScale
from bbvi.distributions.affine import Affine
from bbvi.distributions.scales import Triangular
from bbvi.draws.adaptive import draw_adaptively
from bbvi.draws.proposal import Kernels, Places, far_along_axes, outposts
from bbvi.outcome import Status
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters

STANDARD = LocationScale(np.zeros(3), Triangular.of(np.eye(3)))


def problem(logprob):
    return Problem(make_parameters(3), None, logprob)


KERNELS = Kernels(np.array([[0.0, 1.0], [3.0, -1.0]]), np.array([[[1.0, 0.0], [0.5, 0.3]], [[0.4, 0.0], [0.0, 2.0]]]))


def test_kernels_have_the_density_of_their_draws():
    edge = np.linspace(-60, 60, 1601)
    points = np.stack(np.meshgrid(edge, edge, indexing="ij"), axis=-1).reshape(-1, 2)
    mass = np.exp(KERNELS.log_densities(points)[0]) * (edge[1] - edge[0]) ** 2
    assert mass.sum() == pytest.approx(1, abs=1e-3)
    x = KERNELS.draw(np.random.default_rng(0), 100_000)
    for statistic in (lambda x: x[:, 0] > 1, lambda x: (x[:, 1] > 0) & (x[:, 0] < 2), lambda x: x.sum(axis=1) > 2):
        assert statistic(x).mean() == pytest.approx(mass @ statistic(points), abs=0.01)


def test_places_of_several_proposals_have_the_right_mean_weight_and_even_out():
    """The mean weight is the mass of the target: here 2, half of it 12 standard deviations from q."""
    rng, hyper = np.random.default_rng(0), Affine(np.zeros(1), Triangular(np.zeros((1, 1))))
    target = lambda phi: np.logaddexp(norm.logpdf(phi[:, 0]), norm.logpdf(phi[:, 0], 12, 2))
    normal = lambda phi: np.tile(norm.logpdf(phi[:, 0]), (2, 1))
    phi = rng.standard_normal((640, 1))
    places = Places.of(phi, target(phi), normal)
    kernels = outposts(hyper, target(far_along_axes(hyper)), float(target(np.zeros((1, 1)))[0]))
    assert sorted(kernels.centres[:, 0]) == [8, 16]
    for _ in range(3):
        phi = kernels.draw(rng, 640)
        places = places.beside(phi, target(phi), kernels)
        kernels = places.kernels(rng, hyper)
    weights = np.exp(places.log_p - places.log_r)
    assert weights.mean() == pytest.approx(2, rel=0.1)
    assert weights @ (places.phi[:, 0] > 6) / weights.sum() == pytest.approx(0.5, abs=0.05)
    assert places.are_even(1000)


def test_nothing_is_far_from_a_gaussian():
    hyper = Affine(np.array([1.0, -2.0]), Triangular.of(np.array([[2.0, 0.0], [0.1, 0.3]])))
    u = np.linalg.solve(np.asarray(hyper.scale.matrix()), (far_along_axes(hyper) - hyper.loc).T)
    assert outposts(hyper, -0.5 * np.sum(u**2, axis=0), 0.0) is None


# -- draws of q and further ones --------------------------------------------------------------------------------------


def shoulder(x):
    """A standard Gaussian with nine tenths of the mass; the rest is 8 to 12 standard deviations from it along x[0]."""
    bulk = -0.5 * jnp.sum(x**2)
    far = jnp.log(0.1 / 0.9 / 2) - 0.5 * (((x[0] - 10) / 2) ** 2 + jnp.sum(x[1:] ** 2))
    return jnp.logaddexp(bulk, far) - 1.5 * jnp.log(2 * jnp.pi) + jnp.log(0.9)


def weights_of(draws):
    return np.exp(draws.log_p - draws.log_r)


@pytest.mark.usefixtures("x64")
def test_mass_far_along_an_axis_is_drawn_and_weighted():
    made = draw_adaptively(problem(shoulder), STANDARD, (0,))
    weights, plain = weights_of(made.draws), weights_of(made.plain)
    assert plain.mean() == pytest.approx(0.9, abs=0.02)
    assert made.further == 640
    assert weights.mean() == pytest.approx(1, abs=0.02)
    assert weights @ made.draws.x[:, 0] / weights.sum() == pytest.approx(1, abs=0.15)
    assert not made.draws.from_q[-made.further :].any()


@pytest.mark.usefixtures("x64")
def test_nothing_is_drawn_where_nothing_is_far():
    made = draw_adaptively(problem(lambda x: -0.5 * jnp.sum(x**2)), STANDARD, (0,))
    assert made.further == 0
    assert made.evaluations.log_densities == len(made.draws) + 1 + 8 * 3


@pytest.mark.usefixtures("x64")
def test_the_density_may_be_infinite_or_nothing_far_away():
    def bounded(x):
        return jnp.where(jnp.abs(x[0]) < 6, -0.5 * jnp.sum(x**2), jnp.where(x[0] > 0, jnp.nan, -jnp.inf))

    made = draw_adaptively(problem(bounded), STANDARD, (0,))
    assert made.further == 0


@pytest.mark.parametrize("seed", range(2))
def test_a_verdict_tells_of_it_and_the_posterior_has_it(seed):
    posterior = bbvi.fit(shoulder, 3, method="newton", init=np.zeros(3), seed=seed)
    assert posterior.diagnosis.status is not Status.RELIABLE
    assert any("draws far from q along x[0]" in reason for reason in posterior.diagnosis.reasons)
    assert posterior.diagnosis.log_evidence.value == pytest.approx(0, abs=0.03)
