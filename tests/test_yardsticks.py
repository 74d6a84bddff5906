"""Ports of classic BUGS examples and of the inference gym: they evaluate, and give what was published of them."""

import os
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks.posteriordb.contestants import make_problem
from benchmarks.yardsticks import MODELS, load, read_reference

FOLDER = Path(os.environ.get("BBVI_YARDSTICKS", Path(__file__).parents[2] / "shared" / "yardsticks"))
pytestmark = [
    pytest.mark.usefixtures("x64"),
    pytest.mark.skipif(not FOLDER.is_dir(), reason="needs the published moments: set BBVI_YARDSTICKS to their folder"),
]


@pytest.mark.parametrize("name", MODELS)
def test_it_is_finite_and_gives_the_published_quantities(name):
    case, reference = load(FOLDER, name), read_reference(FOLDER, name)
    problem = make_problem(case)
    at = jax.tree.map(lambda each: np.asarray(each[0]), problem.parameters.structure(np.full((1, problem.dim), 0.1)))
    # Parameters that are quantities themselves, at their published means.
    at |= {k: reference[k].mean.reshape(at[k].shape) for k in at.keys() & reference.keys()}
    value, gradient = jax.jit(jax.value_and_grad(case.logprob))(at, case.data)
    assert np.isfinite(value)
    assert all(np.isfinite(each).all() for each in gradient.values())
    found = jax.eval_shape(MODELS[name].quantities, at, case.data)
    assert {k: each.size for k, each in found.items()} == {k: len(each.mean) for k, each in reference.items()}
