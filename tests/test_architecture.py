"""The shape of the code: imports point down, files and functions are small, and importing is cheap."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "bbvi"
FILES = sorted(PACKAGE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in FILES}
MOST_MODULES = 14  # beside the folders
MOST_LINES = 300  # of a file
MOST_CODE = 60  # lines of a function, without its docstring
MANY_PARAMETERS, MOST_WITH_MANY = 8, 4  # `fit`, `fit_many`, `calibrate` and `from_groups` have more
NDIM = re.compile(r"ndim(\(\w+\))? == [12]\b")
READS_NDIM = {"curvature/operator.py"}  # a vector or a matrix may stand to the right of its @


def called(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


def module(path: Path) -> str:
    """The name by which a file is imported."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path): path for path in FILES}


def imports(path: Path) -> set[str]:
    """The files of the package that a file imports: within functions and for types alone, too."""
    found = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{called(path)}: relative imports hide where they point"
            inner = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else str(node.module) for name in inner}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name.split(".")[0] == "bbvi"}


def room(name: str) -> str:
    """The module or folder directly below the package."""
    return ".".join(name.split(".")[:2])


def circle(graph: dict[str, set[str]]) -> list[str]:
    """Nodes of which each leads to the next and the last is the first, if there are any."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def functions() -> list[tuple[str, ast.FunctionDef]]:
    """All of them, with a name to call each by."""
    return [
        (f"{called(path)}: {node.name}", node)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef)
    ]


def code_lines(function: ast.FunctionDef) -> int:
    """Lines of a function without its docstring."""
    first = function.body[0]
    docstring = first.end_lineno - first.lineno + 1 if ast.get_docstring(function) else 0
    return function.end_lineno - function.lineno + 1 - docstring


def parameters(function: ast.FunctionDef) -> list[str]:
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def constants(tree: ast.Module) -> set[str]:
    """Names in capitals that a file defines; those of one letter are type variables."""
    targets = [node.targets if isinstance(node, ast.Assign) else [node.target] for node in tree.body if is_set(node)]
    names = {name.id for group in targets for each in group for name in ast.walk(each) if isinstance(name, ast.Name)}
    return {name for name in names if name.isupper() and len(name) > 1}


def is_set(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign | ast.AnnAssign)


def test_no_file_imports_itself_by_way_of_others():
    assert circle({name: imports(path) for name, path in MODULES.items()}) == []


def test_rooms_have_an_order_in_which_none_imports_a_later_one():
    graph = defaultdict(set)
    for name, path in MODULES.items():
        graph[room(name)] |= {room(each) for each in imports(path)} - {room(name)}
    assert circle(graph) == []


def test_few_modules_lie_beside_the_folders():
    assert len(list(PACKAGE.glob("*.py"))) <= MOST_MODULES


def test_files_and_functions_are_small():
    assert [called(path) for path in FILES if len(path.read_text().splitlines()) > MOST_LINES] == []
    assert [name for name, function in functions() if code_lines(function) > MOST_CODE] == []


def test_few_functions_have_many_parameters():
    many = [name for name, function in functions() if len(parameters(function)) > MANY_PARAMETERS]
    assert len(many) <= MOST_WITH_MANY, many


def test_a_constant_has_one_meaning():
    places = defaultdict(list)
    for path, tree in TREES.items():
        for name in constants(tree):
            places[name].append(called(path))
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_the_kind_of_a_scale_is_not_told_by_its_number_of_axes():
    asking = {called(path) for path in FILES if NDIM.search(path.read_text())}
    assert asking - READS_NDIM == set()


def test_heavy_packages_load_when_first_needed():
    heavy = ("numpyro", "arviz_base", "arviz_stats", "matplotlib", "scipy.stats", "tqdm")
    code = f"import sys, bbvi; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_public_names_exist_and_are_documented():
    import bbvi

    for name in bbvi.__all__:
        assert getattr(bbvi, name).__doc__, name


@pytest.mark.parametrize("path", FILES, ids=called)
def test_public_classes_and_functions_have_docstrings(path):
    tree = TREES[path]
    assert ast.get_docstring(tree), "the module says what it is for"
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
