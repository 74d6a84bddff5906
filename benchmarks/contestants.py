"""The methods that are compared: bbvi's, and NumPyro's SVI and NUTS."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoDiagonalNormal, AutoMultivariateNormal
from numpyro.optim import Adam

import bbvi
from bbvi.distributions import Distribution
from bbvi.distributions.scales import Triangular
from bbvi.fitting.arguments import METHODS
from benchmarks.cases import (
    BLOCK,
    GOALS,
    Case,
    Chain,
    Point,
    errors,
    log_density_model,
    plain_errors,
    reached,
    weighted_errors,
)

BISECTIONS = 3  # after halving the budget: the cost to reach is known to a factor 2^(1/8)
FULL_RANK_UP_TO = 100  # coordinates, for the textbook methods
SVI_STEPS = [round(200 * 2 ** (i / 2)) for i in range(19)]  # at which SVI is looked at, the last one 102 400
NUTS_DRAWS = [BLOCK * round(1.28 * 2 ** (i / 2)) for i in range(13)]  # at which it is looked at, the last one 4100
WARM_UP = 1000
HELD = 4  # looks in a row within tolerance, after which SVI and NUTS have shown enough


class Attempt(NamedTuple):
    """What one run, or one run and its repetitions with smaller budgets, showed."""

    points: list[Point]  # with more and more effort; at the last one the method stops by itself
    verdict: str = ""
    note: str = ""
    late: bool = False  # whether time ran out before the end

    @property
    def end(self) -> Point:
        """Where the method stops by itself."""
        return self.points[-1]


Method = Callable[[int, float, bool], Attempt]  # of seed, deadline and whether to look for the smallest budget


def bbvi_method(case: Case, options: dict[str, Any]) -> Method:
    """A method of bbvi, with the options of fit that choose it."""

    def fit(seed: int, deadline: float, gradients: int | None = None) -> tuple[bbvi.Posterior, Point]:
        tick = time.perf_counter()
        budget = bbvi.Budget(seconds=max(deadline - tick, 0.1), gradients=gradients)
        posterior = bbvi.fit(**case.arguments, **options, seed=seed, budget=budget, progress=False)
        seconds = time.perf_counter() - tick
        plain, weighted = plain_errors(case, posterior.distribution), weighted_errors(case, posterior)
        return posterior, Point(*evaluations(posterior), plain, weighted, seconds)

    def attempt(seed: int, deadline: float, search: bool) -> Attempt:
        posterior, end = fit(seed, deadline)
        verdict = f"{posterior.diagnosis.k_hat:.2f} {posterior.diagnosis.status.name.lower()}"
        if posterior.diagnosis.stop is bbvi.Stop.BUDGET:
            return Attempt([end], verdict, late=True)
        points = lower(lambda gradients: fit(seed, deadline, gradients)[1], end, deadline) if search else [end]
        note = "" if posterior.diagnosis.stop is bbvi.Stop.CONVERGED else posterior.diagnosis.stop.value
        return Attempt(points, verdict, note)

    return attempt


def evaluations(posterior: bbvi.Posterior) -> tuple[float, float, float]:
    """Gradient-equivalent evaluations without and with those of the verdict, and those of the start."""
    cost, history, draws = posterior.cost, posterior.history, len(posterior.pool)
    around = cost.log_densities - int(history.log_densities.sum())
    verdict = around // draws * draws  # a start takes fewer than that
    total = cost.gradients + 2 * cost.hessian_vector_products + cost.log_densities / 3
    return total - verdict / 3, total, cost.gradients - int(history.gradients.sum()) + (around - verdict) / 3


def lower(fit: Callable[[int], Point], end: Point, deadline: float) -> list[Point]:
    """Fits with smaller budgets than that of `end`, down to where the goals are missed."""
    tried = {1: fit(1), int(end.cost): end}  # by budget
    wanted = [goal for goal in GOALS.values() if goal.met(end)]
    budget, late = int(end.cost) // 2, lambda: time.perf_counter() > deadline
    while wanted and budget > tried[1].cost and not late():
        tried[budget] = fit(budget)
        wanted = [goal for goal in wanted if goal.met(tried[budget])]
        budget //= 2
    goal = GOALS["both"] if GOALS["both"].met(end) else GOALS["means"]
    for _ in range(BISECTIONS):
        missed = max((budget for budget, point in tried.items() if not goal.met(point)), default=None)
        enough = min((budget for budget in tried if missed is not None and budget > missed), default=None)
        if missed is None or enough is None or late():
            break
        middle = math.isqrt(int(max(missed, tried[missed].cost)) * enough)
        if not missed < middle < enough:
            break
        tried[middle] = fit(middle)
    return [tried[budget] for budget in sorted(tried)]


def svi_method(case: Case) -> Method:
    """NumPyro's stochastic variational inference with common choices: Adam with rate 0.01, one draw in each step."""
    guide = (AutoMultivariateNormal if case.dim <= FULL_RANK_UP_TO else AutoDiagonalNormal)(log_density_model)
    svi = SVI(log_density_model, guide, Adam(0.01), Trace_ELBO())
    update = lambda problem, state: svi.update(state, problem)[0]
    run = jax.jit(lambda problem, state, n: jax.lax.fori_loop(0, n, lambda _, state: update(problem, state), state))

    def approximation(state: Any) -> Distribution:
        params = svi.get_params(state)
        if "auto_scale_tril" in params:
            return bbvi.LocationScale(params["auto_loc"], Triangular.of(params["auto_scale_tril"]))
        return bbvi.MeanField(params["auto_loc"], jnp.log(params["auto_scale"]))

    def attempt(seed: int, deadline: float, search: bool) -> Attempt:
        tick = time.perf_counter()
        state, taken = svi.init(jax.random.key(seed), case.problem), 0
        seconds, points = time.perf_counter() - tick, []
        for steps in SVI_STEPS:
            tick = time.perf_counter()
            state, taken = jax.block_until_ready(run(case.problem, state, steps - taken)), steps
            seconds += time.perf_counter() - tick
            found = plain_errors(case, approximation(state))
            points.append(Point(steps, steps, 0, found, found, seconds))
            if settled(points) or time.perf_counter() > deadline:
                break
        return Attempt(points, late=not settled(points) and steps < SVI_STEPS[-1])

    return attempt


def settled(points: Sequence[Point]) -> bool:
    """Whether the last few points are all within tolerance."""
    return len(points) >= HELD and all(GOALS["both"].met(point) for point in points[-HELD:])


def nuts_method(case: Case) -> Method:
    """NumPyro's NUTS with its defaults."""
    chain = Chain(case.problem, WARM_UP)

    def attempt(seed: int, deadline: float, search: bool) -> Attempt:
        tick = time.perf_counter()
        cost = warm_up = chain.start(seed, deadline)
        seconds, points, blocks = time.perf_counter() - tick, [], []
        for draws in NUTS_DRAWS:
            tick = time.perf_counter()
            while len(blocks) < draws // BLOCK and not (blocks and time.perf_counter() > deadline):
                xs, taken = chain.advance()
                blocks, cost = [*blocks, xs], cost + taken
            seconds += time.perf_counter() - tick
            found = errors(case, np.concatenate([np.asarray(case.quantities(xs)) for xs in blocks]))
            points.append(Point(cost, cost, warm_up, found, found, seconds))
            if settled(points) or time.perf_counter() > deadline:
                break
        enough = reached(points, GOALS["both"])
        note = "" if enough is None else f"{NUTS_DRAWS[points.index(enough)]} draws"
        return Attempt(points, note=note, late=not settled(points) and draws < NUTS_DRAWS[-1])

    return attempt


def make_method(name: str, case: Case) -> Method | None:
    """The method of that name, or None where there is none."""
    if name == "svi":
        return svi_method(case)
    if name == "nuts":
        return nuts_method(case)
    if name == "textbook":
        family = bbvi.FullRank if case.dim <= FULL_RANK_UP_TO else bbvi.MeanField
        return bbvi_method(case, {"method": "advi", "init": family.standard(case.dim)})
    return bbvi_method(case, {"method": name}) if name in METHODS else None
