"""NumPyro models: sites become parameters, arrays among the arguments become data."""

from bbvi.models.numpyro.model import NumPyroModel
from bbvi.models.numpyro.reading import from_numpyro, with_params

__all__ = ["NumPyroModel", "from_numpyro", "with_params"]
