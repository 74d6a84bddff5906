"""Many small posteriors at once: the same log density for each of many sets of data, in one compiled program.

Each fit is that of `method="newton"`, a quasi-Newton path to a mode and then the full-rank Gaussian of largest ELBO; or
the mean-field one, by `method="dadvi"`. All are stepped together, so that a fit costs what its arithmetic costs, and
no call for each step. Then each is judged by fresh draws of its own: few, where they show that it is easy, and where
they do not the fit is made with more care and judged as a single fit is (`campaign.py`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from bbvi.algorithms import DADVI, Algorithm, VariationalNewton
from bbvi.campaign import Campaign, rounds
from bbvi.data.reading import read_data
from bbvi.fitting.arguments import choose, positive, read_model, read_seed
from bbvi.fitting.budget import Stopwatch
from bbvi.models import Model
from bbvi.outcome import Cost, Evaluations
from bbvi.posteriors import Posteriors
from bbvi.runtime.precision import scope, use_double
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters

BY_FAMILY: dict[str, tuple[Algorithm[Any], Algorithm[Any]]] = {  # a quick one and a thorough one, without noise
    "full_rank": (VariationalNewton(num_draws=32, small_step=0.1), VariationalNewton()),
    "mean_field": (DADVI(response=False), DADVI()),
}
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
        num_checks: draws of an approximation, to judge and to correct it by, a multiple of 4; a quarter as many wider
            ones are added. A fit in at most 12 coordinates that is clearly good with 256 Sobol' points gets only these,
            whose means and standard deviations are no worse; 256 or fewer, or more than 2048, are for all fits.
        seed: of all random numbers. What a fit gives does not depend on those beside it, up to rounding; and its Monte
            Carlo errors are its own, as each has its own scrambling of the Sobol' points.
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
    quick, thorough = choose("family", family, BY_FAMILY)
    if positive("num_checks", num_checks) % 4:
        raise ValueError(f"num_checks={num_checks} must be a multiple of 4.")
    with scope(double := use_double(precision)):
        data = read_data(data, nan=True)
        labels = _labels(data, labels)
        first = jax.tree.map(lambda leaf: leaf[0], data)
        problem, plan = Problem(parameters, first, model.logprob), rounds(quick, thorough, num_checks, parameters)
        campaign = Campaign(problem, data, len(labels), plan, seed)
        fits = campaign.run()
    spent = sum((each.evaluations for each in fits), Evaluations())
    return Posteriors(
        fits=tuple(fits),
        labels=labels,
        coord=coord,
        parameters=parameters,
        cost=Cost.of(spent, watch.elapsed, watch.compiling),
        double=double,
        seed=seed,
        method=thorough.name,
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
