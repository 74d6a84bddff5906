"""Examples and the Python in the documentation run as they stand."""

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from stan_library import stan_library

ROOT = Path(__file__).parents[1]
PAGES = [page for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))] if "```python" in page.read_text()]


FRONT_ENDS = {"numpyro_model", "pymc_model", "stan_model", "external_density", "many_fits"}


def skip_unless_installed(code: str) -> None:
    if re.search(r"^import pymc", code, flags=re.MULTILINE) and find_spec("pymc") is None:
        pytest.skip("needs PyMC")


def run(script: str, *arguments: str, cwd: Path) -> str:
    environment = {**os.environ, "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, script, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*.py")), ids=lambda path: path.stem)
def test_examples(path, tmp_path):
    skip_unless_installed(path.read_text())
    arguments = {"eight_schools": lambda: [str(tmp_path)], "stan_model": lambda: [stan_library(tmp_path)]}
    printed = run(str(path), *arguments.get(path.stem, list)(), cwd=tmp_path)
    assert "Status: " in printed or "status" in printed
    if path.stem in FRONT_ENDS:
        assert "<xarray.DataTree>" in printed
    if path.stem == "eight_schools":
        assert "Status: reliable" in printed or "Status: usable" in printed
        assert (tmp_path / "eight_schools.npz").stat().st_size > 10_000
        assert (tmp_path / "eight_schools.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages(page, tmp_path):
    script = tmp_path / "page.py"
    script.write_text("\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)))
    skip_unless_installed(script.read_text())
    run(str(script), cwd=tmp_path)


def test_readme_has_two_commands():
    assert len(re.findall(r"```sh\n", (ROOT / "README.md").read_text())) == 2
