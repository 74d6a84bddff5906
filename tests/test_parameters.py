"""Structures and constraints <-> flat, unconstrained vectors."""

from collections import namedtuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import constraints

from bbvi.target.reading import make_parameters

pytestmark = pytest.mark.usefixtures("x64")

Point = namedtuple("Point", "a b")

STRUCTURES = [
    (3, ["x"], [(3,)], 3),
    ({"b": (), "a": (2, 2)}, ["a", "b"], [(2, 2), ()], 5),
    ([((1, 3), (3,)), ((3, 1), (1,))], ["x.0.0", "x.0.1", "x.1.0", "x.1.1"], [(1, 3), (3,), (3, 1), (1,)], 10),
    ({"net": [(2,), (1,)], "s": 4}, ["net.0", "net.1", "s"], [(2,), (1,), (4,)], 7),
    (Point((2,), ()), ["a", "b"], [(2,), ()], 3),
    (np.zeros((2, 3)), ["x"], [(2, 3)], 6),
    ({"w": jnp.zeros(2), "c": 0.5}, ["c", "w"], [(), (2,)], 3),
]


@pytest.mark.parametrize(("dim", "names", "shapes", "size"), STRUCTURES, ids=lambda each: str(each)[:30])
def test_structures(dim, names, shapes, size):
    parameters = make_parameters(dim)
    assert parameters.names == tuple(names)
    assert parameters.shapes == tuple(shapes)
    assert parameters.dim == size
    x = np.arange(2.0 * size).reshape(2, size)
    values = parameters.structure(x)
    assert jax.tree.structure(values) == parameters.treedef
    assert [leaf.shape for leaf in jax.tree.leaves(values)] == [(2, *shape) for shape in shapes]
    one, log_volume = parameters.constrain(x[0])
    assert log_volume == 0
    np.testing.assert_array_equal(parameters.unconstrain(jax.tree.leaves(one))[0], x[0])
    assert len(parameters.coordinate_names()) == size


CONSTRAINTS = [
    (constraints.positive, (), 1),
    (constraints.positive, (2, 3), 6),
    (constraints.interval(-1.0, 2.0), (3,), 3),
    (constraints.interval(np.zeros(2), np.ones(2)), (2,), 2),
    (constraints.greater_than(1.0), (), 1),
    (constraints.less_than(1.0), (), 1),
    (constraints.unit_interval, (), 1),
    (constraints.simplex, (4,), 3),
    (constraints.simplex, (2, 3), 4),
    (constraints.ordered_vector, (3,), 3),
    (constraints.positive_ordered_vector, (3,), 3),
    (constraints.corr_cholesky, (3, 3), 3),
    (constraints.corr_matrix, (3, 3), 3),
    (constraints.lower_cholesky, (2, 2), 3),
    (constraints.positive_definite, (2, 2), 3),
    (constraints.real, (2,), 2),
]


@pytest.mark.parametrize(("constraint", "shape", "size"), CONSTRAINTS, ids=lambda each: str(each)[:40])
def test_constraints(constraint, shape, size):
    """Draws obey the constraint, the map inverts, and its log-Jacobian is numpyro's at every point."""
    from numpyro.distributions import biject_to

    parameters = make_parameters({"c": shape, "free": (2,)}, {"c": constraint})
    assert parameters.dim == size + 2
    x = np.random.default_rng(0).standard_normal((5, parameters.dim))
    values = parameters.structure(x)
    assert values["c"].shape == (5, *shape)
    assert jnp.all(constraint(values["c"]))
    transform = biject_to(constraint)
    for each in x:
        one, log_volume = parameters.constrain(jnp.asarray(each))
        free = jnp.asarray(each[:size].reshape(parameters.free_shapes[0]))
        with jax.numpy_dtype_promotion("standard"):
            exact = jnp.sum(transform.log_abs_det_jacobian(free, transform(free)))
        np.testing.assert_allclose(log_volume, exact, rtol=1e-10)
        again, same = parameters.unconstrain(jax.tree.leaves(one))
        np.testing.assert_allclose(again, each, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(same, log_volume, rtol=1e-6, atol=1e-8)


def test_one_constraint_for_all():
    parameters = make_parameters({"a": (2,), "b": ()}, constraints.positive)
    assert parameters.constraints == (constraints.positive, constraints.positive)
    nested = make_parameters({"a": [(2,), ()], "b": ()}, {"a": constraints.positive})
    assert [c is None for c in nested.constraints] == [False, False, True]


WRONG = [
    ({"a": ()}, {"b": constraints.positive}, ValueError, "'b', which dim does not have"),
    ({"alpha": ()}, {"alhpa": constraints.positive}, ValueError, "Did you mean 'alpha'"),
    ({"a": (3,)}, {"a": constraints.corr_cholesky}, ValueError, "does not fit its shape"),
    ({"a": ()}, {"a": constraints.simplex}, ValueError, "does not fit its shape"),
    ({"a": ()}, {"a": constraints.nonnegative_integer}, ValueError, "Discrete parameters"),
    ({"a": ()}, {"a": "positive"}, TypeError, "no numpyro constraint"),
    (0, None, ValueError, "Lengths must be positive"),
    (-1, None, ValueError, "Lengths must be positive"),
    ({"a": (2, -1)}, None, ValueError, "Lengths must be positive"),
    ({}, None, ValueError, "no parameters"),
    ({"a": (0,)}, None, ValueError, "no free coordinate"),
    ("3", None, TypeError, "must be an int, a shape"),
    ({"a": "x"}, None, TypeError, "dim at 'a'"),
    (True, None, TypeError, "must be an int"),
]


@pytest.mark.parametrize(("dim", "given", "error", "message"), WRONG, ids=lambda each: str(each)[:30])
def test_errors_name_the_argument_and_the_remedy(dim, given, error, message):
    with pytest.raises(error, match=message):
        make_parameters(dim, given)
