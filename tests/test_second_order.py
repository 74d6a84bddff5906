"""Methods that use curvature x their laws."""

import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import constraints

import bbvi
from bbvi.algorithms.numerics.draws import balanced_draws
from bbvi.algorithms.numerics.trust_region import judge, propose_step
from bbvi.draws.importance import draw
from bbvi.fitting.arguments import METHODS
from tests.targets import COVARIANCE, DIM, LOG_EVIDENCE, MEAN, PRECISION, gaussian, quadratic_with_data, smooth

SD = np.sqrt(np.diag(COVARIANCE))
COUNTRY = np.random.default_rng(0).standard_normal((6, 40))


def few_rows(x):
    """Linear regression with a standard normal prior and 6 rows: curvature above 1 along 6 of 40 directions."""
    return -0.5 * jnp.sum(x**2) - 0.5 * jnp.sum((jnp.asarray(COUNTRY, x.dtype) @ x - 1) ** 2)


FEW_ROWS_PRECISION = np.eye(40) + COUNTRY.T @ COUNTRY


def log_gamma(x):
    """Density of the logarithm of independent Gamma(5, 1) variables."""
    return jnp.sum(5 * x - jnp.exp(x))


def covariance(q):
    root = np.asarray(q.push(np.eye(q.noise_dim))) - np.asarray(q.mean())
    return root.T @ root


# -- every method x what fit promises ---------------------------------------------------------------------------------


def rate_and_shift(values, data):
    return -0.5 * jnp.sum((data["y"] - values["rate"]) ** 2) - 0.1 * values["rate"] - 0.5 * values["shift"] ** 2


@pytest.mark.parametrize("method", METHODS)
def test_every_method_takes_what_fit_takes(method, tmp_path):
    """Constraints, data, a start, callbacks, progress, a checkpoint, single precision; then a budget of gradients."""
    y = np.array([3.0, 2.0, 4.0, 3.5])
    seen = []
    fit = lambda **options: bbvi.fit(
        rate_and_shift,
        {"rate": (), "shift": ()},
        data={"y": y},
        constraints={"rate": constraints.positive},
        method=method,
        init={"rate": 2.0, "shift": 0.1},
        latents=["shift"] if method == "nested_laplace" else None,
        precision="single",
        num_steps=3000,
        **options,
    )
    posterior = fit(
        callbacks=[lambda progress: seen.append(progress.step)], checkpoint=tmp_path / "state", progress=True
    )
    rate = y.mean() - 0.1 / len(y)  # the mass cut off at zero is below 1e-8
    assert posterior.diagnosis.trusted
    assert posterior.method == method
    assert posterior.distribution.mean().dtype == np.float32
    np.testing.assert_allclose(posterior.mean()["rate"], rate, atol=0.06)
    np.testing.assert_allclose(posterior.sd()["rate"], 0.5, rtol=0.08)

    cost, history = posterior.cost, posterior.history
    assert seen[-1] == len(history.elbo)
    assert np.isfinite(history.elbo[1:]).all()
    assert cost.gradients >= history.gradients.sum() > 0
    assert cost.hessian_vector_products >= history.hessian_vector_products.sum()

    steps = history.gradient_equivalents
    # A step is taken while what is left suffices for another one like the last; a verdict may take gradients, too.
    if len(steps) > 4 and method != "nested_laplace":
        some = fit(budget=bbvi.Budget(gradients=int(cost.gradients - history.gradients.sum() + steps[:3].sum())))
        assert some.diagnosis.stop is bbvi.Stop.BUDGET
        assert 1 <= len(some.history.elbo) <= 4


# -- exact on a Gaussian, and in how many steps ------------------------------------------------------------------------

EXACT = [  # method, options, steps at most, tolerance
    (bbvi.Laplace(), "full_rank", 4, 1e-7),
    (bbvi.VariationalNewton(), "full_rank", 4, 1e-7),
    (bbvi.VariationalNewton(products=True), "full_rank", 4, 1e-7),
    (bbvi.DADVI(), "mean_field", 10, 1e-5),
    (bbvi.DADVI(num_draws=4), "mean_field", 10, 1e-5),  # any number of antithetic draws
]


@pytest.mark.parametrize(("method", "family", "steps", "tolerance"), EXACT, ids=lambda value: str(value)[:24])
def test_a_gaussian_is_recovered(method, family, steps, tolerance):
    begin = bbvi.FullRank.standard(DIM) if family == "full_rank" else bbvi.MeanField.standard(DIM)
    posterior = bbvi.fit(gaussian, DIM, method=method, init=begin)
    q = posterior.distribution
    assert posterior.diagnosis.stop is bbvi.Stop.CONVERGED
    assert len(posterior.history.elbo) <= steps
    np.testing.assert_allclose(q.mean(), MEAN, atol=tolerance)
    np.testing.assert_allclose(covariance(q), COVARIANCE, atol=10 * tolerance)
    np.testing.assert_allclose(posterior.diagnosis.log_evidence.value, LOG_EVIDENCE, atol=0.02)


def test_pathfinder_recovers_a_gaussian():
    posterior = bbvi.fit(gaussian, DIM, method="pathfinder")
    np.testing.assert_allclose(posterior.distribution.mean(), MEAN, atol=0.2 * SD.max())
    np.testing.assert_allclose(posterior.mean(), MEAN, atol=0.06 * SD.max())
    np.testing.assert_allclose(posterior.sd(), SD, rtol=0.05)


# -- trust region ------------------------------------------------------------------------------------------------------


def test_steps_on_a_quadratic_are_newton_steps(x64):
    """Within dim products, whatever the metric; shorter ones end on the boundary."""
    g = jnp.asarray([1.0, -2.0, 0.5, 3.0])
    exact = np.linalg.solve(PRECISION, g)
    for metric in (1.0, jnp.asarray(np.diag(PRECISION))):
        step = propose_step(1e-8 * g, lambda v: PRECISION @ v, 1e3, metric)  # a small gradient is solved tightly
        np.testing.assert_allclose(step.move, 1e-8 * exact, rtol=1e-3)
        np.testing.assert_allclose(step.predicted, 0.5e-16 * g @ exact, rtol=1e-4)
        assert step.products <= DIM
        short = propose_step(g, lambda v: PRECISION @ v, 0.1, metric)
        np.testing.assert_allclose(short.length, 0.1, rtol=1e-10)
        assert short.predicted > 0


def test_negative_curvature_is_followed_to_the_boundary(x64):
    step = propose_step(jnp.array([0.3, 1.0]), lambda v: jnp.array([-1.0, 1.0]) * v, 5.0)
    np.testing.assert_allclose(step.length, 5.0)
    assert step.predicted > 0.5  # more than without the direction that rises


@pytest.mark.parametrize(
    ("rise", "accepted", "factor"),
    [(1.0, True, 8.0), (0.8, True, 2.0), (0.5, True, 1.0), (0.1, True, 0.25), (-1.0, False, 0.25)],
)
def test_the_radius_follows_the_agreement(rise, accepted, factor, x64):
    step = propose_step(jnp.array([2.0]), lambda v: v, 1.0)  # to the boundary, with a predicted rise of 1.5
    accept, radius = judge(step, 1.5 * jnp.asarray(rise), jnp.asarray(1.0), jnp.asarray(0.0))
    assert bool(accept) == accepted
    np.testing.assert_allclose(radius, factor)


# -- Laplace -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", ["full_rank", "mean_field", "spiked"])
def test_laplace_of_a_log_gamma(family):
    """Mode log 5, curvature 5, and Stirling's formula as the evidence."""
    posterior = bbvi.fit(log_gamma, 8, method="laplace", family=family)
    np.testing.assert_allclose(posterior.distribution.mean(), np.log(5), atol=1e-4)
    np.testing.assert_allclose(posterior.distribution.sd(), 5**-0.5, rtol=1e-3)
    evidence = 8 * (5 * np.log(5) - 5 + 0.5 * np.log(2 * np.pi / 5))
    assert (f"{evidence:.2f}" in " ".join(posterior.diagnosis.reasons)) == (family != "mean_field")
    assert posterior.distribution.name == family


def test_low_rank_curvature_is_close_for_a_prior_and_a_few_rows():
    """Diagonal plus low rank, without a matrix, where the curvature has that form."""
    exact = np.linalg.inv(FEW_ROWS_PRECISION)
    family = bbvi.Spiked.standard(40, rank=20)
    q = bbvi.fit(few_rows, 40, method="laplace", family=family).distribution
    np.testing.assert_allclose(covariance(q), exact, atol=1e-2)
    q = bbvi.fit(few_rows, 40, method="laplace", family="mean_field").distribution
    np.testing.assert_allclose(q.sd(), 1 / np.sqrt(np.diag(FEW_ROWS_PRECISION)), rtol=1e-5)


BAD = [  # what the verdict of Laplace says
    ("a flat direction", lambda x: -0.5 * (x[0] - x[1]) ** 2 - 0.5 * x[2] ** 2, "1 x[0] + 1 x[1]"),
    ("no curvature at all", lambda x: -jnp.sum(jnp.abs(x)), "ended before it converged"),
    ("no mode", jnp.sum, "the mode has run off"),
]


@pytest.mark.parametrize(("name", "logprob", "words"), BAD, ids=[name for name, *_ in BAD])
def test_laplace_says_what_is_wrong(name, logprob, words):
    posterior = bbvi.fit(logprob, 3, method="laplace")
    reasons = " ".join(posterior.diagnosis.reasons).replace("-1 x[0] - 1 x[1]", "1 x[0] + 1 x[1]")
    assert words in reasons
    assert "was repaired" in reasons
    assert (posterior.distribution.sd() > 0).all()
    assert posterior.diagnosis.status is not bbvi.Status.RELIABLE


@pytest.mark.parametrize("precision", ["single", "double"])
def test_a_parameter_that_the_density_ignores_is_named(precision):
    posterior = bbvi.fit(lambda x: -0.5 * x[0] ** 2, 2, method="laplace", precision=precision)
    assert "was repaired: 1 x[1]" in " ".join(posterior.diagnosis.reasons).replace("-1 x[1]", "1 x[1]")
    assert np.isfinite(posterior.distribution.sd()).all()
    np.testing.assert_allclose(posterior.distribution.sd()[0], 1, rtol=1e-3)


def test_low_rank_curvature_may_carry_everything():
    """As many directions as coordinates: nothing is left for the diagonal."""
    precision = jnp.arange(1.0, 5.0)
    family = bbvi.Spiked.standard(4, rank=4)
    logprob = lambda x: -0.5 * jnp.sum(precision.astype(x.dtype) * x**2)
    posterior = bbvi.fit(logprob, 4, method="laplace", family=family)
    np.testing.assert_allclose(posterior.distribution.sd(), precision**-0.5, rtol=1e-3)
    assert posterior.diagnosis.status is bbvi.Status.RELIABLE


def test_laplace_leaves_a_saddle_point():
    """Two modes at (+-sqrt 2, 0), and a saddle point between them, where it begins."""
    double_well = lambda x: -0.25 * x[0] ** 4 + x[0] ** 2 - 0.5 * x[1] ** 2
    posterior = bbvi.fit(double_well, 2, method="laplace", init=bbvi.FullRank.standard(2))
    np.testing.assert_allclose(np.abs(posterior.distribution.mean()), [2**0.5, 0], atol=1e-3)


# -- fixed draws -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [1, 3, 50])
def test_balanced_draws_have_exact_moments(dim):
    draws = balanced_draws(np.random.default_rng(0), 2 * dim + 10, dim)
    np.testing.assert_allclose(draws.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(draws.T @ draws / len(draws), np.eye(dim), atol=1e-10)
    few = balanced_draws(np.random.default_rng(0), 4, dim)
    np.testing.assert_allclose(few.var(axis=0), 1)


def mean_field(posterior_state):
    return bbvi.DADVI().extract(posterior_state)


def test_the_error_from_few_draws_is_told(x64):
    """The spread of means over seeds, against what each fit says of itself."""
    states = []
    for seed in range(12):
        states.append(None)
        bbvi.fit(
            smooth,
            DIM,
            method=bbvi.DADVI(num_draws=16, max_doublings=0),
            init=bbvi.MeanField.standard(DIM),
            seed=seed,
            callbacks=[lambda progress, seed=seed: states.__setitem__(seed, progress.state)],
        )
    means = np.stack([mean_field(state).mean() for state in states])
    sd = mean_field(states[0]).sd()
    claimed = np.mean([float(state.error) for state in states])
    actual = (means.std(axis=0, ddof=1) / sd).max()
    assert 0.5 * actual < claimed < 4 * actual  # moment-matched draws do better than the formula knows


def test_draws_are_doubled_while_they_are_too_few():
    skewed = lambda x: jnp.sum(x - 0.3 * jnp.exp(2 * x) - 0.05 * x**2)
    few = bbvi.fit(skewed, DIM, method=bbvi.DADVI(num_draws=4, max_error=0.02, max_doublings=5))
    made = few.history.gradients
    assert made.max() > made[0] == 4
    assert "with other draws" in " ".join(few.diagnosis.reasons)


def test_linear_response_wins_where_mean_field_cannot():
    """Mean-field sds are 1/sqrt(P_ii); the response has the correlations, and a smaller k-hat."""
    posterior = bbvi.fit(few_rows, 40, method="dadvi")
    assert isinstance(posterior.distribution, bbvi.FullRank)
    np.testing.assert_allclose(covariance(posterior.distribution), np.linalg.inv(FEW_ROWS_PRECISION), atol=1e-6)
    assert posterior.diagnosis.status is bbvi.Status.RELIABLE


def test_linear_response_of_functions(tmp_path):
    """By conjugate gradients: linear functions of a Gaussian exactly; from any posterior; with no matrix."""
    posterior = bbvi.fit(few_rows, 40, family="mean_field", num_steps=200)
    weights = np.linspace(-1, 1, 80).reshape(2, 40)
    found = posterior.linear_response(lambda x: jnp.asarray(weights) @ x)
    exact = weights @ np.linalg.inv(FEW_ROWS_PRECISION) @ weights.T
    np.testing.assert_allclose(found.covariance, exact, rtol=1e-4)
    np.testing.assert_allclose(found.sd, np.sqrt(np.diag(exact)), rtol=1e-4)
    np.testing.assert_allclose(found.mean, weights @ np.linalg.inv(FEW_ROWS_PRECISION) @ COUNTRY.T.sum(1), atol=1e-4)
    assert found.residual < 1e-4
    posterior.save(tmp_path / "fit.npz")
    with pytest.raises(ValueError, match="needs the log density"):
        bbvi.load(tmp_path / "fit.npz").linear_response(lambda x: x[0])


@pytest.mark.parametrize("products", [False, True])
def test_newton_reaches_the_best_gaussian(products):
    """No full-rank Gaussian has a larger ELBO: stochastic gradients find none."""
    newton = bbvi.fit(smooth, DIM, method=bbvi.VariationalNewton(products=products))
    advi = bbvi.fit(smooth, DIM, method=bbvi.StochasticVI(tolerance=0.02))
    assert newton.diagnosis.elbo.value > advi.diagnosis.elbo.value - 3 * advi.diagnosis.elbo.standard_error
    assert newton.cost.gradients + 2 * newton.cost.hessian_vector_products < advi.cost.gradients


# -- Pathfinder --------------------------------------------------------------------------------------------------------


def test_modes_are_weighted_against_the_mixture(tmp_path):
    """However many of the paths end in a mode, importance weights give it its mass, here one half."""
    bimodal = lambda x: jnp.logaddexp(-0.5 * jnp.sum((x - 3) ** 2), -0.5 * jnp.sum((x + 3) ** 2))
    posterior = bbvi.fit(bimodal, 2, method=bbvi.Pathfinder(num_paths=6))
    share = np.mean(posterior.sample(4000)[:, 0] > 0)
    assert isinstance(posterior.distribution, bbvi.Mixture)
    assert posterior.diagnosis.trusted
    np.testing.assert_allclose(share, 0.5, atol=0.04)
    np.testing.assert_allclose(posterior.diagnosis.log_evidence.value, np.log(2 * 2 * np.pi), atol=0.05)
    posterior.save(tmp_path / "fit.npz")
    loaded = bbvi.load(tmp_path / "fit.npz")
    assert loaded.log_prob(np.ones(2)) == posterior.log_prob(np.ones(2))


def test_uneven_paths_do_not_tilt_the_weights():
    """Three components on one mode and one on the other."""
    near, far = (bbvi.FullRank(jnp.full(2, m), jnp.zeros((2, 2))) for m in (3.0, -3.0))
    uneven = bbvi.Mixture.of([near, near, near, far])
    bimodal = lambda x: jnp.logaddexp(-0.5 * jnp.sum((x - 3) ** 2), -0.5 * jnp.sum((x + 3) ** 2))
    problem = bbvi.fit(bimodal, 2, method="pathfinder").problem
    pool = draw(problem, uneven, (0,), 1)
    weights = np.exp(pool.log_p - pool.log_r)
    np.testing.assert_allclose(np.average(pool.x[:, 0] > 0, weights=weights), 0.5, atol=0.04)
    np.testing.assert_allclose(np.mean(pool.x[pool.from_q, 0] > 0), 0.75, atol=0.03)


def test_failed_paths_are_left_out_and_told():
    half = lambda x: jnp.where(x[0] > 0.1, -0.5 * jnp.sum((x - 2) ** 2), -jnp.inf)
    posterior = bbvi.fit(half, 2, method=bbvi.Pathfinder(num_paths=8), init=np.array([1.0, 1.0]))
    assert "paths met no point" in " ".join(posterior.diagnosis.reasons)
    np.testing.assert_allclose(posterior.mean()[1], 2, atol=0.1)


TWO = bbvi.Mixture.of([bbvi.FullRank.standard(DIM)] * 2)


def test_a_fit_may_start_from_a_mixture():
    posterior = bbvi.fit(gaussian, DIM, init=TWO, method="newton")
    np.testing.assert_allclose(posterior.distribution.mean(), MEAN, atol=1e-5)


REFUSED = [
    (lambda: bbvi.Pathfinder(num_draws=3), "must be even"),
    (lambda: bbvi.Pathfinder(num_paths=0), "at least 1"),
    (lambda: bbvi.DADVI(num_draws=5), "must be even"),
    (lambda: bbvi.DADVI(num_draws=2), "at least 4"),
    (lambda: bbvi.VariationalNewton(num_draws=7), "must be even"),
    (lambda: bbvi.VariationalNewton(max_doublings=-1), "must not be negative"),
    (lambda: bbvi.fit(gaussian, DIM, method=bbvi.VariationalNewton(num_draws=6)), "at least 10"),
    (lambda: bbvi.fit(gaussian, DIM, method="newton", family="mean_field"), "fits the families 'full_rank'"),
    (lambda: bbvi.fit(gaussian, DIM, method="laplace", estimator="elbo"), "means nothing to method='laplace'"),
    (lambda: bbvi.fit(gaussian, DIM, method="lapalce"), "Did you mean 'laplace'"),
]


@pytest.mark.parametrize(("call", "words"), REFUSED, ids=[words for _, words in REFUSED])
def test_refusals_say_why(call, words):
    with pytest.raises(ValueError, match=words.replace("(", r"\(")):
        call()


def test_new_data_compile_nothing_for_second_order_methods():
    from bbvi.runtime import timing

    for method in ("laplace", "dadvi"):
        bbvi.fit(quadratic_with_data, 2, data={"y": np.zeros((3, 2))}, method=method)
        before = timing.compilations()
        again = bbvi.fit(quadratic_with_data, 2, data={"y": np.full((3, 2), 4.0)}, method=method, seed=1)
        assert timing.compilations() == before
        np.testing.assert_allclose(again.distribution.mean(), 3.0, atol=1e-5)
