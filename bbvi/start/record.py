"""What is known before a fit starts, and the start that is found."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bbvi.distributions.affine import Affine
from bbvi.distributions.scales import Diagonal
from bbvi.optimise import Callback
from bbvi.outcome import NOTHING, Evaluations

Prior = Callable[[int], np.ndarray | None]  # draws of the prior, `(n, dim)` for n, or None where it is not known


@dataclass(frozen=True)
class Hints:
    """What is known before a start is sought.

    Fields:
        point: where to look, `(dim,)`, or None for the origin and random points in [-2, 2]^dim.
        prior: further points to try. They come first where far out a point may take for ever.
        why: what is said of points `(n, dim)` at none of which the density is finite, or nothing.
        rng: for points and draws.
        until: time of `time.perf_counter()`, in seconds, at which to stop with what there is.
        callbacks: told how far the paths have come.
    """

    point: np.ndarray | None = None
    prior: Prior = lambda num: None
    why: Callable[[np.ndarray], str] = lambda xs: ""
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    until: float = np.inf
    callbacks: Sequence[Callback] = ()


class Start(NamedTuple):
    """A Gaussian to start from, and what else was seen; arrays of NumPy."""

    gaussian: Affine
    paths: tuple[Affine, ...]  # the best Gaussian on each path, those of largest ELBO first
    elbos: np.ndarray  # (paths,) of these in nats, descending, -inf for a path that failed
    evaluations: Evaluations
    spike: Affine | None = None  # the mode that paths end in, where it is so narrow that a fit is to begin elsewhere
    sampled: bool = False  # whether the paths have seen some rows of the data only

    def moved(self, gaussians: tuple[Affine, ...], elbos: np.ndarray) -> "Start":
        """A start at the first of these Gaussians, the ends of later paths, with their ELBOs in nats `(paths,)`."""
        paths, heights = (*gaussians, *self.paths), np.append(elbos, self.elbos)
        order = np.argsort(-heights, kind="stable")
        return self._replace(gaussian=gaussians[0], paths=tuple(paths[i] for i in order), elbos=heights[order])

    def around(self, num: int) -> np.ndarray:
        """The mean and draws of the Gaussian, always the same, `(num, dim)`."""
        noise = np.random.default_rng(0).standard_normal((num, self.gaussian.dim)).astype(self.gaussian.loc.dtype)
        noise[0] = 0
        return np.asarray(self.gaussian.draws(noise))


def start_at(gaussian: Affine, evaluations: Evaluations = NOTHING) -> Start:
    """A start that is known, without paths."""
    return Start(gaussian, (), np.zeros(0), evaluations)


def start_at_point(x: np.ndarray, evaluations: Evaluations) -> Start:
    """A start at N(x, I)."""
    return start_at(Affine(x, Diagonal(np.zeros_like(x))), evaluations)
