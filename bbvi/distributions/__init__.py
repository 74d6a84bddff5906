"""Variational families. A new family is one file and one name here; contract tests and `fit` pick it up."""

from bbvi.distributions.base import Distribution
from bbvi.distributions.families import (
    FullRank,
    LowRank,
    MeanField,
    NeuralSpline,
    RealNVP,
    SinhArcsinh,
    Spiked,
    StudentT,
)
from bbvi.distributions.hierarchical import Hierarchical
from bbvi.distributions.location_scale import Family, LocationScale
from bbvi.distributions.mixture import Mixture

__all__ = [
    "Distribution",
    "Family",
    "FullRank",
    "Hierarchical",
    "LocationScale",
    "LowRank",
    "MeanField",
    "Mixture",
    "NeuralSpline",
    "RealNVP",
    "SinhArcsinh",
    "Spiked",
    "StudentT",
]
