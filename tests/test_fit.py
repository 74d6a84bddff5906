"""What a user can ask of `fit`, and what `fit` says when asked wrongly."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import constraints

import bbvi
from bbvi import optimise
from bbvi.optimise import Progress
from tests.targets import DIM, MEAN, gaussian, quadratic_with_data, smooth

X = np.linspace(-2, 2, 30)[:, None]
Y = np.sin(2 * X)


def predict(params, inputs):
    for W, b in params[:-1]:
        inputs = jnp.tanh(inputs @ W + b)
    W, b = params[-1]
    return inputs @ W + b


def test_an_interrupt_before_the_first_step_leaves_a_checkpoint_to_go_on_from(tmp_path, monkeypatch):
    def interrupt(algorithm, *arguments):
        if isinstance(algorithm, bbvi.Pathfinder):  # which finds the start
            return advance(algorithm, *arguments)
        raise KeyboardInterrupt

    advance = optimise._advance
    options = {"num_steps": 30, "checkpoint": tmp_path / "state", "init": np.zeros(2)}
    with monkeypatch.context() as patch:
        patch.setattr("bbvi.optimise._advance", interrupt)
        assert len(bbvi.fit(lambda x: -0.5 * jnp.sum(x**2), 2, **options).history.elbo) == 0
    assert len(bbvi.fit(lambda x: -0.5 * jnp.sum(x**2), 2, **options).history.elbo) > 0


def test_a_network_with_parameters_as_a_list_of_pairs(first_stage_only):
    def logprob(params, data):
        inputs, targets = data
        prior = sum(-0.5 * jnp.sum(W**2) - 0.5 * jnp.sum(b**2) for W, b in params)
        return prior - 0.5 * jnp.sum((predict(params, inputs) - targets) ** 2) / 0.1**2

    shapes = [((1, 6), (6,)), ((6, 1), (1,))]
    posterior = bbvi.fit(logprob, shapes, data=(X, Y), num_steps=500)
    draws = posterior.sample(50)
    assert [(W.shape, b.shape) for W, b in draws] == [((50, 1, 6), (50, 6)), ((50, 6, 1), (50, 1))]
    curves = np.stack([predict(jax.tree.map(lambda leaf, i=i: leaf[i], draws), X) for i in range(50)])
    assert np.abs(curves.mean(axis=0) - Y).mean() < 0.2
    assert posterior.diagnosis.status is bbvi.Status.UNRELIABLE  # networks have many modes, and it says so


def test_constraints_add_the_jacobian():
    """A gamma(3, 2) and a Dirichlet(2, 3, 4), by their densities on the constrained scale."""

    def logprob(p):
        return 2 * jnp.log(p["rate"]) - 2 * p["rate"] + jnp.sum(jnp.array([1.0, 2.0, 3.0]) * jnp.log(p["share"]))

    posterior = bbvi.fit(
        logprob,
        {"rate": (), "share": (3,)},
        constraints={"rate": constraints.positive, "share": constraints.simplex},
    )
    assert posterior.diagnosis.trusted
    draws = posterior.sample(4000)
    np.testing.assert_allclose(draws["rate"].mean(), 1.5, atol=0.06)
    np.testing.assert_allclose(draws["rate"].std(), 0.75**0.5, atol=0.06)
    np.testing.assert_allclose(draws["share"].mean(axis=0), np.array([2, 3, 4]) / 9, atol=0.02)
    np.testing.assert_allclose(draws["share"].sum(axis=-1), 1)
    np.testing.assert_allclose(posterior.mean()["rate"], 1.5, atol=0.05)


def test_python_control_flow_and_closures():
    scale = 2.0

    def power(x, n):
        return 1.0 if n == 0 else x * power(x, n - 1)

    def logprob(x):
        total = 0.0
        for i in range(3):
            total = total - power(x[i] / scale, 2 if scale > 1 else 4)
        return total

    posterior = bbvi.fit(logprob, 3)
    np.testing.assert_allclose(posterior.distribution.sd(), 2**0.5, rtol=1e-4)


def test_float32_closures_and_data_do_not_lower_precision():
    def logprob(x, data):
        return -0.5 * jnp.sum((x - jnp.asarray(data)) ** 2)

    posterior = bbvi.fit(logprob, 2, data=np.array([1, 2], np.float32))
    assert posterior.distribution.loc.dtype == np.float64
    half = bbvi.fit(logprob, 2, data=jnp.array([1, 2], jnp.bfloat16))
    np.testing.assert_allclose(half.distribution.loc, [1, 2], atol=1e-6)
    single = bbvi.fit(logprob, 2, data=np.array([1.0, 2.0]), precision="single")
    assert single.distribution.loc.dtype == np.float32
    assert single.sample(3).dtype == np.float32
    np.testing.assert_allclose(single.distribution.loc, [1, 2], atol=1e-3)


@pytest.mark.parametrize("flag", [False, True])
def test_the_global_precision_flag_is_not_touched(flag):
    with jax.enable_x64(flag):
        posterior = bbvi.fit(gaussian, DIM)
        assert jnp.zeros(()).dtype == (jnp.float64 if flag else jnp.float32)
    assert posterior.sample(5).dtype == np.float64
    np.testing.assert_allclose(posterior.distribution.loc, MEAN, atol=1e-6)


def test_rounding_in_single_precision_is_told():
    posterior = bbvi.fit(lambda x: -0.5 * jnp.sum(x**2) - 1e7, 2, method="newton", precision="single")
    assert any("single precision" in reason for reason in posterior.diagnosis.reasons)


@pytest.mark.parametrize("noise", [bbvi.Antithetic(), bbvi.Sobol()], ids=lambda noise: type(noise).__name__)
def test_noise_is_a_choice_of_the_estimator(noise):
    posterior = bbvi.fit(smooth, DIM, estimator=bbvi.StickingTheLanding(noise), num_draws=8)
    assert posterior.diagnosis.trusted


def test_a_density_that_cannot_be_differentiated():
    """Rounded to steps of 0.5 nats: no gradient anywhere, but values."""

    def logprob(x):
        return jnp.round(-x @ x) / 2

    posterior = bbvi.fit(logprob, 2, estimator="score_function", num_draws=200, num_steps=3000)
    np.testing.assert_allclose(posterior.distribution.mean(), 0, atol=0.15)
    np.testing.assert_allclose(posterior.distribution.sd(), 1, atol=0.15)
    assert posterior.cost.gradients == 0


@pytest.mark.parametrize("bad", [jnp.nan, -jnp.inf])
def test_a_density_that_is_not_finite_somewhere(bad):
    """A half normal whose constraint was forgotten: fitted, corrected and reported by name."""

    def logprob(p):
        return jnp.where(p["scale"] > 0, -0.5 * p["scale"] ** 2, bad) - 0.5 * p["other"] ** 2

    posterior = bbvi.fit(logprob, {"other": (), "scale": ()})
    diagnosis = posterior.diagnosis
    assert diagnosis.non_finite > 0.01
    assert any("scale" in reason for reason in diagnosis.reasons)
    assert any("constrain scale" in advice for advice in diagnosis.advice)
    assert np.isfinite(posterior.distribution.mean()).all()
    assert posterior.history.non_finite.sum() > 0
    if diagnosis.trusted:
        assert posterior.sample(2000)["scale"].min() > 0
        np.testing.assert_allclose(posterior.mean()["scale"], (2 / np.pi) ** 0.5, atol=0.05)


def test_another_mode_is_told():
    def logprob(x):
        return jnp.logaddexp(-0.5 * jnp.sum((x - 4) ** 2), -0.5 * jnp.sum((x + 4) ** 2))

    diagnosis = bbvi.fit(logprob, 3, method="newton").diagnosis
    assert diagnosis.status is bbvi.Status.UNRELIABLE
    assert any("several modes" in reason for reason in diagnosis.reasons)


IMPROPER = {
    "flat": lambda x: 0 * jnp.sum(x),
    "linear": jnp.sum,
    "flat in one direction": lambda x: -0.5 * x[0] ** 2,
    "unbounded": lambda x: jnp.sum(x**2),
    "no mass at infinity's door": lambda x: -0.5 * jnp.log1p(jnp.sum(x**2)),
}


def improper(x, number):
    """One of the log densities, by its number, so that all compile as one."""
    return jax.lax.switch(number, list(IMPROPER.values()), x)


@pytest.mark.parametrize("name", IMPROPER)
@pytest.mark.filterwarnings("ignore:.*encountered in")
def test_an_improper_posterior_is_never_trusted(name):
    posterior = bbvi.fit(improper, 2, data=np.array(list(IMPROPER).index(name)), num_steps=500)
    assert posterior.diagnosis.status in (bbvi.Status.UNRELIABLE, bbvi.Status.FAILED)
    assert posterior.diagnosis.reasons
    assert "Status" in repr(posterior)


def test_a_family_that_is_too_poor_is_told():
    precision = 0.01 * np.eye(10) + 1 - 0.99 * np.eye(10) * 0

    def logprob(x, precision):
        return -0.5 * x @ precision @ x

    poor = bbvi.fit(logprob, 10, data=precision + np.eye(10) * 0.01, family="mean_field")
    assert poor.diagnosis.status is bbvi.Status.UNRELIABLE
    rich = bbvi.fit(logprob, 10, data=precision + np.eye(10) * 0.01, family="full_rank")
    assert rich.diagnosis.status is bbvi.Status.RELIABLE


def test_running_out_of_steps_is_told():
    posterior = bbvi.fit(smooth, DIM, method="advi", num_steps=7)
    assert len(posterior.history.elbo) == 7
    assert posterior.diagnosis.stop is bbvi.Stop.STEPS
    assert "raise num_steps" in posterior.diagnosis.advice


def test_no_tolerance_takes_every_step():
    posterior = bbvi.fit(smooth, DIM, method=bbvi.ADVI(tolerance=0), num_steps=450)
    assert len(posterior.history.elbo) == 450


def test_budget_of_gradients():
    posterior = bbvi.fit(smooth, DIM, method=bbvi.ADVI(tolerance=0), budget=bbvi.Budget(gradients=5000))
    assert posterior.diagnosis.stop is bbvi.Stop.BUDGET
    assert 4000 < posterior.cost.gradients <= 5000


def test_budget_of_seconds():
    began = time.perf_counter()
    posterior = bbvi.fit(smooth, DIM, method=bbvi.ADVI(tolerance=0), budget=1.5, num_steps=10**8)
    assert posterior.diagnosis.stop is bbvi.Stop.BUDGET
    assert posterior.diagnosis.trusted
    assert time.perf_counter() - began < 60


def test_callbacks_are_told_and_can_stop():
    seen = []

    def callback(progress):
        assert isinstance(progress, Progress)
        seen.append(progress.step)
        return progress.step >= 20

    posterior = bbvi.fit(smooth, DIM, method=bbvi.ADVI(tolerance=0), callbacks=[callback])
    assert posterior.diagnosis.stop is bbvi.Stop.CALLBACK
    assert seen == sorted(seen)
    assert len(posterior.history.elbo) == seen[-1] >= 20


def test_control_c_returns_what_was_reached():
    def press(progress):
        if progress.step > 60:
            raise KeyboardInterrupt

    posterior = bbvi.fit(smooth, DIM, method=bbvi.ADVI(tolerance=0), callbacks=[press])
    assert posterior.diagnosis.stop is bbvi.Stop.INTERRUPTED
    assert len(posterior.history.elbo) > 60
    assert posterior.diagnosis.trusted


def test_a_resumed_run_is_bit_identical(tmp_path):
    options = {"method": bbvi.ADVI(tolerance=0), "num_steps": 700, "seed": 5}
    undisturbed = bbvi.fit(smooth, DIM, **options)
    path = tmp_path / "run.npz"
    stopped = bbvi.fit(smooth, DIM, **options, checkpoint=path, callbacks=[lambda progress: progress.step > 130])
    assert len(stopped.history.elbo) < 700
    resumed = bbvi.fit(smooth, DIM, **options, checkpoint=path)
    assert np.array_equal(resumed.history.elbo, undisturbed.history.elbo)
    leaves = resumed.distribution.leaves()
    for name, leaf in undisturbed.distribution.leaves().items():
        assert np.array_equal(leaf, leaves[name])
    again = bbvi.fit(smooth, DIM, **options, checkpoint=path)
    assert np.array_equal(again.history.elbo, undisturbed.history.elbo)


def test_progress_shows_and_keeps_silent(capsys, monkeypatch):
    monkeypatch.setattr("bbvi.callbacks.progress.DELAY", 0.0)
    bbvi.fit(smooth, DIM, method=bbvi.ADVI(tolerance=0), num_steps=300, progress=True)
    shown = capsys.readouterr().err
    assert "ELBO" in shown
    assert "300/300" in shown
    bbvi.fit(smooth, DIM, num_steps=300, progress=False)
    bbvi.fit(smooth, DIM, num_steps=300)  # neither a terminal nor a notebook
    assert capsys.readouterr() == ("", "")


def test_minibatches_of_a_factorized_density():
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((2000, 3))
    outputs = inputs @ np.array([1.0, -1.0, 0.5]) + rng.standard_normal(2000)
    model = bbvi.Factorized(
        lambda w: -0.5 * jnp.sum(w**2),
        lambda w, rows: -0.5 * (rows["y"] - rows["x"] @ w) ** 2,
    )
    data = {"x": inputs, "y": outputs}
    exact = np.linalg.inv(inputs.T @ inputs + np.eye(3))
    posterior = bbvi.fit(model, 3, data=data, batch_size=200, num_steps=3000)
    q = posterior.distribution
    np.testing.assert_allclose(q.mean(), exact @ inputs.T @ outputs, atol=0.3 * np.sqrt(np.diag(exact)).min())
    np.testing.assert_allclose(q.sd(), np.sqrt(np.diag(exact)), rtol=0.2)
    assert posterior.diagnosis.trusted


def test_start_from_a_point_a_distribution_or_a_posterior():
    first = bbvi.fit(quadratic_with_data, 2, data={"y": np.ones((5, 2))})
    more = {"y": np.full((5, 2), 1.1)}
    for init in (np.array([3.0, 3.0]), first, first.distribution):
        posterior = bbvi.fit(quadratic_with_data, 2, data=more, init=init)
        np.testing.assert_allclose(posterior.distribution.mean(), 5.5 / 6, atol=0.02)
    named = bbvi.fit(
        lambda p: jnp.log(p["s"]) - p["s"], {"s": ()}, constraints={"s": constraints.positive}, init={"s": 2.0}
    )
    assert named.diagnosis.trusted


def normal(x):
    return -0.5 * jnp.sum(x**2)


def with_data(x, data):
    return -0.5 * jnp.sum((x - data["y"]) ** 2)


ONES = {"y": np.ones(3)}
WRONG = [
    ("vector", (lambda x: -(x**2), 3), {}, ValueError, r"logprob returned an array of shape \(3,\).*jnp.sum"),
    ("integer", (lambda x: jnp.sum(jnp.round(x).astype(int)), 3), {}, TypeError, "logprob returned int"),
    ("boolean", (lambda x: jnp.all(x > 0), 3), {}, TypeError, "logprob returned bool"),
    ("complex", (lambda x: jax.lax.complex(x, x)[0], 3), {}, TypeError, "logprob returned a complex"),
    ("none", (lambda x: None, 3), {}, TypeError, "logprob returned None"),
    ("dict", (lambda x: {"a": x}, 3), {}, TypeError, "logprob returned .* a dict"),
    ("not callable", (3.0, 3), {}, TypeError, "logprob=3.0 must be a function"),
    ("dim", (normal, 2.5j), {}, TypeError, "dim is 2.5j"),
    ("negative dim", (normal, -2), {}, ValueError, "positive"),
    ("method", (normal, 3), {"method": "advy"}, ValueError, "method='advy' is unknown. Did you mean 'advi'"),
    ("method type", (normal, 3), {"method": 3}, TypeError, "method=3"),
    ("family", (normal, 3), {"family": "fullrank"}, ValueError, "Did you mean 'full_rank'"),
    ("family type", (normal, 3), {"family": 3}, TypeError, "family=3"),
    ("family dim", (normal, 3), {"family": bbvi.MeanField.standard(4)}, ValueError, "family has dim 4"),
    ("estimator", (normal, 3), {"estimator": "elbow"}, ValueError, "Did you mean 'elbo'"),
    ("estimator type", (normal, 3), {"estimator": 3}, TypeError, "is no Estimator"),
    ("optimizer", (normal, 3), {"optimizer": "adam"}, TypeError, "no optax transformation"),
    ("twice", (normal, 3), {"method": bbvi.ADVI(), "num_draws": 3}, ValueError, "Give num_draws to it"),
    ("precision", (normal, 3), {"precision": "half"}, ValueError, "precision='half'"),
    ("seed", (normal, 3), {"seed": -1}, ValueError, "seed=-1"),
    ("steps", (normal, 3), {"num_steps": 0}, ValueError, "num_steps=0"),
    ("steps type", (normal, 3), {"num_steps": 1.5}, TypeError, "num_steps=1.5"),
    ("draws", (normal, 3), {"num_draws": -1}, ValueError, "num_draws=-1"),
    ("one draw", (normal, 3), {"estimator": "score_function", "num_draws": 1}, ValueError, "at least 2"),
    (
        "odd draws",
        (normal, 3),
        {"estimator": bbvi.ELBO(bbvi.Antithetic()), "num_draws": 3},
        ValueError,
        "come in pairs",
    ),
    ("sobol", (normal, 3), {"estimator": bbvi.ELBO(bbvi.Sobol()), "num_draws": 10}, ValueError, "Use 16"),
    ("budget", (normal, 3), {"budget": -1}, ValueError, "budget: seconds=-1"),
    (
        "data nan",
        (with_data, 3),
        {"data": {"y": np.array([1, np.nan, 2])}},
        ValueError,
        r"data\['y'\] holds NaN in 1 of 3",
    ),
    ("data text", (with_data, 3), {"data": {"y": np.array(["a"])}}, TypeError, r"data\['y'\]"),
    ("init shape", (normal, 3), {"init": np.zeros(4)}, ValueError, r"init: 'x' has shape \(4,\)"),
    ("init structure", (normal, 3), {"init": {"a": 1}}, ValueError, "init"),
    ("init distribution", (normal, 3), {"init": bbvi.MeanField.standard(2)}, ValueError, "init has dim 2"),
    ("budget text", (normal, 3), {"budget": "1"}, ValueError, "positive number"),
    ("callbacks", (normal, 3), {"callbacks": [3]}, TypeError, "callbacks"),
    ("checkpoint", (normal, 3), {"checkpoint": 3}, TypeError, "checkpoint=3"),
    ("batch", (normal, 3), {"batch_size": 2}, ValueError, "Factorized"),
    ("nan", (lambda x: jnp.sum(x) * jnp.nan, 3), {}, FloatingPointError, "not finite at any of the"),
    ("nan at init", (lambda x: jnp.sum(jnp.log(x - 9)), 2), {"init": -np.ones(2)}, FloatingPointError, "given init"),
]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"), [w[1:] for w in WRONG], ids=[w[0] for w in WRONG]
)
def test_errors_name_the_argument_and_the_remedy(arguments, options, error, message):
    with pytest.raises(error, match=message):
        bbvi.fit(*arguments, **options)


def test_errors_of_the_users_code_come_through():
    def logprob(x):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        bbvi.fit(logprob, 2)
