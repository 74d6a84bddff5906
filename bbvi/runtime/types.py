"""What an array is here."""

from typing import Any, TypeAlias

import jax
import numpy as np

Array: TypeAlias = jax.Array | np.ndarray  # what is compiled takes either; what is computed on the host stays NumPy's

# A csr_array of SciPy, whose own types leave out much
Sparse: TypeAlias = Any
