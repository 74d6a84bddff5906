"""Examples in docstrings run, and print what they say."""

import doctest
import importlib
import pkgutil

import jax.numpy as jnp
import numpy as np
import numpyro
import pytest

import bbvi

MODULES = [bbvi.__name__, *(module.name for module in pkgutil.walk_packages(bbvi.__path__, "bbvi."))]
NAMESPACE = {"bbvi": bbvi, "jnp": jnp, "np": np, "numpyro": numpyro}
OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def examples(module):
    found = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(module), extraglobs=NAMESPACE)
    return [test for test in found if test.examples]


@pytest.mark.parametrize("module", [module for module in MODULES if examples(module)])
def test_examples_print_what_they_say(module, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner, report = doctest.DocTestRunner(optionflags=OPTIONS), []
    for test in examples(module):
        runner.run(test, out=report.append)
    assert not runner.failures, "".join(report)
