"""What may be said about a fit, and what it took: the words that all rooms share."""

import enum
from typing import Any, NamedTuple, Self

import numpy as np

from bbvi.runtime.pytree import pytree

HUGE = 1e9  # nats, from which digits after the point mean nothing


class Status(enum.Enum):
    """How far to trust a posterior; the value says it in words."""

    RELIABLE = "reliable: the approximation is close enough for importance sampling to correct what is left"
    USABLE = "usable: importance sampling corrects it, with larger Monte Carlo error"
    UNRELIABLE = "unreliable: the approximation differs from the posterior by more than importance sampling can correct"
    FAILED = "failed: no draw of the approximation has a finite log density"


class Finding(NamedTuple):
    """Something that speaks against trusting a posterior, or that one should know about it.

    Fields:
        status: the best one that it allows: RELIABLE for a word that leaves the status alone.
        message: what was found, as the printed verdict has it.
        remedy: what to do.
        inherent: whether it is of the posterior itself: a better approximation would not end it, and "auto" looks for
            none.
    """

    status: Status
    message: str
    remedy: str | None = None
    inherent: bool = False


class Stop(enum.Enum):
    """Why optimisation ended; the value says it in words."""

    CONVERGED = "converged"
    STALLED = "ended before it converged"
    STEPS = "ran out of steps before it converged"
    BUDGET = "stopped by the budget before it converged"
    CALLBACK = "stopped by a callback"
    INTERRUPTED = "interrupted"


@pytree
class Evaluations:
    """How often a log density was evaluated; each field is a count, a NumPy array of counts or a traced scalar."""

    log_densities: Any = 0  # without gradient
    gradients: Any = 0  # of log density and gradient together
    hessian_vector_products: Any = 0

    def __add__(self, other: "Evaluations") -> "Evaluations":
        return Evaluations(
            self.log_densities + other.log_densities,
            self.gradients + other.gradients,
            self.hessian_vector_products + other.hessian_vector_products,
        )

    @property
    def gradient_equivalents(self) -> Any:
        """Gradients, where a Hessian-vector product counts as two and a log density as none."""
        return self.gradients + 2 * self.hessian_vector_products

    def total(self) -> "Evaluations":
        """The sums of arrays of counts."""
        return Evaluations(*(int(np.sum(each)) for each in vars(self).values()))


NOTHING = Evaluations()


class Cost(NamedTuple):
    """What a fit took."""

    log_densities: int  # evaluations without gradient
    gradients: int  # evaluations of log density and gradient together
    hessian_vector_products: int
    compile_seconds: float  # tracing and compiling
    run_seconds: float  # everything else

    @classmethod
    def of(cls, evaluations: Evaluations, seconds: float, compiling: float) -> Self:
        """From what was evaluated, the seconds in all, and those of them spent on compiling."""
        counts = evaluations.log_densities, evaluations.gradients, evaluations.hessian_vector_products
        return cls(*counts, compile_seconds=compiling, run_seconds=seconds - compiling)

    def __str__(self) -> str:
        products = f"{self.hessian_vector_products} Hessian-vector products, " if self.hessian_vector_products else ""
        return (
            f"Cost: {self.gradients} gradients, {products}{self.log_densities} log densities, "
            f"{self.compile_seconds:.1f} s compiling, {self.run_seconds:.1f} s running"
        )


class History(NamedTuple):
    """One row per step."""

    elbo: np.ndarray  # (steps,) estimates in nats
    standard_error: np.ndarray  # (steps,)
    non_finite: np.ndarray  # (steps,) draws at which the log density was not finite
    log_densities: np.ndarray  # (steps,) evaluations without gradient
    gradients: np.ndarray  # (steps,) evaluations of log density and gradient together
    hessian_vector_products: np.ndarray  # (steps,)

    @classmethod
    def empty(cls) -> "History":
        """Of no steps."""
        return cls(*[np.zeros(0)] * 6)

    @property
    def evaluations(self) -> Evaluations:
        """Of each step, arrays `(steps,)`."""
        return Evaluations(self.log_densities, self.gradients, self.hessian_vector_products)

    @property
    def gradient_equivalents(self) -> np.ndarray:
        """Gradients made in each step, where a Hessian-vector product counts as two, `(steps,)`."""
        return self.evaluations.gradient_equivalents


class Value(NamedTuple):
    """An estimate with its Monte Carlo standard error."""

    value: float
    standard_error: float

    def __str__(self) -> str:
        if abs(self.value) > HUGE:
            return f"{self.value:.3g}"
        if not np.isfinite(self.standard_error):
            return f"{self.value:.2f}"
        digits = int(np.clip(1 - np.floor(np.log10(self.standard_error + 1e-12)), 0, 6))
        return f"{self.value:.{digits}f} ± {self.standard_error:.{digits}f}"


class ChainSummary(NamedTuple):
    """What is remembered of chains, beside their draws."""

    status: Status  # the best that their agreement allows
    chains: int
    starts: int  # different points at which they began, those of one after those of another
    draws: int  # of each
    r_hat: float  # largest nested R-hat over the coordinates
    error: float  # largest Monte Carlo error of a mean, in standard deviations
    sd_error: float  # largest Monte Carlo error of a standard deviation, relative
    worst: str  # the coordinate with the largest R-hat
    vaguest: str  # the coordinate with the largest error of its standard deviation
    off: float  # how far the mean of q is off at most, in standard deviations
    most_off: str  # the coordinate for which it is

    def __str__(self) -> str:
        agree = {Status.RELIABLE: "agree", Status.USABLE: "nearly agree"}.get(self.status, "do not agree")
        return (
            f"{self.chains} chains of {self.draws} draws {agree}: nested R-hat {self.r_hat:.3f}, Monte Carlo error "
            f"{self.error:.2g} sd"
        )


class StageSummary(NamedTuple):
    """One approximation that a fit tried."""

    method: str
    family: str
    steps: int  # rows of the history, which follow one another
    gradient_equivalents: int  # gradients, where a Hessian-vector product counts as two; without the start
    status: Status  # the verdict on it
    k_hat: float  # for resampled draws
    elbo: float  # in nats
    reasons: tuple[str, ...]  # what spoke against it

    def __str__(self) -> str:
        cost = f"{self.gradient_equivalents} gradient equivalents"
        verdict = f"{self.status.name.lower()}, k-hat {self.k_hat:.2f}, ELBO {self.elbo:.2f}"
        return f"{self.method} ({self.family}): {verdict}, {cost}"
