"""Black-box variational inference on JAX: from a log density to a posterior that says how far it can be trusted."""

from bbvi import curvature
from bbvi.algorithms import (
    DADVI,
    GSM,
    IVON,
    Algorithm,
    BaM,
    Chains,
    Laplace,
    NaturalGradient,
    NestedLaplace,
    Pathfinder,
    PathGradient,
    StochasticVI,
    VariationalNewton,
)
from bbvi.calibration import Calibration, calibrate
from bbvi.data.factorized import Factorized
from bbvi.data.stream import Stream
from bbvi.diagnostics.verdict import Diagnosis
from bbvi.distributions import (
    Distribution,
    Family,
    FullRank,
    Hierarchical,
    LocationScale,
    LowRank,
    MeanField,
    Mixture,
    NeuralSpline,
    RealNVP,
    SinhArcsinh,
    Spiked,
    StudentT,
)
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
from bbvi.fitting.budget import Budget
from bbvi.inference import fit
from bbvi.many import fit_many
from bbvi.models import MLP, Group, Model, SetEncoder, external, from_groups, from_numpyro, from_pymc, from_stan
from bbvi.optimise import Progress
from bbvi.outcome import Status, Stop
from bbvi.posterior import Posterior, load
from bbvi.posteriors import Posteriors
from bbvi.reporting.linear_response import LinearResponse
from bbvi.training import train

# Names of earlier versions
ADVI, Adam, Newton = StochasticVI, PathGradient, VariationalNewton
Flow, SplineFlow = RealNVP, NeuralSpline

__version__ = "0.1.0"

__all__ = [
    "ADVI",
    "CUBO",
    "DADVI",
    "ELBO",
    "GSM",
    "IID",
    "IVON",
    "MLP",
    "Adam",
    "Algorithm",
    "Antithetic",
    "BaM",
    "Budget",
    "Calibration",
    "Chains",
    "Diagnosis",
    "Distribution",
    "Estimator",
    "Factorized",
    "Family",
    "FisherDivergence",
    "Flow",
    "FullRank",
    "Group",
    "HessianControl",
    "Hierarchical",
    "ImportanceWeighted",
    "InclusiveKL",
    "Laplace",
    "LinearResponse",
    "LocationScale",
    "LowRank",
    "MeanField",
    "Mixture",
    "Model",
    "MonteCarloEntropy",
    "NaturalGradient",
    "NestedLaplace",
    "NeuralSpline",
    "Newton",
    "Noise",
    "PathGradient",
    "Pathfinder",
    "Posterior",
    "Posteriors",
    "Progress",
    "RealNVP",
    "Renyi",
    "ScoreFunction",
    "SetEncoder",
    "SinhArcsinh",
    "Sobol",
    "Spiked",
    "SplineFlow",
    "Status",
    "StickingTheLanding",
    "StochasticVI",
    "Stop",
    "Stream",
    "StudentT",
    "VariationalNewton",
    "calibrate",
    "curvature",
    "external",
    "fit",
    "fit_many",
    "from_groups",
    "from_numpyro",
    "from_pymc",
    "from_stan",
    "load",
    "train",
]
