"""Classic BUGS examples and posteriors of the inference gym: models, data, and published moments.

The folder given to the functions here is the one that holds `bugs/` and `gym/`, each with `data/` and `reference.json`.
"""

from benchmarks.yardsticks.database import MODELS, Case, compute_quantities, find_errors, load, read_reference

__all__ = ["MODELS", "Case", "compute_quantities", "find_errors", "load", "read_reference"]
