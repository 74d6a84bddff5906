"""Estimators of the ELBO and its gradient. A new one is one file and one name here."""

from bbvi.estimators.base import Estimate, Estimator
from bbvi.estimators.elbo import ELBO, StickingTheLanding
from bbvi.estimators.noise import IID, Antithetic, Noise, Sobol
from bbvi.estimators.score_function import ScoreFunction

__all__ = [
    "ELBO",
    "IID",
    "Antithetic",
    "Estimate",
    "Estimator",
    "Noise",
    "ScoreFunction",
    "Sobol",
    "StickingTheLanding",
]
