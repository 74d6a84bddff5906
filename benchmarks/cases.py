"""Posteriors with references to judge methods by, and what it means to be near enough."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import NUTS

import bbvi
from bbvi.distributions import Distribution
from bbvi.distributions.affine import Affine
from bbvi.distributions.scales import Triangular
from bbvi.draws.pareto import smooth
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters
from benchmarks import posteriordb
from benchmarks.speed import logistic

POSTERIORS = [
    "earnings-earn_height",  # a regression on the raw scale: the covariance has a condition number of 2e11
    "mesquite-logmesquite",
    "nes1980-nes",
    "sblrc-blr",
    "arK-arK",  # time series
    "wells_data-wells_dist100ars_model",  # logistic
    "eight_schools-eight_schools_noncentered",
    "gp_pois_regr-gp_regr",
    "low_dim_gauss_mix-low_dim_gauss_mix",
    "hudson_lynx_hare-lotka_volterra",  # differential equations
]
MEAN_TOLERANCE, SD_TOLERANCE = 0.1, 0.1  # in posterior standard deviations, and relative
BLOCK = 50  # iterations of NUTS in one call


# -- cases ------------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    """A posterior, what `bbvi.fit` takes for it, and what is known of it."""

    name: str
    arguments: dict[str, Any]  # of fit
    problem: Problem
    quantities: Callable[[Any], Any]  # unconstrained (n, dim) -> (n, quantities)
    mean: np.ndarray  # (quantities,)
    sd: np.ndarray  # (quantities,)
    reference: str  # in words

    @property
    def dim(self) -> int:
        """Unconstrained coordinates."""
        return self.problem.dim


def make_problem(logprob: Callable[..., Any], dim: Any, data: Any, constraints: Any = None) -> Problem:
    """The density that `fit` sees, for the methods that are not bbvi's."""
    return Problem(make_parameters(dim, constraints), data, logprob)


def posteriordb_case(folder: str, name: str) -> Case:
    """A posterior of posteriordb."""
    source, draws = posteriordb.load(folder, name), posteriordb.reference_draws(folder, name)
    arguments = {
        "logprob": source.logprob,
        "dim": source.shapes,
        "data": source.data,
        "constraints": source.constraints,
    }
    problem = make_problem(**arguments)
    if draws is None:
        return sampled_case(name, arguments, problem)

    def flat(values: dict[str, Any]) -> Any:
        return jnp.concatenate([jnp.ravel(values[key]) for key in sorted(draws)])

    def quantities(xs: Any) -> Any:
        return jax.vmap(lambda x: flat(posteriordb.quantities(source, problem.parameters.constrain(x)[0])))(xs)

    exact = np.concatenate([draws[key].reshape(len(draws[key]), -1) for key in sorted(draws)], axis=1)
    words = f"{len(exact)} draws of posteriordb"
    return Case(name, arguments, problem, jax.jit(quantities), exact.mean(axis=0), exact.std(axis=0), words)


def logistic_case(dim: int) -> Case:
    """A logistic regression with standard normal weights; neighbouring columns have a correlation of 0.7."""
    rng, rows = np.random.default_rng(0), 5 * dim
    correlation = 0.7 ** np.abs(np.subtract.outer(np.arange(dim), np.arange(dim)))
    inputs = rng.standard_normal((rows, dim)) @ np.linalg.cholesky(correlation).T
    logits = inputs @ rng.standard_normal(dim) / dim**0.5
    outputs = (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(float)
    arguments = {"logprob": logistic, "dim": dim, "data": (inputs, outputs)}
    return sampled_case(f"logistic regression, dim {dim}, {rows} rows", arguments, make_problem(**arguments))


def sampled_case(name: str, arguments: dict[str, Any], problem: Problem) -> Case:
    """A log-concave posterior whose reference is sampled here; its quantities are its coordinates, unconstrained."""
    mean, sd, words = sample_reference(problem)
    return Case(name, arguments, problem, jax.jit(lambda xs: xs), mean, sd, words)


# -- references -------------------------------------------------------------------------------------------------------


def sample_reference(problem: Problem, draws: int = 4000, batches: int = 20) -> tuple[np.ndarray, np.ndarray, str]:
    """Means and standard deviations of a log-concave posterior, and how they were found."""
    tick = time.perf_counter()
    mode, scale = laplace(problem)
    white = problem.in_coordinates(Affine(mode, Triangular.of(scale)))
    chain = Chain(white, warm_up=300)
    chain.start(0)
    ys = np.concatenate([chain.advance()[0] for _ in range(draws // BLOCK)])
    gradients = jax.jit(lambda problem, ys: jax.lax.map(jax.grad(problem.log_density), ys, batch_size=100))
    rest = ys + np.asarray(gradients(white, ys))
    mean, sd = stein_moments(mode, scale, ys, rest)
    parts = zip(np.split(ys, batches), np.split(rest, batches), strict=True)
    spread = [np.stack(each) for each in zip(*(stein_moments(mode, scale, *part) for part in parts), strict=True)]
    mean_error, sd_error = ((each.std(axis=0, ddof=1) / batches**0.5 / sd).max() for each in spread)
    return (
        mean,
        sd,
        f"{draws} draws of NUTS corrected by Stein's identity; largest standard errors {mean_error:.3f} posterior sd "
        f"of a mean and {100 * sd_error:.1f} % of an sd; {time.perf_counter() - tick:.0f} s",
    )


def laplace(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Mode of a log-concave density, and a lower triangular root of its inverse curvature there."""
    derivatives = jax.jit(lambda problem, x: (jax.grad(problem.log_density)(x), jax.hessian(problem.log_density)(x)))
    height = jax.jit(lambda problem, x: problem.log_density(x))
    x = np.zeros(problem.dim)
    for _ in range(50):
        gradient, hessian = map(np.asarray, derivatives(problem, x))
        move = np.linalg.solve(-hessian, gradient)
        gain = gradient @ move
        if gain < 1e-12:
            return x, np.linalg.cholesky(np.linalg.inv(-hessian))
        size = 1.0
        while not height(problem, x + size * move) > height(problem, x) + 0.1 * size * gain and size > 1e-6:
            size /= 2
        x = x + size * move
    raise ValueError("Newton's method found no mode: the reference is for log-concave posteriors.")


def stein_moments(
    mode: np.ndarray, scale: np.ndarray, ys: np.ndarray, rest: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations of `mode + scale y` by Stein's identity; `rest` is y + grad log p(y)."""
    mean, xs = rest.mean(axis=0), ys @ scale.T
    variance = np.sum(scale**2, axis=1) + np.mean(xs * (rest @ scale.T), axis=0) - (scale @ mean) ** 2
    return mode + scale @ mean, np.sqrt(variance)


# -- errors -----------------------------------------------------------------------------------------------------------


class Errors(NamedTuple):
    """Largest errors over all quantities."""

    mean: float  # in posterior standard deviations
    sd: float  # relative


def errors(case: Case, values: np.ndarray, weights: np.ndarray | None = None) -> Errors:
    """Errors of the moments of draws `(n, quantities)`."""
    with np.errstate(over="ignore", invalid="ignore"):
        mean = np.average(values, axis=0, weights=weights)
        sd = np.sqrt(np.average((values - mean) ** 2, axis=0, weights=weights))
        found = np.abs(mean - case.mean) / case.sd, np.abs(sd / case.sd - 1)
    return Errors(*(float(np.nan_to_num(each, nan=np.inf).max()) for each in found))


_push = jax.jit(lambda q, noise: q.push(noise))


def plain_errors(case: Case, q: Distribution) -> Errors:
    """Of draws of q, with the same noise for all q: 20 000 antithetic ones, or fewer above 200 coordinates."""
    half = np.random.default_rng(0).standard_normal((min(10_000, 2**21 // case.dim), q.noise_dim))
    return errors(case, np.asarray(case.quantities(_push(q, np.concatenate([half, -half])))))


def weighted_errors(case: Case, posterior: bbvi.Posterior) -> Errors:
    """Of the draws behind the verdict, with the weights that `posterior.mean()` gives them."""
    pool, weights = posterior.pool, posterior.pool.from_q.astype(float)
    if posterior.diagnosis.trusted:
        weights = np.exp(smooth(pool.log_p - pool.log_r).log_weights)
    keep = weights > 0
    return errors(case, np.asarray(case.quantities(pool.x))[keep], weights[keep])


class Point(NamedTuple):
    """What some cost bought."""

    cost: float  # gradient-equivalent evaluations without the verdict
    cost_with_verdict: float
    start: float  # the part of it before the first step
    plain: Errors
    weighted: Errors
    seconds: float


class Goal(NamedTuple):
    """What is to be reached, and what counts as its cost."""

    met: Callable[[Point], bool]
    cost: Callable[[Point], float]


def within(found: Errors) -> bool:
    """Whether means and standard deviations are within tolerance."""
    return found.mean <= MEAN_TOLERANCE and found.sd <= SD_TOLERANCE


GOALS = {
    "both": Goal(lambda point: within(point.plain), lambda point: point.cost),
    "means": Goal(lambda point: point.plain.mean <= MEAN_TOLERANCE, lambda point: point.cost),
    "weighted": Goal(lambda point: within(point.weighted), lambda point: point.cost_with_verdict),
}


def reached(points: Sequence[Point], goal: Goal) -> Point | None:
    """The first point from which on all meet the goal."""
    found = None
    for point in reversed(points):
        if not goal.met(point):
            break
        found = point
    return found


# -- NUTS -------------------------------------------------------------------------------------------------------------


def log_density_model(problem: Problem) -> None:
    """The density as a NumPyro model over the same unconstrained coordinates."""
    real = dist.constraints.independent(dist.constraints.real, 1)
    x = numpyro.sample("x", dist.ImproperUniform(real, (), (problem.dim,)))
    numpyro.factor("log_density", problem.log_density(x))


class Chain:
    """NumPyro's NUTS, a block of iterations at a time, with the gradients that it takes."""

    def __init__(self, problem: Problem, warm_up: int) -> None:
        self._problem, self._warm_up, self._kernel = problem, warm_up, NUTS(log_density_model)

        def iterate(problem: Problem, state: Any, _: Any) -> tuple[Any, tuple[Any, Any]]:
            state = self._kernel.sample(state, (problem,), {})
            return state, (state.z["x"], state.num_steps)

        self._run = jax.jit(lambda problem, state: jax.lax.scan(partial(iterate, problem), state, length=BLOCK))

    def start(self, seed: int, deadline: float = np.inf) -> int:
        """Warm up; returns the gradients taken."""
        key = jax.random.key(seed)
        self._state = self._kernel.init(key, self._warm_up, None, (self._problem,), {})
        taken = 0
        for _ in range(self._warm_up // BLOCK):
            taken += self.advance()[1]
            if time.perf_counter() > deadline:
                break
        return taken

    def advance(self) -> tuple[np.ndarray, int]:
        """The next draws `(BLOCK, dim)`, and the gradients taken for them."""
        self._state, (xs, steps) = self._run(self._problem, self._state)
        return np.asarray(xs), int(steps.sum())
