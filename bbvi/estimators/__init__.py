"""Estimators of the ELBO, and of other objectives, and of their gradients. A new one is one file and one name here."""

from bbvi.estimators.base import Estimate, Estimator
from bbvi.estimators.control import HessianControl
from bbvi.estimators.elbo import ELBO, MonteCarloEntropy, StickingTheLanding
from bbvi.estimators.fisher import FisherDivergence
from bbvi.estimators.inclusive import InclusiveKL
from bbvi.estimators.noise import IID, Antithetic, Noise, Sobol
from bbvi.estimators.power_bounds import CUBO, ImportanceWeighted, Renyi
from bbvi.estimators.score_function import ScoreFunction

__all__ = [
    "CUBO",
    "ELBO",
    "IID",
    "Antithetic",
    "Estimate",
    "Estimator",
    "FisherDivergence",
    "HessianControl",
    "ImportanceWeighted",
    "InclusiveKL",
    "MonteCarloEntropy",
    "Noise",
    "Renyi",
    "ScoreFunction",
    "Sobol",
    "StickingTheLanding",
]
