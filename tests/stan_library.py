"""A shared library with the C interface that BridgeStan puts into a compiled Stan model; and Stan, where it is."""

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


def needs_stan() -> None:
    """Skip where BridgeStan has no sources of Stan to compile models with: it would fetch them."""
    folder = pytest.importorskip("bridgestan.compile").get_bridgestan_path(download=False)
    if not folder or (which("g++") is None and which("clang++") is None):
        pytest.skip("needs the sources of BridgeStan (the variable BRIDGESTAN says where) and a C++ compiler")
