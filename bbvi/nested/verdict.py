"""What a verdict looks at, whatever the approximation is: its draws, and what making them showed."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bbvi.distributions import Distribution
from bbvi.distributions.hierarchical import Hierarchical
from bbvi.draws import importance
from bbvi.draws.importance import Draws
from bbvi.draws.pareto import smooth
from bbvi.nested.chains import AGREED, CHAINS, SMALL_ERROR, ChainDraws, is_within, run_chains
from bbvi.nested.lines import suit
from bbvi.nested.sampling import NestedDraws, draw_nested
from bbvi.outcome import Evaluations, Finding, Status, Value
from bbvi.runtime.deadline import OutOfTimeError
from bbvi.structure.names import in_ranges
from bbvi.target.problem import Problem

MISSED = 0.05  # nats by which line integrals may miss the log density, on average over the posterior
NOT_FOUND, MOSTLY_FOUND = 0.01, 0.1  # share of the hyper-parameters at which a mode may not be found; of wide draws
AT_END = 1e-3  # share of the mass of a block that may lie at the ends of its lines
NEARLY_AGREED, FAIR_ERROR = 1.05, 0.1  # nested R-hat, and Monte Carlo error in standard deviations, of chains
FEW_LINES = 0.25  # share of the lines through a block that has to contribute


class Look(NamedTuple):
    """What is seen of an approximation when it is judged."""

    draws: Draws  # whose weights are looked at
    pool: Draws  # that the posterior is made of
    findings: Sequence[Finding]
    evaluations: Evaluations
    log_evidence: Value | None = None  # where it is known better than by importance sampling


def look(problem: Problem, q: Distribution, seed: tuple[int, ...]) -> Look:
    """The draws behind a verdict of q, and what making them showed."""
    if not isinstance(q, Hierarchical):
        draws = importance.draw(problem, q, seed)
        return Look(draws, draws, (), Evaluations(log_densities=len(draws)))
    if not suit(q.split):
        try:
            return _look_at_chains(problem, q, run_chains(problem, q, seed))
        except OutOfTimeError:
            draws, words = importance.draw(problem, q, seed), "there was no time for chains"
            return Look(draws, draws, (Finding(Status.UNRELIABLE, words),), Evaluations(log_densities=len(draws)))
    made = draw_nested(problem, q, seed)
    return Look(made.draws, made.pool, tuple(_findings(problem, q, made)), made.evaluations)


def draw(problem: Problem, q: Distribution, seed: tuple[int, ...], num: int = 1) -> Draws:
    """At least `num` draws of q, and a quarter as many of its wider version; of a hierarchical q with exact blocks."""
    if isinstance(q, Hierarchical):
        return (draw_nested if suit(q.split) else run_chains)(problem, q, seed, num).pool
    return importance.draw(problem, q, seed, num)


def most_numbers(q: Distribution) -> int:
    """Numbers in draws that are made when they are asked for, at most; beyond, those of the verdict have to do."""
    return 2**22 if isinstance(q, Hierarchical) else 2**28


def _look_at_chains(problem: Problem, q: Hierarchical, made: ChainDraws) -> Look:
    """Draws of the posterior itself, as many as are worth independent ones."""
    effective = int(np.clip(made.agreement.effective, 1, len(made.pool)))
    few = made.pool.take(np.linspace(0, len(made.pool) - 1, effective).astype(int))
    findings = tuple(_findings_of_chains(problem, q, made))
    return Look(few, made.pool, findings, made.evaluations, made.log_evidence)


def _findings_of_chains(problem: Problem, q: Hierarchical, made: ChainDraws) -> Iterator[Finding]:
    names, latent = problem.parameters.coordinate_names(), np.sort(q.split.latents[q.split.used])
    said = in_ranges([names[i] for i in latent])
    yield Finding(Status.RELIABLE, f"{said} integrated by Laplace's method for q; draws are those of chains from there")
    r_hat, error = made.agreement.r_hat.max(), made.agreement.error.max()
    worst = names[int(made.agreement.r_hat.argmax())]
    figures = f"nested R-hat {r_hat:.3f}, largest for {worst}; Monte Carlo error {error:.2g} sd"
    if is_within(made.agreement, q.split, AGREED, SMALL_ERROR):
        yield Finding(Status.RELIABLE, f"{CHAINS} chains agree ({figures})")
    elif is_within(made.agreement, q.split, NEARLY_AGREED, FAIR_ERROR):
        yield Finding(Status.USABLE, f"{CHAINS} chains nearly agree ({figures})")
    else:
        yield Finding(Status.UNRELIABLE, f"{CHAINS} chains do not agree ({figures})")
    if made.lost > NOT_FOUND:
        words = f"{100 * made.lost:.0f} % of the draws of q have no density, or no concave one near them"
        yield Finding(Status.USABLE if made.lost <= MOSTLY_FOUND else Status.UNRELIABLE, words)
    if made.missed > MISSED:
        words = f"clusters do not make up the log density, by {made.missed:.2g} nats: it is not smooth along them"
        yield Finding(Status.UNRELIABLE, words)
    if not np.isfinite(made.log_evidence.value):
        yield Finding(Status.RELIABLE, "the log evidence was not found: draws of q and of the chains hardly overlap")
    moments = q.moments()
    off = np.abs(made.pool.x.mean(axis=0) - np.asarray(moments.mean)) / made.pool.x.std(axis=0)
    words = f"q itself is off by up to {off.max():.2g} sd, in the mean of {names[int(off.argmax())]}"
    yield Finding(Status.RELIABLE, words)


def _findings(problem: Problem, q: Hierarchical, made: NestedDraws) -> Iterator[Finding]:
    names, split, seen = problem.parameters.coordinate_names(), q.split, made.seen
    latent = np.sort(split.latents[split.used])
    said = in_ranges([names[i] for i in latent])
    yield Finding(Status.RELIABLE, f"{said} integrated by Laplace's method, corrected block by block")
    of_q = made.draws.from_q
    if (lost := 1 - seen.found[of_q].mean()) > NOT_FOUND:
        words = f"given {100 * lost:.0f} % of the draws of the hyper-parameters, no mode of the others was found"
        yield Finding(Status.UNRELIABLE, words)
    if not seen.found[of_q].any():
        return
    with np.errstate(over="ignore"):
        weights = np.exp(smooth(made.draws.log_p - made.draws.log_r).log_weights)
    if (missed := weights[seen.found] @ seen.error[seen.found]) > MISSED:
        words = f"the blocks do not make up the log density, by {missed:.2g} nats: it is not smooth along them"
        yield Finding(Status.UNRELIABLE, words)
    of_block = lambda g: in_ranges([names[i] for i in split.in_blocks(split.latents)[g] if i < split.dim])
    if (share := seen.at_end.max()) > AT_END:
        words = f"{100 * share:.1f} % of the mass of {of_block(seen.at_end.argmax())} lies beyond the range looked at"
        yield Finding(Status.UNRELIABLE, words)
    if (share := seen.effective.min()) < FEW_LINES:
        words = f"{of_block(seen.effective.argmin())} is far from Gaussian, given the hyper-parameters"
        yield Finding(Status.USABLE, words)
