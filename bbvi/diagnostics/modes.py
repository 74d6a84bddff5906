"""Modes of a posterior, as far as paths end in several; then further paths are climbed, while these find new ones.

Half of the further paths begin at random points, as those of the start do; the others where each coordinate is that of
one mode or another, and so meet the modes of coordinates that have several each.

The share of paths that ended in a mode which no other path met estimates what all modes together attract that were not
met at all (Good 1953, Biometrika 40:237).
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bbvi.distributions.affine import Affine
from bbvi.draws.importance import affordable, log_densities_at
from bbvi.draws.random import RandomStream
from bbvi.outcome import NOTHING, Evaluations, Finding, Status
from bbvi.runtime.types import Array
from bbvi.start.bulk import Polished, narrowed, polish
from bbvi.start.paths import climb
from bbvi.start.record import Hints, Start
from bbvi.start.search import NUM_PATHS, first_points
from bbvi.target.problem import Problem

RIVAL = 7.0  # nats by which another mode's ELBO may fall short and still matter: its weight is then e^-7
SUSPECT = 30.0  # the same before the other mode has been polished
MODES_APART = 3.0  # standard deviations between the centres of two modes
NARROWER = 5.0  # nats of volume, by which a mode in the midst of another one is smaller
BARRIER = 1.0  # nats by which the log density dips between them: it does not along a funnel
MOST_PATHS, MOST_MODES = 256, 64  # in search of modes: there is no end to those of a neural network
QUIET = 6  # paths for each mode, none of which found another one, before the search ends
UNSEEN = 0.1  # share of paths to modes that were not met, above which there are others


class Modes(NamedTuple):
    """Modes that matter."""

    gaussians: list[Affine]  # of largest ELBO near each
    elbos: list[float]
    met: list[int]  # paths that ended near each
    evaluations: Evaluations

    @property
    def unseen(self) -> float:
        """The share of paths that would end in modes that were not met, about."""
        return self.met.count(1) / max(sum(self.met), 1)

    @property
    def too_many(self) -> bool:
        """Whether the search ended for their number."""
        return len(self.met) > MOST_MODES

    def findings(self) -> Iterator[Finding]:
        """What speaks against having met all of them."""
        if self.unseen > UNSEEN or self.too_many:
            found = f"{sum(self.met)} paths ended in {len(self.met)} modes, in {self.met.count(1)} of them only once"
            yield Finding(
                Status.UNRELIABLE,
                f"{found}: there are others",
                "break a symmetry with ordered constraints, or reparameterise",
                inherent=True,
            )


def find_modes(problem: Problem, start: Start, gaussian: Affine, elbo: float, seed: int) -> Modes:
    """Gaussians of largest ELBO near the ends of paths, as far as they lie apart, and their ELBOs.

    Arguments:
        gaussian, elbo: the first of them.
        seed: of the draws on which others are found, and of where further paths begin.
    """
    search = _Search(problem, gaussian, elbo, np.random.default_rng((seed, RandomStream.MODES)))
    search.see(start.paths, start.elbos)
    if start.spike is not None and start.spike.is_dense and not start.sampled:
        search.see_spike(start.spike)
    several = len(search.gaussians) > 1 or (search.lesser and search.met[0] < 2)  # it was luck to meet the best one
    if several and gaussian.is_dense and not start.sampled:
        search.go_on()
    return Modes(search.gaussians, search.elbos, search.met, search.spent)


class _Search:
    """Modes seen so far."""

    def __init__(self, problem: Problem, gaussian: Affine, elbo: float, rng: np.random.Generator) -> None:
        self.problem, self.rng, self.spent = problem, rng, NOTHING
        self.gaussians, self.elbos, self.met = [gaussian], [elbo], [0]
        self.lesser: list[Affine] = []  # ends of paths that do not matter
        self.height = float(log_densities_at(problem, np.asarray(gaussian.loc)[None])[0])

    def go_on(self) -> None:
        """Climb further paths while they find new modes, or some were met but once."""
        hints, quiet, most = Hints(rng=self.rng), 0, affordable(self.problem)
        for i in range(MOST_PATHS // NUM_PATHS):
            known = len(self.gaussians)
            xs = self.crossed(NUM_PATHS) if i % 2 else first_points(self.problem, hints)
            ends = climb(self.problem, xs, hints, judged=False)
            self.spent += ends.evaluations
            self.see(ends.gaussians, ends.elbo)
            quiet = 0 if len(self.gaussians) > known else quiet + NUM_PATHS
            settled = quiet >= QUIET * len(self.gaussians) and 1 not in self.met
            if settled or self.spent.gradients > most or len(self.gaussians) > MOST_MODES:
                return

    def see(self, paths: Sequence[Affine], elbos: np.ndarray) -> None:
        """Count the paths that end near a mode, and find the Gaussian near each that is new."""
        if not paths:
            return
        heights = log_densities_at(self.problem, np.stack([np.asarray(path.loc) for path in paths]))
        for path, elbo, height in zip(paths, elbos, heights, strict=True):
            falls_short = min(self.elbos[0] - elbo, self.height - height)  # curvature along a path can be far off
            if path.is_dense and falls_short < SUSPECT:
                self._meet(path)

    def see_spike(self, spike: Affine) -> None:
        """Find the Gaussian of a narrow mode in the midst of another one, where it holds as much."""
        polished = polish(self.problem, narrowed(spike), self.rng)
        self.spent += polished.evaluations
        narrower = self.gaussians[0].scale.log_det() - polished.gaussian.scale.log_det()
        amid = self.gaussians[0].distance(polished.gaussian.loc) < MODES_APART  # the neck of a funnel is further off
        if amid and narrower > NARROWER and polished.elbo > self.elbos[0] - RIVAL:
            self._add(polished)
            self.met[-1] = NUM_PATHS  # it was met at once

    def _add(self, mode: Polished) -> None:
        self.gaussians.append(mode.gaussian)
        self.elbos.append(mode.elbo)
        self.met.append(0)

    def _meet(self, path: Affine) -> None:
        if (at := self._near(path.loc)) is None and not any(
            _same(self.problem, path.loc, each) for each in self.lesser
        ):
            polished = polish(self.problem, path, self.rng)
            self.spent += polished.evaluations
            at = self._near(polished.gaussian.loc)
            if at is None and polished.elbo > self.elbos[0] - RIVAL:
                at = len(self.gaussians)
                self._add(polished)
            elif at is None:
                self.lesser.append(polished.gaussian)
        if at is not None:
            self.met[at] += 1

    def _near(self, loc: Array) -> int | None:
        """The number of the mode that a point belongs to, None for none."""
        nearest = sorted(range(len(self.gaussians)), key=lambda i: float(self.gaussians[i].distance(loc)))
        return next((i for i in nearest if _same(self.problem, loc, self.gaussians[i])), None)

    def crossed(self, num: int) -> np.ndarray:
        """Points whose coordinates are those of one mode or another, with noise of that mode, `(num, dim)`."""
        dim, dtype = self.problem.dim, np.asarray(self.gaussians[0].loc).dtype
        noise = self.rng.standard_normal((len(self.gaussians), num, dim)).astype(dtype)
        draws = np.stack([np.asarray(mode.draws(each)) for mode, each in zip(self.gaussians, noise, strict=True)])
        chosen = self.rng.integers(len(draws), size=(1, num, dim))
        return np.take_along_axis(draws, chosen, axis=0)[0]


def _same(problem: Problem, loc: Array, mode: Affine) -> bool:
    """Whether a point is near a mode, or on this side of a barrier."""
    return bool(mode.distance(loc) <= MODES_APART) or barrier(problem, loc, mode.loc) <= BARRIER


def barrier(problem: Problem, a: Array, b: Array) -> float:
    """How far the log density falls below both ends on the way from a to b, in nats."""
    values = log_densities_at(problem, np.linspace(a, b, 16))
    return float(min(values[0], values[-1]) - values.min())
