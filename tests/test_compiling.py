"""Programs of bbvi are compiled so that their numbers are right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bbvi.draws.importance import log_densities
from bbvi.runtime import compiling
from bbvi.runtime.compiling import program
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters

MANY = 20_000
X = np.random.default_rng(0).standard_normal((20, 2))

SUMS = {  # sums that a compiler got wrong for many points, and the same in NumPy
    "two logarithms": (
        lambda z: -4 * jnp.log(jnp.exp(z[2])) + jnp.sum(jnp.log(6 * jnp.exp(z[2])) + z[:2] ** 2),
        lambda z: -4 * z[:, 2] + 2 * (np.log(6) + z[:, 2]) + np.sum(z[:, :2] ** 2, axis=1),
    ),
    "a matrix and vectors": (
        lambda z: -jnp.sum((X @ z[:2]) ** 2) + 0 * z[2],
        lambda z: -np.sum((z[:, :2] @ X.T) ** 2, axis=1),
    ),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SUMS)
def test_sums_at_many_points_are_right(name):
    compiled, exact = SUMS[name]
    z = np.random.default_rng(1).standard_normal((MANY, 3))
    found = log_densities(Problem(make_parameters(3), None, compiled), z)
    np.testing.assert_allclose(np.asarray(found), exact(z), rtol=1e-9, atol=1e-9)


def test_a_program_takes_the_options_that_are_known(monkeypatch):
    monkeypatch.setattr(compiling, "OPTIONS", {"xla_no_such_option": 1, "xla_cpu_enable_fast_math": False})
    compiling.options.cache_clear()
    assert compiling.options() == {"xla_cpu_enable_fast_math": False}
    assert program(lambda x: x + 1)(1) == 2
    compiling.options.cache_clear()


def test_attributes_of_a_function_are_not_those_of_its_program():
    def double(x):
        return 2 * x

    double.function = double.jitted = lambda x: x
    assert program(double)(1) == 2


def test_a_program_within_a_program_is_refused():
    inner = program(lambda x: x + 1)
    if compiling.options():
        with pytest.raises(ValueError, match="top-level"):
            jax.jit(lambda x: inner(x))(1.0)
