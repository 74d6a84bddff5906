"""Run the notebooks: each `NN_name.py` becomes `NN_name.ipynb` with its outputs.

    python examples/notebooks/make.py [FILE.py ...]

The scripts are the source, in the percent format of jupytext: change them, and then run this. Pictures are PNG files
within the notebook. What differs from run to run without meaning is left out: times of execution, random names of
cells, versions, progress bars. Notebooks run in an empty folder, against the bbvi beside this file.

Needs `pip install ".[notebooks]"`.
"""

import os
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent.resolve()
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
ENVIRONMENT = {
    "PYTHONPATH": str(HERE.parents[1]),
    "PYTHONWARNINGS": "ignore:IProgress not found",  # tqdm's, about bars that are off
    "TQDM_DISABLE": "1",
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
}


def make(script: Path) -> Path:
    """Run one script as a notebook, write it beside the script, and return its path."""
    notebook = jupytext.read(script, fmt="py:percent")
    notebook.metadata = nbformat.from_dict({**KERNEL, "language_info": {"name": "python"}})
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=600, record_timing=False, resources={"metadata": {"path": folder}}).execute()
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number:02}", {}
        for output in cell.get("outputs", []):
            if {"image/png", "text/html"} & set(output.get("data", {})):
                del output["data"]["text/plain"]  # it has addresses and seconds
    notebook.metadata["language_info"] = {"name": "python"}  # the kernel adds the version of Python
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    target = script.with_suffix(".ipynb")
    target.write_text(nbformat.writes(notebook).rstrip() + "\n")
    return target


if __name__ == "__main__":
    os.environ.update(ENVIRONMENT)
    for each in map(Path, sys.argv[1:] or sorted(HERE.glob("[0-9]*.py"))):
        made = make(each)
        print(f"{made.name}: {made.stat().st_size / 1000:.0f} kB")
