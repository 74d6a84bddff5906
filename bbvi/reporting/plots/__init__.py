"""Pictures of a posterior, as matplotlib Figures. Those that arviz has are left to arviz and `to_arviz()`."""

from bbvi.reporting.plots.agreement import chains
from bbvi.reporting.plots.calibration import pit_histograms
from bbvi.reporting.plots.checks import loo_k_hats, predictive
from bbvi.reporting.plots.correlations import directions
from bbvi.reporting.plots.course import elbo, ladder
from bbvi.reporting.plots.densities import marginals
from bbvi.reporting.plots.quality import log_weights, standard_deviations
from bbvi.reporting.plots.structure import structure

__all__ = [
    "chains",
    "directions",
    "elbo",
    "ladder",
    "log_weights",
    "loo_k_hats",
    "marginals",
    "pit_histograms",
    "predictive",
    "standard_deviations",
    "structure",
]
