"""Mass too far away for any draw, as an improper posterior has beside a mode.

It is looked for on lines through draws, along coordinates and principal axes. Nearly every line through a random point
holds a finite mass if the density is proper, whatever its shape; one through the centre need not, for it may follow the
neck of a funnel. And by Chebyshev's inequality a share of 1/900 at most, on average over draws, lies beyond 30 standard
deviations, however heavy the tails.
"""

from dataclasses import dataclass

import jax
import numpy as np

from bbvi.diagnostics.checks.base import Check, Evidence
from bbvi.diagnostics.checks.ran_off import PROPER
from bbvi.distributions.affine import Affine
from bbvi.distributions.scales import Diagonal, Triangular
from bbvi.draws.importance import Draws, log_densities_at
from bbvi.draws.pareto import resample
from bbvi.outcome import Finding, Status
from bbvi.policy import Regime
from bbvi.start.bulk import LOOKS, look_around
from bbvi.start.record import Start
from bbvi.target.problem import Problem


@dataclass(frozen=True, kw_only=True)
class RemoteMass(Check):
    """Whether much of the mass lies too far away for any draw.

    The check is silent where the log density is costly, or the draws are too few to stand for the posterior.
    """

    # Further than this many standard deviations from a draw nothing is left of a posterior that q fits.
    beyond: float = 30.0
    # Mass is looked for up to this many standard deviations.
    farthest: float = 1e12
    # The check is silent where the draws are worth no more independent ones than this: the weights say enough.
    effective: int = 100
    # There is no mass where its log, relative to that near the draw, is not above this many nats.
    slight: float = -10.0
    # At most this many directions are looked along.
    lines: int = 64
    # This many of them are the widest principal axes; the others are coordinates.
    axes: int = 4
    # Principal axes are known when there are this many draws for each coordinate.
    draws_per_coordinate: int = 10
    # The points on all lines hold at most this many numbers, which limits the directions further.
    numbers: int = 2**22
    # At most this many directions, those with the most mass far away, are looked at closely.
    suspects: int = 4
    # A close look is along lines through this many draws.
    witnesses: int = 8
    # A close look is at this many distances on each side of a draw.
    radii: int = 32
    # The first of these distances has this many standard deviations.
    nearest: float = 1e-4
    # The mass is infinite unless p r falls over this many of the last distances, which span six powers of ten.
    falling: int = 12
    # q is wrong when this share of the mass lies beyond all draws.
    elsewhere: float = 0.1

    @np.errstate(all="ignore")  # far away numbers overflow
    def __call__(self, evidence: Evidence) -> Finding | None:
        """The finding about the first direction in which there is such mass."""
        problem, draws = evidence.problem, evidence.draws
        costly = 2 * draws.from_q.sum() <= Regime.of(problem.dim).verdict_draws
        few = evidence.effective_sample_size <= self.effective
        if few or costly or problem.is_long or problem.is_irregular or problem.weight is not None:
            return None
        x = evidence.of_q.x
        directions = self._directions(problem, x)[: max(1, self.numbers // (LOOKS * problem.dim))]
        num = max(len(directions), self.witnesses)
        draws = draws.take(resample(evidence.rng(), evidence.log_weights, num))
        look = _Line(problem, evidence.start)
        radii = np.array([self.beyond, 1e3, 1e6, self.farthest])
        far = np.array([look(draws, i, step, radii).max() for i, step in enumerate(directions)])
        for i in np.argsort(-far, kind="stable")[: self.suspects]:
            finding = self._beyond_draws(evidence, look, draws, directions[i]) if far[i] > self.slight else None
            if finding is not None:
                return finding
        return None

    def _directions(self, problem: Problem, x: np.ndarray) -> np.ndarray:
        """Steps `(m, dim)` of one standard deviation of the draws `x` `(n, dim)`.

        They are along coordinates, taken from each parameter in turn, and along principal axes.
        """
        (n, dim), spread = x.shape, x.std(axis=0)
        turn = np.concatenate([np.arange(np.prod(shape, dtype=int)) for shape in problem.parameters.free_shapes])
        chosen = np.argsort(turn, kind="stable")[: self.lines]
        steps = np.zeros((len(chosen), dim))
        steps[np.arange(len(chosen)), chosen] = spread[chosen]
        if dim == 1 or dim > n // self.draws_per_coordinate:
            return steps
        variances, vectors = np.linalg.eigh(np.cov(x / spread, rowvar=False))
        widest = np.sqrt(variances[-self.axes :]) * vectors[:, -self.axes :]
        return np.concatenate([steps[: self.lines - self.axes], widest.T * spread])

    def _beyond_draws(self, evidence: Evidence, look: "_Line", draws: Draws, step: np.ndarray) -> Finding | None:
        """The finding if much of the mass on lines through draws, along `step` `(dim,)`, lies beyond all of them."""
        radii = np.geomspace(self.nearest, self.farthest, self.radii)
        at = np.array([np.logaddexp(*look(draws, i, step, radii)) for i in range(self.witnesses)])  # (draws, radii)
        within = radii < self.beyond
        centre = np.full((self.witnesses, 1), np.log(2 * self.nearest / np.log(radii[1] / radii[0])))
        near = np.logaddexp.reduce(np.concatenate([at[:, within], centre], axis=1), axis=1)
        far = np.logaddexp.reduce(at[:, ~within], axis=1)
        shares = np.exp(far - np.logaddexp(near, far))
        if not (shares.mean() > self.elsewhere and np.median(shares) > self.elsewhere / 2):
            return None
        coordinate = int(np.argmax(np.abs(step) / evidence.of_q.x.std(axis=0)))
        name = evidence.coordinate_name(coordinate)
        if _repeats(evidence.problem, draws.x[: self.witnesses], coordinate):
            return _periodic(name)
        if np.mean(at[:, -1] >= at[:, -self.falling]) > 0.5:
            words = (
                f"along a line, mostly {name} (unconstrained), the log density stays level up to {self.farthest:.0e} "
                "standard deviations: the posterior has infinite mass"
            )
            return Finding(Status.UNRELIABLE, words, PROPER, inherent=True)
        return Finding(
            Status.UNRELIABLE,
            f"about {100 * shares.mean():.0f} % of the posterior lies more than {self.beyond:.0f} standard deviations "
            f"of q away along a line, mostly {name} (unconstrained)",
            "check that the priors are as narrow as they should be, or give init= a point where the posterior has its "
            "mass",
        )


class _Line:
    """Looks at a log density along lines through draws, by a program that the start has compiled as a rule."""

    def __init__(self, problem: Problem, start: Start) -> None:
        self._problem = problem
        zeros = np.zeros(problem.dim, start.gaussian.loc.dtype)
        dense = any(path.is_dense for path in start.paths)
        self._scale = jax.device_put(Triangular(np.diag(zeros)) if dense else Diagonal(zeros))

    def __call__(self, draws: Draws, i: int, step: np.ndarray, radii: np.ndarray) -> np.ndarray:
        """The log of the mass `(2, n)` near radii `(n,)` times `step` `(dim,)` on both sides of a draw.

        It is p r, in units of one step and of p at the draw.
        """
        offsets = np.concatenate([-radii, radii])
        x = draws.x[i]
        noise = (offsets[:, None] * step).astype(x.dtype)
        parts = [noise[k : k + LOOKS] for k in range(0, len(noise), LOOKS)]
        values = np.concatenate([look_around(self._problem, Affine(x, self._scale), part)[0] for part in parts])
        masses = values.astype(float) - draws.log_p[i] + np.log(np.abs(offsets))
        lost = (x + noise == x).all(axis=1)  # steps lost in rounding
        return np.where(lost, -np.inf, masses).reshape(2, -1)


def _repeats(problem: Problem, x: np.ndarray, coordinate: int) -> bool:
    """Whether the density is the same one turn of a coordinate further, at all of the draws `x` `(n, dim)`."""
    further = np.array(x)
    further[:, coordinate] += 2 * np.pi
    here, there = (log_densities_at(problem, points) for points in (x, further))
    return bool(np.allclose(here, there, rtol=1e-4, atol=1e-3))


def _periodic(name: str) -> Finding:
    return Finding(
        Status.UNRELIABLE,
        f"the log density repeats itself with every turn of 2 pi of {name} (unconstrained)",
        f"say that {name.split('[')[0]} is an angle: numpyro.distributions.constraints.circular in constraints=",
        inherent=True,
    )
