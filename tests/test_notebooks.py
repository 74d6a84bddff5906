"""Notebooks: each script runs, and the notebook beside it holds its cells with their outputs."""

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "examples" / "notebooks"
SCRIPTS = sorted(FOLDER.glob("[0-9]*.py"))
MOST = 400_000  # bytes of a notebook
SHORTER = {  # what a test changes so that trainings, chains and tests take less; make.py runs all scripts as they stand
    "04_bayesian_neural_networks": {
        "num_steps=2500": "num_steps=100",
        "images[700:], labels[700:]": "images[700:850], labels[700:850]",
    },
    "05_variational_autoencoder": {
        "LATENT, STEPS = 2, 1500": "LATENT, STEPS = 2, 20",
        "digits.data[order] / 16, digits.target[order]": "digits.data[order][:1480] / 16, digits.target[order][:1480]",
    },
    "09_random_effects": {"to_nuts(5000,": "to_nuts(200,"},
    "07_from_fit_to_nuts": {"to_nuts(500,": "to_nuts(100,", "num_samples=500": "num_samples=100"},
}

each_notebook = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)


def cells_of_script(script: Path) -> list[tuple[str, str]]:
    """Type and source of the cells of a script in the percent format."""
    before, *parts = re.split(r"^# %%(.*)\n", script.read_text(), flags=re.MULTILINE)
    assert before == "", "a script begins with a cell"
    cells = []
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        if title.strip() == "[markdown]":
            assert all(re.match("#( |$)", line) for line in body.strip().splitlines()), "text is behind '# '"
            body = re.sub("^# ?", "", body, flags=re.MULTILINE)
        cells.append(("markdown" if title else "code", body.strip("\n")))
    return cells


@each_notebook
def test_script_runs(script, run, tmp_path):
    text = script.read_text()
    for whole, shorter in SHORTER.get(script.stem, {}).items():
        assert whole in text
        text = text.replace(whole, shorter)
    short = tmp_path / script.name
    short.write_text(text)
    run(short)


@each_notebook
def test_notebook_is_the_script_executed(script):
    path = script.with_suffix(".ipynb")
    cells = json.loads(path.read_text())["cells"]
    assert [(cell["cell_type"], "".join(cell["source"])) for cell in cells] == cells_of_script(script)
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "display_data", "execute_result"}
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert path.stat().st_size < MOST


def test_there_are_no_notebooks_without_script():
    assert [path.stem for path in sorted(FOLDER.glob("*.ipynb"))] == [script.stem for script in SCRIPTS]
