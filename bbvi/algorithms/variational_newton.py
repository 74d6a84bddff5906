"""Newton ascent of the ELBO over full-rank Gaussians, on fixed draws.

In coordinates x = loc + C y, with q = N(0, I) in y, the stationary conditions of the ELBO are

    E_q[grad log p] = 0    and    E_q[-hess log p] = I,

and Stein's lemma gives the second from gradients alone, E_q[-hess] = -E_q[grad y^T]. Draws are antithetic and have
unit sample covariance, which makes both averages exact for a Gaussian target: it is recovered in one undamped step.
A step is kept only when it raises the ELBO on the draws; eigenvalues are taken by magnitude and bounded, so that
C stays invertible wherever the path begins.

What the draws leave over once the steps have become small is r = grad log p + y, which is zero for a Gaussian. The
standard errors of the averages of r and of r y over antithetic pairs say how far mean and scale would move with other
draws, in standard deviations; while they are large, the number of draws is doubled.

Reference: variational online Newton (Khan and Rue 2023, arXiv:2107.04562), here with fixed draws and a safeguard.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.algorithms.base import CONVERGED, RUNNING, STALLED, Algorithm, Info, Needs, Result, extract
from bbvi.algorithms.numerics.draws import blocks_of_draws, check_doublings
from bbvi.algorithms.numerics.trust_region import first_radius
from bbvi.distributions import Distribution, FullRank, LocationScale
from bbvi.distributions.affine import Affine
from bbvi.distributions.base import LOG_2PI
from bbvi.distributions.scales import Triangular
from bbvi.outcome import Evaluations, Finding, Status
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

DRAWS_ERROR = 0.1  # of the draws, in the same units, above which there are too few
MAX_RATIO = 100.0  # by which one step may change a variance


class Averages(NamedTuple):
    """Averages over the draws of N(0, I), in coordinates in which that is q."""

    elbo: Array  # () in nats, -inf where not known
    elbo_error: Array  # () its standard error
    gradient: Array  # (dim,) E_q[grad]
    precision: Array  # (dim, dim) E_q[-hess]
    error: Array  # () standard error of means and scales, in standard deviations


class Sums(NamedTuple):
    """Sums over blocks of draws, and over the pairs in them."""

    value: Array  # () log densities
    height: Array  # () log densities over those of q, without constants, averaged over a pair
    height_square: Array  # () squares of these
    gradient: Array  # (dim,) block averages
    precision: Array  # (dim, dim) block averages
    even_square: Array  # (dim,) squares of what is left over of the gradient
    odd: Array  # (dim,) what is left over of the gradient times the draw
    odd_square: Array  # (dim,) squares of these
    non_finite: Array  # () draws


class NewtonState(NamedTuple):
    """State of `VariationalNewton`."""

    gaussian: Affine  # q, with a triangular scale
    seen: Averages  # there
    rate: Array  # () damping, 1 for a full Newton step
    radius: Array  # () standard deviations that the mean may move in one step
    steps: Array  # ()
    status: Array  # () RUNNING, CONVERGED where the steps have become small, or STALLED
    used: Array  # () blocks of draws in use
    draws: Array  # (blocks, n, dim)


@dataclass(frozen=True, kw_only=True)
class VariationalNewton(Algorithm[NewtonState]):
    """Variational Newton: the full-rank Gaussian of largest ELBO, on fixed draws.

    Arguments:
        num_draws: at first, in antithetic pairs: an even number. None for twice dim + 16, at least 64.
        max_doublings: of the number of draws, while their error is large.
        products: take the Hessians at the draws by Hessian-vector products, dim for each draw, rather than by Stein's
            lemma from the gradients: less noise for each draw, but more than dim times the cost.
        max_steps: after which it gives up.
        small_step: in standard deviations of a mean, or as a ratio of scales: it ends after one that is smaller.
        small_gain: of the ELBO, in nats for each coordinate: it ends after a whole step that gains less.
    """

    num_draws: int | None = None
    max_doublings: int = 4
    products: bool = False
    max_steps: int = 100
    small_step: float = 1e-2
    small_gain: float = 0.0
    name = "newton"

    def __post_init__(self) -> None:
        check_doublings(self.num_draws, self.max_doublings)

    def needs(self, dim: int, q: Distribution | None = None) -> Needs:
        def draws(rng: np.random.Generator) -> Array:
            fewest = 8 if self.products else max(64, 2 * (dim + 16))
            n = fewest if self.num_draws is None else self.num_draws
            if not self.products and n < 2 * (dim + 1):
                raise ValueError(f"num_draws={n} is too few for {dim} coordinates: give at least {2 * (dim + 1)}.")
            return blocks_of_draws(rng, n, dim, self.max_doublings)

        return Needs(family=FullRank, families=(FullRank,), derivatives=2 if self.products else 1, draws=draws)

    def init(self, problem: Problem, q: Distribution, draws: Array) -> NewtonState:
        gaussian, _ = q.standardise()
        loc = gaussian.loc
        one, nothing = jnp.ones((), loc.dtype), jnp.zeros((), int)
        return NewtonState(
            gaussian=gaussian,
            seen=_unknown(loc),
            rate=one,
            radius=first_radius(loc, q.dim),
            steps=nothing,
            status=nothing + RUNNING,
            used=nothing + 1,
            draws=draws,
        )

    def step(self, noise: Any, problem: Problem, state: NewtonState) -> tuple[NewtonState, Info]:
        now, seen = state, state.seen
        # The first step, whose precision is I and gradient 0, only looks; so does the first with more draws.
        eigenvalues, vectors = jnp.linalg.eigh(seen.precision)
        eigenvalues = jnp.clip(jnp.abs(eigenvalues), 1 / MAX_RATIO, MAX_RATIO) ** now.rate
        white_gradient = vectors.T @ seen.gradient
        length = jnp.sqrt(jnp.sum(white_gradient**2 / eigenvalues))
        limit = jnp.minimum(1.0, now.radius / jnp.maximum(length, 1e-30))
        move = now.rate * limit * (vectors @ (white_gradient / eigenvalues))
        scale = Triangular.of_factor(now.gaussian.scale.matrix() @ (vectors / jnp.sqrt(eigenvalues)))
        there = Affine(now.gaussian(move), scale)
        found, non_finite = self._evaluate(problem.in_coordinates(there), now.draws, now.used)

        looking = ~jnp.isfinite(seen.elbo)
        better = looking | (found.elbo >= seen.elbo - 1e-9 * jnp.abs(seen.elbo))
        small = (jnp.abs(move).max() < self.small_step) & (jnp.abs(jnp.log(eigenvalues)).max() < self.small_step)
        small |= (now.rate == 1) & (found.elbo - seen.elbo < self.small_gain * problem.dim)
        rate = jnp.where(better, jnp.minimum(1.0, 2 * now.rate), now.rate / 4)
        settled = better & small & ~looking
        too_few = settled & (found.error > DRAWS_ERROR) & (2 * now.used <= len(now.draws))
        able = (rate > 1e-3) & (now.steps + 1 < self.max_steps) & (jnp.isfinite(found.elbo) | ~looking)
        gaussian, kept = jax.tree.map(
            lambda new, old: jnp.where(better, new, old), (there, found), (now.gaussian, seen)
        )
        state = now._replace(
            gaussian=gaussian,
            seen=jax.tree.map(lambda anew, old: jnp.where(too_few, anew, old), _unknown(there.loc, kept), kept),
            rate=rate,
            radius=now.radius * jnp.where(looking, 1.0, jnp.where(better, 2.0, 0.25)),
            steps=now.steps + 1,
            status=jnp.where(settled & ~too_few, CONVERGED, jnp.where(able, RUNNING, STALLED)),
            used=jnp.where(too_few, 2 * now.used, now.used),
        )
        made, zero = now.used * now.draws.shape[1], jnp.zeros((), int)
        evaluations = Evaluations(zero, made, made * problem.dim if self.products else zero)
        return state, Info(found.elbo, found.elbo_error, non_finite, evaluations)

    def _evaluate(self, local: Problem, draws: Array, used: Array) -> tuple[Averages, Array]:
        """What the draws in use say of N(0, I), and how many of them are not finite."""
        n, dim = draws.shape[1:]

        def block(i: Array, sums: Sums) -> Sums:
            y = jnp.asarray(draws)[i]
            values, gradients, finite = local.values_and_gradients(y)
            if self.products:
                column = lambda v: -local.hessian_vector_products(y, jnp.broadcast_to(v, y.shape)).mean(axis=0)
                precision = jax.lax.map(column, jnp.eye(dim, dtype=y.dtype))
            else:
                precision = -(gradients - gradients.mean(axis=0)).T @ y / n
            rest = gradients + y
            pair = lambda rows: (rows[: n // 2] + rows[n // 2 :]) / 2
            even, odd, height = pair(rest), pair(rest * y), pair(values + 0.5 * jnp.sum(y**2, axis=1))
            new = Sums(
                value=values.sum(),
                height=height.sum(),
                height_square=(height**2).sum(),
                gradient=gradients.mean(axis=0),
                precision=(precision + precision.T) / 2,
                even_square=(even**2).sum(axis=0),
                odd=odd.sum(axis=0),
                odd_square=(odd**2).sum(axis=0),
                non_finite=jnp.sum(~finite),
            )
            return jax.tree.map(jnp.add, sums, new)

        zero, vector = jnp.zeros((), draws.dtype), jnp.zeros(dim, draws.dtype)
        matrix = jnp.zeros((dim, dim), draws.dtype)
        nothing = Sums(zero, zero, zero, vector, matrix, vector, vector, vector, jnp.zeros((), int))
        total = jax.lax.fori_loop(0, used, block, nothing)
        blocks, pairs = used.astype(draws.dtype), (used * (n // 2)).astype(draws.dtype)
        variance = lambda squares, mean: jnp.maximum(squares / pairs - mean**2, 0) / jnp.maximum(pairs - 1, 1)
        gradient = total.gradient / blocks
        errors = [variance(total.even_square, gradient), variance(total.odd_square, total.odd / pairs) / 4]
        entropy = 0.5 * dim * (1 + LOG_2PI)  # of N(0, I); volumes are in the density
        found = Averages(
            elbo=jnp.where(total.non_finite == 0, total.value / (2 * pairs) + entropy, -jnp.inf),
            elbo_error=jnp.sqrt(variance(total.height_square, total.height / pairs)),
            gradient=gradient,
            precision=total.precision / blocks,
            error=jnp.sqrt(jnp.stack(errors).max()),
        )
        return found, total.non_finite

    def status(self, state: NewtonState) -> Array:
        return state.status

    def extract(self, state: NewtonState) -> Distribution:
        return LocationScale(state.gaussian.loc, state.gaussian.scale)

    def finish(self, problem: Problem, state: NewtonState) -> Result:
        findings, error = [], float(state.seen.error)
        if int(state.status) == CONVERGED and error > DRAWS_ERROR:
            reason = f"with other draws a mean or scale would move by about {error:.2g} standard deviations"
            findings.append(Finding(Status.RELIABLE, reason, "raise num_draws or max_doublings"))
        return Result((jax.device_get(extract(self, state)),), findings)


def _unknown(loc: Array, seen: Averages | None = None) -> Averages:
    """Averages that are not known: the next step goes nowhere, and looks."""
    zero = jnp.zeros((), loc.dtype)
    errors = (zero, zero) if seen is None else (seen.elbo_error, seen.error)
    return Averages(
        elbo=jnp.full((), -jnp.inf, loc.dtype),
        elbo_error=errors[0],
        gradient=jnp.zeros_like(loc),
        precision=jnp.eye(len(loc), dtype=loc.dtype),
        error=errors[1],
    )
