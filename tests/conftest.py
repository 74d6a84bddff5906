"""Tests run with warnings as errors (pyproject.toml) and in strict dtype promotion."""

import os
from pathlib import Path

# Most of the time goes into compiling small programs, which takes a quarter less with fewer optimisations.
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_backend_optimization_level=0"

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
TESTS_RUN = pytest.StashKey[int]()


TESTS_BETWEEN = 120


@pytest.fixture(autouse=True)
def forget_compiled_programs(request):
    """Now and then: each takes some memory maps of the process, of which there are 65 530 on Linux."""
    yield
    count = request.config.stash.setdefault(TESTS_RUN, 0) + 1
    request.config.stash[TESTS_RUN] = count
    if count % TESTS_BETWEEN == 0:
        jax.clear_caches()


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
