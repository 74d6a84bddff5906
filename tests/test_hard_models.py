"""Models that people bring: what is hard about each is fitted, or refused by name; nothing hangs."""

import os
import subprocess
import sys
from pathlib import Path

import arviz_stats
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.experimental.ode import odeint
from jax.scipy.special import gammaincc, i0e, xlogy
from jax.scipy.stats import norm, vonmises
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

import bbvi
from bbvi.runtime import lapack
from bbvi.start.find import find_start
from bbvi.start.record import Hints
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters

RNG = np.random.default_rng(0)


def newton(*arguments, **options):
    return bbvi.fit(*arguments, method="newton", progress=False, **options)


def in_a_process(script: str, seconds: float) -> subprocess.CompletedProcess:
    """Run a script as a user does, with the flags that JAX has by default; it fails if it takes longer."""
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    folder = Path(__file__).parents[1]
    command = [sys.executable, "-c", script]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, env=environment, cwd=folder)


# Large batches of LAPACK calls


BATCH = jnp.asarray(RNG.normal(size=(40, 3, 3)))
BATCH = BATCH @ BATCH.swapaxes(1, 2) + jnp.eye(3)
FACTORED = {
    "cholesky": jnp.linalg.cholesky,
    "inv": jnp.linalg.inv,
    "slogdet": lambda x: jnp.linalg.slogdet(x)[1],
    "eigh": lambda x: jnp.linalg.eigh(x)[0],
    "svd": lambda x: jnp.linalg.svd(x, compute_uv=False),
    "qr": lambda x: jnp.abs(jnp.linalg.qr(x)[1]),
    "solve": lambda x: jnp.linalg.solve(x, jnp.ones((*x.shape[:-1], 2))),
    "cho_solve": lambda x: jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(x), True), jnp.ones((*x.shape[:-1], 2))),
    "complex": lambda x: jnp.abs(jnp.linalg.cholesky(x.astype(complex))),
    "two axes": lambda x: jnp.linalg.cholesky(x.reshape(4, 10, 3, 3)),
    "in a scan": lambda x: jax.lax.scan(lambda c, _: (c + jnp.linalg.inv(x), None), x, None, length=2)[0],
    "in a loop": lambda x: jax.lax.while_loop(lambda c: c[0, 0, 0] < 9, lambda c: 2 * c + jnp.linalg.cholesky(x), x),
    "in a branch": lambda x: jax.lax.cond(x[0, 0, 0] > 0, jnp.linalg.cholesky, lambda x: x, x),
    "gradient": jax.grad(lambda x: jax.vmap(lambda a: jnp.linalg.slogdet(jax.nn.softplus(a))[1])(x).sum()),
    "checkpoint": jax.grad(lambda x: jax.checkpoint(lambda x: jnp.linalg.cholesky(x).sum())(x)),
}


def batches(jaxpr):
    """Sizes of all batches of LAPACK calls in a program."""
    for equation in jaxpr.eqns:
        if equation.primitive.name in lapack.OPERATIONS_OF:
            yield int(np.prod(equation.invars[-1].aval.shape[:-2]))
        for value in equation.params.values():
            for each in value if isinstance(value, tuple | list) else (value,):
                inner = getattr(each, "jaxpr", each)
                yield from batches(inner) if hasattr(inner, "eqns") else ()


@pytest.mark.parametrize("name", FACTORED)
def test_large_batches_of_matrices_are_factorised_in_pieces(name, monkeypatch):
    monkeypatch.setattr(lapack, "is_needed", lambda: True)
    monkeypatch.setattr(lapack, "PIECE_OPERATIONS", 300)
    function = FACTORED[name]
    rewritten = jax.jit(lapack.in_pieces(function))
    np.testing.assert_allclose(rewritten(BATCH), function(BATCH), rtol=1e-4, atol=1e-5)
    found = list(batches(jax.make_jaxpr(rewritten)(BATCH).jaxpr))
    assert found
    assert max(found) <= 300 // 9


HANGS = """
import jax, jax.numpy as jnp, bbvi
from bbvi.runtime.compiling import program
jax.config.update("jax_enable_x64", True)
xs = [jnp.broadcast_to(jnp.eye(6) * (i + 2), (5000, 6, 6)) for i in range(20)]
{body}
"""


@pytest.mark.parametrize(
    "body",
    [
        "print(program(lambda xs: sum(jnp.linalg.cholesky(x) for x in xs))(xs).sum())",
        "solve = lambda x: jax.scipy.linalg.solve_triangular(x, x + 1, lower=True)\n"
        "print(program(lambda xs: sum(jax.vmap(solve)(x) for x in xs))(xs).sum())",
        "block = lambda x, s: jnp.linalg.slogdet(x[:1000] + s**2 * jnp.eye(6))[1].sum()\n"
        "density = lambda s: -0.5 * s**2 + 1e-9 * sum(block(x, s) for x in xs[:4])\n"
        "print(bbvi.fit(density, (), method='newton', budget=100).diagnosis)",
    ],
    ids=["cholesky", "triangular solve", "thousands of blocks in a density"],
)
def test_a_program_with_many_factorisations_ends(body):
    done = in_a_process(HANGS.format(body=body), 150)
    assert done.returncode == 0, done.stderr
    assert done.stdout


# Two precisions in one process


@jax.jit
def stretched(a):
    return jnp.sin(a) * 2


CLOSED_OVER = {"cholesky": jnp.linalg.cholesky, "sin": jnp.sin, "jitted by the user": stretched}


@pytest.mark.parametrize("first", ["single", "fit"])
@pytest.mark.parametrize("name", CLOSED_OVER)
def test_an_array_that_a_function_closes_over_is_used_in_both_precisions(name, first):
    array = np.array([[1.0, 0.6], [0.6, 1.5]])
    function = CLOSED_OVER[name]

    def logprob(x):
        return -0.5 * jnp.sum((function(array) @ x) ** 2) - 0.5 * jnp.sum(x**2)

    point = np.ones(2, np.float32)
    expected = np.asarray(logprob(jnp.asarray(point))) if first == "single" else None
    if first == "single":
        jax.jit(logprob)(point)
    assert newton(logprob, 2).diagnosis.trusted
    after = jax.jit(logprob)(point)
    assert after.dtype == np.float32
    assert expected is None or after == pytest.approx(expected, rel=1e-5)


# Derivatives


@jax.custom_vjp
def doubled(x):
    return 2 * x


@jax.custom_vjp
def square(x):
    return x**2


doubled.defvjp(lambda x: (2 * x, None), lambda _, g: (2 * g,))
square.defvjp(lambda x: (x**2, x), lambda x, g: (doubled(x) * g,))  # which JAX does not differentiate forward


def by_custom_rules(x):
    return -0.5 * jnp.sum(square(x))


def decay(x):
    end = odeint(lambda y, t, rate: -rate * y, jnp.ones(()), jnp.linspace(0.0, 1.0, 3), jnp.exp(x[0]))[-1]
    return norm.logpdf(x).sum() + norm.logpdf(0.4, end, 0.1)


ONCE = {
    "gammaincc in its shape": lambda x: -0.5 * jnp.sum(x**2) + jnp.log(gammaincc(jnp.exp(x[0]), 1.3)),
    "a rule of the user's": by_custom_rules,
    "an adaptive ODE solver": decay,
}


@pytest.mark.parametrize("name", ONCE)
def test_what_has_no_second_derivative_is_found_out(name, tmp_path):
    posterior = newton(ONCE[name], 2)
    assert posterior.diagnosis.trusted
    for method in (bbvi.Laplace(), bbvi.DADVI(), bbvi.NaturalGradient(), bbvi.Newton(products=True)):
        with pytest.raises(TypeError, match=rf"method='{method.name}' needs second derivatives.*gradients only"):
            bbvi.fit(ONCE[name], 2, method=method)
    with pytest.raises(TypeError, match="linear_response needs second derivatives"):
        posterior.linear_response(lambda x: x)
    posterior.report(tmp_path / "report.html")  # does without


BROKEN = {  # finite, with a derivative that is NaN in the coordinate named
    "0 log 0": (lambda x: -0.5 * jnp.sum(x**2) + xlogy(0.0, 0.0 * jnp.exp(x[1])), "x[1]"),
    "sqrt(0)": (lambda x: -0.5 * jnp.sum(x**2) + jnp.where(x[0] > 1e9, jnp.sqrt(x[0] - x[0]), 0.0), "x[0]"),
    "0 / 0": (lambda x: -0.5 * jnp.sum(x**2) + jnp.where(x[1] > 1e9, (x[1] - x[1]) / (x[1] - x[1]), 0.0), "x[1]"),
}


@pytest.mark.parametrize("options", [{}, {"init": np.ones(2)}], ids=["", "init"])
@pytest.mark.parametrize("name", BROKEN)
def test_a_gradient_that_is_nan_is_told_from_a_density_that_is(name, options):
    density, coordinate = BROKEN[name]
    with pytest.raises(FloatingPointError, match=r"derivative with respect to .* is NaN at all of them") as found:
        newton(density, 2, **options)
    assert f"with respect to {coordinate} is" in str(found.value)
    assert "jnp.where" in str(found.value)


def test_a_density_that_is_nan_everywhere_is_called_not_finite():
    with pytest.raises(FloatingPointError, match=r"logprob is not finite at any of the \d+ starting points"):
        newton(lambda x: jnp.nan * x, ())


# Masks


def rows_of_three(y, mask):
    mu = numpyro.sample("mu", dist.Normal(0, 5).expand([3]).to_event(1))
    numpyro.sample("y", dist.MultivariateNormal(mu, jnp.eye(3)).expand([len(y)]), obs=y, obs_mask=mask)


def numbers(y, mask):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    numpyro.sample("y", dist.Normal(mu, jnp.ones(len(y))), obs=y, obs_mask=mask)


def by_handler(y, mask):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    with numpyro.plate("row", len(y)), numpyro.handlers.mask(mask=mask):
        numpyro.sample("y", dist.Normal(mu, 1), obs=y)


MISFITS = {
    "an entry for each component": (rows_of_three, np.zeros((5, 3)), np.ones((5, 3), bool)),
    "as many rows as components": (rows_of_three, np.zeros((3, 3)), np.ones((3, 3), bool)),
    "a column": (numbers, np.zeros(4), np.ones((4, 1), bool)),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_mask_of_another_shape_is_refused_by_the_name_of_its_site(name):
    model, y, mask = MISFITS[name]
    with pytest.raises(ValueError, match="The mask of the site 'y' has shape"):
        bbvi.from_numpyro(model, y, mask)


@pytest.mark.parametrize(("model", "name"), [(numbers, "y_observed"), (by_handler, "y")], ids=["obs_mask", "handler"])
@pytest.mark.filterwarnings("ignore:Estimated shape parameter")
def test_rows_that_are_no_observations_are_none_in_arviz(model, name, tmp_path):
    y, seen = RNG.normal(size=30), np.arange(30) % 3 > 0
    posterior = newton(bbvi.from_numpyro(model, np.where(seen, y, 99.0), seen))
    tree = posterior.to_arviz(500)
    assert posterior.mean()["mu"] == pytest.approx(y[seen].sum() / (20 + 1 / 25), abs=0.02)
    np.testing.assert_allclose(tree.observed_data[name], y[seen])
    assert tree.log_likelihood[name].shape == (1, 500, 20)
    assert list(tree.log_likelihood[name].coords[f"{name}_dim_0"].values) == list(np.flatnonzero(seen))
    assert arviz_stats.loo(tree).n_data_points == 20
    assert posterior.predict(num_samples=10).posterior_predictive[name].shape == (1, 10, 20)
    posterior.report(tmp_path / "report.html")


# Series


def series(family):
    """A model with a latent level, and rows observed in a scan, each around the one before."""

    def model(y=None):
        phi = numpyro.sample("phi", dist.Normal(0, 1))

        def step(last, row):
            now = numpyro.sample("y", family(phi, last), obs=row)
            return jnp.asarray(now, last.dtype), None

        scan(step, jnp.zeros(()), y, length=40)

    return model


SERIES = {
    "normal": lambda phi, last: dist.Normal(phi * last, 0.5),
    "Student-t": lambda phi, last: dist.StudentT(5.0, phi * last, 0.5),
    "gamma-Poisson": lambda phi, last: dist.GammaPoisson(2.0, jnp.exp(-phi * jnp.tanh(last))),
}


@pytest.mark.parametrize("name", SERIES)
def test_a_series_is_predicted_one_step_ahead_and_forward(name):
    with jax.enable_x64(False):
        y = numpyro.handlers.trace(numpyro.handlers.seed(series(SERIES[name]), 3)).get_trace()["y"]["value"]
    model = series(SERIES[name])
    posterior = newton(bbvi.from_numpyro(model, np.asarray(y)))
    ahead = posterior.predict(num_samples=2000).posterior_predictive["y"].values[0]
    assert ahead.shape == (2000, 40)
    apart = np.corrcoef(ahead[:, 10], ahead[:, 11])[0, 1]
    assert abs(apart) < 0.1  # given the rows before, each row has noise of its own
    phi = posterior.sample(2000)["phi"]
    each = jax.vmap(lambda phi, last: SERIES[name](phi, last).mean)(jnp.asarray(phi), jnp.full(2000, float(y[9])))
    assert abs(ahead[:, 10].mean() - each.mean()) < 5 * ahead[:, 10].std() / 2000**0.5
    assert posterior.predict(None, num_samples=50).predictions["y"].shape == (1, 50, 40)


def test_a_forecast_takes_arguments_in_another_precision():
    def model(y, future=0):
        phi = numpyro.sample("phi", dist.Normal(0, 1))

        def step(last, t):
            now = numpyro.sample("y", dist.Normal(phi * last, 0.5))
            return now, now

        with numpyro.handlers.condition(data={"y": y}):
            scan(step, 0.0, jnp.arange(len(y) + future))

    y = jnp.asarray(RNG.normal(size=30).cumsum() * 0.3, jnp.float32)
    posterior = newton(bbvi.from_numpyro(model, y))
    made = posterior.predict(y, 6, num_samples=4000).predictions["y"].values[0]
    np.testing.assert_allclose(made[:, :30], np.tile(y, (4000, 1)), rtol=1e-6)
    phi = posterior.sample(4000)["phi"]
    assert made[:, 30].mean() == pytest.approx((phi * float(y[-1])).mean(), abs=0.05)
    assert made[:, 31].var() == pytest.approx(((phi**2 * 0.25) + 0.25 + (phi**2 * float(y[-1])).var()).mean(), rel=0.2)


# Starts


def seven_positive(x):
    return jnp.where((x > 0).all(), -0.5 * jnp.sum((x - 1) ** 2 / 0.01), -jnp.inf)


def test_a_density_that_is_finite_at_one_random_point_of_128_is_found():
    start = newton(seven_positive, 7)
    np.testing.assert_allclose(start.mean(), 1, atol=0.02)


def far_from_the_origin(y):
    level = numpyro.sample("level", dist.Normal(300.0, 2.0))
    numpyro.factor("y", jnp.where(level > 250, -0.5 * (y - level) ** 2, -jnp.inf))


def valid_at_the_prior_only(y):
    scale = numpyro.sample("scale", dist.Normal(50.0, 1.0))
    numpyro.sample("y", dist.Normal(0.0, scale - 30.0), obs=y)


@pytest.mark.parametrize(
    ("model", "mean"), [(far_from_the_origin, 304.0), (valid_at_the_prior_only, 49.95)], ids=["density", "arguments"]
)
def test_a_model_starts_at_draws_of_its_prior(model, mean):
    posterior = newton(bbvi.from_numpyro(model, np.array(305.0) if mean > 100 else np.zeros(1)))
    name = posterior.parameters.names[0]
    assert posterior.mean()[name] == pytest.approx(mean, abs=0.2)


def test_arguments_that_are_always_invalid_are_named_by_numpyro():
    with pytest.raises(ValueError, match="invalid scale"):
        bbvi.from_numpyro(lambda: numpyro.sample("x", dist.Normal(0.0, -1.0)))


def test_an_improper_prior_has_no_draws_and_a_start_does_without():
    def model():
        numpyro.sample("x", dist.ImproperUniform(constraints.real, (), ()))
        numpyro.factor("nowhere", -jnp.inf)

    with pytest.raises(FloatingPointError, match=r"at the origin or at random points around it\."):
        newton(bbvi.from_numpyro(model))


def stops_late(x):
    """Standard normal; the further out, the longer its loop takes, by powers of ten."""
    rounds = jnp.exp(jnp.minimum(jnp.sum(x**2), 60.0) - 3.0)
    idle = jax.lax.while_loop(lambda c: c[0] < jax.lax.stop_gradient(rounds), lambda c: (c[0] + 1, c[1]), (0.0, 0.0))
    return -0.5 * jnp.sum(x**2) + 0.0 * jax.lax.stop_gradient(idle[0])


def test_a_point_that_takes_long_does_not_hold_up_the_others():
    problem = Problem(make_parameters(2), None, stops_late)
    assert problem.is_irregular
    start = find_start(problem, bbvi.Newton().needs(2).start, Hints())
    np.testing.assert_allclose(start.gaussian.loc, 0, atol=1e-2)


NEVER_ENDS = """
import signal, sys, time
import jax, jax.numpy as jnp, bbvi

def logprob(x):
    end = {where}
    again = jax.lax.while_loop(lambda c: c[0] < end, lambda c: (c[0] + 1.0, c[1]), (0.0, 0.0))
    return -0.5 * jnp.sum(x**2) + 0.0 * jax.lax.stop_gradient(again[0])

began = time.perf_counter()
{before}
try:
    posterior = bbvi.fit(logprob, 2, {options})
    print("status", posterior.diagnosis.status.name, posterior.diagnosis.reasons)
except (TimeoutError, KeyboardInterrupt) as error:
    print(type(error).__name__, error)
print("seconds", time.perf_counter() - began)
"""


@pytest.mark.parametrize(
    ("where", "before", "options", "said"),
    [
        ("1e30", "", "budget=6", "TimeoutError budget: not one point to start at"),
        ("jnp.where(jnp.abs(x[0]) > 1.5, 1e30, 1.0)", "", "budget=25", "status UNRELIABLE"),
        (
            "1e30 + x[0] ** 2",
            "signal.signal(signal.SIGALRM, signal.default_int_handler); signal.alarm(10)",
            "",
            "KeyboardInterrupt",
        ),
    ],
    ids=["everywhere", "far out", "Ctrl-C"],
)
def test_the_clock_and_the_keyboard_end_a_density_that_never_does(where, before, options, said):
    done = in_a_process(NEVER_ENDS.format(where=where, before=before, options=options), 120)
    assert said in done.stdout, done.stdout + done.stderr
    seconds = float(done.stdout.split("seconds")[1])
    assert seconds < 60  # the budget and ten seconds on a quiet machine


# Names


@pytest.mark.parametrize(
    ("plate", "site"),
    [("group", "draw"), ("group", "chain"), ("group", "log_p"), ("draw", "theta"), ("chain", "theta"),
     ("sample", "theta"), ("group", "sample"), ("group", "a/b"), ("y_dim_0", "theta"), ("group", "x.y")],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Estimated shape parameter", "ignore:Found dimension named")
def test_every_name_ends_in_a_data_tree(plate, site):
    group = np.repeat(np.arange(5), 6)

    def model(y):
        with numpyro.plate(plate, 5):
            each = numpyro.sample(site, dist.Normal(0, 3))
        numpyro.sample("y", dist.Normal(each[group], 1), obs=y)

    posterior = newton(bbvi.from_numpyro(model, group + 0.1 * np.arange(30.0)))
    tree = posterior.to_arviz(100)
    (name,) = set(tree.posterior.data_vars)
    assert tree.posterior[name].shape == (1, 100, 5)
    assert tree.posterior[name].dims[:2] == ("chain", "draw")
    assert tree.sample_stats["log_p"].shape == (1, 100)
    assert len(posterior.summary()) == 5
    assert np.isfinite(arviz_stats.loo(tree).elpd)


# Words


def test_the_logarithm_is_advised_for_what_is_positive():
    heavy = lambda x: -1.5 * jnp.log1p(x**2 / 2)  # Student-t with two degrees of freedom
    told = {name: newton(f, (), **options).diagnosis for name, f, options in (
        ("any sign", heavy, {}),
        ("positive", lambda x: heavy(x - 1), {"constraints": constraints.positive}),
    )}  # fmt: skip
    advice = {name: " ".join(each.advice) for name, each in told.items()}
    assert "by quantiles" in advice["any sign"] + advice["positive"]
    assert "logarithm" not in advice["any sign"]


# Angles


@pytest.mark.parametrize("concentration", [1e-3, 0.5, 5.0, 200.0])
@pytest.mark.parametrize("centre", [0.0, 3.1])
def test_an_angle_is_judged_on_the_circle(concentration, centre):
    posterior = newton(lambda x: vonmises.logpdf(x - centre, concentration), (), constraints=constraints.circular)
    assert posterior.diagnosis.status is bbvi.Status.RELIABLE
    assert posterior.diagnosis.log_evidence.value == pytest.approx(0, abs=0.01)
    turns = np.exp(1j * posterior.sample(8000))
    ratio = float(jax.scipy.special.i1e(concentration) / i0e(concentration))
    assert np.mean(turns * np.exp(-1j * centre)) == pytest.approx(ratio, abs=0.03)
    assert abs(posterior.sample(100)).max() <= np.pi
    if concentration > 1:  # a mean on the circle is one on the line near it
        assert np.angle(np.exp(1j * (posterior.mean() - centre))) == pytest.approx(0, abs=0.05)


def test_angles_of_a_numpyro_model_near_the_end_of_their_interval(tmp_path):
    y = (np.pi + 0.2 + 0.3 * RNG.normal(size=40) + np.pi) % (2 * np.pi) - np.pi

    def model(y):
        mu = numpyro.sample("mu", dist.VonMises(0.0, 0.1))
        numpyro.sample("y", dist.VonMises(mu, numpyro.sample("k", dist.HalfNormal(20.0))), obs=y)

    posterior = newton(bbvi.from_numpyro(model, y))
    assert posterior.diagnosis.status is bbvi.Status.RELIABLE
    exact = np.angle(np.exp(1j * y).mean())
    assert np.angle(np.exp(1j * (posterior.mean()["mu"] - exact))) == pytest.approx(0, abs=0.02)
    assert posterior.sd()["mu"] < 0.1
    posterior.save(tmp_path / "fit.npz")
    assert bbvi.load(tmp_path / "fit.npz").sd()["mu"] == pytest.approx(posterior.sd()["mu"])
    assert float(posterior.summary().loc["mu", "sd"]) < 0.1


def test_a_density_that_repeats_itself_is_told_to_be_an_angle():
    posterior = newton(lambda x: vonmises.logpdf(x - 3.0, 5.0), ())
    assert any("repeats itself with every turn" in reason for reason in posterior.diagnosis.reasons)
    assert any("constraints.circular" in advice for advice in posterior.diagnosis.advice)


# Parameters without a prior


def test_a_param_is_a_parameter_with_a_flat_prior_and_the_verdict_says_so():
    y = 2.0 + RNG.normal(size=50)

    def model(y):
        scale = numpyro.param("scale", 1.0, constraint=constraints.positive)
        mu = numpyro.sample("mu", dist.Normal(0, 100))
        with numpyro.plate("row", len(y)):
            numpyro.sample("y", dist.Normal(mu, scale), obs=y)

    posterior = newton(bbvi.from_numpyro(model, y))
    assert any(reason.startswith("scale is a numpyro.param, without a prior") for reason in posterior.diagnosis.reasons)
    squares = np.sum((y - y.mean()) ** 2)  # scale^-2 is Gamma((n - 2) / 2, squares / 2) when scale is flat
    precision = np.random.default_rng(1).gamma(24.0, 2 / squares, 100_000)
    assert posterior.mean()["scale"] == pytest.approx(np.mean(precision**-0.5), abs=0.01)
    assert posterior.predict(num_samples=5).posterior_predictive["y"].shape == (1, 5, 50)


def test_params_are_set_to_where_the_marginal_likelihood_is_largest():
    y = 2.0 + 1.5 * RNG.normal(size=40)

    def model(y):
        scale = numpyro.param("scale", 0.5, constraint=constraints.positive)
        with numpyro.plate("row", len(y)):
            each = numpyro.sample("each", dist.Normal(numpyro.param("mu", 0.0), scale))
            numpyro.sample("y", dist.Normal(each, 1.0), obs=y)

    posterior = newton(bbvi.from_numpyro(model, y, params="maximise"))
    # y is N(mu, scale^2 + 1) once the rows' own levels are integrated out.
    assert posterior.mean()["mu"] == pytest.approx(y.mean(), abs=0.01)
    assert posterior.mean()["scale"] == pytest.approx((y.var() - 1) ** 0.5, abs=0.02)
    assert any("set to where the evidence bound is largest" in reason for reason in posterior.diagnosis.reasons)
    assert posterior.parameters.names == ("each",)


@pytest.mark.parametrize("seen", [0.7, np.float64(0.7), np.array([0.7, 0.2])], ids=["float", "NumPy", "array"])
def test_observations_that_a_model_closes_over_may_lie_in_a_support_that_moves(seen):
    def model():
        bound = numpyro.sample("bound", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Uniform(0.0, 1 + jnp.exp(bound)), obs=seen)

    assert newton(bbvi.from_numpyro(model)).diagnosis.trusted
