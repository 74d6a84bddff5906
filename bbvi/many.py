"""Many small posteriors at once: the same log density for each of many sets of data, in one compiled program.

Each fit is that of `method="newton"`, a quasi-Newton path to a mode and then the full-rank Gaussian of largest ELBO; or
the mean-field one, by `method="dadvi"`. All are stepped together, so that a fit costs what its arithmetic costs, and
no call for each step. Then each is judged by fresh draws of its own, as a single fit is.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.algorithms import DADVI, Algorithm, Pathfinder, VariationalNewton
from bbvi.algorithms.base import CONVERGED
from bbvi.algorithms.numerics.quasi_newton import Dense, Limited
from bbvi.data.reading import read_data
from bbvi.diagnostics.checks.base import Evidence
from bbvi.diagnostics.verdict import diagnose
from bbvi.diagnostics.weights import mean, sd, weigh
from bbvi.distributions import Distribution, LocationScale, MeanField
from bbvi.distributions.affine import Affine
from bbvi.draws.importance import WIDE_SHARE, WORKING_SET, Draws, evaluate
from bbvi.draws.random import RandomStream, stream
from bbvi.fitting.arguments import choose, positive, read_model, read_seed
from bbvi.fitting.budget import Stopwatch
from bbvi.models import Model
from bbvi.optimise import solve
from bbvi.outcome import Cost, Evaluations, Stop
from bbvi.policy import Regime
from bbvi.posteriors import Fit, Posteriors
from bbvi.runtime.compiling import program
from bbvi.runtime.precision import scope, use_double
from bbvi.runtime.types import Array
from bbvi.start.paths import ITERATIONS
from bbvi.start.record import start_at
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters

BY_FAMILY = {"full_rank": VariationalNewton, "mean_field": DADVI}  # deterministic ones, which need no noise
FITS_AT_ONCE = 256  # in one call of the compiled program
NUM_CHECKS = 1024  # draws of each approximation, to judge it by


def fit_many(
    logprob: Callable[..., Any] | Model,
    dim: Any = None,
    data: Any = None,
    *,
    constraints: Any = None,
    family: str = "full_rank",
    labels: Sequence[Any] | None = None,
    coord: str = "fit",
    num_checks: int = NUM_CHECKS,
    seed: int = 0,
    precision: str = "auto",
) -> "Posteriors":
    """Fit the same log density to each of many sets of data, and check every fit.

    Arguments:
        logprob, dim, constraints: as in `fit`; or a model by `bbvi.from_numpyro`, made with the data of one fit.
        data: a pytree of arrays whose leading axis counts the fits; `logprob` gets it without that axis. Fits with
            fewer rows than others have theirs padded, and a mask of them among the data. For a model: in the structure
            of its own `data`.
        family: "full_rank", by Newton's steps, or "mean_field", by those of DADVI.
        labels: a name for each fit; by default their numbers.
        coord: name of that axis in arviz.
        num_checks: draws of each approximation, to judge and to correct it by, a multiple of 4; a quarter as many
            wider ones are added.
        seed: of all random numbers. What a fit gives does not depend on those beside it, up to rounding.
        precision: as in `fit`.

    Returns:
        Posteriors, one for each set of data. A fit that fails, because its data hold NaN for example, does not touch
        the others: its own status says so.

    Raises:
        TypeError, ValueError: naming the argument, what is wrong with it and the remedy.

    Each approximation is one Gaussian. For those that it does not suit, by their status, call `bbvi.fit` on their data.

    Example:
        >>> counts = np.array([[3.0, 5.0, 4.0], [9.0, 7.0, 11.0]])  # three for each of two shops
        >>> logprob = lambda rate, y: jnp.sum(y * jnp.log(rate) - rate) - rate / 10
        >>> positive = numpyro.distributions.constraints.positive
        >>> posteriors = bbvi.fit_many(logprob, (), counts, constraints=positive)
        >>> posteriors.mean().round()
        array([4., 9.])
        >>> print(posteriors[1].diagnosis.status.name)
        RELIABLE
    """
    watch = Stopwatch()
    if data is None:
        raise ValueError("data is missing: arrays whose leading axis counts the fits.")
    model = read_model(logprob, dim, constraints, None if isinstance(logprob, Model) else data)
    parameters = make_parameters(model.dim, model.constraints)
    seed = read_seed(seed)
    algorithm: Algorithm[Any] = choose("family", family, BY_FAMILY)()
    if positive("num_checks", num_checks) % 4:
        raise ValueError(f"num_checks={num_checks} must be a multiple of 4.")
    with scope(double := use_double(precision)):
        data = read_data(data, nan=True)
        labels = _labels(data, labels)
        campaign = Campaign(Problem(parameters, _row(data, 0), model.logprob), data, len(labels), num_checks, seed)
        draws = algorithm.needs(parameters.dim).draws(np.random.default_rng((seed, RandomStream.MANY_FIXED)))
        waiting: list[tuple[range, _Solutions, Any]] = []
        fits: list[Fit] = []
        for chunk in campaign.chunks():
            found = _solve(algorithm, campaign.problem, campaign.rows(chunk), draws)
            waiting.append((chunk, found, campaign.look(chunk, found.q)))
            if len(waiting) > 1:  # the device goes on with the next chunk while the host judges this one
                fits += campaign.judge(*waiting.pop(0))
        for chunk in waiting:
            fits += campaign.judge(*chunk)
    spent = sum((each.evaluations for each in fits), Evaluations())
    return Posteriors(
        fits=tuple(fits),
        labels=labels,
        coord=coord,
        parameters=parameters,
        cost=Cost.of(spent, watch.elapsed, watch.compiling),
        double=double,
        seed=seed,
        method=algorithm.name,
        model=model,
        campaign=campaign,
    )


def _labels(data: Any, labels: Sequence[Any] | None) -> list[Any]:
    counts = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
    if len(counts) != 1 or counts == {()}:
        raise ValueError(f"data must be arrays that share their leading axis, the fits; it is {sorted(counts)} here.")
    ((count,),) = counts
    if not count:
        raise ValueError("data holds no fit: its leading axis has length 0.")
    if labels is None:
        return list(range(count))
    if len(labels) != count or len(set(labels)) != count:
        raise ValueError(f"labels must be {count} different names, one for each fit.")
    return list(labels)


def _row(data: Any, i: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[i], data)


class _Solutions(NamedTuple):
    """What was found for a chunk of fits; each leaf has a leading axis of them."""

    q: Distribution
    converged: Array  # (fits,) bool
    evaluations: Evaluations


@program(static_argnames="algorithm")
def _solve(algorithm: Algorithm[Any], problem: Problem, data: Any, draws: Array) -> _Solutions:
    dim, dtype = problem.dim, draws.dtype
    pathfinder = Pathfinder(num_paths=1, num_draws=0)
    kind = Dense if Regime.of(dim).dense_start else Limited
    origin = pathfinder.from_points(jnp.zeros((1, dim), dtype), jnp.zeros((0, dim), dtype), kind)
    structure = algorithm.needs(dim).family.standard(dim, dtype)

    def one(data: Any) -> _Solutions:
        local = replace(problem, data=data)
        path = solve(pathfinder, local, origin, ITERATIONS)
        loc, curvature = jax.tree.map(lambda leaf: leaf[0], (path.state.paths.x, path.state.paths.curvature))
        q = structure.around(Affine(loc, curvature.scale()))
        end = solve(algorithm, local, algorithm.init(local, q, draws))
        converged = algorithm.status(end.state) == CONVERGED
        spent = jax.tree.map(jnp.add, path.evaluations, end.evaluations)
        return _Solutions(algorithm.extract(end.state), converged, spent)

    return jax.vmap(one)(data)


@dataclass(frozen=True)
class Campaign:
    """Many fits of one log density, in chunks of a fixed size: one size compiles once.

    Fields:
        problem: with the data of the first.
        data: of all, with a leading axis of fits.
        count: how many there are.
        num_checks: draws of each approximation, to judge it by.
        seed: of all random numbers.
    """

    problem: Problem
    data: Any
    count: int
    num_checks: int
    seed: int

    def chunks(self) -> list[range]:
        """The numbers of the fits in each chunk."""
        starts = range(0, self.count, FITS_AT_ONCE)
        return [range(start, min(start + FITS_AT_ONCE, self.count)) for start in starts]

    def of(self, i: int) -> Problem:
        """The target of the i-th fit."""
        return replace(self.problem, data=_row(self.data, i))

    def filled(self, chunk: range) -> np.ndarray:
        """The numbers of the fits in a chunk, the last one repeated to fill it, `(FITS_AT_ONCE,)`."""
        return np.minimum(np.arange(chunk.start, chunk.start + FITS_AT_ONCE), chunk.stop - 1)

    def rows(self, chunk: range) -> Any:
        """The data of a chunk, with the last fit repeated to fill it."""
        return jax.tree.map(lambda leaf: leaf[self.filled(chunk)], self.data)

    def look(self, chunk: range, q: Distribution) -> Any:
        """Draws of each q in a chunk, and a quarter as many wider ones, with the densities that `Draws` holds."""
        dim, wide = self.problem.dim, self.num_checks // WIDE_SHARE
        streams = [stream(self.seed, RandomStream.MANY_VERDICT, int(i)) for i in self.filled(chunk)]
        wide_dim = MeanField.standard(dim).widened().noise_dim
        noise = [(random.normal((self.num_checks, dim)), random.normal((wide, wide_dim))) for random in streams]
        narrow, widened = (np.stack(column) for column in zip(*noise, strict=True))
        numbers = (self.num_checks + wide) * max(self.problem.evaluation_size, dim)
        at_once = max(1, min(FITS_AT_ONCE, WORKING_SET // numbers))
        return _evaluate(self.problem, self.rows(chunk), q, narrow, widened, at_once)

    def draws(self, columns: tuple[np.ndarray, ...], k: int) -> Draws:
        """Those of the k-th fit of a chunk, from what `look` returned."""
        x, *densities = (column[k] for column in columns)
        return Draws(x, *densities, from_q=np.arange(len(x)) < self.num_checks)

    def judge(self, chunk: range, found: _Solutions, looked: Any) -> list[Fit]:
        """The fits of a chunk, each with its own verdict."""
        found, columns, fits = jax.device_get(found), jax.device_get(looked), []
        for k, i in enumerate(chunk):
            q, evaluations = jax.tree.map(lambda leaf, k=k: np.asarray(leaf[k]), (found.q, found.evaluations))
            draws = self.draws(columns, k)
            stop = Stop.CONVERGED if found.converged[k] else Stop.STALLED
            evidence = Evidence(problem=self.of(i), q=q, start=start_at(q.affine), draws=draws, stop=stop)
            diagnosis = diagnose(evidence)
            weights = weigh(draws, diagnosis, evidence.log_weights)
            values = self.problem.parameters.structure(draws.x[weights > 0])
            moments = [
                jax.tree.map(lambda leaf, of=of, weights=weights: of(leaf, weights[weights > 0]), values)
                for of in (mean, sd)
            ]
            counts = Evaluations(len(draws), int(evaluations.gradients), int(evaluations.hessian_vector_products))
            fits.append(Fit(q, diagnosis, counts, *moments))
        return fits


@program(static_argnames="at_once")
def _evaluate(
    problem: Problem, data: Any, q: LocationScale, narrow: Array, wide: Array, at_once: int
) -> tuple[Array, ...]:
    # In coordinates in which q is N(0, I), no triangular system has to be solved.
    standard = MeanField.standard(problem.dim, narrow.dtype)

    def one(data: Any, q: LocationScale, narrow: Array, wide: Array) -> tuple[Array, ...]:
        local = replace(problem, data=data).in_coordinates(q.affine)
        y, *densities = evaluate.function(local, standard, narrow, wide, len(narrow) + len(wide))
        log_volume = q.scale.log_det()
        return q.affine.draws(y), *(each - log_volume for each in densities)

    return jax.lax.map(lambda each: one(*each), (data, q, narrow, wide), batch_size=at_once)
