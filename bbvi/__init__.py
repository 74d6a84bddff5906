"""Black-box variational inference on JAX: from a log density to a posterior that says how far it can be trusted."""

from bbvi import curvature
from bbvi.algorithms import ADVI, DADVI, GSM, IVON, Adam, Algorithm, BaM, Laplace, NaturalGradient, Newton, Pathfinder
from bbvi.algorithms.linear_response import LinearResponse
from bbvi.calibration import Calibration, calibrate
from bbvi.data.factorized import Factorized
from bbvi.data.stream import Stream
from bbvi.diagnostics.verdict import Diagnosis
from bbvi.distributions import (
    Distribution,
    Flow,
    FullRank,
    LowRank,
    MeanField,
    Mixture,
    SinhArcsinh,
    Spiked,
    SplineFlow,
    StudentT,
)
from bbvi.driver import Progress
from bbvi.estimators import (
    CUBO,
    ELBO,
    IID,
    Antithetic,
    Estimator,
    FisherDivergence,
    HessianControl,
    ImportanceWeighted,
    InclusiveKL,
    MonteCarloEntropy,
    Noise,
    Renyi,
    ScoreFunction,
    Sobol,
    StickingTheLanding,
)
from bbvi.files import load
from bbvi.inference import Budget, fit
from bbvi.many import Posteriors, fit_many
from bbvi.models import Model, external, from_numpyro, from_pymc, from_stan
from bbvi.outcome import Status, Stop
from bbvi.posterior import Posterior

__version__ = "0.1.0"

__all__ = [
    "ADVI",
    "CUBO",
    "DADVI",
    "ELBO",
    "GSM",
    "IID",
    "IVON",
    "Adam",
    "Algorithm",
    "Antithetic",
    "BaM",
    "Budget",
    "Calibration",
    "Diagnosis",
    "Distribution",
    "Estimator",
    "Factorized",
    "FisherDivergence",
    "Flow",
    "FullRank",
    "HessianControl",
    "ImportanceWeighted",
    "InclusiveKL",
    "Laplace",
    "LinearResponse",
    "LowRank",
    "MeanField",
    "Mixture",
    "Model",
    "MonteCarloEntropy",
    "NaturalGradient",
    "Newton",
    "Noise",
    "Pathfinder",
    "Posterior",
    "Posteriors",
    "Progress",
    "Renyi",
    "ScoreFunction",
    "SinhArcsinh",
    "Sobol",
    "Spiked",
    "SplineFlow",
    "Status",
    "StickingTheLanding",
    "Stop",
    "Stream",
    "StudentT",
    "calibrate",
    "curvature",
    "external",
    "fit",
    "fit_many",
    "from_numpyro",
    "from_pymc",
    "from_stan",
    "load",
]
