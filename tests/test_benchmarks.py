"""What the benchmarks rest on."""

import sys

import jax
import numpy as np
import pytest

from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters
from benchmarks import accelerator
from benchmarks.cases import BLOCK, sample_reference
from tests.targets import COVARIANCE, DIM, MEAN, gaussian


def test_the_script_for_accelerators_runs_anywhere(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["accelerator", "--small"])
    accelerator.main()
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith("| Gaussian, dim 10")]
    assert len(rows) == 1, printed
    status, there, mean, sd = (column.strip() for column in rows[0].split("|")[2:6])
    assert status == there == "RELIABLE"
    assert float(mean) < 0.1 > float(sd)  # Monte Carlo errors of both
    assert all(f"\n{part}. " in printed for part in range(1, 5)), printed


@pytest.mark.usefixtures("x64")
def test_the_reference_of_a_gaussian_is_exact():
    """Stein's identity leaves no noise of the draws."""
    problem = Problem(make_parameters(DIM), None, gaussian)
    with jax.numpy_dtype_promotion("standard"):  # NumPyro's sampler mixes dtypes
        mean, sd, _ = sample_reference(problem, draws=2 * BLOCK, batches=2)
    np.testing.assert_allclose(mean, MEAN, atol=1e-8)
    np.testing.assert_allclose(sd, np.sqrt(np.diag(COVARIANCE)), rtol=1e-8)
