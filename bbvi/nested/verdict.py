"""What a verdict looks at, whatever the approximation is: its draws, and what making them showed."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bbvi.chains.draws import ChainDraws
from bbvi.chains.verdict import Chained, find_in_chains, summarise_chains
from bbvi.distributions import Distribution
from bbvi.distributions.hierarchical import Hierarchical
from bbvi.draws import importance
from bbvi.draws.adaptive import AdaptiveDraws, draw_adaptively
from bbvi.draws.importance import Draws
from bbvi.draws.pareto import effective_sample_size, smooth
from bbvi.nested.chains import NestedChains, run_chains
from bbvi.nested.drawing import NestedDraws, draw_nested
from bbvi.nested.lines import suit
from bbvi.nested.together import draw_jointly
from bbvi.outcome import ChainSummary, Evaluations, Finding, Status
from bbvi.runtime.deadline import OutOfTimeError
from bbvi.structure.names import in_ranges
from bbvi.target.problem import Problem

MISSED = 0.05  # nats by which line integrals may miss the log density, on average over the posterior
NOT_FOUND, MOSTLY_FOUND = 0.01, 0.1  # share of the hyper-parameters at which a mode may not be found; of wide draws
AT_END = 1e-3  # share of the mass of a block that may lie at the ends of its lines
MOVED = 0.05  # standard deviations by which draws far away may move a mean, or share of a standard deviation
MOVED_FAR = 0.25  # the same where these are known well, and q fits where it is
KNOWN_FAR, EVEN_NEAR = 0.15, 0.25  # shares that are effective: of draws far away, of all others
FEW_LINES = 0.25  # share of the lines through a block that has to contribute


class Look(NamedTuple):
    """What is seen of an approximation when it is judged."""

    draws: Draws  # whose weights are looked at
    pool: Draws  # that the posterior is made of
    findings: Sequence[Finding]
    evaluations: Evaluations
    chains: Chained | None = None  # what is known of the draws where they are those of chains


def look(problem: Problem, q: Distribution, seed: tuple[int, ...], chains: ChainDraws | None = None) -> Look:
    """The draws behind a verdict of q, and what making them showed.

    Arguments:
        chains: draws of the posterior itself, where an algorithm has made some.
    """
    names = problem.parameters.coordinate_names()
    if chains is not None:
        return _of_chains(chains, summarise_chains(chains, np.asarray(q.mean()), names), ())
    if not isinstance(q, Hierarchical):
        followed = draw_adaptively(problem, q, seed)
        return Look(
            followed.draws, followed.draws, tuple(_findings_of_kernels(problem, followed)), followed.evaluations
        )
    if not suit(q.split):
        try:
            joint = draw_jointly(problem, q, seed)
            if joint.enough:
                words = f"{_latents(problem, q)} integrated by Laplace's method, corrected together"
                return Look(joint.draws, joint.pool, (Finding(Status.RELIABLE, words),), joint.evaluations)
            if q.split.is_dear:
                draws = importance.draw(problem, q, seed)
                told = Finding(Status.RELIABLE, f"{_latents(problem, q)} integrated by Laplace's method")
                return Look(draws, draws, (told,), joint.evaluations + Evaluations(log_densities=len(draws)))
            made = run_chains(problem, q, seed)
        except OutOfTimeError:
            draws, words = importance.draw(problem, q, seed), "there was no time for chains"
            return Look(draws, draws, (Finding(Status.UNRELIABLE, words),), Evaluations(log_densities=len(draws)))
        seen = summarise_chains(made.draws, np.asarray(q.mean()), names)
        findings = tuple(_findings_of_chains(problem, q, made))
        spent = joint.evaluations + made.evaluations
        return _of_chains(made.draws, seen, findings)._replace(evaluations=spent)
    made = draw_nested(problem, q, seed)
    return Look(made.draws, made.pool, tuple(_findings(problem, q, made)), made.evaluations)


def draw(problem: Problem, q: Distribution, seed: tuple[int, ...], num: int = 1) -> Draws:
    """At least `num` draws of q, and a quarter as many of its wider version; of a hierarchical q as for a verdict."""
    if isinstance(q, Hierarchical):
        if suit(q.split):
            return draw_nested(problem, q, seed, num).pool
        if (made := draw_jointly(problem, q, seed, num)).enough:
            return made.pool
        return importance.draw(problem, q, seed, num)
    return draw_adaptively(problem, q, seed, num).draws


def units_of(q: Distribution, pool: Draws, num_chains: int | None) -> np.ndarray:
    """Which draws depend on one another, `(n,)`: those of one chain, or of the same hyper-parameters of a hierarchy."""
    if num_chains is not None:
        return np.arange(len(pool)) % num_chains
    if isinstance(q, Hierarchical) and isinstance(pool.x, np.ndarray):  # those made again from seeds are independent
        return np.unique(np.asarray(pool.x[:, q.split.hyper[0]]), return_inverse=True)[1]
    return np.arange(len(pool))


def most_numbers(q: Distribution) -> int:
    """Numbers in draws that are made when they are asked for, at most; beyond, those of the verdict have to do."""
    return 2**22 if isinstance(q, Hierarchical) else 2**28


def _of_chains(made: ChainDraws, seen: ChainSummary, findings: Sequence[Finding]) -> Look:
    """A verdict looks at as many draws as are worth independent ones, of equal weight."""
    known = np.isfinite(made.agreement.effective)
    effective = int(np.clip(made.agreement.effective, 1, len(made.pool))) if known else 1
    few = made.pool.take(np.linspace(0, len(made.pool) - 1, effective).astype(int))
    finite = made.log_ratio_of_q[np.isfinite(made.log_ratio_of_q)]
    level = made.log_evidence.value if np.isfinite(made.log_evidence.value) or not len(finite) else finite.mean()
    even = few.log_p - level
    chained = Chained(seen, effective, len(made.pool), made.log_evidence, made.log_ratio_of_q, made.x_of_q)
    findings = (*findings, *find_in_chains(made, seen))
    return Look(Draws(few.x, few.log_p, even, even, few.from_q), made.pool, findings, Evaluations(), chained)


def _findings_of_kernels(problem: Problem, made: AdaptiveDraws) -> Iterator[Finding]:
    """What draws far along an axis of q say, where they do not only make weights more even."""
    if not made.further:
        return
    near, together = (smooth(each.log_p - each.log_r).log_weights for each in (made.plain, made.draws))
    (mean, sd), (new_mean, new_sd) = _moments(made.plain.x, near), _moments(made.draws.x, together)
    with np.errstate(divide="ignore", invalid="ignore"):  # where a single draw has all the weight
        moved = np.nan_to_num(np.maximum(np.abs(new_mean - mean) / sd, np.abs(np.log(new_sd / sd))))
    is_known = effective_sample_size(together[-made.further :]) > KNOWN_FAR * made.further
    is_known &= effective_sample_size(near) > EVEN_NEAR * len(made.plain)
    i = int(np.argmax(moved))
    if moved[i] > (MOVED_FAR if is_known else MOVED):
        name = problem.parameters.coordinate_names()[i]
        words = f"draws far from q along {name} (unconstrained), where it has few, move a mean or sd by {moved[i]:.0%}"
        yield Finding(Status.USABLE, words)


def _moments(x: np.ndarray, log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weighted means and standard deviations `(dim,)` of draws `(n, dim)`."""
    weights = np.exp(log_weights)
    mean = weights @ x
    return mean, np.sqrt(weights @ (x - mean) ** 2)


def _findings_of_chains(problem: Problem, q: Hierarchical, made: NestedChains) -> Iterator[Finding]:
    words = f"{_latents(problem, q)} integrated by Laplace's method for q; draws are those of chains from there"
    yield Finding(Status.RELIABLE, words)
    if made.lost > NOT_FOUND:
        words = f"{100 * made.lost:.0f} % of the draws of q have no density, or no concave one near them"
        yield Finding(Status.USABLE if made.lost <= MOSTLY_FOUND else Status.UNRELIABLE, words)
    if made.missed > MISSED:
        words = f"clusters do not make up the log density, by {made.missed:.2g} nats: it is not smooth along them"
        yield Finding(Status.UNRELIABLE, words)


def _findings(problem: Problem, q: Hierarchical, made: NestedDraws) -> Iterator[Finding]:
    names, split, seen = problem.parameters.coordinate_names(), q.split, made.seen
    yield Finding(Status.RELIABLE, f"{_latents(problem, q)} integrated by Laplace's method, corrected block by block")
    of_q = made.draws.from_q
    if (lost := 1 - seen.found[of_q].mean()) > NOT_FOUND:
        words = f"given {100 * lost:.0f} % of the draws of the hyper-parameters, no mode of the others was found"
        yield Finding(Status.UNRELIABLE, words)
    if not seen.found[of_q].any():
        return
    with np.errstate(over="ignore"):
        weights = np.exp(smooth(made.draws.log_p - made.draws.log_r).log_weights)
    weigh = seen.found & (weights > 0)  # elsewhere lines may leave the domain
    if not (missed := weights[weigh] @ seen.error[weigh]) <= MISSED:
        words = f"the blocks do not make up the log density, by {missed:.2g} nats: it is not smooth along them"
        yield Finding(Status.UNRELIABLE, words)
    of_block = lambda g: in_ranges([names[i] for i in split.in_blocks(split.latents)[g] if i < split.dim])
    if (share := seen.at_end.max()) > AT_END:
        words = f"{100 * share:.1f} % of the mass of {of_block(seen.at_end.argmax())} lies beyond the range looked at"
        yield Finding(Status.UNRELIABLE, words)
    if (share := seen.effective.min()) < FEW_LINES:
        words = f"{of_block(seen.effective.argmin())} is far from Gaussian, given the hyper-parameters"
        yield Finding(Status.USABLE, words)


def _latents(problem: Problem, q: Hierarchical) -> str:
    """The names of all that was integrated out."""
    names, latent = problem.parameters.coordinate_names(), np.sort(q.split.latents[q.split.used])
    return in_ranges([names[i] for i in latent])
