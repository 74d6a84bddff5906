"""What a hierarchy is made of, read off its log density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import gammaln, logsumexp
from scipy.sparse import csr_array

from bbvi.distributions.affine import Affine
from bbvi.distributions.scales import Diagonal
from bbvi.structure import Structure, bending, find_structure, hessian_pattern, partition, structure_of
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters
from tests import hierarchies
from tests.hierarchies import (
    SCHOOLS,
    bym2,
    counts,
    regression,
    schools,
    simulate,
    simulate_bym2,
    simulate_slopes,
    slopes,
)

pytestmark = pytest.mark.usefixtures("x64")
DIM = 6
GROUP = np.array([0, 1, 2, 0, 1, 2, 2])
MATRIX = np.random.default_rng(0).standard_normal((4, DIM)) * (np.arange(DIM) < 3)
SPD = np.eye(3) * 2


@jax.custom_jvp
def _cube(x):
    return x**3


_cube.defjvp(lambda primals, tangents: (_cube(*primals), 3 * primals[0] ** 2 * tangents[0]))


def _walk(x):
    return jax.lax.scan(lambda state, each: (0.5 * state + each, (state - each) ** 3), 0.0, x)[1].sum()


def _right(triangle, rows):
    return jax.lax.linalg.triangular_solve(triangle, rows, left_side=False, lower=True)


# Functions whose pattern is known exactly: it is that of their Hessian at a point without special values.
EXACT = {
    "a sum of squares": lambda x: jnp.sum(x**2),
    "a linear function": lambda x: jnp.sum(3 * x) + x[0],
    "effects of groups": lambda x: jnp.sum(jnp.exp(x[3] + x[GROUP])),
    "a product with a matrix": lambda x: jnp.sum(jnp.tanh(MATRIX @ x)),
    "neighbours": lambda x: jnp.sum(jnp.diff(x) ** 2),
    "a sum of products": lambda x: jnp.einsum("i,ij,j->", x[:3], jnp.ones((3, 3)), jnp.exp(x[3:])),
    "a ratio": lambda x: x[0] / x[1] + x[2],
    "log-sum-exp": lambda x: logsumexp(x[:3]) + gammaln(x[4] ** 2),
    "steps, unrolled": _walk,
    "a branch that is known": lambda x: jax.lax.cond(True, lambda x: x[0] ** 2, lambda x: jnp.prod(x), x),
    "a function with a rule of its own": lambda x: _cube(x[0] + x[1]),
    "a function of a function": lambda x: jax.jit(lambda y: jnp.sum(jnp.sin(y)))(x[::2]),
    "many at once": lambda x: jnp.sum(jax.vmap(lambda a, b: jnp.sin(a * b))(x[:3], x[3:])),
    "a walk": lambda x: jnp.sum(jnp.cumsum(x)[:2] ** 2),
    "a scatter": lambda x: jnp.sum(jnp.zeros(3).at[np.array([0, 0, 1, 1, 2, 2])].add(x) ** 2),
    "stop_gradient": lambda x: jnp.sum(jax.lax.stop_gradient(x) * x[0]),
}
# Those whose pattern may be larger than need be.
SAFE = {
    "a Cholesky factor": lambda x: jnp.sum(jnp.log(jnp.diag(jnp.linalg.cholesky(SPD + jnp.diag(jnp.exp(x[:3])))))),
    "a loop of unknown length": lambda x: jax.lax.while_loop(lambda y: y[0] < 3, lambda y: 2 * y, jnp.exp(x)).sum(),
    "a branch that depends on x": lambda x: jax.lax.cond(x[0] > 0, lambda x: x[1] * x[2], lambda x: x[3] ** 2, x),
    "a choice of elements": lambda x: jnp.sum(jnp.where(np.arange(DIM) < 2, x**2, 2 * x)),
    "a solve from the right": lambda x: jnp.sum(_right(jnp.eye(3) + jnp.tril(jnp.ones((3, 3))), x.reshape(2, 3)) ** 2),
    "a solve with x in the matrix": lambda x: jnp.sum(jnp.linalg.solve(SPD + jnp.diag(jnp.exp(x[:3])), x[3:])),
    "a solve with x on both sides": lambda x: jnp.linalg.solve(SPD + jnp.outer(x[:3], x[:3]), x[3:]) @ x[3:],
    "many solves": lambda x: jax.vmap(lambda d: d @ jnp.linalg.solve(SPD[:2, :2] * x[0], d))(x[2:].reshape(2, 2)).sum(),
    "sorting": lambda x: jnp.sum(jnp.sort(x)[:2] ** 2),
}


def hessian(function):
    """Where the Hessian differs from zero at some of a few points."""
    xs = np.random.default_rng(1).uniform(0.1, 1.5, (5, DIM))
    return np.max([np.abs(jax.jacfwd(jax.grad(function))(jnp.asarray(x))) for x in xs], axis=0) > 1e-12


@pytest.mark.parametrize("name", EXACT)
def test_the_pattern_is_that_of_the_hessian(name):
    with jax.numpy_dtype_promotion("standard"):
        found = hessian_pattern(EXACT[name], jax.ShapeDtypeStruct((DIM,), float)).toarray()
        expected = hessian(EXACT[name])
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", SAFE)
def test_the_pattern_leaves_out_nothing(name):
    with jax.numpy_dtype_promotion("standard"):
        found = hessian_pattern(SAFE[name], jax.ShapeDtypeStruct((DIM,), float), 60.0).toarray()
        if "loop" not in name:  # which has no second derivative to compare with
            assert found[hessian(SAFE[name])].all()
    assert (found == found.T).all()
    assert found.any()


def test_without_time_there_is_no_pattern():
    assert hessian_pattern(lambda x: jnp.sum(x**2), jax.ShapeDtypeStruct((DIM,), float), seconds=-1.0) is None


def test_a_long_dense_function_is_given_up():
    assert hessian_pattern(lambda x: jnp.sum(x) ** 2, jax.ShapeDtypeStruct((1000,), float)) is None


def problem(logprob, dim, data=None):
    return Problem(make_parameters(dim), jax.tree.map(jnp.asarray, data), logprob)


def found(logprob, dim, data, at=0.1):
    n = problem(logprob, dim, data).dim
    with jax.numpy_dtype_promotion("standard"):
        return find_structure(problem(logprob, dim, data), np.full(n, at), np.ones(n), seconds=10.0)


COUNTS, SLOPES = simulate(counts, 20, 3), simulate_slopes()
ANSWERS = {"y": (np.random.default_rng(0).random((30, 4)) < 0.6).astype(float)}
ROWS = {"X": np.random.default_rng(0).standard_normal((50, 3)), "y": np.random.default_rng(1).standard_normal(50)}
# log density, coordinates, data; hyper-parameters that there are at least, sizes of the blocks
HIERARCHIES = {
    "counts, centred": (counts(True), 22, COUNTS, {1}, [1] * 20),
    "counts, non-centred": (counts(False), 22, COUNTS, {0, 1}, [1] * 20),
    "schools, centred": (schools(True), 10, SCHOOLS, {0, 1}, [1] * 8),
    "schools, non-centred": (schools(False), 10, SCHOOLS, {0, 1}, [1] * 8),
    "intercepts and slopes": (slopes, 29, SLOPES, {2, 3, 4}, [2] * 12),
    "items": (hierarchies.items, 39, ANSWERS, set(range(8)), [1] * 30),
}


@pytest.mark.parametrize("name", HIERARCHIES)
def test_hyper_parameters_and_blocks_are_found(name):
    logprob, dim, data, hyper, sizes = HIERARCHIES[name]
    structure = found(logprob, dim, data)
    assert hyper <= set(structure.hyper)
    assert list(structure.sizes) == sizes
    assert sorted([*structure.hyper, *structure.latent]) == list(range(dim))


@pytest.mark.parametrize("at", ["the bulk", "a place far off"])
def test_a_map_has_four_hyper_parameters_and_a_sum_that_is_held(at):
    """Sites do not count as hyper-parameters because hubs do, whose curvature they change."""
    x = np.full(76, 0.1)
    x[2:4] = (-0.7, 0.7) if at == "the bulk" else (-4.6, 5.7)
    given = problem(bym2, 76, simulate_bym2())
    with jax.numpy_dtype_promotion("standard"):
        structure = find_structure(given, x, np.ones(76), seconds=10.0)
    assert list(structure.hyper) == [0, 1, 2, 3]
    assert len(structure.separators) > 0
    np.testing.assert_allclose(structure.sums, np.pad(np.full((1, 36), 1 / 0.036), ((0, 0), (40, 0))), rtol=1e-6)


# Terms that look like a sum held near a value: it is not held by a constant, from one side only, or not smooth.
NOT_HELD = {
    "a fourth power": lambda s, x: -(s**4),
    "a log-sum-exp": lambda s, x: -logsumexp(x[1:]),
    "an unknown constant": lambda s, x: -(s**2) * jnp.exp(x[0]),
    "no maximum": lambda s, x: s**2 / 1000,
}


@pytest.mark.parametrize("name", NOT_HELD)
def test_a_sum_that_is_not_held_is_part_of_the_pattern(name):
    logprob = lambda x, _: NOT_HELD[name](jnp.sum(x[1:]), x) - 0.5 * jnp.sum(x[1:] ** 2) * jnp.exp(x[0]) + 10 * x[0]
    structure = found(logprob, 21, 0.0)
    assert structure is None or not len(structure.sums)


def test_a_log_scale_is_never_latent_where_others_depend_on_it():
    structure = found(regression, 4, ROWS)
    assert structure is None or 3 in structure.hyper


def test_of_equal_parts_the_fewest_hyper_parameters_are_chosen():
    arrow = np.eye(9, dtype=bool)
    arrow[0], arrow[:, 0] = True, True
    hyper, blocks = partition(csr_array(arrow), [])
    assert list(hyper) == [0]
    assert [list(block) for block in blocks] == [[i] for i in range(1, 9)]


def named(logprob):
    return lambda values, data: logprob(
        jnp.concatenate([values["mean"][None], values["log_sd"][None], values["z"]]), data
    )


def _scaled(x):
    """a ~ N(0, s^2) and z ~ N(0, e^(2 a)), at a = 0."""
    return -0.5 * (x[0] / 0.2) ** 2 - 0.5 * jnp.exp(-2 * x[0]) * jnp.sum(x[1:] ** 2) - 8 * x[0]


def test_bending_is_the_norm_of_the_change_of_the_curvature():
    gaussian = Affine(np.zeros(9), Diagonal(np.zeros(9)))
    scale = bending(problem(_scaled, 9, None), gaussian, np.array([0]))[0]
    np.testing.assert_allclose(scale, 8**0.5 * np.sinh(0.4), rtol=0.4)  # of 16 random directions
    shifted = problem(lambda x: -0.5 * jnp.sum((x[1:] - x[0]) ** 2) - x[0] ** 2, 9, None)
    shift = bending(shifted, gaussian, np.array([0]))[0]
    np.testing.assert_allclose(shift, 0, atol=1e-12)


NAMED = {"mean": (), "log_sd": (), "z": (8,)}


def test_a_structure_prints_itself_with_names():
    structure = found(named(schools(True)), NAMED, SCHOOLS)
    assert str(structure) == "2 hyper-parameters (log_sd, mean) and 8 blocks of 1 (z[0..7])"


def test_latents_may_be_named():
    given = problem(named(schools(True)), NAMED, SCHOOLS)
    structure = structure_of(given, ["z", "mean"], np.full(10, 0.1), np.ones(10))
    assert isinstance(structure, Structure)
    assert str(structure) == "1 hyper-parameter (log_sd) and 1 block of 9 (mean, z[0..7])"


@pytest.mark.parametrize(("latents", "words"), [(["w"], "no parameter.*mean"), ([], "no parameter with coordinates")])
def test_latents_that_are_none_are_refused(latents, words):
    with pytest.raises(ValueError, match=words):
        structure_of(problem(named(schools(True)), NAMED, SCHOOLS), latents, np.zeros(10), np.ones(10))
