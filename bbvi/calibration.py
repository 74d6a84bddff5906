"""Simulation-based calibration of fits: whether posteriors are right on average over data that the model makes.

Parameters are drawn from the prior, data from the model given them, and a posterior is fitted to each set of data. The
posterior probability of lying below the true value (the probability integral transform, PIT) is then uniform on [0, 1]
for each parameter, if the fits are right. Values heaped at both ends mean posteriors that are too narrow, in the middle
too wide, on one side biased means.

References: Talts et al. 2018 (arXiv:1804.06788); Yao, Vehtari, Simpson and Gelman 2018 (arXiv:1802.02538) for
variational fits and the test of symmetry.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from bbvi.diagnostics.weights import weigh
from bbvi.fitting.arguments import positive
from bbvi.many import NUM_CHECKS, fit_many
from bbvi.outcome import Status
from bbvi.runtime.precision import scope
from bbvi.target.parameters import label
from bbvi.target.reading import make_parameters

SIGNIFICANCE = 0.01  # of the tests over all parameters together


@dataclass(frozen=True)
class Calibration:
    """What `calibrate` returns.

    Fields:
        pit: for each scalar parameter by name the probabilities of lying below the true value, `(fits,)`.
        uniformity: p-value for each that they are uniform (Kolmogorov-Smirnov).
        symmetry: p-value for each that they are symmetric about one half: means are not biased.
        statuses: how many fits had each verdict.
    """

    pit: dict[str, np.ndarray]
    uniformity: dict[str, float]
    symmetry: dict[str, float]
    statuses: dict[Status, int]

    @property
    def passed(self) -> bool:
        """Whether no parameter is found to be off at the 1 % level, corrected for their number."""
        return min(self.uniformity.values()) > SIGNIFICANCE / len(self.pit)

    def __str__(self) -> str:
        num = sum(self.statuses.values())
        statuses = ", ".join(f"{count} {status.name.lower()}" for status, count in self.statuses.items())
        found = "calibrated, as far as these fits can tell" if self.passed else "not calibrated"
        lines = [f"{found}: {num} fits, {statuses}", f"{'':<16}{'uniform p':>12}{'symmetric p':>14}{'sd of PIT':>12}"]
        for name, values in self.pit.items():
            spread = values.std() * 12**0.5
            lines.append(f"{name:<16}{self.uniformity[name]:>12.3g}{self.symmetry[name]:>14.3g}{spread:>12.2f}")
        return "\n".join([*lines, "(sd of PIT: 1 when right, above when posteriors are too narrow)"])

    def _repr_html_(self) -> str:
        from html import escape

        from bbvi.reporting.svg import INK, inline, style

        with style(INK):
            return f"<pre>{escape(str(self))}</pre>{inline(self.plot(), 'calibration', 'Histograms of PIT values')}"

    def plot(self, most: int | None = None) -> Any:
        """A matplotlib Figure: a histogram for each parameter, with the range in which 99 % of uniform bars lie.

        Arguments:
            most: parameters shown at most, the least uniform first; None for all, in their order.
        """
        from bbvi.reporting.plots import pit_histograms

        names = list(self.pit) if most is None else sorted(self.pit, key=self.uniformity.__getitem__)[:most]
        return pit_histograms(self.pit, names)


def calibrate(
    simulate_prior: Callable[[np.random.Generator], Any],
    simulate_data: Callable[[np.random.Generator, Any], Any],
    logprob: Callable[..., Any],
    dim: Any,
    *,
    constraints: Any = None,
    family: str = "full_rank",
    resample: bool = True,
    num_fits: int = 256,
    num_checks: int = NUM_CHECKS,
    seed: int = 0,
    precision: str = "auto",
) -> Calibration:
    """Fit data that the model makes, many times, and see whether the posteriors are right on average.

    Arguments:
        simulate_prior: `simulate_prior(rng)`: parameters drawn from the prior, in the structure of `dim`, by a NumPy
            generator.
        simulate_data: `simulate_data(rng, values)`: data drawn given them, of the same shapes each time.
        logprob, dim, constraints: as in `fit`; the prior and the model of `logprob` must be those simulated.
        family: as in `fit_many`.
        resample: whether to calibrate the posterior as `fit` returns it, corrected by importance weights where the
            verdict allows it; False for the approximation itself.
        num_fits: sets of data.
        num_checks, precision: as in `fit_many`.
        seed: of all random numbers.

    Example:
        >>> result = bbvi.calibrate(
        ...     lambda rng: rng.normal(), lambda rng, mu: rng.normal(mu, 1, 10),
        ...     lambda mu, y: -0.5 * mu**2 - 0.5 * jnp.sum((y - mu) ** 2), (), num_fits=50,
        ... )
        >>> result.passed
        True
    """
    from scipy.stats import ks_2samp, kstest

    rng = np.random.default_rng(seed)
    truths = [simulate_prior(rng) for _ in range(positive("num_fits", num_fits))]
    data = jax.tree.map(lambda *leaves: np.stack(leaves), *(simulate_data(rng, values) for values in truths))
    fits = fit_many(
        logprob,
        dim,
        data,
        constraints=constraints,
        family=family,
        num_checks=num_checks,
        seed=seed,
        precision=precision,
    )
    parameters = make_parameters(dim, constraints)
    columns: dict[str, list[float]] = {}
    for truth, fit, pool in zip(truths, fits.fits, fits.pools(), strict=True):
        weights = weigh(pool, fit.diagnosis) if resample else pool.from_q.astype(float)
        weights = weights / weights.sum()
        with scope(fits.double):
            draws = parameters.named(parameters.structure(pool.x))
        for name, value in parameters.named(truth).items():
            below = weights @ (draws[name] < value).reshape(len(weights), -1)
            for index, share in zip(np.ndindex(*np.shape(value)), below, strict=True):
                columns.setdefault(label(name, index), []).append(float(share))
    pit = {name: np.array(values) for name, values in columns.items()}
    return Calibration(
        pit,
        {name: _p_value(kstest(values, "uniform")) for name, values in pit.items()},
        {name: _p_value(ks_2samp(values, 1 - values)) for name, values in pit.items()},
        dict(Counter(diagnosis.status for diagnosis in fits.diagnoses)),
    )


def _p_value(result: Any) -> float:
    return float(result.pvalue)
