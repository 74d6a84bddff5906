"""Algorithms that fit a variational distribution. A new one is one file and one name here."""

from bbvi.algorithms.advi import ADVI
from bbvi.algorithms.base import Algorithm

__all__ = ["ADVI", "Algorithm"]
