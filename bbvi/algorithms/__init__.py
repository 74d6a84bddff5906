"""Algorithms that fit a variational distribution. A new one is one file and one name here."""

from bbvi.algorithms.bam import GSM, BaM
from bbvi.algorithms.base import Algorithm
from bbvi.algorithms.chains import Chains
from bbvi.algorithms.dadvi import DADVI
from bbvi.algorithms.ivon import IVON
from bbvi.algorithms.laplace import Laplace
from bbvi.algorithms.natural_gradient import NaturalGradient
from bbvi.algorithms.nested_laplace import NestedLaplace
from bbvi.algorithms.path_gradient import PathGradient
from bbvi.algorithms.pathfinder import Pathfinder
from bbvi.algorithms.stochastic_vi import StochasticVI
from bbvi.algorithms.variational_newton import VariationalNewton

__all__ = [
    "DADVI",
    "GSM",
    "IVON",
    "Algorithm",
    "BaM",
    "Chains",
    "Laplace",
    "NaturalGradient",
    "NestedLaplace",
    "PathGradient",
    "Pathfinder",
    "StochasticVI",
    "VariationalNewton",
]
