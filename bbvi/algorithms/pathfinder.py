"""Gaussians along quasi-Newton paths: as an algorithm of its own."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.algorithms.base import Algorithm, Begin, Info, Result, extract
from bbvi.algorithms.climb import DENSE, Path, advance, begin, constant, look_ahead
from bbvi.algorithms.quasi_newton import Compact, Dense
from bbvi.distributions import Distribution, FullRank, Mixture, Spiked
from bbvi.outcome import Finding, Status
from bbvi.problem import Problem

Array = Any
RADIUS = 2.0  # starts lie in a box of this half-width around the first
POOR = 30.0  # nats below the best ELBO, from which a path counts as having ended elsewhere


class PathfinderState(NamedTuple):
    """State of `Pathfinder`."""

    paths: Path  # each leaf with a leading axis of paths
    noise: Array  # (num_draws, dim) for the ELBOs


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
        num_draws: for each ELBO, in antithetic pairs: an even number.

    Reference: Zhang, Carpenter, Gelman and Vehtari 2022 (arXiv:2108.03782). Here draws are shared and few, a path ends
    when its ELBO no longer improves, and a path's iteration is one batch of evaluations.
    """

    num_paths: int = 4
    num_draws: int = 4
    name = "pathfinder"
    families = (FullRank, Spiked)

    def __post_init__(self) -> None:
        if self.num_paths < 1:
            raise ValueError(f"num_paths={self.num_paths} must be at least 1.")
        if self.num_draws < 2 or self.num_draws % 2:
            raise ValueError(f"num_draws={self.num_draws} must be even and positive: draws come in antithetic pairs.")

    @property
    def begins(self) -> Begin:
        return Begin.POINT

    def default_family(self, dim: int) -> type[Distribution]:
        return FullRank if dim <= DENSE else Spiked

    def draws(self, rng: np.random.Generator, dim: int) -> tuple[Array, Array]:
        offsets = rng.uniform(-RADIUS, RADIUS, (self.num_paths, dim))
        offsets[0] *= 1e-3  # the start itself, unless that is exactly a saddle point
        pairs = (self.num_paths - 1) // 2
        offsets[1 : 1 + pairs] = -offsets[1 + pairs : 1 + 2 * pairs]  # likelier to end in different modes
        half = rng.standard_normal((self.num_draws // 2, dim))
        dtype = jax.dtypes.canonicalize_dtype(float)
        return offsets.astype(dtype), np.concatenate([half, -half]).astype(dtype)

    def init(self, problem: Problem, q: Distribution, draws: tuple[Array, Array]) -> PathfinderState:
        offsets, noise = draws
        kind = Dense if isinstance(q, FullRank) else Compact
        curvature = kind.identity(q.dim, offsets.dtype)
        starts = q.mean() + q.sd() * offsets
        return PathfinderState(jax.vmap(lambda x: begin(x, curvature))(starts), noise)

    def step(self, noise: Any, problem: Problem, state: PathfinderState) -> tuple[PathfinderState, Info]:
        compact = isinstance(state.paths.curvature, Compact)  # whose triangular solves are not to be batched
        each = jax.lax.map if compact else lambda function, paths: jax.vmap(function)(paths)

        def one(path: Path) -> Path:
            at = look_ahead(state.noise, path)
            return advance(path, at, *problem.values_and_gradients(at.points))

        paths = each(one, state.paths)
        best = paths.best[0].max() + constant(state.noise, problem.dim)
        zero = jnp.zeros((), int)
        made = len(paths.value) * (1 + len(state.noise))
        return PathfinderState(paths, state.noise), Info(best, jnp.zeros_like(best), zero, zero, zero + made, zero)

    def done(self, state: PathfinderState) -> Array:
        return ~state.paths.running.any()

    def extract(self, state: PathfinderState) -> Distribution:
        """The best Gaussian on each path, in a mixture of as many components as there are paths."""
        _, loc, curvature = state.paths.best
        return Mixture(jax.lax.map(lambda best: _gaussian(*best), (loc, curvature)), jnp.zeros(len(loc), loc.dtype))

    def finish(self, problem: Problem, state: PathfinderState) -> Result:
        elbo = np.asarray(state.paths.best[0])
        good = np.isfinite(elbo) & (elbo > elbo.max() - POOR)
        mixture = jax.device_get(extract(self, state))
        members = [q for q, kept in zip(mixture.members, good, strict=True) if kept]
        if not members:
            return Result((mixture.members[0],), converged=False)
        q = members[0] if len(members) == 1 else jax.device_get(Mixture.of(members))
        return Result((q,), _failed(elbo))


def _gaussian(loc: Array, curvature: Dense | Compact) -> Distribution:
    if isinstance(curvature, Dense):
        return FullRank.from_scale_tril(loc, curvature.scale())
    q = curvature.spiked()
    return Spiked(loc, q.log_diagonal, q.directions, q.log_spikes)


def _failed(elbo: np.ndarray) -> tuple[Finding, ...]:
    nowhere, poor = int(np.sum(~np.isfinite(elbo))), int(np.sum(np.isfinite(elbo) & (elbo <= elbo.max() - POOR)))
    findings = []
    if nowhere:
        reason = f"{nowhere} of {len(elbo)} paths met no point at which the log density is finite, and were left out"
        findings.append(Finding(Status.RELIABLE, reason))
    if poor:
        reason = f"{poor} of {len(elbo)} paths ended more than {POOR:.0f} nats below the best, and were left out"
        findings.append(Finding(Status.RELIABLE, reason))
    return tuple(findings)
