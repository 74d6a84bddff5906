"""A shared library with the C interface that BridgeStan puts into a compiled Stan model."""

import subprocess
from pathlib import Path
from shutil import which

import pytest


def stan_library(folder: Path) -> str:
    """Path of the library, compiled into `folder`."""
    pytest.importorskip("bridgestan")
    if which("cc") is None:
        pytest.skip("needs a C compiler")
    library = folder / "eight_schools_model.so"
    source = Path(__file__).parent / "stan" / "eight_schools.c"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source, "-lm"], check=True)
    return str(library)
