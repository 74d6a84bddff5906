"""The evidence of posteriors with reference draws: by bridge sampling from a Gaussian that is fitted to half of them.

The Gaussian has mean and covariance of the first half of the draws, on unconstrained space; the other half and draws of
the Gaussian tell the evidence, and `bbvi/draws/bridge.py` how.
"""

import json
import os
from pathlib import Path

import jax
import numpy as np
from scipy.linalg import solve_triangular

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
        value = _computed(make_problem(load(folder, name)), name, draws)
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}")  # so that no other process reads half of it
        fresh.write_text(json.dumps(value))
        fresh.replace(path)
    found = json.loads(path.read_text())
    return None if found is None or not found[1] <= LARGEST_ERROR else Value(*found)


def _computed(problem: Problem, name: str, draws: dict[str, np.ndarray]) -> Value | None:
    if problem.dim > MOST_COORDINATES:
        return None
    try:
        return by_bridge(problem, unconstrained(problem, name, draws))
    except (FloatingPointError, np.linalg.LinAlgError):  # which is an answer: it cannot be known in this way
        return None


def by_bridge(problem: Problem, x: np.ndarray, seed: int = 0) -> Value:
    """Log evidence from draws `(n, dim)` of the posterior on unconstrained space.

    Raises:
        FloatingPointError: when they hardly overlap with the Gaussian.
        LinAlgError: when a coordinate of the draws does not vary, or is a linear function of others.
    """
    half, dim = len(x) // 2, x.shape[1]
    loc, sd = x[:half].mean(axis=0), x[:half].std(axis=0)
    root = np.linalg.cholesky(np.atleast_2d(np.corrcoef(x[:half].T)))  # of what has no units: scales may differ widely
    noise = np.random.default_rng(seed).standard_normal((len(x), dim))
    log_volume = np.log(sd).sum() + np.log(np.diag(root)).sum() + 0.5 * dim * np.log(2 * np.pi)

    def ratios(x: np.ndarray, noise: np.ndarray) -> np.ndarray:
        with jax.enable_x64(True):
            log_p = np.asarray(jax.jit(lambda problem, x: problem.log_densities(x))(problem, x))
        return np.where(np.isfinite(log_p), log_p, -np.inf) + 0.5 * (noise**2).sum(axis=1) + log_volume

    rest = x[half:]
    of_rest = ratios(rest, solve_triangular(root, ((rest - loc) / sd).T, lower=True).T)
    effective = min(float(np.min(count_effective(rest))), len(rest))
    return bridge(of_rest, ratios(loc + sd * (noise @ root.T), noise), effective)
