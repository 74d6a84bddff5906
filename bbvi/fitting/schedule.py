"""What `method="auto"` tries, one stage after the other, until its own check is passed.

    nested Laplace          where the log density has hyper-parameters, and blocks that are independent given these:
                            first from some 40 coordinates on, after Newton below
    variational Newton      the best full-rank Gaussian; most posteriors end here
    DADVI                   where Newton does not converge, and then Newton again from there
    a mixture of Gaussians  where the paths of the start ended in several modes
    chains                  where the weights say that these are not enough: draws of the posterior itself, by chains
                            that begin at the best of them
    a flow, and chains      where these chains do not agree: in the noise of a flow they move more freely. Of a single
                            coordinate, which has no others to make a coupling with, a sinh-arcsinh density

DADVI moves means and scales together, so it does not creep, as Newton's separate steps do, where a scale of a hierarchy
and all its members have to grow at once. Above 1000 coordinates it is the only stage, and for long vectors mean-field
stochastic VI (`policy.py`).

Each stage begins from what the ones before it found. Which one comes next depends on their diagnoses, on the number of
coordinates and, for a fit without a budget, on the time that has passed.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.algorithms import DADVI, Algorithm, Chains, NestedLaplace, PathGradient, VariationalNewton
from bbvi.diagnostics.modes import find_modes
from bbvi.diagnostics.verdict import Diagnosis
from bbvi.distributions import Distribution, FullRank, LocationScale, MeanField, Mixture, RealNVP, SinhArcsinh
from bbvi.distributions.affine import Affine
from bbvi.distributions.location_scale import structure
from bbvi.draws.importance import Draws, affordable
from bbvi.fitting.hierarchy import find_hierarchy, why_not
from bbvi.outcome import NOTHING, Evaluations, History, StageSummary, Status, Stop
from bbvi.policy import CHAIN_EVALUATIONS, STAGE_SHARE, Regime
from bbvi.start.record import Start
from bbvi.target.problem import Problem


class Stage(NamedTuple):
    """An algorithm and where it begins."""

    algorithm: Algorithm[Any]
    q: Distribution  # what it begins with, or its structure only
    around: Affine | None = None  # the Gaussian to begin near, None to begin with q itself
    spent: Evaluations = NOTHING  # on finding out that this is to be done
    share: float = 1.0  # of the time that is left, where others may come after it


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What came of a stage.

    Fields:
        stage: what was done.
        q: the approximation.
        problem: by which it was judged.
        draws: behind the diagnosis.
        diagnosis: of q.
        history: of the steps.
        evaluations: of all, those for the diagnosis included.
    """

    stage: Stage
    q: Distribution
    problem: Problem
    draws: Draws
    diagnosis: Diagnosis
    history: History
    evaluations: Evaluations

    @property
    def rank(self) -> tuple[int, bool, float]:
        """To compare results by: smaller is better. Draws of chains are nearer to the posterior than those of a q."""
        diagnosis = self.diagnosis
        return list(Status).index(diagnosis.status), diagnosis.chains is None, -diagnosis.elbo.value


def summarise(result: StageResult) -> StageSummary:
    """What is remembered of a result."""
    diagnosis = result.diagnosis
    return StageSummary(
        method=result.stage.algorithm.name,
        family=result.q.name,
        steps=len(result.history.elbo),
        gradient_equivalents=result.evaluations.gradient_equivalents,
        status=diagnosis.status,
        k_hat=diagnosis.resampling_k_hat,
        elbo=diagnosis.elbo.value,
        reasons=diagnosis.reasons,
    )


def first_method(dim: int) -> str:
    """The name of the method that "auto" tries first."""
    if Regime.of(dim).newton:
        return "newton"
    return "advi" if Regime.of(dim).long else "dadvi"  # which keeps draws


def first_stage(
    problem: Problem, start: Start, plain: Stage, automatic: bool, latents: Sequence[str] | None = None
) -> Stage:
    """What to begin with: the stage that does without a structure, or nested Laplace.

    Arguments:
        plain: the stage without a structure; or nested Laplace, for which one has to be found.
        automatic: whether nested Laplace may take its place.
        latents: names of parameters to be integrated out, None to find them.

    Raises:
        ValueError: where nested Laplace was asked for, and there is no structure for it.
    """
    asked = isinstance(plain.algorithm, NestedLaplace)
    if asked and plain.around is None:
        return plain
    if not asked and not (automatic and (latents is not None or not Regime.of(problem.dim).structure_later)):
        return plain
    if (stage := nested_stage(problem, start, latents, one_block=asked)) is not None:
        return stage
    if not asked and latents is None:
        return plain
    reason = why_not(problem, start) or "no small blocks were found that are independent given a few hyper-parameters"
    argument = "method='nested_laplace'" if latents is None else f"latents={list(latents)!r}"
    raise ValueError(f"{argument}: {reason}. Name others by latents=[...], or leave this out.")


def nested_stage(
    problem: Problem, start: Start, latents: Sequence[str] | None = None, *, one_block: bool = True
) -> Stage | None:
    """Nested Laplace near the start; None where the log density has no structure for it."""
    found = find_hierarchy(problem, start, latents, one_block=one_block)
    return None if found is None else Stage(NestedLaplace(), found.q, start.gaussian, found.evaluations)


def next_stage(
    problem: Problem, start: Start, results: Sequence[StageResult], plain: Stage, seed: int = 0
) -> Stage | None:
    """What to try after these results, or None to leave it at that; `plain` is the first stage without a structure."""
    last, regime, dim = results[-1].diagnosis, Regime.of(problem.dim), problem.dim
    methods = [result.stage.algorithm.name for result in results]
    if methods == [NestedLaplace.name]:
        return None if last.trusted else plain
    if not last.improvable or last.status is Status.FAILED or last.stop not in (Stop.CONVERGED, Stop.STALLED):
        return None
    if methods[-1] == NestedLaplace.name and last.trusted and regime.has_room_for_hierarchy:
        return None
    if methods == ["newton"] and regime.has_room_for_structure and (stage := nested_stage(problem, start)) is not None:
        return stage
    methods = [name for name in methods if name != NestedLaplace.name]
    if not regime.newton or problem.is_irregular:  # a flow looks at thousands of points, one after the other
        return None
    newton = [result.diagnosis.stop for result in results if result.stage.algorithm.name == "newton"]
    creeps = methods == ["newton"] and newton == [Stop.STALLED]
    if creeps and regime.has_room_for_hierarchy and problem.why_not_differentiable(2) is None:
        return Stage(DADVI(), structure(MeanField, dim), plain.around)
    if methods[-1] == "dadvi":
        return Stage(VariationalNewton(), structure(FullRank, dim), results[-1].q.standardise()[0])
    return _richer(problem, start, results, seed) if regime.flow else None


def has_time_for_chains(problem: Problem) -> bool:
    """Whether the log density is cheap enough for the thousands of gradients that chains take at least."""
    return affordable(problem) >= CHAIN_EVALUATIONS


def _richer(problem: Problem, start: Start, results: Sequence[StageResult], seed: int) -> Stage | None:
    """A mixture where there are several modes, chains, or a family that is not Gaussian with chains in turn."""
    last, by_chains = results[-1], [result for result in results if result.stage.algorithm.name == Chains.name]
    if last in by_chains and last.diagnosis.trusted:
        return None
    best = min((result for result in results if FullRank.holds(result.q)), key=lambda r: -r.diagnosis.elbo.value)
    richer = RealNVP if problem.dim > 1 else SinhArcsinh
    tried = {result.q.name for result in results}
    gaussian = best.q
    assert isinstance(gaussian, LocationScale)
    if not by_chains and not tried & {Mixture.name, richer.name}:
        modes, elbos = find_modes(problem, start, gaussian.affine, best.diagnosis.elbo.value, seed)
        if len(modes) > 1:
            members = [LocationScale(np.asarray(mode.loc), mode.scale) for mode in modes]
            return Stage(PathGradient(), jax.device_get(Mixture.of(members, jnp.asarray(elbos))))
    if not by_chains and has_time_for_chains(problem):
        q = last.q if isinstance(last.q, Mixture) else gaussian
        return Stage(Chains(), q, share=STAGE_SHARE)
    if richer.name in tried:
        return Stage(Chains(), last.q) if by_chains and last.q.name == richer.name and last not in by_chains else None
    return Stage(PathGradient(), structure(richer, problem.dim), gaussian.affine)
