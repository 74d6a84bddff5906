"""The evidence of posteriors with reference draws: by bridge sampling from a Gaussian that is fitted to half of them.

The Gaussian has mean and covariance of the first half of the draws, on unconstrained space; the other half and draws of
the Gaussian tell the evidence, and `bbvi/draws/bridge.py` how.
"""

import json
from pathlib import Path

import jax
import numpy as np
from scipy.stats import multivariate_normal

from bbvi.draws.bridge import bridge
from bbvi.outcome import Value
from bbvi.target.problem import Problem
from benchmarks.posteriordb.contestants import make_problem
from benchmarks.posteriordb.database import load, reference_draws
from benchmarks.posteriordb.ports import unconstrained
from benchmarks.record.references import count_effective

MOST_COORDINATES = 100  # of a Gaussian fitted to half of 10 000 draws
LARGEST_ERROR = 0.05  # nats, from which on the evidence counts as unknown


def read_evidence(folder: str | Path, name: str, kept: str | Path) -> Value | None:
    """Log evidence of a posterior of posteriordb, as it is kept in a folder, or computed and kept; None: unknown."""
    path = Path(kept) / f"{name}.evidence.json"
    if not path.exists():
        draws = reference_draws(folder, name)
        if draws is None:
            return None
        problem = make_problem(load(folder, name))
        value = None if problem.dim > MOST_COORDINATES else by_bridge(problem, unconstrained(problem, name, draws))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value))
    found = json.loads(path.read_text())
    return None if found is None or not found[1] <= LARGEST_ERROR else Value(*found)


def by_bridge(problem: Problem, x: np.ndarray, seed: int = 0) -> Value:
    """Log evidence from draws `(n, dim)` of the posterior on unconstrained space."""
    half = len(x) // 2
    gaussian = multivariate_normal(x[:half].mean(axis=0), np.atleast_2d(np.cov(x[:half].T)))
    of_gaussian = np.reshape(gaussian.rvs(len(x), random_state=np.random.default_rng(seed)), (-1, problem.dim))
    with jax.enable_x64(True):
        densities = jax.jit(lambda problem, x: problem.log_densities(x))
        log_p, log_p_of_gaussian = (np.asarray(densities(problem, each)) for each in (x[half:], of_gaussian))
    finite = np.where(np.isfinite(log_p_of_gaussian), log_p_of_gaussian, -np.inf)
    effective = min(float(np.min(count_effective(x[half:]))), len(x) - half)
    return bridge(log_p - gaussian.logpdf(x[half:]), finite - gaussian.logpdf(of_gaussian), effective)
