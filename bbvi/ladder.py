"""What `method="auto"` tries, one after the other, until its own check is passed.

    variational Newton      the best full-rank Gaussian; most posteriors end here
    DADVI                   where Newton does not converge, and then Newton again from there
    a mixture of Gaussians  where the paths of the start ended in several modes
    a flow                  where the weights say that a Gaussian is not enough; of a single coordinate, which has no
                            others to make a coupling with, a sinh-arcsinh density

DADVI moves means and scales together, so it does not creep, as Newton's separate steps do, where a scale of a hierarchy
and all its members have to grow at once. Above 1000 coordinates it is the only rung, and above 2**17 mean-field ADVI.

Each rung begins from what the ones before it found. Which one comes next depends on their verdicts, on the number of
coordinates and, for a fit without a budget, on the time that has passed.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.algorithms import DADVI, Adam, Algorithm, Newton
from bbvi.diagnostics.checks.missed_mode import MissedMode
from bbvi.diagnostics.verdict import Diagnosis
from bbvi.distributions import Distribution, Flow, FullRank, MeanField, Mixture, SinhArcsinh
from bbvi.evaluation import Draws, log_densities
from bbvi.outcome import History, Status, Stop
from bbvi.problem import LONG, Problem
from bbvi.start import Start, polish

NEWTON_UP_TO = 1000  # coordinates
DADVI_FROM = 20  # coordinates: fewer have no room for a hierarchy
FLOW_UP_TO = 500  # coordinates
SECONDS = 60.0  # after which no further rung is begun, and one under way is ended, when no budget is given
DISTINCT = 3.0  # standard deviations between the centres of two modes
BARRIER = 1.0  # nats by which the log density dips between them: it does not along a funnel


class Plan(NamedTuple):
    """An algorithm and where it begins."""

    algorithm: Algorithm
    q: Distribution  # what it begins with, or its structure only
    near: tuple[Any, Any] | None = None  # mean and scale of the Gaussian to begin near, None to begin with q itself


class Attempt(NamedTuple):
    """What came of a plan."""

    plan: Plan
    q: Distribution
    problem: Problem  # by which it was judged
    pool: Draws
    diagnosis: Diagnosis
    history: History
    log_densities: int  # evaluations without gradient, verdict included
    gradients: int  # evaluations of log density and gradient together
    hessian_vector_products: int

    @property
    def rank(self) -> tuple[int, float]:
        """To compare attempts by: smaller is better."""
        return list(Status).index(self.diagnosis.status), -self.diagnosis.elbo.value


class Rung(NamedTuple):
    """One approximation that a fit tried."""

    method: str
    family: str
    steps: int  # rows of the history, which follow one another
    gradient_equivalents: int  # gradients, where a Hessian-vector product counts as two; without the start
    status: Status  # the verdict on it
    k_hat: float  # for resampled draws
    elbo: float  # in nats
    reasons: tuple[str, ...]  # what spoke against it

    def __str__(self) -> str:
        cost = f"{self.gradient_equivalents} gradient equivalents"
        verdict = f"{self.status.name.lower()}, k-hat {self.k_hat:.2f}, ELBO {self.elbo:.2f}"
        return f"{self.method} ({self.family}): {verdict}, {cost}"

    @classmethod
    def of(cls, attempt: Attempt) -> "Rung":
        """What is remembered of an attempt."""
        diagnosis = attempt.diagnosis
        return cls(
            attempt.plan.algorithm.name,
            attempt.q.name,
            len(attempt.history.elbo),
            attempt.gradients + 2 * attempt.hessian_vector_products,
            diagnosis.status,
            diagnosis.resampling_k_hat,
            diagnosis.elbo.value,
            diagnosis.reasons,
        )


def first_method(dim: int) -> str:
    """The name of the method that "auto" tries first."""
    if dim <= NEWTON_UP_TO:
        return "newton"
    return "dadvi" if dim <= LONG else "advi"  # which keeps no draws


def next_plan(problem: Problem, start: Start, attempts: Sequence[Attempt]) -> Plan | None:
    """What to try after `attempts`, or None to leave it at that."""
    last = attempts[-1].diagnosis
    if not last.improvable or last.status is Status.FAILED or last.stop not in (Stop.CONVERGED, Stop.STALLED):
        return None
    if problem.dim > NEWTON_UP_TO or problem.is_irregular:  # a flow looks at thousands of points, one after the other
        return None
    methods = [attempt.plan.algorithm.name for attempt in attempts]
    creeps = methods == ["newton"] and last.stop is Stop.STALLED
    if creeps and problem.dim >= DADVI_FROM and problem.why_not_differentiable(2) is None:
        return Plan(DADVI(), structure(MeanField, problem.dim), attempts[0].plan.near)
    if methods[-1] == "dadvi":
        return Plan(Newton(), structure(FullRank, problem.dim), attempts[-1].q.standardise()[:2])
    gaussian, diagnosis = min(
        ((attempt.q, attempt.diagnosis) for attempt in attempts if isinstance(attempt.q, FullRank)),
        key=lambda pair: -pair[1].elbo.value,
    )
    if problem.dim > FLOW_UP_TO:
        return None
    tried = {type(attempt.q) for attempt in attempts}
    richer = Flow if problem.dim > 1 else SinhArcsinh
    if not tried & {Mixture, richer}:
        modes, elbos = _modes(problem, start, gaussian, diagnosis.elbo.value)
        if len(modes) > 1:
            return Plan(Adam(), jax.device_get(Mixture.of(modes, jnp.asarray(elbos))))
    if richer in tried:
        return None
    loc, scale, _ = gaussian.standardise()
    return Plan(Adam(), structure(richer, problem.dim), (loc, scale))


def structure(family: type[Distribution], dim: int) -> Distribution:
    """A member of the family, for its structure."""
    shapes = jax.eval_shape(lambda: family.standard(dim))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def _modes(problem: Problem, start: Start, gaussian: FullRank, elbo: float) -> tuple[list[FullRank], list[float]]:
    """Gaussians of largest ELBO near the ends of the start's paths, as far as they lie apart, and their ELBOs."""
    modes, elbos = [gaussian], [elbo]
    for loc, scale, path_elbo in zip(start.path_locs, start.path_scales, start.path_elbos, strict=True):
        if scale.ndim != 2 or path_elbo < elbo - MissedMode.suspect or not _apart(problem, loc, modes):
            continue
        polished = polish(problem, loc, scale, np.random.default_rng(0))
        if polished.elbo > elbo - MissedMode.rival and _apart(problem, polished.loc, modes):
            modes.append(jax.device_get(FullRank.from_scale_tril(polished.loc, polished.scale)))
            elbos.append(polished.elbo)
    return modes, elbos


def _apart(problem: Problem, loc: Any, modes: Sequence[FullRank]) -> bool:
    """Whether a point is far from all modes, and beyond a barrier."""
    white = (np.linalg.solve(np.asarray(q.scale_tril), loc - np.asarray(q.loc)) for q in modes)
    far = all(np.linalg.norm(z) > DISTINCT for z in white)
    return far and all(_barrier(problem, loc, q.loc) > BARRIER for q in modes)


def _barrier(problem: Problem, a: Any, b: Any) -> float:
    """How far the log density falls below both ends on the way from a to b, in nats."""
    values = log_densities(problem, np.linspace(a, b, 16))
    return float(min(values[0], values[-1]) - values.min())
