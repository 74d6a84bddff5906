"""Variational families. A new family is one file and one name here; contract tests and `fit` pick it up."""

from bbvi.distributions.base import Distribution
from bbvi.distributions.flow import Flow
from bbvi.distributions.full_rank import FullRank
from bbvi.distributions.low_rank import LowRank
from bbvi.distributions.mean_field import MeanField
from bbvi.distributions.mixture import Mixture
from bbvi.distributions.sinh_arcsinh import SinhArcsinh
from bbvi.distributions.spiked import Spiked
from bbvi.distributions.spline_flow import SplineFlow
from bbvi.distributions.student_t import StudentT

__all__ = [
    "Distribution",
    "Flow",
    "FullRank",
    "LowRank",
    "MeanField",
    "Mixture",
    "SinhArcsinh",
    "Spiked",
    "SplineFlow",
    "StudentT",
]
