"""Names for those who extend bbvi: a family, an estimator, an algorithm, a check, a front end.

The classes to subclass have an example in their docstrings: `Distribution`, `Scale`, `Warped`, `Estimator`,
`Algorithm`, `Check` and `Model`.
"""

from bbvi.algorithms.base import (
    CONVERGED,
    RUNNING,
    STALLED,
    Adaptive,
    Algorithm,
    Info,
    Initialisation,
    Needs,
    Pausing,
    Result,
    extract,
)
from bbvi.algorithms.stochastic import Stochastic, StochasticState
from bbvi.data.density import SumOverRows
from bbvi.data.source import Source
from bbvi.diagnostics.checks import CHECKS, examine
from bbvi.diagnostics.checks.base import Check, Evidence, Topic
from bbvi.diagnostics.verdict import Diagnosis
from bbvi.distributions.affine import Affine
from bbvi.distributions.base import Distribution, Moments, Reparameterised, moments_by_draws
from bbvi.distributions.bases import Base, Elliptical, HeavyTailed, Normal, Warped
from bbvi.distributions.couplings import Couplings
from bbvi.distributions.location_scale import Family, LocationScale
from bbvi.distributions.low_rank import DiagonalPlusLowRank
from bbvi.distributions.scales import Diagonal, Invertible, Scale, Triangular
from bbvi.distributions.sinh_arcsinh import SinhArcsinhBase
from bbvi.distributions.spiked import SpikedDiagonal
from bbvi.draws.importance import Draws
from bbvi.draws.random import Random
from bbvi.estimators.base import Estimate, Estimator, differentiable_log_densities
from bbvi.estimators.noise import Noise
from bbvi.models import Model
from bbvi.optimise import Run, Solved, drive, solve
from bbvi.outcome import Evaluations, Finding, History, Status, Stop, Value
from bbvi.runtime.pytree import pytree, static
from bbvi.start.record import Start, start_at
from bbvi.target.problem import Problem

__all__ = [
    "CHECKS",
    "CONVERGED",
    "RUNNING",
    "STALLED",
    "Adaptive",
    "Affine",
    "Algorithm",
    "Base",
    "Check",
    "Couplings",
    "Diagnosis",
    "Diagonal",
    "DiagonalPlusLowRank",
    "Distribution",
    "Draws",
    "Elliptical",
    "Estimate",
    "Estimator",
    "Evaluations",
    "Evidence",
    "Family",
    "Finding",
    "HeavyTailed",
    "History",
    "Info",
    "Initialisation",
    "Invertible",
    "LocationScale",
    "Model",
    "Moments",
    "Needs",
    "Noise",
    "Normal",
    "Pausing",
    "Problem",
    "Random",
    "Reparameterised",
    "Result",
    "Run",
    "Scale",
    "SinhArcsinhBase",
    "Solved",
    "Source",
    "SpikedDiagonal",
    "Start",
    "Status",
    "Stochastic",
    "StochasticState",
    "Stop",
    "SumOverRows",
    "Topic",
    "Triangular",
    "Value",
    "Warped",
    "differentiable_log_densities",
    "drive",
    "examine",
    "extract",
    "moments_by_draws",
    "pytree",
    "solve",
    "start_at",
    "static",
]
