"""Algorithms that fit a variational distribution. A new one is one file and one name here."""

from bbvi.algorithms.advi import ADVI
from bbvi.algorithms.base import Algorithm
from bbvi.algorithms.laplace import Laplace

__all__ = ["ADVI", "Algorithm", "Laplace"]
