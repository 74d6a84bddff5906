"""What `method="auto"` tries, one stage after the other, until its own check is passed.

    variational Newton      the best full-rank Gaussian; most posteriors end here
    the same once more      from higher ground, where that Gaussian is wide and points along its axes are higher
    nested Laplace          where the log density has hyper-parameters, and blocks that are independent given these;
                            from some 40 coordinates on it comes first of all
    a mixture of Gaussians  where the paths of the start ended in several modes
    short chains            draws of the posterior itself, by chains that begin at the best of these, where there is no
                            such structure
    nested Laplace          for a Gaussian process; first of all where a step of Newton is dear
    chains                  with half of the time that is left; or, where the log density is too costly for these and
                            Newton did not converge, DADVI, and Newton again from there
    a flow, and chains      in its noise, where they move more freely. Of a single coordinate, which has no others to
                            make a coupling with, a sinh-arcsinh density

DADVI moves means and scales together, so it does not creep, as Newton's separate steps do, where a scale of a hierarchy
and all its members have to grow at once. Above 1000 coordinates it is the only stage, and for long vectors mean-field
stochastic VI (`policy.py`).

Each stage begins from what the ones before it found. Which one comes next depends on their diagnoses, on the number of
coordinates and, for a fit without a budget, on the time that has passed.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.algorithms import DADVI, Chains, NestedLaplace, PathGradient, VariationalNewton
from bbvi.chains.verdict import AGREED
from bbvi.diagnostics.modes import find_modes
from bbvi.distributions import Distribution, FullRank, LocationScale, MeanField, Mixture, RealNVP, SinhArcsinh
from bbvi.distributions.hierarchical import Hierarchical
from bbvi.distributions.location_scale import structure
from bbvi.draws.importance import affordable
from bbvi.draws.random import RandomStream
from bbvi.fitting.hierarchy import bent_parameter, find_hierarchy, one_long_parameter, why_not
from bbvi.fitting.stage import Stage, StageResult
from bbvi.nested.lines import suit
from bbvi.outcome import Status, Stop
from bbvi.policy import CHAIN_EVALUATIONS, FEW_CHAINS, SHORT_CHAINS, STAGE_SHARE, Regime
from bbvi.start.plateau import find_higher_ground
from bbvi.start.record import Start
from bbvi.target.problem import Problem

MOST_PLATEAUS = 3  # that are left one after the other


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
        bent, looked = bent_parameter(problem, start)
        stage = (None if bent is None else nested_stage(problem, start, bent)) or plain
        return stage._replace(spent=stage.spent + looked)
    reason = why_not(problem, start) or "no small blocks were found that are independent given a few hyper-parameters"
    argument = "method='nested_laplace'" if latents is None else f"latents={list(latents)!r}"
    raise ValueError(f"{argument}: {reason}. Name others by latents=[...], or leave this out.")


def nested_stage(
    problem: Problem, start: Start, latents: Sequence[str] | None = None, *, one_block: bool = True
) -> Stage | None:
    """Nested Laplace near the start; None where the log density has no structure for it."""
    found = find_hierarchy(problem, start, latents, one_block=one_block)
    return None if found is None else Stage(NestedLaplace(), found.q, spent=found.evaluations)


def next_stage(
    problem: Problem, start: Start, results: Sequence[StageResult], plain: Stage, seed: int = 0
) -> Stage | None:
    """What to try after these results, or None to leave it at that; `plain` is the first stage without a structure."""
    so_far = SoFar(problem, start, results, seed)
    last, methods = results[-1].diagnosis, so_far.methods
    all_at_once = Regime.of(problem.dim).newton and not problem.is_irregular  # a flow looks at thousands of points
    if methods[0] == NestedLaplace.name and plain.algorithm.name not in methods:
        if last.trusted:
            return None
        if all_at_once and results[-1].came_to_nothing:
            return plain
        return (_chains(so_far) if all_at_once or so_far.is_dear_hierarchy else None) or plain
    if last.status is Status.FAILED or so_far.is_good_enough or not so_far.has_ended or not all_at_once:
        return None
    return next((stage for rung in RUNGS if (stage := rung(so_far)) is not None), None)


class SoFar(NamedTuple):
    """What has been tried."""

    problem: Problem
    start: Start
    results: Sequence[StageResult]
    seed: int

    @property
    def last(self) -> StageResult:
        """The last result."""
        return self.results[-1]

    @property
    def methods(self) -> list[str]:
        """Names of the algorithms."""
        return [result.stage.algorithm.name for result in self.results]

    @property
    def families(self) -> set[str]:
        """Names of the families."""
        return {result.q.name for result in self.results}

    @property
    def best_gaussian(self) -> StageResult | None:
        """The full-rank Gaussian with the best ELBO, if there is one."""
        full_rank = [result for result in self.results if FullRank.holds(result.q)]
        return max(full_rank, key=lambda result: result.diagnosis.elbo.value, default=None)

    @property
    def has_ended(self) -> bool:
        """Whether the last stage ended for reasons of its own; one of chains may have been a short one."""
        at_limits = (Stop.BUDGET, Stop.STEPS) if self.methods[-1] == Chains.name else ()
        return self.last.diagnosis.stop in (Stop.CONVERGED, Stop.STALLED, *at_limits)

    @property
    def is_good_enough(self) -> bool:
        """Whether others would not be worth their time."""
        diagnosis, last = self.last.diagnosis, self.methods[-1]
        by_long_chains = last == Chains.name and self.last.stage.gradients is None
        structured = last == NestedLaplace.name and not self.chains_are_affordable
        return not diagnosis.improvable or (diagnosis.trusted and (by_long_chains or structured))

    @property
    def is_dear_hierarchy(self) -> bool:
        """Whether chains are to begin at a hierarchy that is too dear to factorise for each of them."""
        q = self.results[0].q
        return isinstance(q, Hierarchical) and not suit(q.split) and q.split.is_dear

    @property
    def seeks_structure(self) -> bool:
        """Whether a structure is still to be sought."""
        regime = Regime.of(self.problem.dim)
        late = regime.has_room_for_structure and regime.structure_later
        return late and NestedLaplace.name not in self.methods and not self.chains_need_time

    @property
    def chains_need_time(self) -> bool:
        """Whether short chains agree, and only need more steps."""
        chains = self.last.diagnosis.chains
        return chains is not None and chains.r_hat < AGREED and self.last.stage.gradients is not None

    @property
    def chains_are_affordable(self) -> bool:
        """Whether the log density is cheap enough for the thousands of gradients that chains take at least."""
        return affordable(self.problem) >= CHAIN_EVALUATIONS


def _higher_up(so_far: SoFar) -> Stage | None:
    """Newton once more, from where the density is far higher than near a Gaussian that lies on a plateau."""
    last, problem, start = so_far.last, so_far.problem, so_far.start
    moves = sum(result.stage.start is not None for result in so_far.results)
    wide = so_far.methods[-1] == VariationalNewton.name and start.paths and so_far.chains_are_affordable
    if not wide or moves == MOST_PLATEAUS:
        return None
    drawn, rng = last.draws.x[last.draws.from_q], np.random.default_rng((so_far.seed, RandomStream.PLATEAUS, moves))
    ends, spent = find_higher_ground(problem, drawn, last.diagnosis.elbo.value, rng)
    if ends is None:
        return None
    start = start.moved(ends.gaussians, ends.elbo)
    return Stage(VariationalNewton(), structure(FullRank, problem.dim), start.gaussian, spent=spent, start=start)


def _mixture(so_far: SoFar) -> Stage | None:
    """A mixture of Gaussians, where the start found several modes; of too many, chains that begin at all of them."""
    best, tried = so_far.best_gaussian, so_far.families & {Mixture.name, _richer(so_far.problem).name}
    if best is None or tried or Chains.name in so_far.methods:
        return None
    assert isinstance(best.q, LocationScale)
    elbo = best.diagnosis.elbo.value
    modes = find_modes(so_far.problem, so_far.start, best.q.affine, elbo, so_far.seed)
    if len(modes.gaussians) < 2:
        return None
    members = [LocationScale(np.asarray(mode.loc), mode.scale) for mode in modes.gaussians]
    q = jax.device_get(Mixture.of(members, jnp.asarray(modes.elbos)))
    algorithm = Chains() if modes.too_many else PathGradient()
    return Stage(algorithm, q, spent=modes.evaluations, findings=tuple(modes.findings()))


def _short_chains(so_far: SoFar) -> Stage | None:
    """Chains that are not to be waited for, where no structure was found."""
    if Chains.name in so_far.methods or not (so_far.seeks_structure and so_far.chains_are_affordable):
        return None
    return Stage(Chains(), _to_begin_at(so_far), gradients=SHORT_CHAINS)


def _structured(so_far: SoFar) -> Stage | None:
    """Nested Laplace, where there is a structure; once more near a Gaussian where it came to nothing at the start."""
    start, best = so_far.start, so_far.best_gaussian
    nested = [result for result in so_far.results if result.stage.algorithm.name == NestedLaplace.name]
    if best is not None and len(nested) == 1 and nested[0].came_to_nothing:
        return nested_stage(so_far.problem, start._replace(gaussian=best.q.standardise()[0]))
    return nested_stage(so_far.problem, start) if so_far.seeks_structure else None


def _process(so_far: SoFar) -> Stage | None:
    """Nested Laplace for one long parameter, which may be a Gaussian process."""
    if NestedLaplace.name in so_far.methods or so_far.chains_need_time:
        return None
    named = one_long_parameter(so_far.problem)
    return None if named is None else nested_stage(so_far.problem, so_far.start, named)


def _together(so_far: SoFar) -> Stage | None:
    """DADVI where Newton creeps and there is no time for chains, and then Newton again."""
    problem, methods = so_far.problem, so_far.methods
    if methods[-1] == DADVI.name:
        return Stage(VariationalNewton(), structure(FullRank, problem.dim), so_far.last.q.standardise()[0])
    newton = [r.diagnosis.stop for r in so_far.results if r.stage.algorithm.name == VariationalNewton.name]
    creeps = newton[-1:] == [Stop.STALLED] and Regime.of(problem.dim).has_room_for_hierarchy
    other = DADVI.name in methods or so_far.chains_are_affordable
    if not creeps or other or problem.why_not_differentiable(2) is not None:
        return None
    return Stage(DADVI(), structure(MeanField, problem.dim), so_far.start.gaussian)


def _chains(so_far: SoFar) -> Stage | None:
    """Chains that begin at the best approximation; a flow may come after them."""
    chains = [result for result in so_far.results if result.stage.algorithm.name == Chains.name]
    tried = any(each.stage.gradients is None or each.diagnosis.stop is Stop.CONVERGED for each in chains)
    if not so_far.chains_are_affordable or tried:
        return None
    if so_far.is_dear_hierarchy:
        return Stage(Chains(num_chains=FEW_CHAINS), so_far.results[0].q)
    return Stage(Chains(), _to_begin_at(so_far), share=1.0 if _flow(so_far) is None else STAGE_SHARE)


def _flow(so_far: SoFar) -> Stage | None:
    """A family that is not Gaussian."""
    problem, best = so_far.problem, so_far.best_gaussian
    if best is None or _richer(problem).name in so_far.families or not Regime.of(problem.dim).flow:
        return None
    assert isinstance(best.q, LocationScale)
    return Stage(PathGradient(), structure(_richer(problem), problem.dim), best.q.affine)


def _chains_in_flow(so_far: SoFar) -> Stage | None:
    """Chains in the noise of a flow."""
    flows = so_far.methods[-1] == PathGradient.name and so_far.last.q.name == _richer(so_far.problem).name
    return Stage(Chains(), so_far.last.q) if flows and so_far.chains_are_affordable else None


RUNGS = (_higher_up, _structured, _mixture, _short_chains, _process, _together, _chains, _flow, _chains_in_flow)


def _to_begin_at(so_far: SoFar) -> Distribution:
    """The mixture, if there is one, or the best Gaussian, which may be that of a hierarchy."""
    mixtures = [result.q for result in so_far.results if isinstance(result.q, Mixture)]
    by_elbo = lambda result: (not result.came_to_nothing, result.diagnosis.elbo.value)
    return mixtures[0] if mixtures else max(so_far.results, key=by_elbo).q


def _richer(problem: Problem) -> Any:
    """The family that is tried where Gaussians are not enough: couplings need two coordinates."""
    return RealNVP if problem.dim > 1 else SinhArcsinh
