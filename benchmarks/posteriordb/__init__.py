"""Posteriors of posteriordb (Magnusson et al. 2024, arXiv:2407.04967): models, data, and reference draws.

The folder given to the functions here is the one that holds `posterior_database/`, in posteriordb's own layout.
"""

from benchmarks.posteriordb.database import Case, load, names, quantities, reference_draws

__all__ = ["Case", "load", "names", "quantities", "reference_draws"]
