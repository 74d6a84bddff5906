"""Gaussians along quasi-Newton paths: as an algorithm of its own, and as the way to where others start."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.algorithms.base import Algorithm, Info, Initialisation, Needs, Result, extract, status, with_entry
from bbvi.algorithms.numerics.draws import antithetic, check_pairs
from bbvi.algorithms.numerics.paths import Path, advance, at_start, look_ahead, missing_entropy
from bbvi.algorithms.numerics.quasi_newton import Compact, Dense, Limited
from bbvi.distributions import Distribution, FullRank, LocationScale, MeanField, Mixture, Spiked
from bbvi.outcome import Evaluations, Finding, Status
from bbvi.policy import Regime
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

BOX = 2.0  # starts lie in a box of this half-width around the first
LEFT_OUT = 30.0  # nats below the best ELBO, from which a path counts as having ended elsewhere


class PathfinderState(NamedTuple):
    """State of `Pathfinder`."""

    paths: Path  # each leaf with a leading axis of paths
    noise: Array  # (num_draws, dim) for the ELBOs
    judged: Array  # () bool, whether ELBOs are of concern; else paths end at the mode

    @property
    def height(self) -> Array:
        """What each path has reached `(paths,)`: its best ELBO without constants, or the log density at its end."""
        value = self.paths.value
        return value if self.paths.best is None else jnp.where(self.judged, self.paths.best[0], value)


@dataclass(frozen=True, kw_only=True)
class Pathfinder(Algorithm[PathfinderState]):
    """Pathfinder: the best Gaussian, by ELBO, on each of several quasi-Newton paths.

    Every path climbs the log density from its own start; at each iterate x, with inverse Hessian estimate H, the
    Gaussian N(x + H g, H) is judged on draws that all iterates share. With several paths the result is the mixture of
    their best Gaussians, with equal weights, so that importance weights are those against the mixture. Paths that found
    no density, or ended in much lower density than the best, are left out and counted in the verdict.

    H is dense up to 200 coordinates ("full_rank"), and above it a diagonal with the last ten pairs ("spiked").

    Arguments:
        num_paths: run side by side.
        num_draws: for each ELBO, in antithetic pairs: an even number. With 0 paths end at the mode, and the Gaussian is
            that of the quadratic expansion there, whose ELBO is Laplace's estimate of the log evidence.

    Reference: Zhang, Carpenter, Gelman and Vehtari 2022 (arXiv:2108.03782). Here draws are shared and few, a path ends
    when its ELBO no longer improves, and a path's iteration is one batch of evaluations.
    """

    num_paths: int = 4
    num_draws: int = 4
    name = "pathfinder"

    def __post_init__(self) -> None:
        if self.num_paths < 1:
            raise ValueError(f"num_paths={self.num_paths} must be at least 1.")
        check_pairs(self.num_draws or None)

    def needs(self, dim: int, q: Distribution | None = None) -> Needs:
        def draws(rng: np.random.Generator) -> tuple[Array, Array]:
            offsets = rng.uniform(-BOX, BOX, (self.num_paths, dim))
            offsets[0] *= 1e-3  # the start itself, unless that is exactly a saddle point
            pairs = (self.num_paths - 1) // 2
            offsets[1 : 1 + pairs] = -offsets[1 + pairs : 1 + 2 * pairs]  # likelier to end in different modes
            return offsets.astype(jax.dtypes.canonicalize_dtype(float)), antithetic(rng, self.num_draws, dim)

        return Needs(
            family=FullRank if Regime.of(dim).dense_start else Spiked,
            families=(FullRank, MeanField, Spiked),
            start=Initialisation.POINT,
            draws=draws,
        )

    def init(self, problem: Problem, q: Distribution, draws: tuple[Array, Array]) -> PathfinderState:
        offsets, noise = draws
        kind = Dense if FullRank.holds(q) else Compact if Spiked.holds(q) else Limited
        return self.from_points(q.mean() + q.sd() * offsets, noise, kind)

    def from_points(self, xs: Array, noise: Array, kind: type[Dense | Limited], judged: bool = True) -> PathfinderState:
        """The state before the first step from the points `xs` `(paths, dim)`.

        Arguments:
            judged: whether paths are judged by the draws, if there are any.
        """
        judges = self.num_draws > 0
        paths = at_start(xs, kind.identity(xs.shape[1], xs.dtype), judged=judges)
        return PathfinderState(paths, noise, np.asarray(judges and judged))

    def step(self, noise: Any, problem: Problem, state: PathfinderState) -> tuple[PathfinderState, Info]:
        dim, wary = problem.dim, problem.is_irregular
        compact = isinstance(state.paths.curvature, Compact)  # whose triangular solves are not to be batched
        each = jax.lax.map if compact else lambda function, *arguments: jax.vmap(function)(*arguments)
        at = each(lambda path: look_ahead(state.noise, path, wary), state.paths)
        count = jnp.where(state.judged, at.points.shape[1], 1)  # a candidate, and then draws if these are to judge
        found = _evaluate(problem, at.points, count)
        paths = (
            each(lambda given: advance(given[0], given[1], *given[2], judged=state.judged), (state.paths, at, found))
            if compact
            else jax.vmap(partial(advance, judged=state.judged))(state.paths, at, *found)
        )
        state = state._replace(paths=paths)
        elbo = state.height.max() + missing_entropy(state.noise, dim)
        made = jnp.asarray(len(paths.value) * count, int)
        zero = jnp.zeros((), int)
        return state, Info(elbo, jnp.zeros_like(elbo), zero, Evaluations(zero, made, zero))

    def status(self, state: PathfinderState) -> Array:
        ended, found = ~jnp.asarray(state.paths.running).any(), jnp.isfinite(state.height).any()
        return status(ended & found, stalled=ended)

    def extract(self, state: PathfinderState) -> Distribution:
        """The best Gaussian on each path, in a mixture of as many components as there are paths."""
        _, loc, curvature = state.paths.best
        gaussian = lambda best: LocationScale(best[0], best[1].scale())
        return Mixture(jax.lax.map(gaussian, (loc, curvature)), jnp.zeros(len(loc), loc.dtype))

    def finish(self, problem: Problem, state: PathfinderState) -> Result:
        elbo = np.asarray(state.paths.best[0])
        kept = np.isfinite(elbo) & (elbo > elbo.max() - LEFT_OUT)
        mixture = jax.device_get(extract(self, state))
        if not kept.any():
            return Result((mixture.members[0],))
        mixture = jax.tree.map(lambda leaf: leaf[kept], mixture)
        q = mixture.members[0] if len(mixture.members) == 1 else mixture
        return Result((q,), _about_paths(elbo))


def _evaluate(problem: Problem, points: Array, count: Array) -> tuple[Array, Array, Array]:
    """Values, gradients and whether they are finite at the first `count` of `(paths, n, dim)`; 0 and not at others."""
    paths, n, _ = points.shape
    if n == 1:
        value, gradient, finite = problem.values_and_gradients(points[:, 0])
        return value[:, None], gradient[:, None], finite[:, None]

    def fill(i: Array, made: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        found = problem.values_and_gradients(points[:, i])
        return tuple(with_entry(all_of, i, some, axis=1) for all_of, some in zip(made, found, strict=True))

    nothing = jnp.zeros((paths, n), points.dtype), jnp.zeros_like(points), jnp.zeros((paths, n), bool)
    values, gradients, finite = jax.lax.fori_loop(0, count, fill, nothing)
    return values, gradients, finite


def _about_paths(elbo: np.ndarray) -> tuple[Finding, ...]:
    nowhere, poor = int(np.sum(~np.isfinite(elbo))), int(np.sum(np.isfinite(elbo) & (elbo <= elbo.max() - LEFT_OUT)))
    findings = []
    if nowhere:
        reason = f"{nowhere} of {len(elbo)} paths met no point at which the log density is finite, and were left out"
        findings.append(Finding(Status.RELIABLE, reason))
    if poor:
        reason = f"{poor} of {len(elbo)} paths ended more than {LEFT_OUT:.0f} nats below the best, and were left out"
        findings.append(Finding(Status.RELIABLE, reason))
    return tuple(findings)
