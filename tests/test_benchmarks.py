"""What the benchmarks rest on."""

import jax
import numpy as np
import pytest

from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters
from benchmarks.cases import BLOCK, sample_reference
from tests.targets import COVARIANCE, DIM, MEAN, gaussian


@pytest.mark.usefixtures("x64")
def test_the_reference_of_a_gaussian_is_exact():
    """Stein's identity leaves no noise of the draws."""
    problem = Problem(make_parameters(DIM), None, gaussian)
    with jax.numpy_dtype_promotion("standard"):  # NumPyro's sampler mixes dtypes
        mean, sd, _ = sample_reference(problem, draws=2 * BLOCK, batches=2)
    np.testing.assert_allclose(mean, MEAN, atol=1e-8)
    np.testing.assert_allclose(sd, np.sqrt(np.diag(COVARIANCE)), rtol=1e-8)
