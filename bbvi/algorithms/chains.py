"""Chains: draws of the posterior itself, by many short Markov chains that begin at an approximation.

q stays as it is. Starts are drawn from q and its wider version, by importance resampling; several chains share one, a
superchain. Every so many steps the host looks at what they have shown: it sets the covariance that the trajectories are
scaled by, and their length, and ends the run once the chains agree.

References: Margossian, Hoffman, Sountsov, Riou-Durand, Vehtari and Gelman 2024 (arXiv:2110.13017) for many short chains
and the nested R-hat; Hoffman and Sountsov 2022 (AISTATS) for ensembles that adapt one part by the other.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr

from bbvi.algorithms.base import CONVERGED, RUNNING, STALLED, Info, Needs, Pausing, Result, with_entry
from bbvi.chains.adaptation import MOST_LEAPFROGS, best_length, roots
from bbvi.chains.draws import ChainDraws, draws_of_chains
from bbvi.chains.frame import Frame
from bbvi.chains.kernel import HALVES, Chance, Moved, Places, arrive, step
from bbvi.distributions import Distribution, FullRank, MeanField
from bbvi.draws.agreement import agree, agreement, sd_error
from bbvi.draws.random import Random
from bbvi.outcome import Evaluations
from bbvi.policy import KEPT_NUMBERS, Regime
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

CANDIDATES = 256  # draws of q, and as many of its wider version, among which chains begin
EVERY = 16  # steps between looks of the host, at first; later an eighth of the steps taken
FEWEST_STEPS = 64  # before the chains may end
MOST_ROWS = 1024  # steps that are kept, at most
UNSETTLED = 1 / 3  # of the steps, which are left out
ACCEPTANCE = 0.9  # of trajectories, on average, that step sizes are adapted to
SD_ERROR = 0.02  # relative Monte Carlo error of standard deviations that is waited for,
LONGER_FOR_SDS = 4  # up to this many times the steps after which means are known: there may be no variance
FIRST_LENGTH = 4  # leapfrog steps


class Seen(NamedTuple):
    """What was seen after the steps that are kept; arrays of NumPy where the host looks at them."""

    x: Any  # (rows, chains, dim)
    y: Any  # (rows, chains, dim) the same in q's coordinates
    log_p: Any  # (rows, chains) in x
    log_q: Any  # (rows, chains) in x
    length: Any  # (rows,) leapfrog steps of the trajectories
    moved: Any  # (rows, 2 dim) their squared distances in y, and in its squares

    def rows(self, which: slice) -> "Seen":
        """Some of the rows."""
        return Seen(*(column[which] for column in self))


class ChainState(NamedTuple):
    """State of `Chains`."""

    q: Distribution
    frame: Frame
    places: Places
    root: Array  # (2, dim, dim) or (2, dim) symmetric roots of the covariances of both halves
    log_size: Array  # () of a leapfrog step
    length: Array  # () leapfrog steps of a trajectory, about
    taken: Array  # () steps
    next_look: Array  # () the step after which the host looks
    stride: Array  # () steps from one that is kept to the next
    begun: Array  # (n,) log p - log q at draws of q, -inf without density
    x_begun: Array  # (n, dim) these draws
    seen: Seen
    agreed: Array  # () the step at which means were known well enough, 0 before
    status: Array  # ()


@dataclass(frozen=True, kw_only=True)
class Chains(Pausing[ChainState]):
    """Hamiltonian trajectories of many chains from draws of q, until nested R-hat and Monte Carlo error are small.

    Arguments:
        num_chains: a multiple of twice `num_starts`.
        num_starts: different points at which they begin; the chains of one are a superchain.
        max_steps: of each chain.
        r_hat, error: largest nested R-hat, and Monte Carlo error of a mean in standard deviations, at which they end.
    """

    num_chains: int = 64
    num_starts: int = 16
    max_steps: int = 20_000
    r_hat: float = 1.01
    error: float = 0.02
    name = "chains"

    def __post_init__(self) -> None:
        if self.num_starts < 2 or self.num_chains % (HALVES * self.num_starts):
            raise ValueError(
                f"num_chains={self.num_chains} must be a multiple of 2 x num_starts={self.num_starts}, which must be "
                "at least 2: halves of the chains move each other, and chains with one start are compared with others."
            )

    def needs(self, dim: int, q: Distribution | None = None) -> Needs:
        def noise(random: Random, problem: Problem, steps: int) -> Chance:
            assert q is not None
            shape = (steps, self.num_chains)
            uniform = lambda *of: ((random.bits(of) + 0.5) / 2.0**32).astype(jax.dtypes.canonicalize_dtype(float))
            return Chance(
                momentum=random.normal((*shape, dim)),
                leap=random.normal((*shape, _wide_noise(q))),
                uniform=uniform(*shape, 4),
                of_all=uniform(steps),
            )

        def draws(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            dtype = jax.dtypes.canonicalize_dtype(float)
            normal = lambda columns: rng.standard_normal((CANDIDATES, columns)).astype(dtype)
            columns = 0 if q is None else jax.eval_shape(lambda q: Frame.of(q).q, q).noise_dim
            wide = 0 if q is None else _wide_noise(q)
            return normal(columns), normal(wide), rng.standard_normal(2 * CANDIDATES).astype(dtype)

        return Needs(family=FullRank if Regime.of(dim).full_rank else MeanField, draws=draws, noise=noise)

    def init(self, problem: Problem, q: Distribution, draws: tuple[Array, Array, Array]) -> ChainState:
        frame, (narrow, wide, chance) = Frame.of(q), draws
        ys = jnp.concatenate([frame.q.push(narrow), frame.wide.push(wide)])
        values, log_q, log_wide = frame.log_densities(problem, ys), frame.q.log_prob(ys), frame.wide.log_prob(ys)
        log_weights = values - jnp.logaddexp(log_q, log_wide)
        gumbel = -jnp.log(-jnp.log(jnp.clip(ndtr(chance), 1e-6, 1 - 1e-6)))
        _, starts = jax.lax.top_k(jnp.where(jnp.isfinite(log_weights), log_weights, -jnp.inf) + gumbel, self.num_starts)
        dim, dtype, dense = problem.dim, ys.dtype, Regime.of(problem.dim).dense_start
        unit = jnp.eye(dim, dtype=dtype) if dense else jnp.ones(dim, dtype)
        zero, rows = jnp.zeros((), int), self._rows(dim)
        of_chains = jnp.zeros((rows, self.num_chains, dim), dtype)
        return ChainState(
            q=q,
            frame=frame,
            places=arrive(problem, frame, jnp.repeat(ys[starts], self.num_chains // self.num_starts, axis=0)),
            root=jnp.broadcast_to(unit, (HALVES, *unit.shape)),
            log_size=jnp.full((), -0.25 * np.log(dim), dtype),
            length=zero + FIRST_LENGTH,
            taken=zero,
            next_look=zero + EVERY,
            stride=zero + 1,
            begun=(values - log_q)[:CANDIDATES],
            x_begun=jax.vmap(frame.forward)(ys[:CANDIDATES])[0],
            seen=Seen(
                x=of_chains,
                y=of_chains,
                log_p=of_chains[..., 0],
                log_q=of_chains[..., 0],
                length=jnp.zeros(rows, int),
                moved=jnp.zeros((rows, 2 * dim), dtype),
            ),
            agreed=zero,
            status=zero + RUNNING,
        )

    def step(self, noise: Chance, problem: Problem, state: ChainState) -> tuple[ChainState, Info]:
        choices = jnp.stack([jnp.maximum(state.length // 2, 1), state.length, 2 * state.length])
        length = choices[jnp.minimum(3 * noise.of_all, 2).astype(int)]
        moved = step(problem, state.frame, state.places, state.root, jnp.exp(state.log_size), length, noise)
        x, log_det = jax.vmap(state.frame.forward)(moved.places.y)
        log_q = state.frame.q.log_prob(moved.places.y)
        now = Seen(x, moved.places.y, moved.places.value - log_det, log_q - log_det, length, moved.distances)
        row = state.taken // state.stride
        state = state._replace(
            places=moved.places,
            log_size=state.log_size + self._resized(moved, state.taken),
            taken=state.taken + 1,
            seen=jax.tree.map(lambda rows, each: with_entry(rows, row, each), state.seen, now),
        )
        finite = jnp.isfinite(state.begun)
        elbo = jnp.mean(state.begun, where=finite)
        spent = Evaluations(gradients=(1 + length) * self.num_chains)
        return state, Info(elbo, jnp.zeros_like(elbo), moved.lost, spent)

    def _resized(self, moved: Moved, now: Array) -> Array:
        """The change of the log step size by how often trajectories were accepted."""
        surplus = jnp.nanmean(moved.acceptance) - ACCEPTANCE
        return jnp.where(jnp.isnan(surplus), 0, surplus) / jnp.sqrt(1 + now.astype(surplus.dtype))

    def _rows(self, dim: int) -> int:
        """Steps that there is room for, a multiple of `EVERY`."""
        most = min(self.max_steps, MOST_ROWS, KEPT_NUMBERS // (2 * self.num_chains * dim))
        return EVERY * max(FEWEST_STEPS // EVERY, most // EVERY)

    def steps_to_pause(self, state: ChainState) -> Array:
        return state.next_look - state.taken

    @np.errstate(all="ignore")  # of chains that run off
    def pause(self, state: ChainState) -> ChainState:
        count, stride, dim = int(state.taken), int(state.stride), state.frame.q.dim
        kept = self._kept(state)
        spread = np.concatenate([kept.y, kept.y**2], axis=-1).var(axis=(0, 1))
        length = best_length(kept.moved / np.maximum(spread, np.finfo(spread.dtype).tiny), kept.length)
        length = min(max(length, int(state.frame.least_time / np.exp(state.log_size))), MOST_LEAPFROGS)
        agreed, enough = int(state.agreed), count >= FEWEST_STEPS
        if enough and not agreed and agree(kept.x, self.num_starts, self.r_hat, self.error):
            agreed = count
        ended = agreed and (sd_error(kept.x).max() < SD_ERROR or count >= LONGER_FOR_SDS * agreed)
        pause = EVERY * max(1, count // (8 * EVERY))
        seen, rows = state.seen, len(state.seen.x)
        if count + pause > stride * rows:
            stride *= 2
            seen = Seen(*(np.concatenate([column[1::2], column[rows // 2 :]]) for column in seen))
        whole = lambda old, new: np.full_like(old, new)
        return state._replace(
            root=roots(kept.y, Regime.of(dim).dense_start) if np.isfinite(kept.y).all() else state.root,
            length=whole(state.length, length),
            next_look=whole(state.next_look, count + pause),
            stride=whole(state.stride, stride),
            seen=seen,
            agreed=whole(state.agreed, agreed),
            status=whole(state.status, CONVERGED if ended else STALLED if count >= self.max_steps else RUNNING),
        )

    def _kept(self, state: ChainState) -> Seen:
        """What was seen after the chains have settled, as arrays of NumPy."""
        rows = int(state.taken) // int(state.stride)
        return state.seen.rows(slice(int(UNSETTLED * rows), rows))

    def status(self, state: ChainState) -> Array:
        return state.status

    def extract(self, state: ChainState) -> Distribution:
        return state.q

    def finish(self, problem: Problem, state: ChainState) -> Result:
        return Result((jax.device_get(state.q),), chains=self._draws(jax.device_get(state)))

    def _draws(self, state: ChainState) -> ChainDraws | None:
        """What the chains have shown; None where they had no time for it."""
        kept = self._kept(state)
        if len(kept.x) < EVERY // 2:
            return None
        agreed, begun = agreement(kept.x, self.num_starts), np.asarray(state.begun)
        made = draws_of_chains(kept.x, kept.log_p, kept.log_q, begun, agreed)
        return made._replace(x_of_q=np.asarray(state.x_begun))


def _wide_noise(q: Distribution) -> int:
    """Numbers behind a draw of the wider version of q in its frame."""
    return jax.eval_shape(lambda q: Frame.of(q).wide, q).noise_dim
