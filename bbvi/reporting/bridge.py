"""The evidence by bridge sampling, from draws by NUTS and draws of q."""

from typing import Any

import numpy as np

from bbvi.distributions import Distribution
from bbvi.draws.bridge import bridge
from bbvi.draws.importance import draw
from bbvi.draws.random import RandomStream
from bbvi.outcome import Value
from bbvi.record import Record
from bbvi.reporting.chains import NUTSDraws
from bbvi.runtime.compiling import program
from bbvi.runtime.precision import scope
from bbvi.target.problem import Problem


def log_evidence(record: Record, nuts: NUTSDraws, seed: int) -> Value:
    """See `Posterior.bridge`."""
    problem, q = record.target_for("bridge"), record.q
    x = nuts.x.reshape(-1, nuts.x.shape[-1])
    with scope(record.double):
        draws = draw(problem, q, (seed, RandomStream.FULL_DIAGNOSIS), len(x))
        log_p, log_q = _log_ratio(problem, q, x)
    of_q = draws.take(draws.from_q)
    ratios = np.where(np.isfinite(of_q.log_p), of_q.log_p - of_q.log_q, -np.inf)
    return bridge(np.asarray(log_p) - np.asarray(log_q), ratios, min(nuts.effective_sample_size, len(x)))


@program
def _log_ratio(problem: Problem, q: Distribution, x: Any) -> tuple[Any, Any]:
    return problem.layout.replicate((problem.log_densities(x), q.log_prob(x)))
