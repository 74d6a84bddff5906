"""What `fit` returns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bbvi.data.reading import read_rows
from bbvi.diagnostics.verdict import Diagnosis
from bbvi.models import Model
from bbvi.outcome import Value
from bbvi.record import Record
from bbvi.reporting import arviz, bridge, chains, files, full, html, plots, report, tables
from bbvi.reporting.chains import NUTSDraws
from bbvi.reporting.linear_response import LinearResponse, respond
from bbvi.runtime.precision import scope
from bbvi.runtime.storage import read_path
from bbvi.target.problem import Problem

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False, kw_only=True)
class Posterior(Record):
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
        return respond(self, function, num_draws, seed)

    def to_nuts(
        self, num_samples: int = 1000, *, num_warmup: int = 500, num_chains: int = 4, seed: int = 0
    ) -> NUTSDraws:
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
        return chains.run(self, num_samples, num_warmup, num_chains, seed)

    # -- checks ------------------------------------------------------------------------------------------------------

    def diagnose(self, level: str = "quick", *, seed: int = 0) -> Diagnosis | full.FullDiagnosis:
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
        return full.diagnose_further(self, level, seed)

    def bridge(self, nuts: NUTSDraws, *, seed: int = 0) -> Value:
        """Log evidence by bridge sampling between this approximation and draws of the posterior by `to_nuts`.

        For approximations whose tails are too light for importance sampling, which the verdict calls unreliable.

        Returns:
            The log evidence in nats, with its standard error.

        Raises:
            ValueError: when the posterior was loaded without its log density.
            FloatingPointError: when the draws of the two hardly overlap.
        """
        return bridge.log_evidence(self, nuts, seed)

    # -- elsewhere ---------------------------------------------------------------------------------------------------

    def table(self, max_rows: int | None = None) -> "pandas.DataFrame":
        """Mean, sd and the 5 %, 50 % and 95 % quantiles of each scalar parameter, a row for each, by name.

        Columns that begin with mcse are Monte Carlo standard errors of the others, in the same units. They are not
        numbers where the verdict does not trust the draws.
        """
        return tables.frame(self, max_rows)

    def summary(self, **kwargs: Any) -> Any:
        """All that `sample` returns, as rows of the table of `arviz_stats.summary` (a pandas DataFrame).

        Mean, sd and an interval are those of the draws behind the verdict, weighted as it allows; columns that begin
        with mcse are their Monte Carlo standard errors, not a number where the verdict does not trust the draws.

        Arguments:
            kwargs: var_names, filter_vars, coords, ci_prob and round_to (decimals; by default all) as for arviz. With
                any others, such as `kind="all"`, the table is arviz's own, of at most 1000 draws of `to_arviz()`.
        """
        return tables.summary(self, **kwargs)

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

        sample_stats holds log_p and log_q of each draw, on the unconstrained scale. Draws of chains have an axis of
        chains; of each as many steps as make `num_samples`, as far as there are so many. A slash in a name becomes a
        dot; a variable or dimension called chain, draw or sample gets an underscore at its end, and a dimension called
        like a variable the ending _dim: arviz and xarray need these names themselves.
        For `arviz_stats.loo_approximate_posterior` pass `resample=False`: it weights the draws itself.

        Arguments:
            num_samples, seed, resample: as in `sample`.
            coords, dims: names of dimensions and their labels, as in `arviz_base.from_dict`; a model has its own.
            log_likelihood: whether to add the log likelihood of each observation, which `arviz_stats.loo` needs. None
                does where a model or a `Factorized` density has one and it is no more than 2**25 numbers.

        Raises:
            ValueError: when a log likelihood is asked for and there is none.
        """
        labels = arviz.Labels(coords or {}, dims or {})
        return arviz.to_arviz(self, num_samples, seed, resample, labels, log_likelihood)

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
        return arviz.predict(self, args, kwargs, num_samples, seed, resample)

    def report(self, path: str | Path, *, level: str = "quick", calibration: Any = None) -> None:
        """Write one page of HTML that needs nothing else: the verdict, tables, pictures, and what was run.

        Above 50 scalars it shows those with the fewest effective draws, and sums up the others.

        Arguments:
            path: of the file, which is replaced.
            level: "full" adds what `diagnose(level="full")` says.
            calibration: what `bbvi.calibrate` returned for the same model, to show on the page.
        """
        report.report(self, path, level, calibration)

    def plot_elbo(self) -> Any:
        """A matplotlib Figure: ELBO estimates of each stage against evaluations, with a band of two standard errors."""
        return plots.elbo(self)

    def plot_ladder(self) -> Any:
        """A matplotlib Figure: what was tried, at what cost, and the verdict on each."""
        return plots.ladder(self)

    def plot_log_weights(self) -> Any:
        """A matplotlib Figure: log importance weights, and the largest of them, whose slope is k-hat."""
        return plots.log_weights(self)

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
        files.save(self, path)

    def with_model(self, model: Model, problem: Problem) -> "Posterior":
        """The same posterior with a log density to evaluate further draws."""
        return replace(self, model=model, problem=problem)

    def __repr__(self) -> str:
        return tables.describe(self)

    def _repr_html_(self) -> str:
        return html.to_html(self)


def load(path: str | Path, logprob: Callable[..., Any] | Model | None = None, data: Any = None) -> Posterior:
    """Read a posterior written by `Posterior.save`.

    Arguments:
        path: of the file.
        logprob, data: as given to `fit`; or a model. With them the posterior can draw and weight as many samples as
            one likes; without, it resamples from the draws in the file.

    Raises:
        OSError: when the file cannot be opened.
        ValueError: when it is no such file, or is damaged.
    """
    path = read_path("path", path)
    with files.damaged(path):
        posterior = Posterior(**files.read(path))
        repr(posterior)  # what can be printed fits together
    if logprob is None:
        return posterior
    with scope(posterior.double):
        model = logprob if isinstance(logprob, Model) else Model(logprob=logprob, dim=None, data=data)
        problem = Problem(posterior.parameters, read_rows(model.data, model.logprob), model.logprob)
        problem.check()
        return posterior.with_model(model, problem)
