"""What `fit` returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.algorithms.linear_response import LinearResponse, linear_response
from bbvi.arguments import no_derivative
from bbvi.compiling import program
from bbvi.diagnostics.pareto import resample as resample_indices
from bbvi.diagnostics.pareto import smooth
from bbvi.diagnostics.verdict import Diagnosis, Value
from bbvi.distributions import Distribution
from bbvi.evaluation import Draws, draw, is_costly, pieces
from bbvi.ladder import Rung
from bbvi.models import Model
from bbvi.outcome import History
from bbvi.parameters import Parameters, label
from bbvi.precision import scope
from bbvi.problem import LONG, Problem, no_gradient
from bbvi.provenance import Provenance
from bbvi.weights import mean, quantile, sd, weigh

if TYPE_CHECKING:
    from bbvi.diagnostics.full import FullDiagnosis
    from bbvi.nuts import NUTSDraws

Array = Any
POOL_FACTOR = 4  # draws evaluated for each one resampled
MOST = 2**28  # numbers in draws evaluated again, at most
SAMPLE, RESAMPLE, FIXED, NUTS, FULL = 3, 4, 5, 6, 10  # streams of random numbers


class Cost(NamedTuple):
    """What a fit took."""

    log_densities: int  # evaluations without gradient
    gradients: int  # evaluations of log density and gradient together
    hessian_vector_products: int
    compile_seconds: float  # tracing and compiling
    run_seconds: float  # everything else

    def __str__(self) -> str:
        products = f"{self.hessian_vector_products} Hessian-vector products, " if self.hessian_vector_products else ""
        return (
            f"Cost: {self.gradients} gradients, {products}{self.log_densities} log densities, "
            f"{self.compile_seconds:.1f} s compiling, {self.run_seconds:.1f} s running"
        )


@dataclass(frozen=True, repr=False)
class Posterior:
    """An approximate posterior that says how far it can be trusted.

    Made by `bbvi.fit` and `bbvi.load`.

    Fields:
        distribution: the fitted variational distribution over flat, unconstrained vectors; `to_numpyro()` converts it.
        diagnosis: the verdict.
        history: ELBO estimates, their standard errors and the number of non-finite draws, one row per step.
        cost: evaluations and seconds.
        method: name of the algorithm that found it.
        parameters: names, shapes and constraints.
        observed_data: the data by name, where they were given to `fit` as a mapping of arrays.
        ladder: the approximations that were tried, in order.
        origin: what was run, with which versions and where; None for those of `fit_many`.

    Example:
        >>> posterior = bbvi.fit(lambda p: -0.5 * p["a"] ** 2 - jnp.sum(p["b"] ** 2), {"a": (), "b": (3,)})
        >>> posterior.sample(100)["b"].shape
        (100, 3)
        >>> posterior.sd()["b"].round(1)
        array([0.7, 0.7, 0.7])
        >>> posterior.save("posterior.npz")
        >>> print(bbvi.load("posterior.npz").diagnosis.status.name)
        RELIABLE
    """

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
    width: int = field(default=1, repr=False)  # numbers that an evaluation of the log density holds in memory
    ladder: tuple[Rung, ...] = ()
    model: Model | None = field(default=None, repr=False)  # None after load
    refit: Callable[..., "Posterior"] | None = field(default=None, repr=False)  # the call of fit that made it
    origin: Provenance | None = None

    # -- draws -------------------------------------------------------------------------------------------------------

    def sample(self, num_samples: int = 1000, *, seed: int = 0, resample: bool | None = None) -> Any:
        """Posterior draws in the structure of the parameters, on their constrained scale.

        Arguments:
            num_samples: number of draws n.
            seed: the same seed gives the same draws.
            resample: None corrects the draws by importance resampling when the diagnosis allows it; False gives plain
                draws of q; True insists.

        Where the log density is costly, which the verdict says, or further draws would be more than 2**28 numbers,
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
        if resample or (resample is None and self.diagnosis.trusted):
            pool = self._pool(POOL_FACTOR * num_samples, seed, weighted=True)
            if not np.isfinite(pool.log_p).any():
                raise ValueError("No draw has a finite log density: there is nothing to resample. Use resample=False.")
            rng = np.random.default_rng((seed, RESAMPLE))
            return pool.take(resample_indices(rng, smooth(pool.log_p - pool.log_r).log_weights, num_samples)), True
        draws = self._pool(num_samples, seed)
        return draws.take(np.flatnonzero(draws.from_q)[:num_samples]), False

    def _pool(self, num: int, seed: int, weighted: bool = False) -> Draws:
        held = int(self.pool.from_q.sum())
        if self.problem is not None:
            with scope(self.double):
                costly = num * self.parameters.dim > MOST or is_costly(self.problem)
                if not (costly and (weighted or num <= held)):
                    return draw(self.problem, copy(self.distribution), (seed, SAMPLE), num, self.width)
        elif num > held:
            raise ValueError(
                f"{num} draws with log densities are needed, but this posterior was loaded from a file that holds "
                f"{held} and no log density. Ask for at most {held // POOL_FACTOR} resampled draws, or give load() "
                "the log density: bbvi.load(path, logprob=...)."
            )
        return self.pool.take(np.random.default_rng((seed, SAMPLE)).permutation(len(self.pool)))

    def structure(self, xs: Array, seed: int = 0) -> Any:
        """Flat, unconstrained vectors `(n, dim)` as what `sample` returns; `seed` is for quantities made at random."""
        with scope(self.double):
            values = self.parameters.structure(xs)
            derived = {} if self.model is None else self.model.derived(values, seed)
        return {**self.variables(xs), **derived} if derived else self.variables(xs)

    @property
    def on_branch(self) -> "Posterior":
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

    def linear_response(self, function: Any, *, num_draws: int = 32, seed: int = 0) -> LinearResponse:
        """Mean, sd and covariance of functions of the parameters, by linear response of a mean-field Gaussian.

        Sees the correlations that a mean-field Gaussian misses, at any number of coordinates: it takes Hessian-vector
        products, and no matrix. The mean-field optimum is found anew on fixed draws, starting from this posterior.

        Arguments:
            function: of the parameters in their structure, on the constrained scale; returns a number or an array,
                whose elements are the functions. Each takes a linear system of its own.
            num_draws: fixed draws, an even number.
            seed: of the draws.

        Raises:
            ValueError: when the posterior was loaded without its log density.
            TypeError: when the log density has no second derivatives.
            FloatingPointError: when the mean-field optimum is not reached, or is a saddle point.
        """
        if self.problem is None:
            raise ValueError("linear_response needs the log density: bbvi.load(path, logprob=...).")
        with scope(self.double):
            if reason := self.problem.why_not_differentiable(2):
                first = self.problem.why_not_differentiable(1)
                raise no_gradient(first) if first else no_derivative("linear_response", reason)
            rng = np.random.default_rng((seed, FIXED))
            return linear_response(self.problem, copy(self.distribution), function, num_draws, rng)

    def to_nuts(
        self, num_samples: int = 1000, *, num_warmup: int = 500, num_chains: int = 4, seed: int = 0
    ) -> "NUTSDraws":
        """Draws by Markov chain Monte Carlo, warm-started from this fit: for posteriors that it calls unreliable.

        Runs numpyro's NUTS. The chains begin at draws of this posterior, and the inverse mass matrix begins as the
        covariance of its approximation, dense up to 200 coordinates, and is adapted further. When the approximation is
        a flow, they run in its noise, where the posterior is nearly a standard normal (NeuTra).

        Arguments:
            num_samples: draws of each chain after the warm-up.
            num_warmup: iterations before.
            num_chains: run side by side.
            seed: of all random numbers.

        Raises:
            ValueError: when the posterior was loaded without its log density.

        References: Hoffman and Gelman 2014, JMLR 15; Hoffman et al. 2019 (arXiv:1903.03704).
        """
        from bbvi.nuts import NUTSDraws, run_nuts

        if self.problem is None:
            raise ValueError("to_nuts needs the log density: bbvi.load(path, logprob=...).")
        draws, _ = self.draw(num_chains, seed=seed)
        with scope(self.double):
            rng = np.random.default_rng((seed, NUTS))
            chains = run_nuts(self.problem, copy(self.distribution), draws.x, num_samples, num_warmup, rng)
        return NUTSDraws(
            chains.x,
            self.structure(chains.x.reshape(-1, chains.x.shape[-1])),
            float(np.max(chains.r_hat)),
            float(np.min(chains.effective_sample_size)),
            chains.divergences,
            chains.gradients,
        )

    # -- checks ------------------------------------------------------------------------------------------------------

    def diagnose(self, level: str = "quick", *, seed: int = 0) -> "Diagnosis | FullDiagnosis":
        """The verdict, or more about it.

        Arguments:
            level: "quick" for the verdict that the fit came with; "full" for bounds of the errors of means and standard
                deviations, bounds of the evidence, a Stein test, and k-hat for each parameter, from 65 536 further
                draws.
            seed: of these.

        Raises:
            ValueError: when `level` is unknown, or "full" is asked of a posterior that was loaded without its log
                density.
        """
        if level == "quick":
            return self.diagnosis
        if level != "full":
            raise ValueError(f"level={level!r} is unknown. Known: quick, full.")
        if self.problem is None:
            raise ValueError("The full checks need the log density: bbvi.load(path, logprob=...).")
        from bbvi.diagnostics.full import DRAWS, diagnose_fully

        with scope(self.double):
            num = 1 if is_costly(self.problem) else DRAWS  # at least one set
            pool = draw(self.problem, copy(self.distribution), (seed, FULL), num, self.width)
            read = lambda x: self.named(self.variables(x))
            return diagnose_fully(self.problem, self.diagnosis, pool, read, seed)

    def bridge(self, nuts: "NUTSDraws", *, seed: int = 0) -> Value:
        """Log evidence by bridge sampling between this approximation and draws of the posterior by `to_nuts`.

        For approximations whose tails are too light for importance sampling, which the verdict calls unreliable.

        Returns:
            The log evidence in nats, with its standard error.

        Raises:
            ValueError: when the posterior was loaded without its log density.
            FloatingPointError: when the draws of the two hardly overlap.
        """
        from bbvi.diagnostics.bridge import bridge

        if self.problem is None:
            raise ValueError("bridge needs the log density: bbvi.load(path, logprob=...).")
        x = nuts.x.reshape(-1, nuts.x.shape[-1])
        with scope(self.double):
            pool = draw(self.problem, copy(self.distribution), (seed, FULL), len(x), self.width)
            log_p, log_q = _log_ratio(self.problem, copy(self.distribution), x)
        of_q = pool.take(pool.from_q)
        ratios = np.where(np.isfinite(of_q.log_p), of_q.log_p - of_q.log_q, -np.inf)
        return bridge(np.asarray(log_p) - np.asarray(log_q), ratios, min(nuts.effective_sample_size, len(x)))

    # -- summaries ---------------------------------------------------------------------------------------------------

    def mean(self) -> Any:
        """Posterior means in the structure of the parameters, importance-weighted when the diagnosis allows it.

        Of more than 2**17 coordinates there are few draws; then, without constraints, they are those of q itself.
        """
        return self._of_q(self.distribution.mean) if self._by_q else self._map(mean)

    def sd(self) -> Any:
        """Posterior standard deviations, likewise."""
        return self._of_q(self.distribution.sd) if self._by_q else self._map(sd)

    def quantile(self, q: float | Sequence[float]) -> Any:
        """Posterior quantiles, likewise; a sequence of probabilities adds a leading axis."""
        probabilities = np.atleast_1d(np.asarray(q, float))
        if not ((probabilities >= 0) & (probabilities <= 1)).all():
            raise ValueError(f"q={q!r} must lie in [0, 1].")

        return self._map(
            lambda draws, weights: quantile(draws, weights, probabilities if np.ndim(q) else probabilities[0])
        )

    @property
    def _by_q(self) -> bool:
        return self.parameters.dim > LONG and self.parameters.unconstrained

    def _of_q(self, moment: Callable[[], Array]) -> Any:
        with scope(self.double):
            x = np.asarray(moment())
        return jax.tree.map(lambda leaf: leaf[0], self.structure(x[None]))

    def _map(self, statistic: Any) -> Any:
        draws, weights = self._weighted(self.on_branch.structure)
        return jax.tree.map(lambda values: statistic(np.asarray(values, float), weights), draws)

    def _weighted(self, read: Callable[[Array], Any]) -> tuple[Any, np.ndarray]:
        """What `read` makes of the draws behind the diagnosis, and their weights."""
        weights = self.weights
        keep = weights > 0
        parts = [read(x) for x in pieces(self.pool.x[keep])]
        return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts), weights[keep]

    @property
    def weights(self) -> np.ndarray:
        """Weights of the draws behind the diagnosis, `(n,)`, summing to 1: even ones of q's where it is not trusted."""
        return weigh(self.pool, self.diagnosis)

    @property
    def num_scalars(self) -> int:
        """Number of scalar parameters, on the constrained scale."""
        return sum(np.size(value) for value in self.named(self.variables(self.pool.x[:1])).values())

    def table(self, max_rows: int | None = None) -> list[tuple[str, dict[str, float]]]:
        """Mean, sd and quantiles of each scalar parameter, by name."""
        shapes = {}

        def read(x: Array) -> dict[str, np.ndarray]:
            found, left = {}, max_rows
            for name, values in self.named(self.on_branch.variables(x)).items():
                shapes[name] = np.shape(values)[1:]
                found[name] = np.array(np.reshape(values, (len(x), -1))[:, :left], float)  # no view, which keeps all
                left = None if left is None else left - found[name].shape[1]
            return found

        draws, weights = self._weighted(read)
        rows = []
        for name, columns in draws.items():
            statistics = {"mean": mean(columns, weights), "sd": sd(columns, weights)}
            if self._by_q:
                for title, moments in (("mean", self.mean()), ("sd", self.sd())):
                    statistics[title] = np.ravel(self.named(moments)[name])[: columns.shape[1]]
            statistics |= {f"{100 * p:g}%": quantile(columns, weights, p) for p in (0.05, 0.5, 0.95)}
            for i, index in zip(range(columns.shape[1]), np.ndindex(*shapes[name]), strict=False):
                rows.append((label(name, index), {title: float(values[i]) for title, values in statistics.items()}))
        return rows

    def summary(self, **kwargs: Any) -> Any:
        """The table of `arviz_stats.summary` (a pandas DataFrame) for `to_arviz()`; arguments are passed on.

        Made of 1000 draws, or where the verdict had fewer, of as many.
        """
        from arviz_stats.summary import summary

        options: dict[str, Any] = {"kind": "stats"} | kwargs
        return summary(self.on_branch.to_arviz(min(1000, len(self.pool))), **options)

    # -- elsewhere ---------------------------------------------------------------------------------------------------

    def to_arviz(
        self,
        num_samples: int = 1000,
        *,
        seed: int = 0,
        resample: bool | None = None,
        coords: Mapping[str, Sequence[Any]] | None = None,
        dims: Mapping[str, Sequence[str]] | None = None,
        log_likelihood: bool | None = None,
    ) -> Any:
        """A DataTree with groups posterior, sample_stats and, where known, log_likelihood and observed_data.

        sample_stats holds log_p and log_q of each draw, on the unconstrained scale. A slash in a name becomes a dot; a
        variable or dimension called chain, draw or sample gets an underscore at its end, and a dimension called like a
        variable the ending _dim: arviz and xarray need these names themselves.
        For `arviz_stats.loo_approximate_posterior` pass `resample=False`: it weights the draws itself.

        Arguments:
            num_samples, seed, resample: as in `sample`.
            coords, dims: names of dimensions and their labels, as in `arviz_base.from_dict`; a model has its own.
            log_likelihood: whether to add the log likelihood of each observation, which `arviz_stats.loo` needs. None
                does where a model or a `Factorized` density has one and it is no more than 2**25 numbers.

        Raises:
            ValueError: when a log likelihood is asked for and there is none.
        """
        from bbvi.reporting.arviz import to_arviz

        return to_arviz(self, num_samples, seed, resample, coords, dims, log_likelihood)

    def predict(
        self,
        *args: Any,
        num_samples: int = 1000,
        seed: int = 0,
        resample: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """New data from the posterior predictive distribution of a NumPyro or PyMC model.

        Arguments:
            args, kwargs: without any, data like those observed. For a NumPyro model: other arguments to call it with,
                the observations left out, to predict elsewhere.
            num_samples, seed, resample: as in `sample`.

        Returns:
            The DataTree of `to_arviz` with a further group: posterior_predictive, or predictions when arguments were
            given, which then also holds deterministic sites.

        Raises:
            ValueError: when the posterior is not of such a model.
        """
        from bbvi.reporting.arviz import predict

        return predict(self, args, kwargs, num_samples, seed, resample)

    def report(self, path: str | Path, *, level: str = "quick", calibration: Any = None) -> None:
        """Write one page of HTML that needs nothing else: the verdict, tables, pictures, and what was run.

        Above 50 scalars it shows those with the fewest effective draws, and sums up the others.

        Arguments:
            path: of the file, which is replaced.
            level: "full" adds what `diagnose(level="full")` says.
            calibration: what `bbvi.calibrate` returned for the same model, to show on the page.
        """
        from bbvi.reporting.report import report

        report(self, path, level, calibration)

    def plot_elbo(self) -> Any:
        """A matplotlib Figure: ELBO estimates of each rung against evaluations, with a band of two standard errors."""
        from bbvi.reporting.plots import elbo

        return elbo(self)

    def plot_ladder(self) -> Any:
        """A matplotlib Figure: what was tried, at what cost, and the verdict on each."""
        from bbvi.reporting.plots import ladder

        return ladder(self)

    def plot_log_weights(self) -> Any:
        """A matplotlib Figure: log importance weights, and the largest of them, whose slope is k-hat."""
        from bbvi.reporting.plots import log_weights

        return log_weights(self)

    def update(self, new: Any, **changes: Any) -> "Posterior":
        """Fit again, with new data, from where this fit ended.

        Arguments:
            new: data in place of those given to `fit`, or for a model the same model with other data. They replace the
                earlier data; they are not added to them. Data of the same shapes compile nothing anew.
            changes: arguments of `fit` that are to differ from those of the first call, such as `seed` or `method`.

        Raises:
            ValueError: when the posterior was loaded from a file.
        """
        if self.refit is None:
            raise ValueError("A posterior from a file has no log density to fit. Use bbvi.fit(..., init=posterior).")
        return self.refit(new, **{"init": self, **changes})

    def save(self, path: str | Path) -> None:
        """Write the posterior to one file: numbers and text only, no code. See `bbvi.load`."""
        from bbvi.files import save

        save(self, path)

    def with_model(self, model: Model, problem: Problem, width: int) -> "Posterior":
        """The same posterior with a log density to evaluate further draws."""
        return replace(self, model=model, problem=problem, width=width)

    def __repr__(self) -> str:
        rows = self.table(20)
        titles = list(rows[0][1])
        pad = max(len(name) for name, _ in rows)
        family = type(self.distribution).__name__
        dim = self.parameters.dim
        lines = [f"{family} posterior over {dim} coordinate{'s' * (dim > 1)} by {self.method}"]
        lines += [" " * pad + "".join(f"{title:>12}" for title in titles)]
        lines += [f"{name:<{pad}}" + "".join(f"{row[title]:>12.4g}" for title in titles) for name, row in rows]
        if self.num_scalars > len(rows):
            lines.append(f"... and {self.num_scalars - len(rows)} more; summary() has them all")
        source = "importance-weighted" if self.diagnosis.trusted else "plain draws of the approximation"
        lines += [f"({source}; sample() likewise)", str(self.diagnosis)]
        if len(self.ladder) > 1:
            lines += ["Tried:", *(f"  {rung}" for rung in self.ladder)]
        lines.append(str(self.cost))
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from bbvi.reporting.html import to_html

        return to_html(self)


def copy(q: Distribution) -> Distribution:
    """`q` with arrays of its own: JAX may remember the precision in which an array was last used."""
    return jax.tree.map(np.array, q)


@program
def _log_ratio(problem: Problem, q: Distribution, x: Array) -> tuple[Array, Array]:
    return problem.layout.everywhere((problem.log_densities(x), q.log_prob(x)))


@program
def _log_prob(parameters: Parameters, q: Distribution, batch: list[Array]) -> Array:
    def one(leaves: list[Array]) -> Array:
        x, log_volume = parameters.unconstrain(leaves)
        return q.log_prob(x) - log_volume

    return jax.vmap(one)([jnp.asarray(leaf) for leaf in batch])
