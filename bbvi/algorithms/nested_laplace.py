"""Nested Laplace: a Gaussian of the hyper-parameters alone, with everything else integrated out.

Variational Newton climbs the ELBO of a Gaussian q(phi), whose target is the marginal density of the hyper-parameters
(`nested/marginal.py`). What it ends with has the modes and curvatures of the blocks at the mean of q(phi), and how the
blocks move and widen with phi.
"""

from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bbvi.algorithms.base import Algorithm, Info, Needs, Result, extract
from bbvi.algorithms.variational_newton import NewtonState, VariationalNewton
from bbvi.distributions import Distribution, LocationScale
from bbvi.distributions.hierarchical import Hierarchical
from bbvi.distributions.split import Split
from bbvi.nested.lines import suit
from bbvi.nested.marginal import marginal
from bbvi.nested.sampling import finished
from bbvi.nested.together import settled
from bbvi.outcome import Evaluations
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

SMALL_STEP, LARGE_STEP = 1e-2, 0.1  # of Newton after which it ends; of a large hierarchy: the next would be far less
SMALL_GAIN = 3e-3  # nats for each hyper-parameter, after which it ends, too: draws will be weighted
ROUNDS = 6  # Newton steps of the blocks for each point, about


class NestedState(NamedTuple):
    """State of `NestedLaplace`."""

    outer: NewtonState  # of the hyper-parameters
    split: Split
    z: Array  # (places,) where searches for the modes of the blocks begin


@dataclass(frozen=True, kw_only=True)
class NestedLaplace(Algorithm[NestedState]):
    """Nested Laplace: the best Gaussian of the hyper-parameters, with small blocks of all others integrated out.

    Which coordinates are which is found from the log density, or said by `fit(latents=)`.

    Arguments:
        max_steps: of variational Newton, after which it gives up.
    """

    max_steps: int = 60
    name = "nested_laplace"

    def _outer(self, split: Split) -> VariationalNewton:
        """Newton for the hyper-parameters, on few draws: each is a search for the modes of all blocks."""
        small = LARGE_STEP if split.is_large else SMALL_STEP
        draws = 2 * (split.num_hyper + 8)
        return VariationalNewton(
            num_draws=draws, max_doublings=2, max_steps=self.max_steps, small_step=small, small_gain=SMALL_GAIN
        )

    def needs(self, dim: int, q: Distribution | None = None) -> Needs:
        split = q.split if isinstance(q, Hierarchical) else Split.apart(max(dim, 2))
        draws = self._outer(split).needs(split.num_hyper).draws
        return Needs(family=Hierarchical, families=(Hierarchical,), derivatives=2, draws=draws)

    def init(self, problem: Problem, q: Distribution, draws: Array) -> NestedState:
        assert isinstance(q, Hierarchical)
        target = marginal(problem, q.split, q.centre)
        outer = self._outer(q.split).init(target, LocationScale(q.hyper.loc, q.hyper.scale), draws)
        return NestedState(outer, q.split, q.centre)

    def step(self, noise: Any, problem: Problem, state: NestedState) -> tuple[NestedState, Info]:
        outer, info = self._outer(state.split).step(None, marginal(problem, state.split, state.z), state.outer)
        points, size = info.evaluations.gradients, state.split.num_colours
        zero = jnp.zeros((), int)
        spent = Evaluations(
            log_densities=zero + points,
            gradients=zero + (ROUNDS + 2) * points,
            hessian_vector_products=zero + (ROUNDS + 1) * size * points,
        )
        return state._replace(outer=outer), info._replace(evaluations=spent)

    def status(self, state: NestedState) -> Array:
        return state.outer.status

    def extract(self, state: NestedState) -> Distribution:
        found = state.outer.gaussian
        return replace(Hierarchical.of_split(state.split, found), centre=state.z)

    def finish(self, problem: Problem, state: NestedState) -> Result:
        q = jax.device_get(extract(self, state))
        assert isinstance(q, Hierarchical)
        q, evaluations = (finished if suit(q.split) else settled)(problem, q)
        return Result((q,), (), evaluations)
