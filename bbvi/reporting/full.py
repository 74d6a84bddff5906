"""Checks beyond the verdict, from many more draws: `posterior.diagnose(level="full")`."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import numpy as np

from bbvi.diagnostics.bounds import Bounds, find_bounds
from bbvi.diagnostics.stein import SteinTest, stein_test
from bbvi.diagnostics.verdict import Diagnosis
from bbvi.draws.importance import Draws, draw, is_costly
from bbvi.draws.pareto import k_hat_of_square, smooth
from bbvi.draws.random import RandomStream
from bbvi.record import Record
from bbvi.runtime.compiling import program
from bbvi.runtime.precision import scope
from bbvi.runtime.types import Array
from bbvi.target.parameters import label
from bbvi.target.problem import Problem

FULL_DRAWS = 65_536  # of q
TESTED = 1000  # of them for the Stein test, whose cost is quadratic
DIFFERENT = 0.01  # p-value of the Stein test, below which q is said to differ from p
WORST_SHOWN = 10  # parameters in the printed table, the worst first


@dataclass(frozen=True)
class FullDiagnosis:
    """What further draws of q say about it.

    Fields:
        verdict: of the fit.
        bounds: of the evidence, and of the errors of means and standard deviations of q itself, before importance
            sampling corrects them; on the unconstrained scale.
        stein: whether q's draws come from p.
        names: of the unconstrained coordinates.
        sds: of q in these.
        k_hat: for each scalar parameter by name: that of its square, of the weights times its squared deviation from
            the mean, for resampled draws. Above 0.7 its standard deviation rests on few draws, whatever the k-hat of
            the weights themselves, which the verdict has.
        num_draws: of q behind bounds and k-hats.
    """

    verdict: Diagnosis
    bounds: Bounds
    stein: SteinTest
    names: tuple[str, ...]
    sds: np.ndarray
    k_hat: dict[str, float]
    num_draws: int

    def __str__(self) -> str:
        bounds, stein = self.bounds, self.stein
        lines = [str(self.verdict), f"From {self.num_draws} further draws of q:"]
        lines.append(f"  evidence: ELBO {bounds.elbo} <= log Z = {bounds.log_evidence} <= CUBO {bounds.cubo}")
        if np.isfinite(bounds.divergence):
            lines += [
                f"  means of q are within {np.max(bounds.mean / self.sds):.2g} of its standard deviations of the "
                f"posterior's, standard deviations within {100 * np.max(bounds.sd / self.sds):.2g} %: upper bounds for "
                "all coordinates, before importance sampling corrects them"
            ]
        else:
            lines.append("  no bound on the errors of q itself: its weights have no variance (k-hat above 0.5)")
        differs = stein.p_value < DIFFERENT
        lines.append(
            f"  Stein test with {stein.num_draws} draws: p-value {stein.p_value:.3f}: q itself "
            + ("differs from the posterior" if differs else "cannot be told from the posterior")
        )
        worst = sorted(self.k_hat.items(), key=lambda item: -item[1])[:WORST_SHOWN]
        lines.append("  largest k-hat of squares: " + ", ".join(f"{name} {k:.2f}" for name, k in worst))
        return "\n".join(lines)


def diagnose_further(record: Record, level: str, seed: int = 0) -> Diagnosis | FullDiagnosis:
    """See `Posterior.diagnose`."""
    if level == "quick":
        return record.diagnosis
    if level != "full":
        raise ValueError(f"level={level!r} is unknown. Known: quick, full.")
    problem = record.target_for('diagnose(level="full")')
    with scope(record.double):
        num = 1 if is_costly(problem) else FULL_DRAWS  # at least one set
        draws = draw(problem, record.q, (seed, RandomStream.FULL_DIAGNOSIS), num)
        read = lambda x: record.named(record.variables(x))
        return _diagnose(problem, record.diagnosis, draws, read, seed)


def _diagnose(
    problem: Problem, verdict: Diagnosis, pool: Draws, read: Callable[[Array], dict[str, np.ndarray]], seed: int
) -> FullDiagnosis:
    """All checks on fresh draws.

    Arguments:
        pool: draws of q and of t.
        read: from unconstrained vectors `(n, dim)` to parameters by name, each `(n, *shape)`.
    """
    of_q = pool.take(pool.from_q)
    bounds = find_bounds(of_q.x, of_q.log_p - of_q.log_q)
    _, scores, good = jax.device_get(_scores(problem, of_q.x[:TESTED]))
    stein = stein_test(of_q.x[:TESTED][good], scores[good], np.random.default_rng(seed))
    log_weights = smooth(pool.log_p - pool.log_r).log_weights
    k_hat = {}
    for name, array in read(pool.x).items():
        columns = np.reshape(array, (len(array), -1)).astype(float)
        for index, column in zip(np.ndindex(*np.shape(array)[1:]), columns.T, strict=True):
            k_hat[label(name, index)] = k_hat_of_square(log_weights, column)
    return FullDiagnosis(
        verdict,
        bounds,
        stein,
        tuple(problem.parameters.coordinate_names()),
        of_q.x.std(axis=0),
        k_hat,
        len(of_q),
    )


@program
def _scores(problem: Problem, x: Array) -> tuple[Array, Array, Array]:
    return problem.layout.replicate(problem.values_and_gradients(x))
