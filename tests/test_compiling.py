"""Programs of bbvi are compiled so that their numbers are right."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bbvi
from bbvi.distributions.scales import diagonal_of, on_diagonal
from bbvi.draws.importance import log_densities
from bbvi.runtime import compiling
from bbvi.runtime.compiling import program
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters

MANY = 20_000
RNG = np.random.default_rng(2)
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


def test_what_the_environment_says_of_an_option_holds(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_backend_optimization_level=0")
    monkeypatch.setattr(compiling, "OPTIONS", {"xla_backend_optimization_level": 1, "xla_cpu_enable_fast_math": False})
    compiling.options.cache_clear()
    assert compiling.options() == {"xla_cpu_enable_fast_math": False}
    compiling.options.cache_clear()


def test_nothing_is_compiled_between_programs():
    """One operation on arrays of JAX outside of a program would be a program of its own."""
    compiled = []

    def listen(name, _, fun_name="", **others):
        if name.endswith("backend_compile_duration"):
            compiled.append(fun_name.removeprefix("jit(").removesuffix(")"))

    jax.clear_caches()
    compiling.options()  # compiles, once in a process
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        bbvi.fit(lambda x: -0.5 * jnp.sum((x - 1) ** 2), 3).table()
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    own = {"_take_steps", "begin", "extract", "look_around", "evaluate", "log_densities"}
    assert own >= set(compiled) >= {"_take_steps", "evaluate"}, compiled


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


@pytest.mark.parametrize("n", [1, 4])
def test_diagonals_are_those_of_numpy(n):
    matrices = RNG.standard_normal((3, n, n)).astype(np.float32)
    diagonals = np.diagonal(matrices, axis1=1, axis2=2)
    for of in (np.asarray, jnp.asarray):
        np.testing.assert_array_equal(diagonal_of(of(matrices)), diagonals)
        np.testing.assert_array_equal(on_diagonal(of(diagonals[0])), np.diag(diagonals[0]))
