"""Modes of a posterior, as far as the paths of the start ended in several."""

from collections.abc import Sequence

import numpy as np

from bbvi.distributions.affine import Affine
from bbvi.draws.importance import log_densities
from bbvi.draws.random import RandomStream
from bbvi.runtime.types import Array
from bbvi.start.bulk import polish
from bbvi.start.record import Start
from bbvi.target.problem import Problem

RIVAL = 7.0  # nats by which another mode's ELBO may fall short and still matter: its weight is then e^-7
SUSPECT = 30.0  # the same before the other mode has been polished
MODES_APART = 3.0  # standard deviations between the centres of two modes
BARRIER = 1.0  # nats by which the log density dips between them: it does not along a funnel


def find_modes(
    problem: Problem, start: Start, gaussian: Affine, elbo: float, seed: int
) -> tuple[list[Affine], list[float]]:
    """Gaussians of largest ELBO near the ends of the start's paths, as far as they lie apart, and their ELBOs.

    Arguments:
        gaussian, elbo: the first of them.
        seed: of the draws on which others are found.
    """
    modes, elbos = [gaussian], [elbo]
    for path, path_elbo in zip(start.paths, start.elbos, strict=True):
        if not path.is_dense or path_elbo < elbo - SUSPECT or not _apart(problem, path.loc, modes):
            continue
        polished = polish(problem, path, np.random.default_rng((seed, RandomStream.MODES)))
        if polished.elbo > elbo - RIVAL and _apart(problem, polished.gaussian.loc, modes):
            modes.append(polished.gaussian)
            elbos.append(polished.elbo)
    return modes, elbos


def _apart(problem: Problem, loc: Array, modes: Sequence[Affine]) -> bool:
    """Whether a point is far from all modes, and beyond a barrier."""
    far = all(mode.distance(loc) > MODES_APART for mode in modes)
    return far and all(_barrier(problem, loc, mode.loc) > BARRIER for mode in modes)


def _barrier(problem: Problem, a: Array, b: Array) -> float:
    """How far the log density falls below both ends on the way from a to b, in nats."""
    values = log_densities(problem, np.linspace(a, b, 16))
    return float(min(values[0], values[-1]) - values.min())
