"""What `fit_many` returns."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from bbvi.campaign import FITS_AT_ONCE, Campaign, Fit
from bbvi.data.reading import observed
from bbvi.diagnostics.verdict import Diagnosis
from bbvi.diagnostics.weights import weigh
from bbvi.draws.importance import Draws
from bbvi.draws.pareto import resample
from bbvi.draws.random import RandomStream
from bbvi.fitting.arguments import positive
from bbvi.models import Model
from bbvi.outcome import Cost, History, Status
from bbvi.posterior import Posterior
from bbvi.runtime.precision import scope
from bbvi.runtime.spelling import nearest
from bbvi.target.parameters import Parameters, label

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False, kw_only=True)
class Posteriors(Sequence[Posterior]):
    """What `fit_many` returns: a sequence of posteriors.

    Fields:
        fits: approximation, diagnosis, mean and sd of each.
        labels: a name for each.
        coord: name of their axis in arviz.
        parameters: names, shapes and constraints, the same for all.
        cost: evaluations and seconds, over all.
    """

    fits: tuple[Fit, ...]
    labels: list[Any]
    coord: str
    parameters: Parameters
    cost: Cost
    double: bool
    seed: int = field(repr=False)
    method: str
    model: Model = field(repr=False)
    campaign: Campaign = field(repr=False)

    def __len__(self) -> int:
        return len(self.fits)

    def __getitem__(self, i: Any) -> Any:
        """The i-th posterior, with the draws it was judged by; a list of them for a slice."""
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        i = range(len(self))[i]
        problem, fit = self.campaign.of(i), self.fits[i]
        with scope(self.double):
            (draws,) = self.campaign.pools([i], self.fits)
            placed = jax.device_put(problem)
        return Posterior(
            distribution=fit.q,
            diagnosis=fit.diagnosis,
            history=History.empty(),
            cost=Cost.of(fit.evaluations, 0.0, 0.0),
            method=self.method,
            parameters=self.parameters,
            observed_data=observed(problem.data),
            pool=draws,
            double=self.double,
            problem=placed,
            model=replace(self.model, data=problem.data),
        )

    def pools(self) -> Iterator[Draws]:
        """The draws that each was judged by, one after the other."""
        for start in range(0, len(self), FITS_AT_ONCE):
            with scope(self.double):
                pools = self.campaign.pools(range(len(self))[start : start + FITS_AT_ONCE], self.fits)
            yield from pools

    def at(self, name: Any) -> Posterior:
        """The posterior of this name."""
        if name not in self.labels:
            raise KeyError(f"{name!r} is none of the labels. {nearest(str(name), self.labels)}")
        return self[self.labels.index(name)]

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
            rng = np.random.default_rng((self.seed, RandomStream.MANY_RESAMPLE, i))
            rows.append(pool.x[resample(rng, np.log(np.maximum(weights / weights.sum(), 1e-300)), num_samples)])
        with scope(self.double):
            flat = self.parameters.structure(np.concatenate(rows))
        return jax.tree.map(lambda leaf: leaf.reshape(len(self), num_samples, *leaf.shape[1:]), flat)

    def table(self) -> "pandas.DataFrame":
        """A row for each fit: status, k-hat, log evidence, mean and sd of each parameter."""
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
