"""Examples and the Python in the documentation run as they stand."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from stan_library import stan_library

ROOT = Path(__file__).parents[1]
WHOLE = {"quickstart", "auto"}  # pages that tell of what comes after the first stage
PAGES = [page for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))] if "```python" in page.read_text()]


FRONT_ENDS = {"numpyro_model", "pymc_model", "stan_model", "external_density", "many_fits"}


def skip_unless_installed(code: str) -> None:
    if re.search(r"^import pymc", code, flags=re.MULTILINE) and find_spec("pymc") is None:
        pytest.skip("needs PyMC")


@pytest.mark.usefixtures("first_stage_only")
@pytest.mark.parametrize("path", sorted(ROOT.glob("examples/*.py")), ids=lambda path: path.stem)
def test_examples(path, tmp_path, run):
    skip_unless_installed(path.read_text())
    arguments = {
        "eight_schools": lambda: [str(tmp_path)],
        "stan_model": lambda: [stan_library(tmp_path)],
        "calibration": lambda: ["40"],
    }
    printed = run(path, *arguments.get(path.stem, list)())
    if path.stem == "calibration":
        assert printed.count("calibrated, as far as these fits can tell: 40 fits") == 3
        return
    assert "Status: " in printed or "status" in printed
    if path.stem in FRONT_ENDS:
        assert "<xarray.DataTree>" in printed
    if path.stem == "eight_schools":
        assert "Status: reliable" in printed or "Status: usable" in printed
        assert (tmp_path / "eight_schools.npz").stat().st_size > 10_000
        assert (tmp_path / "eight_schools.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_pages(page, tmp_path, run, request):
    if page.stem not in WHOLE:
        request.getfixturevalue("first_stage_only")
    script = tmp_path / "page.py"
    script.write_text("\n".join(re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)))
    skip_unless_installed(script.read_text())
    run(script)


def test_readme_has_two_commands():
    assert len(re.findall(r"```sh\n", (ROOT / "README.md").read_text())) == 2
