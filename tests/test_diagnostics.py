"""k-hat, resampling, the checks and the verdict."""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.stats import norm
from numpyro.distributions import constraints
from scipy import stats

import bbvi
from bbvi.diagnostics.checks import CHECKS, OUT_OF_TIME, examine
from bbvi.diagnostics.checks.base import Check, Evidence, Topic
from bbvi.diagnostics.checks.importance_weights import ImportanceWeights
from bbvi.diagnostics.checks.integrals import Integrals
from bbvi.diagnostics.checks.missed_mode import MissedMode
from bbvi.diagnostics.checks.missed_spike import MissedSpike
from bbvi.diagnostics.checks.no_density import NoDensity
from bbvi.diagnostics.checks.ran_off import RanOff
from bbvi.diagnostics.checks.remote_mass import RemoteMass
from bbvi.diagnostics.checks.rounding import Rounding
from bbvi.diagnostics.checks.stopped import Stopped
from bbvi.diagnostics.checks.support import Support
from bbvi.diagnostics.checks.too_narrow import TooNarrow
from bbvi.diagnostics.checks.vague_scale import VagueScale
from bbvi.diagnostics.verdict import diagnose
from bbvi.distributions import FullRank, Mixture
from bbvi.distributions.affine import Affine
from bbvi.distributions.scales import Diagonal, Triangular
from bbvi.draws.importance import Draws, draw
from bbvi.draws.pareto import fit_generalised_pareto, k_hat_of_square, resample, smooth
from bbvi.outcome import Finding, Status, Stop
from bbvi.runtime.deadline import OutOfTimeError
from bbvi.start.record import start_at
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("sd", [0.1, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("n", [100, 1000, 4096])
def test_smoothing_agrees_with_arviz(sd, n):
    from arviz_stats.base import array_stats

    log_weights = np.random.default_rng(int(10 * sd) + n).normal(0, sd, n)
    ours = smooth(log_weights)
    theirs, k_hat = array_stats.psislw(-log_weights, r_eff=1.0)
    assert ours.k_hat == pytest.approx(float(k_hat), abs=1e-6)
    np.testing.assert_allclose(ours.log_weights, theirs, atol=1e-6)


@pytest.mark.parametrize("shape", [-0.3, 0.2, 0.5, 0.9])
def test_shape_of_a_generalised_pareto_is_found(shape):
    excess = np.sort(stats.genpareto.rvs(shape, size=20_000, random_state=1))
    k, sigma = fit_generalised_pareto(excess)
    assert k == pytest.approx(shape, abs=0.03)
    assert sigma == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize(("nu", "theory"), [(1, 1.0), (2, 0.5), (4, 0.25)])
def test_k_hat_of_heavy_tails(nu, theory):
    """Weights whose density falls like w^-(nu + 1) have k = 1/nu."""
    weights = np.random.default_rng(2).pareto(nu, 40_000) + 1
    assert smooth(np.log(weights)).k_hat == pytest.approx(theory, abs=0.1)


def test_k_hat_of_a_square_is_its_own():
    """Squares of numbers whose density falls like x^-(nu + 1) have k = 2/nu; even weights say nothing."""
    rng = np.random.default_rng(3)
    column = rng.choice([-1, 1], 40_000) * (rng.pareto(2.5, 40_000) + 1)
    assert k_hat_of_square(np.full(40_000, -np.log(40_000)), column) == pytest.approx(0.8, abs=0.1)
    assert k_hat_of_square(np.full(40_000, -np.log(40_000)), np.tanh(column)) < 0


@pytest.mark.parametrize("rounding", [0.0, 1e-8])
def test_constant_weights_are_perfect(rounding):
    smoothed = smooth(rounding * np.random.default_rng(0).integers(0, 4, 1000))
    assert smoothed.k_hat == -np.inf
    np.testing.assert_allclose(np.exp(smoothed.log_weights).sum(), 1)


@pytest.mark.parametrize(("bad", "finite"), [(999, False), (600, True)])
def test_weights_of_zero(bad, finite):
    log_weights = RNG.normal(size=1000)
    log_weights[:bad] = -np.inf
    smoothed = smooth(log_weights)
    assert np.isfinite(smoothed.k_hat) == finite
    assert np.exp(smoothed.log_weights[:bad]).sum() == 0


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_extreme_weights_are_never_good(scale):
    """With log weights this far apart smoothing alone can claim anything; the verdict must not."""
    log_w = np.random.default_rng(3).normal(0, scale, 5120)
    assert judged(log_w).status is Status.UNRELIABLE


def test_resampling_repeats_only_heavy_draws():
    weights = np.full(1000, 1.0)
    weights[0] = 50
    indices = resample(np.random.default_rng(0), np.log(weights / weights.sum()), 200)
    values, counts = np.unique(indices, return_counts=True)
    assert set(values[counts > 1]) <= {0}
    assert 8 <= counts[values == 0] <= 11
    assert not np.array_equal(indices, np.sort(indices))


def seen(problem=None, q=None, dim=1, **fields):
    """Evidence about a fit that converged, unless `fields` say something else."""
    start = start_at(Affine(np.zeros(dim), Triangular(np.zeros((dim, dim)))))
    return Evidence(**{"problem": problem, "q": q, "start": start, "stop": Stop.CONVERGED} | fields)


WITHOUT_POSTERIOR = [check for check in CHECKS if check.topic is not Topic.POSTERIOR]


def weighted(log_w, x=None):
    """Draws at `x`, by default at 0, with these log weights."""
    n = len(log_w)
    x = np.zeros(n) if x is None else x
    return Draws(x.reshape(n, 1), log_w, np.zeros(n), np.zeros(n), np.arange(n) < 4 * n // 5)


def judged(log_w, stop=Stop.CONVERGED, findings=()):
    return diagnose(seen(draws=weighted(log_w), stop=stop, remarks=findings), WITHOUT_POSTERIOR)


VERDICTS = [
    ("exact", np.zeros(5120), Status.RELIABLE),
    ("close", RNG.normal(0, 0.3, 5120), Status.RELIABLE),
    ("near", RNG.normal(0, 2.1, 5120), Status.USABLE),
    ("far", RNG.normal(0, 4.0, 5120), Status.UNRELIABLE),
    ("a few draws", np.where(np.arange(5120) % 128 == 0, 0.0, -50.0), Status.UNRELIABLE),
    ("nowhere finite", np.full(5120, -np.inf), Status.FAILED),
]


@pytest.mark.parametrize(("name", "log_w", "status"), VERDICTS, ids=lambda each: each if isinstance(each, str) else "")
def test_verdicts(name, log_w, status):
    diagnosis = judged(log_w)
    assert diagnosis.status is status
    assert diagnosis.trusted == (status in (Status.RELIABLE, Status.USABLE))
    assert bool(diagnosis.reasons) == (status is not Status.RELIABLE)
    assert status.name.lower() in str(diagnosis)


def test_evidence_is_within_its_standard_error():
    errors = [judged(np.random.default_rng(seed).normal(0, 0.5, 5120)).log_evidence for seed in range(50)]
    z = [(value - 0.125) / se for value, se in errors]  # E exp(N(0, s^2)) = exp(s^2 / 2)
    assert 0.7 < np.std(z) < 1.3
    assert abs(np.mean(z)) < 0.5


def test_findings_lower_the_status_and_are_told():
    finding = Finding(Status.UNRELIABLE, "two modes", "look at both")
    diagnosis = judged(np.zeros(5120), findings=[finding])
    assert diagnosis.status is Status.UNRELIABLE
    assert diagnosis.reasons == ("two modes",)
    assert diagnosis.advice == ("look at both",)


def test_an_early_end_is_told_but_proved_weights_count():
    diagnosis = judged(np.zeros(5120), stop=Stop.STEPS)
    assert diagnosis.status is Status.RELIABLE
    assert "num_steps" in diagnosis.advice[0]


def ridge(x, width):
    """Independent normals, of which the first has another standard deviation."""
    return -0.5 * (x[0] / width) ** 2 - 0.5 * jnp.sum(x[1:] ** 2)


def gaussians(dim, *centres):
    """Unit Gaussians whose centres lie on the first axis, with equal weights."""
    return Mixture.of(
        [FullRank.standard(dim).around(Affine(jnp.eye(dim)[0] * at, Diagonal(jnp.zeros(dim)))) for at in centres]
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("dim", "centres", "width", "right"),
    [
        *((dim, [0.0], width, True) for dim in (1, 3, 10) for width in (1.0, 1.3)),
        *((dim, [0.0], width, False) for dim in (1, 3, 10) for width in (4.0, 30.0, 1e5)),
        *((3, [-2.0, 0.0, 3.0], width, False) for width in (10.0, 1e5)),
    ],
)
def test_a_posterior_much_wider_than_q_is_never_trusted(dim, centres, width, right):
    q, problem = gaussians(dim, *centres), Problem(make_parameters(dim, None), jnp.asarray(width), ridge)
    for seed in range(3):
        diagnosis = diagnose(seen(problem, q, dim, draws=draw(problem, q, (seed, 0))))
        assert diagnosis.trusted == right


LEVEL, FAR = "the posterior has infinite mass", "% of the posterior lies more than 30 standard deviations"
NORMAL = lambda z: -0.5 * z**2
GOES_ON = {
    "a floor along one coordinate": (lambda x: jnp.logaddexp(NORMAL(x[1]), -6) + NORMAL(x.at[1].set(0)).sum(), LEVEL),
    "a floor on one side": (lambda x: jnp.where(x < 0, NORMAL(x), jnp.logaddexp(NORMAL(x), -8)).sum(), LEVEL),
    "a low floor": (lambda x: jnp.logaddexp(NORMAL(x), -15).sum(), LEVEL),
    "a tail too heavy": (lambda x: jnp.logaddexp(NORMAL(x), -3 - jnp.log1p(jnp.abs(x))).sum(), LEVEL),
    "a wide component": (lambda x: jnp.logaddexp(NORMAL(x), -6 + NORMAL(x / 1e4)).sum(), FAR),
    "a floor of no weight": (lambda x: jnp.logaddexp(NORMAL(x), -60).sum(), None),
    "Gaussian": (lambda x: NORMAL(x).sum(), None),
    "Student t, 3 degrees": (lambda x: -2 * jnp.log1p(x**2 / 3).sum(), None),
    "Student t, 3 degrees together": (lambda x: -3.5 * jnp.log1p((x**2).sum() / 3), None),
    "Cauchy": (lambda x: -jnp.log1p(x**2).sum(), None),
    "stretched": (lambda x: -jnp.sqrt(jnp.abs(x)).sum(), None),
    "funnel": (lambda x: NORMAL(x[0] / 3) + (NORMAL(x[1:] * jnp.exp(-x[0] / 2)) - x[0] / 2).sum(), None),
    # With all effects at zero, as they are at the centre, it rises for ever towards small scales.
    "hierarchy of the prior": (lambda x: -jnp.abs(x[0]) + (NORMAL(x[1:] * jnp.exp(-x[0])) - x[0]).sum(), None),
    "horseshoe": (lambda x: (NORMAL(x[:2] * jnp.exp(-x[2:])) - jnp.log1p(jnp.exp(2 * x[2:]))).sum(), None),
    "banana": (lambda x: NORMAL(x[0] / 2) + NORMAL(x[1] - x[0] ** 2) + NORMAL(x[2:]).sum(), None),
    "two modes": (lambda x: jnp.logaddexp(NORMAL(x - 4).sum(), NORMAL(x + 4).sum()), None),
    "uniform on intervals": (lambda x: -jnp.logaddexp(x, -x).sum() * 2, None),
}  # fmt: skip


def one_of_them(x, number):
    """So that they compile as one."""
    return jax.lax.switch(number, [density for density, _ in GOES_ON.values()], x)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", GOES_ON)
def test_mass_beyond_all_draws_is_told(name):
    said, number = GOES_ON[name][1], jnp.asarray(list(GOES_ON).index(name))
    problem = Problem(make_parameters(4, None), number, one_of_them)
    for scale in (1.0, 3.0):
        q = FullRank.standard(4).after(Affine(jnp.zeros(4), Diagonal.of(jnp.full(4, scale))))
        diagnosis = diagnose(seen(problem, q, 4, draws=draw(problem, q, (0, 0))))
        assert [words for words in (LEVEL, FAR) if words in str(diagnosis)] == ([said] if said else [])
        assert diagnosis.status is bbvi.Status.UNRELIABLE or not said


# -- each check by itself ----------------------------------------------------------------------------------------------

N = 5120
X, HEAVY = RNG.normal(size=N), RNG.standard_t(1.2, size=N)
EVEN = np.zeros(N)
ONE = Problem(make_parameters(1, None), None, lambda x: 0 * x.sum())


def path_to(point):
    """A start with one path, which ended at a point, at the ELBO of q."""
    path = Affine(np.full(1, point), Diagonal(np.zeros(1)))
    return start_at(Affine(np.zeros(1), Diagonal(np.zeros(1))))._replace(paths=(path,), elbos=np.zeros(1))


def beside_narrower_path():
    """A second mode like q's own, at whose end a path believed in a scale of e^-50."""
    either = lambda x: jnp.logaddexp(-0.5 * (x[0] - 20) ** 2, -0.5 * x[0] ** 2)
    path = Affine(np.full(1, 20.0), Triangular(np.full((1, 1), np.exp(-50.0))))
    start = path_to(20.0)._replace(paths=(path,), elbos=np.full(1, -50.0))
    return seen(Problem(make_parameters(1, None), None, either), draws=weighted(EVEN, X), start=start)


def around_spike(width):
    """N(0, I) and, with the same weight, a spike in its midst; q is the first, and paths end at the second."""
    density = lambda x: jnp.logaddexp(norm.logpdf(x).sum(), norm.logpdf(x, 0.5, width).sum()) - np.log(2)
    problem, q = Problem(make_parameters(4, None), None, density), FullRank.standard(4)
    spike = Affine(np.full(4, 0.5), Triangular(np.zeros((4, 4))))
    return seen(problem, q, 4, draws=draw(problem, q, (0, 0)), start=start_at(spike)._replace(spike=spike))


def beside_ridge(width):
    problem, q = Problem(make_parameters(2, None), jnp.asarray(width), ridge), gaussians(2, 0.0)
    return seen(problem, q, 2, draws=draw(problem, q, (0, 0)))


def that_goes_on(name):
    problem = Problem(make_parameters(4, None), jnp.asarray(list(GOES_ON).index(name)), one_of_them)
    return seen(problem, FullRank.standard(4), 4, draws=draw(problem, FullRank.standard(4), (0, 0)))


class KnownBetter(NamedTuple):
    """A log density of integrals with errors, and the same with better ones."""

    density: Callable
    finer: Callable

    def __call__(self, x):
        return self.density(x)


def with_finer(error):
    """Normal draws of a normal density that has an error."""
    right = lambda x: -0.5 * jnp.sum(x**2)
    problem = Problem(make_parameters(1), None, KnownBetter(lambda x: right(x) + error(x), right))
    log_p = np.asarray(problem.log_densities(X[:, None]))
    return seen(problem, draws=Draws(X[:, None], log_p, log_p, log_p, np.ones(len(X), bool)))


# By check: evidence about which it speaks, and evidence about which it is silent.
SPEAKS = {
    NoDensity: (lambda: seen(draws=weighted(EVEN - np.inf)), lambda: seen(draws=weighted(EVEN))),
    ImportanceWeights: (lambda: seen(draws=weighted(4 * X)), lambda: seen(draws=weighted(0.1 * X))),
    RanOff: (lambda: seen(draws=weighted(EVEN, 1e31 * X)), lambda: seen(draws=weighted(EVEN, 1e25 * X))),
    MissedMode: (
        lambda: seen(ONE, draws=weighted(EVEN, X), start=path_to(20.0)),
        lambda: seen(ONE, draws=weighted(EVEN, X), start=path_to(2.0)),
    ),
    MissedSpike: (lambda: around_spike(0.02), lambda: around_spike(0.9)),
    TooNarrow: (lambda: beside_ridge(4.0), lambda: beside_ridge(1.0)),
    RemoteMass: (lambda: that_goes_on("a low floor"), lambda: that_goes_on("Gaussian")),
    Support: (
        lambda: seen(ONE, draws=weighted(np.where(X > 1, -np.inf, 0), X)),
        lambda: seen(ONE, draws=weighted(EVEN, X)),
    ),
    Rounding: (lambda: seen(draws=weighted(EVEN - 1e15)), lambda: seen(draws=weighted(EVEN - 1e12))),
    Integrals: (lambda: with_finer(lambda x: -x[0]), lambda: with_finer(lambda x: 5 + 0.01 * x[0])),
    VagueScale: (lambda: seen(ONE, draws=weighted(EVEN, HEAVY)), lambda: seen(ONE, draws=weighted(EVEN, X))),
    Stopped: (
        lambda: seen(draws=weighted(EVEN), stop=Stop.STEPS),
        lambda: seen(draws=weighted(EVEN), stop=Stop.CONVERGED),
    ),
}


def test_every_check_is_tried():
    assert [type(check) for check in CHECKS] == list(SPEAKS)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: type(check).__name__)
def test_a_check_speaks_where_it_should_and_is_silent_elsewhere(check):
    speaks, silent = SPEAKS[type(check)]
    finding = check(speaks())
    assert isinstance(finding, Finding)
    assert finding.message
    assert check(silent()) is None


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: type(check).__name__)
def test_a_check_is_a_frozen_record_of_thresholds_which_are_explained(check):
    kind = type(check)
    assert kind.__dataclass_params__.frozen
    assert all(field.kw_only for field in dataclasses.fields(kind))
    assert not kind.__doc__.startswith(kind.__name__ + "("), "which is what dataclasses say of their own accord"
    source = textwrap.dedent(inspect.getsource(kind))
    lines = source.splitlines()
    own = {node.target.id: node.lineno for node in ast.parse(source).body[0].body if isinstance(node, ast.AnnAssign)}
    for field in dataclasses.fields(kind):
        assert lines[own[field.name] - 2].strip().startswith("#"), f"{kind.__name__}.{field.name} has no comment"


def test_a_check_with_other_thresholds_judges_by_them():
    assert RanOff(far=1e40)(seen(draws=weighted(EVEN, 1e31 * X))) is None
    assert RanOff(far=1.0)(seen(draws=weighted(EVEN, X))) is not None
    rising = seen(draws=weighted(EVEN, X), elbo=np.linspace(0, 100, 200))
    assert [RanOff(steps=steps)(rising) is not None for steps in (50, 51)] == [True, False]
    assert ImportanceWeights(spread=10.0, effective=1)(seen(draws=weighted(4 * X))).message.startswith("k-hat")
    assert Rounding(usable=1.0)(seen(draws=weighted(EVEN - 1e15))) is None


@pytest.mark.usefixtures("x64")
def test_a_mode_is_not_missed_for_a_wrong_curvature_along_its_path():
    assert "near 20 instead of" in MissedMode()(beside_narrower_path()).message


@dataclasses.dataclass(frozen=True, kw_only=True)
class Says(Check):
    """A check that says what it is told to, or runs out of time."""

    word: str | None

    def __call__(self, evidence):
        if self.word is None:
            raise OutOfTimeError
        return Finding(Status.USABLE, self.word)


class SaysFirst(Says):
    """A check of the weights."""

    topic = Topic.WEIGHTS


class SaysLast(Says):
    """A check of the run."""

    topic = Topic.RUN


class Ends(Says):
    """A check after which nothing more is said of the posterior."""

    ends = True


@pytest.mark.parametrize(
    ("checks", "told"),
    [
        ([SaysLast(word="c"), Says(word="b"), SaysFirst(word="a")], ["a", "b", "c"]),
        ([SaysFirst(word="a"), Ends(word="b"), Says(word="never"), SaysLast(word="c")], ["a", "b", "c"]),
        ([SaysFirst(word="a"), Says(word="lost"), Says(word=None), SaysLast(word="c")], ["a", OUT_OF_TIME[1], "c"]),
    ],
)
def test_a_topic_ends_where_nothing_more_can_be_said_of_it(checks, told):
    """Reasons are in order of topics, limits of the verdict and remarks of the algorithm between them."""
    evidence = seen(draws=weighted(EVEN))
    assert [finding.message for finding in examine(evidence, checks)] == told
    limits, remarks = [Finding(Status.RELIABLE, "limit")], [Finding(Status.RELIABLE, "remark")]
    evidence = dataclasses.replace(evidence, limits=limits, remarks=remarks)
    assert diagnose(evidence, checks).reasons == (told[0], "limit", told[1], "remark", told[2])


def log_normal(p, sd):
    """log x ~ N(0, sd^2)."""
    return -0.5 * jnp.sum((jnp.log(p["x"]) / sd) ** 2) - jnp.sum(jnp.log(p["x"]))


@pytest.mark.parametrize(("sd", "vague"), [(0.5, False), (2.5, True)])
def test_a_standard_deviation_that_rests_on_few_draws_is_told(sd, vague):
    """Log-normal parameters, whose unconstrained coordinates are exactly Gaussian: the weights are perfect."""
    posterior = bbvi.fit(log_normal, {"x": (3,)}, data=np.array(sd), constraints={"x": constraints.positive})
    diagnosis = posterior.diagnosis
    assert len(posterior.ladder) == 1, "no richer family would make it better"
    assert diagnosis.status is (Status.USABLE if vague else Status.RELIABLE)
    assert any("standard deviation of x[" in reason for reason in diagnosis.reasons) == vague
