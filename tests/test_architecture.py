"""The shape of the code: imports point down, and importing is cheap."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bbvi"

# From the bottom up: a module may import from its own row and from rows above it in this list.
LEVELS = [
    {
        "pytree",
        "compiling",
        "constants",
        "cost",
        "deadline",
        "dtypes",
        "lapack",
        "precision",
        "timing",
        "outcome",
        "curvature",
        "storage",
        "sharding",
        "angles",
        "spelling",
    },
    {"random", "data"},
    {"parameters", "reading_parameters"},
    {"problem"},
    {"distributions", "models"},
    {"estimators"},
    {"algorithms"},
    {"driver", "evaluation", "nuts"},
    {"checkpoint", "progress", "start", "tall"},
    {"diagnostics"},
    {"arguments", "ladder", "provenance", "weights"},
    {"reporting", "posterior", "files"},
    {"inference", "many", "maximise"},
    {"calibration"},
    {"__init__"},
    {"__main__"},
]
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}
FILES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """The module or folder directly below the package."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    for node in ast.walk(ast.parse(path.read_text())):
        modules = [node.module] if isinstance(node, ast.ImportFrom) else []
        modules += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for module in modules:
            assert module is not None, "relative imports hide where they point"
            if module == "bbvi" or not module.startswith("bbvi."):
                continue
            assert LEVEL[module.split(".")[1]] <= LEVEL[room(path)], f"{path.name} imports {module}"


def test_every_module_has_a_level():
    assert {room(path) for path in FILES} == set(LEVEL)


def test_heavy_packages_load_when_first_needed():
    heavy = ("numpyro", "arviz_base", "arviz_stats", "matplotlib", "scipy.stats", "tqdm")
    code = f"import sys, bbvi; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_public_names_exist_and_are_documented():
    import bbvi

    for name in bbvi.__all__:
        assert getattr(bbvi, name).__doc__, name


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_classes_and_functions_have_docstrings(path):
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "the module says what it is for"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
