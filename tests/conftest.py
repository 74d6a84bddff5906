"""Tests run with warnings as errors (pyproject.toml) and in strict dtype promotion."""

import gc
import os
import runpy
import sys
import warnings
from importlib.metadata import version
from pathlib import Path

# Most of the time goes into compiling small programs: less with fewer optimisations, and less than half without the
# emitters of fused loops, which later versions of JAX always use.
flags = ["--xla_backend_optimization_level=0", "--xla_cpu_parallel_codegen_split_count=1"]
# Tests run side by side, one on each core, so that threads of theirs would only be in the way of each other.
flags.append("--xla_cpu_multi_thread_eigen=false")
os.environ["OPENBLAS_NUM_THREADS"] = "1"
# What one process has compiled the others need not; in the folder of pytest, which is the checkout's own.
os.environ.setdefault("BBVI_CACHE", str(Path(__file__).parents[1] / ".pytest_cache" / "programs"))
if version("jaxlib").startswith("0.10."):
    flags.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *flags])

import jax
import pytest

jax.config.update("jax_numpy_dtype_promotion", "strict")
TESTS_RUN = pytest.StashKey[int]()


TESTS_BETWEEN = 120


def pytest_collection_finish():
    """What was imported stays: Python's collector need not look through it again, nor as often as it would."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


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


@pytest.fixture
def first_stage_only(monkeypatch):
    """The default method ends with its first stage, as it does where that one took a minute."""
    monkeypatch.setattr("bbvi.inference.PATIENCE", 0.0)


@pytest.fixture(scope="session")
def posteriordb_folder() -> Path:
    folder = Path(os.environ.get("BBVI_POSTERIORDB", Path(__file__).parents[2] / "shared" / "posteriordb"))
    if not (folder / "posterior_database").is_dir():
        pytest.skip("needs posteriordb: set BBVI_POSTERIORDB to the folder that holds posterior_database/")
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run a script as a user would, in a folder of its own, and return what it printed.

    In this process: starting Python and importing everything takes seconds. The first of the README's commands runs an
    example by itself. Dtypes may be mixed, as they may by default, and warnings are no errors.
    """

    def run_script(script: Path, *arguments: str) -> str:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MPLBACKEND", "Agg")
        monkeypatch.setattr(sys, "argv", [str(script), *arguments])
        double = jax.config.jax_enable_x64
        with jax.numpy_dtype_promotion("standard"), warnings.catch_warnings():
            warnings.simplefilter("default")
            runpy.run_path(str(script), run_name="__main__")
        jax.config.update("jax_enable_x64", double)  # a script may set it, as its own process would be its own
        if "matplotlib.pyplot" in sys.modules:
            sys.modules["matplotlib.pyplot"].close("all")
        return capsys.readouterr().out

    return run_script
