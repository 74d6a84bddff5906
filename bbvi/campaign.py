"""Many fits of one log density, in chunks of a fixed size: how they are solved, and how they are judged.

A fit is judged by few draws first, which suffice where q is close to the posterior (`diagnostics/screening.py`). What
is not clear then is looked at with more draws, in the words of the checks.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.algorithms import Algorithm, Pathfinder
from bbvi.algorithms.base import CONVERGED
from bbvi.algorithms.numerics.quasi_newton import Dense, Limited
from bbvi.diagnostics.checks.base import Evidence
from bbvi.diagnostics.screening import Cleared, Screening
from bbvi.diagnostics.verdict import Diagnosis, diagnose
from bbvi.diagnostics.weights import mean, sd, weigh
from bbvi.distributions import Distribution, LocationScale, MeanField
from bbvi.distributions.affine import Affine
from bbvi.draws.importance import WIDE_SHARE, WORKING_SET, Draws, evaluate
from bbvi.draws.random import Random, RandomStream, stream
from bbvi.estimators.noise import IID, Noise, Sobol
from bbvi.optimise import solve
from bbvi.outcome import Evaluations, Stop
from bbvi.policy import Regime
from bbvi.runtime.compiling import program
from bbvi.runtime.types import Array
from bbvi.start.paths import ITERATIONS
from bbvi.start.record import start_at
from bbvi.target.parameters import Parameters
from bbvi.target.problem import Problem

FITS_AT_ONCE = 256  # in one call of a compiled program
UNCLEAR_AT_ONCE = 32  # likewise of those, few as a rule, that the first round has not cleared
FEW_DRAWS = 256  # of q, to judge it by in the first round
FEW_PER_COORDINATE = 20  # without so many of them there is no such round
UNDER_WAY = 1  # calls that the device is busy with while the host looks at what came of another
SCREENING = Screening()

Group = tuple[np.ndarray, np.ndarray]  # some numbers, and the same with the last one repeated: one size compiles once


class Fit(NamedTuple):
    """What is kept of one fit."""

    q: LocationScale
    diagnosis: Diagnosis
    evaluations: Evaluations
    mean: Any  # in the structure of the parameters
    sd: Any


class Solutions(NamedTuple):
    """What was found for several fits; each leaf has a leading axis of them."""

    q: Distribution
    converged: Any  # (fits,) bool
    evaluations: Evaluations


@dataclass(frozen=True)
class Round:
    """How fits are solved and looked at.

    Fields:
        algorithm: deterministic, with no noise of its own.
        num: draws of q to judge it by; a quarter as many wider ones are added.
        noise: where they come from.
        fits: in one call of a program.
    """

    algorithm: Algorithm[Any]
    num: int
    noise: Noise
    fits: int

    @property
    def total(self) -> int:
        """Draws of both kinds."""
        return self.num + self.num // WIDE_SHARE

    def draws_at_once(self, problem: Problem) -> int:
        """Fits whose draws are evaluated together: a power of 2."""
        numbers = self.total * max(problem.evaluation_size, problem.dim)
        return min(self.fits, 1 << max(1, WORKING_SET // numbers).bit_length() - 1)


@dataclass(frozen=True)
class Campaign:
    """Many fits of one log density.

    Fields:
        problem: with the data of the first.
        data: of all, with a leading axis of fits.
        count: how many there are.
        rounds: the first is for all fits, the next for those that the one before has not cleared.
        seed: of all random numbers.
    """

    problem: Problem
    data: Any
    count: int
    rounds: tuple[Round, ...]
    seed: int

    def of(self, i: int) -> Problem:
        """The target of the i-th fit."""
        return replace(self.problem, data=jax.tree.map(lambda leaf: leaf[i], self.data))

    def run(self) -> list[Fit]:
        """All fits, each with its own verdict."""
        fits: dict[int, Fit] = {}
        spent: dict[int, Evaluations] = {}
        for each in self.rounds:
            left = np.array([i for i in range(self.count) if i not in fits])
            if len(left):
                fits |= self._fit(each, left, spent)
        return [fits[i] for i in range(self.count)]

    def _fit(self, how: Round, members: np.ndarray, spent: dict[int, Evaluations]) -> dict[int, Fit]:
        """Those of the fits that a round ends, by their numbers; in the last one these are all.

        Arguments:
            members: the numbers of the fits.
            spent: on each before, to which this round is added.
        """
        found, fits = self._solve(how, members), dict[int, Fit]()
        leaves, treedef = jax.tree.flatten(found.q)
        counts = zip(*(each.tolist() for each in vars(found.evaluations).values()), strict=True)
        for i, each in zip(members.tolist(), counts, strict=True):
            spent[i] = spent.get(i, Evaluations()) + Evaluations(*each) + Evaluations(how.total)
        for (rows, filled), draws in self._looked(how, members, found.q):
            cleared = SCREENING(self.problem.parameters, draws, found.converged[filled])
            for k, row in enumerate(rows.tolist()):
                if k not in cleared and how is not self.rounds[-1]:
                    continue
                i, q = int(members[row]), treedef.unflatten([leaf[row] for leaf in leaves])
                told = cleared[k] if k in cleared else self._judge(i, q, of_one(draws, k), found.converged[row])
                fits[i] = Fit(q, told.diagnosis, spent[i], told.mean, told.sd)
        return fits

    def _solve(self, how: Round, members: np.ndarray) -> Solutions:
        """What is found for some fits; arrays of NumPy."""
        rng = np.random.default_rng((self.seed, RandomStream.MANY_FIXED))
        draws = how.algorithm.needs(self.problem.dim).draws(rng)
        groups = in_groups(members, how.fits)
        found = ahead(_solve(how.algorithm, self.problem, self._rows(filled), draws) for _, filled in groups)
        joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *found)
        return jax.tree.map(lambda leaf: leaf[: len(members)], joined)

    def _looked(self, how: Round, members: np.ndarray, q: Distribution) -> Iterator[tuple[Group, Draws]]:
        """Draws of the q of some fits, a group of them after the other, each with its places among them.

        The fields of draws have a leading axis of the fits of a group, apart from `from_q`, which these share.

        Arguments:
            members: the numbers of the fits.
            q: theirs, each leaf with a leading axis of them.
        """
        groups = in_groups(np.arange(len(members)), how.fits)
        of = lambda rows: jax.tree.map(lambda leaf: leaf[rows], q)
        made = ahead(self._look(how, members[filled], of(filled)) for _, filled in groups)
        from_q = np.arange(how.total) < how.num
        for group, columns in zip(groups, made, strict=True):
            yield group, Draws(*columns, from_q=from_q)

    def _look(self, how: Round, members: np.ndarray, q: Distribution) -> tuple[Array, ...]:
        random = _Streams([stream(self.seed, RandomStream.MANY_VERDICT, int(i)) for i in members])
        dim = self.problem.dim
        sizes = (how.num, dim), (how.num // WIDE_SHARE, MeanField.standard(dim).widened().noise_dim)
        noise = [how.noise(random, len(members), *size) for size in sizes]
        return _evaluate(self.problem, self._rows(members), q, *noise, how.draws_at_once(self.problem))

    def _rows(self, members: np.ndarray) -> Any:
        return jax.tree.map(lambda leaf: leaf[members], self.data)

    def pools(self, members: Sequence[int], fits: Sequence[Fit]) -> list[Draws]:
        """The draws that some fits were judged by.

        Arguments:
            members: the numbers of the fits.
            fits: all of them.
        """
        pools: dict[int, Draws] = {}
        for how in self.rounds:
            mine = np.array([i for i in members if fits[i].diagnosis.num_draws == how.total], int)
            if len(mine):
                q = jax.tree.map(lambda *leaves: np.stack(leaves), *(fits[i].q for i in mine))
                for (rows, _), draws in self._looked(how, mine, q):
                    pools |= {i: of_one(draws, k) for k, i in enumerate(mine[rows].tolist())}
        return [pools[i] for i in members]

    def _judge(self, i: int, q: LocationScale, draws: Draws, converged: bool) -> Cleared:
        """The verdict of the checks on a fit, and the moments of its draws."""
        stop = Stop.CONVERGED if converged else Stop.STALLED
        evidence = Evidence(problem=self.of(i), q=q, start=start_at(q.affine), draws=draws, stop=stop)
        diagnosis = diagnose(evidence)
        weights = weigh(draws, diagnosis, evidence.log_weights)
        values, weights = self.problem.parameters.structure(draws.x[weights > 0]), weights[weights > 0]
        moments = [jax.tree.map(lambda leaf, of=of: of(leaf, weights), values) for of in (mean, sd)]
        return Cleared(diagnosis, *moments)


def rounds(
    quick: Algorithm[Any], thorough: Algorithm[Any], num_checks: int, parameters: Parameters
) -> tuple[Round, ...]:
    """A quick one with few draws for what is easy, where screening can tell, and a thorough one for all else.

    Arguments:
        num_checks: draws of q by which the latter judges.
    """
    if not (FEW_PER_COORDINATE * parameters.dim <= FEW_DRAWS < num_checks and SCREENING.suits(parameters, num_checks)):
        return (Round(thorough, num_checks, IID(), FITS_AT_ONCE),)
    return Round(quick, FEW_DRAWS, Sobol(), FITS_AT_ONCE), Round(thorough, num_checks, IID(), UNCLEAR_AT_ONCE)


def of_one(draws: Draws, k: int) -> Draws:
    """Those of the k-th of several fits, from draws whose fields have a leading axis of these."""
    *columns, from_q = draws
    return Draws(*(column[k] for column in columns), from_q=from_q)


def in_groups(numbers: np.ndarray, size: int) -> list[Group]:
    """`numbers` in groups of a size."""
    parts = [numbers[start : start + size] for start in range(0, len(numbers), size)]
    return [(part, np.pad(part, (0, size - len(part)), mode="edge")) for part in parts]


def ahead(calls: Iterable[Any]) -> Iterator[Any]:
    """What came of calls of programs, on the host, while the device goes on with the next ones."""
    waiting = deque[Any]()
    for made in calls:
        waiting.append(made)
        if len(waiting) > UNDER_WAY:
            yield jax.device_get(waiting.popleft())
    yield from map(jax.device_get, waiting)


class _Streams:
    """Streams of random numbers side by side: the first axis of a shape counts them."""

    def __init__(self, streams: Sequence[Random]) -> None:
        self._streams, self.xp = streams, streams[0].xp

    def normal(self, shape: Sequence[int]) -> Array:
        return self.xp.stack([each.normal(shape[1:]) for each in self._streams])

    def bits(self, shape: Sequence[int]) -> Array:
        return self.xp.stack([each.bits(shape[1:]) for each in self._streams])


@program(static_argnames="algorithm")
def _solve(algorithm: Algorithm[Any], problem: Problem, data: Any, draws: Array) -> Solutions:
    dim, dtype = problem.dim, draws.dtype
    pathfinder = Pathfinder(num_paths=1, num_draws=0)
    kind = Dense if Regime.of(dim).dense_start else Limited
    origin = pathfinder.from_points(jnp.zeros((1, dim), dtype), jnp.zeros((0, dim), dtype), kind)
    structure = algorithm.needs(dim).family.standard(dim, dtype)

    def one(data: Any) -> Solutions:
        local = replace(problem, data=data)
        path = solve(pathfinder, local, origin, ITERATIONS)
        loc, curvature = jax.tree.map(lambda leaf: leaf[0], (path.state.paths.x, path.state.paths.curvature))
        q = structure.around(Affine(loc, curvature.scale()))
        end = solve(algorithm, local, algorithm.init(local, q, draws))
        converged = algorithm.status(end.state) == CONVERGED
        spent = jax.tree.map(jnp.add, path.evaluations, end.evaluations)
        return Solutions(algorithm.extract(end.state), converged, spent)

    return jax.vmap(one)(data)


@program(static_argnames="at_once")
def _evaluate(
    problem: Problem, data: Any, q: LocationScale, narrow: Array, wide: Array, at_once: int
) -> tuple[Array, ...]:
    # In coordinates in which q is N(0, I), no triangular system has to be solved.
    standard = MeanField.standard(problem.dim, narrow.dtype)

    def one(data: Any, q: LocationScale, narrow: Array, wide: Array) -> tuple[Array, ...]:
        local = replace(problem, data=data).in_coordinates(q.affine)
        y, *densities = evaluate.function(local, standard, narrow, wide, len(narrow) + len(wide))
        log_volume = q.scale.log_det()
        return q.affine.draws(y), *(each - log_volume for each in densities)

    return jax.lax.map(lambda each: one(*each), (data, q, narrow, wide), batch_size=at_once)
