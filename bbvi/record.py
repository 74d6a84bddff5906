"""What is left of a fit: the approximation, what it was judged by, and what it took."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.diagnostics.verdict import Diagnosis
from bbvi.diagnostics.weights import mean, quantile, sd
from bbvi.distributions import Distribution
from bbvi.draws.importance import Draws, is_costly
from bbvi.draws.lazy import pieces
from bbvi.draws.pareto import Smoothed, smooth
from bbvi.draws.pareto import resample as resample_indices
from bbvi.draws.random import RandomStream
from bbvi.models import Model
from bbvi.models.provenance import Provenance
from bbvi.nested.verdict import draw, most_numbers, units_of
from bbvi.outcome import Cost, History, StageSummary
from bbvi.policy import Regime
from bbvi.runtime.compiling import program
from bbvi.runtime.precision import scope
from bbvi.runtime.types import Array
from bbvi.target.parameters import Parameters
from bbvi.target.problem import Problem

PLAIN_DRAWS = 1024  # of the approximation, beside draws of chains
DRAWS_FOR_EACH = 4  # evaluated for each one resampled


@dataclass(frozen=True, repr=False, kw_only=True)
class Record:
    """An approximate posterior with its diagnosis; `Posterior` says what the fields are."""

    distribution: Distribution
    diagnosis: Diagnosis
    history: History
    cost: Cost
    method: str
    parameters: Parameters
    observed_data: Mapping[str, np.ndarray]
    pool: Draws = field(repr=False)  # the draws behind the diagnosis
    double: bool  # computed in float64
    problem: Problem | None = field(default=None, repr=False)  # None after load: no code is stored
    ladder: tuple[StageSummary, ...] = ()
    model: Model | None = field(default=None, repr=False)  # None after load
    refit: Callable[..., Any] | None = field(default=None, repr=False)  # the call of fit that made it
    origin: Provenance | None = None

    def sample(self, num_samples: int = 1000, *, seed: int = 0, resample: bool | None = None) -> Any:
        """Posterior draws in the structure of the parameters, on their constrained scale.

        Arguments:
            num_samples: number of draws n.
            seed: the same seed gives the same draws.
            resample: None corrects the draws by importance resampling when the diagnosis allows it, and takes those of
                chains where there are some; False gives plain draws of q; True insists.

        Where the log density is costly, which the verdict says, or further draws would be very many numbers,
        corrected draws are resampled from those of the verdict, so that some appear several times.

        Returns:
            The structure given as `dim`, each parameter a NumPy array `(n, *shape)`. For a model: a dict of its
            parameters and derived quantities by name.

        Raises:
            ValueError: when resampling is asked for but the posterior was loaded from a file and its stored draws are
                too few, or none has a finite log density.
        """
        return self.structure(self.draw(num_samples, seed=seed, resample=resample)[0].x, seed)

    def draw(self, num_samples: int, *, seed: int = 0, resample: bool | None = None) -> tuple[Draws, bool]:
        """Draws on the flat, unconstrained scale with their log densities, and whether they were resampled."""
        if not isinstance(num_samples, int | np.integer) or num_samples < 1:
            raise ValueError(f"num_samples={num_samples!r} must be a positive integer.")
        if self.diagnosis.chains is not None and resample is not False:
            rng = np.random.default_rng((seed, RandomStream.SAMPLE))
            chosen = resample_indices(rng, np.full(len(self.pool), -np.log(len(self.pool))), num_samples)
            return self.pool.take(chosen), False
        if resample or (resample is None and self.diagnosis.trusted):
            pool = self._more_draws(DRAWS_FOR_EACH * num_samples, seed, weighted=True)
            if not np.isfinite(pool.log_p).any():
                raise ValueError("No draw has a finite log density: there is nothing to resample. Use resample=False.")
            rng = np.random.default_rng((seed, RandomStream.RESAMPLE))
            return pool.take(resample_indices(rng, smooth(pool.log_p - pool.log_r).log_weights, num_samples)), True
        draws = self._more_draws(num_samples, seed)
        return draws.take(np.flatnonzero(draws.from_q)[:num_samples]), False

    def draw_steps(self, num_samples: int, *, seed: int = 0, resample: bool | None = None) -> tuple[Draws, bool, int]:
        """Draws as by `draw`, whether they were resampled, and of how many chains they are.

        Those of chains are whole steps of all of them, evenly spaced, one chain after the other: `num_samples` at
        least, as far as there are so many.
        """
        chains = self.diagnosis.chains
        if chains is None or resample is False:
            return *self.draw(num_samples, seed=seed, resample=resample), 1
        steps = min(chains.draws, -(-num_samples // chains.chains))
        rows = np.linspace(0, chains.draws - 1, steps).astype(int)
        return self.pool.take((rows * chains.chains + np.arange(chains.chains)[:, None]).ravel()), False, chains.chains

    def _more_draws(self, num: int, seed: int, weighted: bool = False) -> Draws:
        held = int(self.pool.from_q.sum())
        if self.problem is not None:
            with scope(self.double):
                costly = num * self.parameters.dim > most_numbers(self.distribution) or is_costly(self.problem)
                if not (costly and (weighted or num <= held)):
                    return draw(self.problem, copy(self.distribution), (seed, RandomStream.SAMPLE), num)
        elif num > held:
            raise ValueError(
                f"{num} draws with log densities are needed, but this posterior was loaded from a file that holds "
                f"{held} and no log density. Ask for at most {held // DRAWS_FOR_EACH} resampled draws, or give load() "
                "the log density: bbvi.load(path, logprob=...)."
            )
        return self.pool.take(np.random.default_rng((seed, RandomStream.SAMPLE)).permutation(len(self.pool)))

    def structure(self, xs: Array, seed: int = 0) -> Any:
        """Flat, unconstrained vectors `(n, dim)` as what `sample` returns; `seed` is for quantities made at random."""
        with scope(self.double):
            values = self.parameters.structure(xs)
            derived = {} if self.model is None else self.model.derived(values, seed)
        return {**self.variables(xs), **derived} if derived else self.variables(xs)

    @property
    def on_branch(self) -> Self:
        """The same posterior with angles as they are near its centre, not taken modulo 2 pi: for their statistics."""
        if not any(self.parameters.circular):
            return self
        return replace(self, parameters=replace(self.parameters, turns=False))

    def variables(self, xs: Array) -> Any:
        """The same without what a model derives from its parameters."""
        with scope(self.double):
            values = self.parameters.structure(xs)
            return values if self.model is None else self.model.variables(values)

    def named(self, values: Any) -> dict[str, Any]:
        """What `structure` or `variables` returned, by name."""
        return self.parameters.named(values) if self.model is None else self.model.named(self.parameters, values)

    def log_prob(self, values: Any) -> np.ndarray | float:
        """Log density of the approximation, on the constrained scale, in nats.

        Arguments:
            values: one point in the structure of the parameters (each `shape`), or n points (each `(n, *shape)`).

        Returns:
            A float, or an array `(n,)`.

        Raises:
            ValueError: when the structure or a shape does not fit.
        """
        leaves = self.parameters.treedef.flatten_up_to(values)
        extra = {np.ndim(leaf) - len(shape) for leaf, shape in zip(leaves, self.parameters.shapes, strict=True)}
        if extra not in ({0}, {1}):
            raise ValueError(f"values must be one point or have one leading axis; shapes are {self.parameters.shapes}.")
        with scope(self.double):
            batch = [np.asarray(leaf, float)[None] if extra == {0} else np.asarray(leaf, float) for leaf in leaves]
            result = np.asarray(_log_prob(self.parameters, copy(self.distribution), batch))
        return float(result[0]) if extra == {0} else result

    def target_for(self, use: str) -> Problem:
        """The log density, which `use` needs.

        Raises:
            ValueError: when the posterior was loaded without it.
        """
        if self.problem is None:
            raise ValueError(f"{use} needs the log density: bbvi.load(path, logprob=...).")
        return self.problem

    @property
    def q(self) -> Distribution:
        """The approximation, with arrays of its own."""
        return copy(self.distribution)

    # -- summaries ---------------------------------------------------------------------------------------------------

    def mean(self) -> Any:
        """Posterior means in the structure of the parameters, importance-weighted when the diagnosis allows it.

        Of more than 2**17 coordinates there are few draws; then, without constraints, they are those of q itself.
        """
        return self._of_q(self.distribution.mean) if self.by_q else self._map(mean)

    def sd(self) -> Any:
        """Posterior standard deviations, likewise."""
        return self._of_q(self.distribution.sd) if self.by_q else self._map(sd)

    def quantile(self, q: float | Sequence[float]) -> Any:
        """Posterior quantiles, likewise; a sequence of probabilities adds a leading axis."""
        probabilities = np.atleast_1d(np.asarray(q, float))
        if not ((probabilities >= 0) & (probabilities <= 1)).all():
            raise ValueError(f"q={q!r} must lie in [0, 1].")

        return self._map(
            lambda draws, weights: quantile(draws, weights, probabilities if np.ndim(q) else probabilities[0])
        )

    @property
    def by_q(self) -> bool:
        """Whether means and standard deviations are those of q: there are few draws of long vectors."""
        return Regime.of(self.parameters.dim).long and self.parameters.unconstrained

    def _of_q(self, moment: Callable[[], Array]) -> Any:
        with scope(self.double):
            x = np.asarray(moment())
        return jax.tree.map(lambda leaf: leaf[0], self.structure(x[None]))

    def _map(self, statistic: Any) -> Any:
        draws, weights = self.weighted(self.on_branch.structure)
        return jax.tree.map(lambda values: statistic(np.asarray(values, float), weights), draws)

    def weighted(self, read: Callable[[Array], Any]) -> tuple[Any, np.ndarray]:
        """What `read` makes of the draws behind the diagnosis, and their weights."""
        weights = self.weights
        keep = weights > 0
        parts = [read(x) for x in pieces(self.pool.x[keep])]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts), weights[keep]

    @cached_property
    def importance(self) -> Smoothed:
        """The importance weights of the draws behind the diagnosis, smoothed and normalised."""
        return smooth(self.pool.log_p - self.pool.log_r)

    @property
    def weights(self) -> np.ndarray:
        """Weights of the draws behind the diagnosis, `(n,)`, summing to 1: even ones of q's where it is not trusted."""
        if not self.diagnosis.trusted:
            return self.pool.from_q / self.pool.from_q.sum()
        return np.exp(self.importance.log_weights)

    @property
    def units(self) -> np.ndarray:
        """Which draws behind the diagnosis depend on one another, `(n,)`: those of a unit, numbered from 0 on."""
        chains = self.diagnosis.chains
        return units_of(self.distribution, self.pool, None if chains is None else chains.chains)

    @cached_property
    def draws_of_q(self) -> Any:
        """Draws of the approximation itself, `(n, dim)`."""
        if self.diagnosis.chains is None:
            return self.pool.x[self.pool.from_q]
        noise = np.random.default_rng(RandomStream.SAMPLE).standard_normal((PLAIN_DRAWS, self.distribution.noise_dim))
        with scope(self.double):
            return np.asarray(_push(copy(self.distribution), noise.astype(jax.dtypes.canonicalize_dtype(float))))

    @property
    def num_scalars(self) -> int:
        """Number of scalar parameters, on the constrained scale."""
        return sum(np.size(value) for value in self.named(self.variables(self.pool.x[:1])).values())


def copy(q: Distribution) -> Distribution:
    """`q` with arrays of its own: JAX may remember the precision in which an array was last used."""
    return jax.tree.map(np.array, q)


@program
def _push(q: Distribution, noise: Array) -> Array:
    return q.push(noise)


@program
def _log_prob(parameters: Parameters, q: Distribution, batch: list[Array]) -> Array:
    def one(leaves: list[Array]) -> Array:
        x, log_volume = parameters.unconstrain(leaves)
        return q.log_prob(x) - log_volume

    return jax.vmap(one)([jnp.asarray(leaf) for leaf in batch])
