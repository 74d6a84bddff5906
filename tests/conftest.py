"""Tests run with warnings as errors (pyproject.toml) and in strict dtype promotion."""

import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def posteriordb_folder() -> Path:
    folder = Path(os.environ.get("BBVI_POSTERIORDB", Path(__file__).parents[2] / "shared" / "posteriordb"))
    if not (folder / "posterior_database").is_dir():
        pytest.skip("needs posteriordb: set BBVI_POSTERIORDB to the folder that holds posterior_database/")
    return folder
