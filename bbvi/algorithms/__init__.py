"""Algorithms that fit a variational distribution. A new one is one file and one name here."""

from bbvi.algorithms.adam import Adam
from bbvi.algorithms.advi import ADVI
from bbvi.algorithms.bam import GSM, BaM
from bbvi.algorithms.base import Algorithm
from bbvi.algorithms.dadvi import DADVI
from bbvi.algorithms.ivon import IVON
from bbvi.algorithms.laplace import Laplace
from bbvi.algorithms.natural_gradient import NaturalGradient
from bbvi.algorithms.newton import Newton
from bbvi.algorithms.pathfinder import Pathfinder

__all__ = [
    "ADVI",
    "DADVI",
    "GSM",
    "IVON",
    "Adam",
    "Algorithm",
    "BaM",
    "Laplace",
    "NaturalGradient",
    "Newton",
    "Pathfinder",
]
