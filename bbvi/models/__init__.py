"""Where log densities come from: models of other libraries, and functions that JAX cannot trace."""

from bbvi.models.base import Model
from bbvi.models.external import external
from bbvi.models.groups import from_groups
from bbvi.models.networks import MLP, Group, SetEncoder
from bbvi.models.numpyro import from_numpyro
from bbvi.models.pymc import from_pymc
from bbvi.models.stan import from_stan

__all__ = ["MLP", "Group", "Model", "SetEncoder", "external", "from_groups", "from_numpyro", "from_pymc", "from_stan"]
