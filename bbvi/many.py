"""Many small posteriors at once: the same log density for each of many sets of data, in one compiled program.

Each fit is that of `method="newton"`, a quasi-Newton path to a mode and then the full-rank Gaussian of largest ELBO; or
the mean-field one, by `method="dadvi"`. All are stepped together, so that a fit costs what its arithmetic costs, and
no call for each step. Then each is judged by fresh draws of its own, as a single fit is.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi import timing
from bbvi.algorithms import DADVI, Algorithm, Newton
from bbvi.algorithms.climb import climb
from bbvi.arguments import choose, positive, read_model, read_seed
from bbvi.compiling import program
from bbvi.data.reading import observed, read_data
from bbvi.diagnostics.checks.base import Evidence
from bbvi.diagnostics.pareto import resample
from bbvi.diagnostics.verdict import Diagnosis, diagnose
from bbvi.distributions import FullRank, MeanField
from bbvi.evaluation import DEGREES_OF_FREEDOM, POOL, WIDE, WORKING_SET, Draws, evaluate
from bbvi.models import Model
from bbvi.outcome import History, Status, Stop
from bbvi.parameters import Parameters, label
from bbvi.posterior import Cost, Posterior
from bbvi.precision import scope, use_double
from bbvi.problem import Problem, trace
from bbvi.random import stream
from bbvi.reading_parameters import make_parameters
from bbvi.spelling import nearest
from bbvi.start import start_at
from bbvi.weights import mean, sd, weigh

Array = Any
METHODS = {"full_rank": Newton, "mean_field": DADVI}  # by family: deterministic ones, which need no noise
CHUNK = 256  # fits in one call of the compiled program
NUM_DRAWS = 1024  # of each approximation, to judge it by
FIXED, CHECK, RESAMPLE = 7, 8, 9  # streams of random numbers


def fit_many(
    logprob: Callable[..., Any] | Model,
    dim: Any = None,
    data: Any = None,
    *,
    constraints: Any = None,
    family: str = "full_rank",
    labels: Sequence[Any] | None = None,
    coord: str = "fit",
    num_draws: int = NUM_DRAWS,
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
        num_draws: of each approximation, to judge and to correct it by, a multiple of 4; a quarter as many wider ones
            are added.
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
    began, compiled = time.perf_counter(), timing.compile_seconds()
    if data is None:
        raise ValueError("data is missing: arrays whose leading axis counts the fits.")
    model = read_model(logprob, dim, constraints, None if isinstance(logprob, Model) else data)
    parameters = make_parameters(model.dim, model.constraints)
    seed = read_seed(seed)
    algorithm: Algorithm = choose("family", family, METHODS)()
    if positive("num_draws", num_draws) % 4:
        raise ValueError(f"num_draws={num_draws} must be a multiple of 4.")
    with scope(double := use_double(precision)):
        data = read_data(data, nan=True)
        labels = _labels(data, labels)
        problem = Problem(parameters, _row(data, 0), model.logprob)
        width = trace(problem)
        draws = algorithm.draws(np.random.default_rng((seed, FIXED)), problem.dim)
        look = partial(_look, problem, width, seed, num_draws)
        waiting: list[tuple[range, _Gaussians, Any]] = []
        fits: list[_Fit] = []
        for chunk in _chunks(len(labels)):
            found = _solve(algorithm, problem, _rows(data, chunk), draws)
            waiting.append((chunk, found, look(data, chunk, found.loc, found.scale)))
            if len(waiting) > 1:  # the device goes on with the next chunk while the host judges this one
                fits += _judge(family, problem, data, *waiting.pop(0))
        for chunk in waiting:
            fits += _judge(family, problem, data, *chunk)
    compiling = timing.compile_seconds() - compiled
    return Posteriors(
        tuple(fits),
        labels,
        coord,
        parameters,
        Cost(
            log_densities=sum(each.diagnosis.num_draws for each in fits),
            gradients=sum(each.gradients for each in fits),
            hessian_vector_products=sum(each.products for each in fits),
            compile_seconds=compiling,
            run_seconds=time.perf_counter() - began - compiling,
        ),
        double,
        seed,
        num_draws,
        model,
        problem,
        width,
        data,
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


def _rows(data: Any, chunk: range) -> Any:
    """The data of a chunk, with the last fit repeated to fill it: one size compiles once."""
    indices = np.minimum(np.arange(chunk.start, chunk.start + CHUNK), chunk.stop - 1)
    return jax.tree.map(lambda leaf: leaf[indices], data)


def _chunks(count: int) -> list[range]:
    return [range(start, min(start + CHUNK, count)) for start in range(0, count, CHUNK)]


class _Gaussians(NamedTuple):
    """What Newton found for a chunk."""

    loc: Array  # (fits, dim)
    scale: Array  # (fits, dim, dim)
    converged: Array  # (fits,)
    gradients: Array  # (fits,)
    products: Array  # (fits,) Hessian-vector products


@program(static_argnames="algorithm")
def _solve(algorithm: Any, problem: Problem, data: Any, draws: Array) -> _Gaussians:
    dim, dtype = problem.dim, draws.dtype

    def one(data: Any) -> _Gaussians:
        local = replace(problem, data=data)
        _, path, _ = climb(local, jnp.zeros((1, dim), dtype), jnp.zeros((0, dim), dtype))
        q = algorithm.default_family(dim).standard(dim, dtype).near(path.loc[0], path.scale[0])
        begun = (algorithm.init(local, q, draws), path.evaluations, jnp.zeros((), int))

        def step(carry: tuple[Any, Array, Array]) -> tuple[Any, Array, Array]:
            state, info = algorithm.step(None, local, carry[0])
            return state, carry[1] + info.gradients, carry[2] + info.hessian_vector_products

        state, gradients, products = jax.lax.while_loop(lambda carry: ~algorithm.done(carry[0]), step, begun)
        loc, scale, _ = algorithm.extract(state).standardise()
        converged = state.settled if isinstance(algorithm, Newton) else state.checked
        return _Gaussians(loc, jnp.diag(scale) if scale.ndim == 1 else scale, converged, gradients, products)

    return jax.vmap(one)(data)


def _look(problem: Problem, width: int, seed: int, num: int, data: Any, chunk: range, loc: Array, scale: Array) -> Any:
    """Draws of each q in a chunk, and a quarter as many of t, with the densities that `Draws` holds."""
    wide = num * WIDE // POOL
    streams = [stream(seed, CHECK, min(i, chunk.stop - 1)) for i in range(chunk.start, chunk.start + CHUNK)]
    chi2 = np.stack([(random.normal((wide, DEGREES_OF_FREEDOM)) ** 2).sum(axis=1, keepdims=True) for random in streams])
    noise = np.stack([random.normal((num + wide, problem.dim)) for random in streams])
    at_once = max(1, min(CHUNK, WORKING_SET // (noise[0].shape[0] * max(width, problem.dim))))
    return _evaluate(problem, _rows(data, chunk), loc, scale, noise, (DEGREES_OF_FREEDOM / chi2) ** 0.5, at_once)


@program(static_argnames="at_once")
def _evaluate(
    problem: Problem, data: Any, loc: Array, scale: Array, noise: Array, stretch: Array, at_once: int
) -> tuple[Array, ...]:
    # In coordinates in which q is N(0, I), no triangular system has to be solved.
    standard = MeanField.standard(problem.dim, loc.dtype)

    def one(data: Any, loc: Array, scale: Array, noise: Array, stretch: Array) -> tuple[Array, ...]:
        local = replace(problem, data=data).in_coordinates(loc, scale)
        y, *densities = evaluate.function(local, standard, noise, stretch, len(noise))
        log_volume = jnp.sum(jnp.log(jnp.diagonal(scale)))
        return loc + y @ scale.T, *(each - log_volume for each in densities)

    return jax.lax.map(lambda each: one(*each), (data, loc, scale, noise, stretch), batch_size=at_once)


class _Fit(NamedTuple):
    """What is kept of one fit."""

    q: FullRank | MeanField
    diagnosis: Diagnosis
    gradients: int
    products: int
    mean: Any
    sd: Any


def _judge(family: str, problem: Problem, data: Any, chunk: range, found: _Gaussians, looked: Any) -> list[_Fit]:
    """The fits of a chunk, each with its own verdict."""
    loc, scale, converged, gradients, products = jax.device_get(found)
    columns, fits = jax.device_get(looked), []
    for k, i in enumerate(chunk):
        log_diagonal = np.log(np.diagonal(scale[k]))
        full = family == FullRank.name
        q = FullRank(loc[k], np.tril(scale[k], -1) + np.diag(log_diagonal)) if full else MeanField(loc[k], log_diagonal)
        pool = _draws(columns, k)
        local = replace(problem, data=_row(data, i))
        start, stop = start_at(loc[k], scale[k]), Stop.CONVERGED if converged[k] else Stop.STALLED
        diagnosis = diagnose(Evidence(problem=local, q=q, start=start, draws=pool, stop=stop))
        weights = weigh(pool, diagnosis)
        draws, kept = problem.parameters.structure(pool.x[weights > 0]), weights[weights > 0]
        moments = [jax.tree.map(partial(of, weights=kept), draws) for of in (mean, sd)]
        fits.append(_Fit(q, diagnosis, int(gradients[k]), int(products[k]), *moments))
    return fits


def _matrix(q: FullRank | MeanField) -> np.ndarray:
    scale = np.asarray(q.standardise()[1])
    return np.diag(scale) if scale.ndim == 1 else scale


def _draws(columns: tuple[np.ndarray, ...], k: int) -> Draws:
    x, *densities = (column[k] for column in columns)
    of_q = round(len(x) * POOL / (POOL + WIDE))
    return Draws(x, *densities, from_q=np.arange(len(x)) < of_q)


@dataclass(frozen=True, repr=False)
class Posteriors(Sequence[Posterior]):
    """What `fit_many` returns: a sequence of posteriors.

    Fields:
        fits: approximation, diagnosis, mean and sd of each.
        labels: a name for each.
        coord: name of their axis in arviz.
        parameters: names, shapes and constraints, the same for all.
        cost: evaluations and seconds, over all.
    """

    fits: tuple[_Fit, ...]
    labels: list[Any]
    coord: str
    parameters: Parameters
    cost: Cost
    double: bool
    seed: int = field(repr=False)
    num_draws: int = field(repr=False)
    model: Model = field(repr=False)
    problem: Problem = field(repr=False)
    width: int = field(repr=False)
    data: Any = field(repr=False)

    def __len__(self) -> int:
        return len(self.fits)

    def __getitem__(self, i: Any) -> Any:
        """The i-th posterior, with the draws it was judged by; a list of them for a slice."""
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        i = range(len(self))[i]
        chunk = _chunks(len(self))[i // CHUNK]
        data, fit = _row(self.data, i), self.fits[i]
        with scope(self.double):
            pool = _draws(self._look(chunk), i - chunk.start)
            problem = jax.device_put(replace(self.problem, data=data))
        cost = Cost(fit.diagnosis.num_draws, fit.gradients, fit.products, 0.0, 0.0)
        return Posterior(
            fit.q,
            fit.diagnosis,
            History(*[np.zeros(0)] * len(History._fields)),
            cost,
            METHODS[fit.q.name].name,
            self.parameters,
            observed(data),
            pool,
            self.double,
            problem,
            self.width,
            model=replace(self.model, data=data),
        )

    def pools(self) -> Iterator[Draws]:
        """The draws that each was judged by, one after the other."""
        for chunk in _chunks(len(self)):
            with scope(self.double):
                columns = self._look(chunk)
            for k in range(len(chunk)):
                yield _draws(columns, k)

    def _look(self, chunk: range) -> tuple[np.ndarray, ...]:
        indices = np.minimum(np.arange(chunk.start, chunk.start + CHUNK), chunk.stop - 1)
        loc = np.stack([self.fits[i].q.loc for i in indices])
        scale = np.stack([_matrix(self.fits[i].q) for i in indices])
        return jax.device_get(_look(self.problem, self.width, self.seed, self.num_draws, self.data, chunk, loc, scale))

    def at(self, label: Any) -> Posterior:
        """The posterior of this name."""
        if label not in self.labels:
            raise KeyError(f"{label!r} is none of the labels. {nearest(str(label), self.labels)}")
        return self[self.labels.index(label)]

    @property
    def diagnoses(self) -> list[Diagnosis]:
        """The verdict on each."""
        return [fit.diagnosis for fit in self.fits]

    def mean(self) -> Any:
        """Posterior means in the structure of the parameters, each `(fits, *shape)`."""
        return jax.tree.map(lambda *leaves: np.stack(leaves), *(fit.mean for fit in self.fits))

    def sd(self) -> Any:
        """Posterior standard deviations, likewise."""
        return jax.tree.map(lambda *leaves: np.stack(leaves), *(fit.sd for fit in self.fits))

    def sample(self, num_samples: int = 100) -> Any:
        """Draws from each posterior, `(fits, num_samples, *shape)`: resampled by importance from those that judged it.

        Where the verdict does not allow it they are plain draws of the approximation.
        """
        num_samples, rows = positive("num_samples", num_samples), []
        for i, pool in enumerate(self.pools()):
            weights = weigh(pool, self.fits[i].diagnosis)
            rng = np.random.default_rng((self.seed, RESAMPLE, i))
            rows.append(pool.x[resample(rng, np.log(np.maximum(weights / weights.sum(), 1e-300)), num_samples)])
        with scope(self.double):
            flat = self.parameters.structure(np.concatenate(rows))
        return jax.tree.map(lambda leaf: leaf.reshape(len(self), num_samples, *leaf.shape[1:]), flat)

    def table(self) -> Any:
        """A pandas DataFrame with a row for each fit: status, k-hat, log evidence, mean and sd of each parameter."""
        import pandas

        columns: dict[str, Any] = {
            "status": [each.status.name.lower() for each in self.diagnoses],
            "k_hat": [each.resampling_k_hat for each in self.diagnoses],
            "log_evidence": [each.log_evidence.value for each in self.diagnoses],
        }
        means, sds = (self.parameters.named(values) for values in (self.mean(), self.sd()))
        for name in self.parameters.names:
            for index in np.ndindex(*means[name].shape[1:]):
                title = label(name, index)
                columns[f"{title} mean"], columns[f"{title} sd"] = (each[name][:, *index] for each in (means, sds))
        return pandas.DataFrame(columns, index=pandas.Index(self.labels, name=self.coord))

    def to_arviz(self, num_samples: int = 100) -> Any:
        """A DataTree with groups posterior, whose variables have a dimension for the fits, and diagnosis.

        Arguments:
            num_samples: draws of each fit, as in `sample`.
        """
        import arviz_base
        import xarray

        draws = self.parameters.named(self.sample(num_samples))
        rest = {name: [f"{name}_dim_{i}" for i in range(values.ndim - 2)] for name, values in draws.items()}
        tree = arviz_base.from_dict(
            {"posterior": {name: np.moveaxis(values, 0, 1)[None] for name, values in draws.items()}},
            coords={self.coord: self.labels},
            dims={name: [self.coord, *axes] for name, axes in rest.items()},
        )
        tree["diagnosis"] = xarray.DataTree(self.table()[["status", "k_hat", "log_evidence"]].to_xarray())
        return tree

    def __repr__(self) -> str:
        counts = Counter(each.status for each in self.diagnoses)
        statuses = ", ".join(f"{counts[status]} {status.name.lower()}" for status in Status if counts[status])
        return "\n".join(
            [
                f"{len(self)} posteriors over {self.parameters.dim} coordinates, {self.fits[0].q.name}: {statuses}",
                "table() has a row for each; posteriors[i] is the i-th",
                str(self.cost),
            ]
        )
