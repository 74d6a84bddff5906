"""Derivatives and curvature against closed forms, dense matrices and each other."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse.linalg
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg

from bbvi import curvature
from bbvi.curvature import HessianOperator, derivative, hessian_diagonal, hvp, jacobian, lanczos

RNG = np.random.default_rng(0)
HVP_MODES = ["forward_over_reverse", "reverse_over_reverse"]


def normal(*shape):
    return RNG.standard_normal(shape)


def symmetric(eigenvalues):
    vectors = np.linalg.qr(normal(len(eigenvalues), len(eigenvalues)))[0]
    matrix = vectors * eigenvalues @ vectors.T
    return (matrix + matrix.T) / 2


def assert_close(a, b, rtol=1e-10):
    """Equal structures, and leaves within rtol of the largest entry."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for left, right in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=rtol * max(1, np.abs(right).max()))


# Jacobians: functions, points and hand-written Jacobians.


def network(inputs, outputs):
    first, second = normal(4, inputs), normal(outputs, 4)
    fun = lambda x: second @ jnp.tanh(first @ x)
    exact = lambda x: second @ ((1 - np.tanh(first @ x) ** 2)[:, None] * first)
    return fun, normal(inputs), exact


def tree_function(x):
    return x["a"] * x["b"], {"sum": jnp.sum(x["a"] ** 2)}


def tree_jacobian(x):
    return {"a": x["b"] * np.eye(3), "b": x["a"]}, {"sum": {"a": 2 * x["a"], "b": np.zeros(())}}


JACOBIANS = {
    "3 to 5": network(3, 5),
    "5 to 2": network(5, 2),
    "pytrees": (tree_function, {"a": normal(3), "b": normal(1)[0]}, tree_jacobian),
    "a number": (jnp.sin, 0.5, np.cos),
}


@pytest.mark.parametrize("mode", ["forward", "reverse", "auto"])
@pytest.mark.parametrize("case", JACOBIANS)
def test_jacobian(x64, case, mode):
    fun, x, exact = JACOBIANS[case]
    assert_close(jax.jit(jacobian(fun, mode))(x), exact(x))


@jax.custom_vjp
def reverse_only(x):
    return x**2


reverse_only.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))


def forward_only(x):
    return jax.lax.while_loop(lambda carry: carry[0] < 1, lambda carry: (carry[0] + 1, carry[1] ** 2), (0, x))[1]


@pytest.mark.parametrize(
    ("inputs", "outputs", "fun"), [(3, 5, forward_only), (4, 4, forward_only), (5, 2, reverse_only)]
)
def test_auto_is_the_cheaper_mode(x64, inputs, outputs, fun):
    """The functions have derivatives in one mode only."""
    weights, x = normal(outputs, inputs), normal(inputs)
    whole = lambda x: weights @ fun(x)
    other = "reverse" if fun is forward_only else "forward"
    assert_close(jacobian(whole)(x), 2 * weights * x)
    with pytest.raises((TypeError, ValueError), match=rf"(?i){other}-mode"):
        jacobian(whole, other)(x)


# Hessians: scalar functions and points.


def rosenbrock(x):
    return jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def logistic(p):
    predictors = np.linspace(-1, 1, 14).reshape(7, 2)
    return jnp.sum(jax.nn.softplus(predictors @ p["w"] + p["b"])) + jnp.sum(p["w"] ** 2) + p["b"] ** 2


def classifier(layers):
    x = np.linspace(-1, 1, 6).reshape(3, 2)
    (first, bias), second = layers
    return jnp.sum(jax.nn.logsumexp(jnp.tanh(x @ first + bias) @ second, axis=1))


SCALARS = {
    "flat": (rosenbrock, normal(5)),
    "dict": (logistic, {"w": normal(2), "b": normal(1)[0]}),
    "nested": (classifier, [(normal(2, 3), normal(3)), normal(3, 2)]),
}


@cache
def dense(case):
    """Hessian `(dim, dim)` over flat vectors."""
    fun, x = SCALARS[case]
    flat, unravel = ravel_pytree(x)
    return np.asarray(jax.jit(curvature.hessian(lambda flat: fun(unravel(flat))))(flat))


def flatten(tree, batch=()):
    """Leaves side by side, `(*batch, dim)`."""
    return np.concatenate([np.reshape(leaf, (*batch, -1)) for leaf in jax.tree.leaves(tree)], axis=-1)


@pytest.mark.parametrize("case", SCALARS)
def test_products_are_those_of_the_hessian(x64, case):
    fun, x = SCALARS[case]
    unravel, matrix = ravel_pytree(x)[1], dense(case)
    vectors = normal(2, len(matrix))

    @jax.jit
    def products(x):
        operator = HessianOperator(fun, x)
        return {
            "hvp": [jax.vmap(lambda v, mode=mode: hvp(fun, x, unravel(v), mode))(vectors) for mode in HVP_MODES],
            "vector": operator @ vectors[0],
            "columns": operator @ vectors.T,
            "gradients": (operator.gradient, operator.unravel(operator.gradient), curvature.grad(fun)(x)),
            "diagonal": hessian_diagonal(fun, x),
        }

    found, exact = products(x), vectors @ matrix
    for product in found["hvp"]:
        assert jax.tree.structure(product) == jax.tree.structure(x)
        of_u, of_v = flatten(product, batch=(2,))
        assert_close([of_u, of_v], list(exact))
        np.testing.assert_allclose(vectors[1] @ of_u, vectors[0] @ of_v, rtol=1e-9)
    assert_close(found["vector"], exact[0])
    assert_close(found["columns"], exact.T)
    flat, unravelled, gradient = found["gradients"]
    assert_close(unravelled, gradient)
    assert_close(flat, flatten(gradient))
    value, error = found["diagonal"]
    assert jax.tree.structure(value) == jax.tree.structure(error) == jax.tree.structure(x)
    assert_close(flatten(value), np.diag(matrix))
    assert not flatten(error).any()


def test_reverse_over_reverse_needs_no_forward_derivatives(x64):
    """A gradient that comes from elsewhere, with a reverse rule of its own."""

    @jax.custom_vjp
    def gradient(x):
        return x**3

    @jax.custom_vjp
    def fun(x):
        return jnp.sum(x**4) / 4

    gradient.defvjp(lambda x: (x**3, x), lambda x, g: (3 * x**2 * g,))
    fun.defvjp(lambda x: (fun(x), x), lambda x, g: (g * gradient(x),))
    x, v = normal(2, 3)
    assert_close(hvp(fun, x, v, "reverse_over_reverse"), 3 * x**2 * v)
    with pytest.raises(TypeError, match="forward-mode"):
        hvp(fun, x, v)


def test_operator_linearises_once(x64):
    calls = []

    def counted(x):
        calls.append(None)
        return rosenbrock(x)

    operator = HessianOperator(counted, normal(5))
    made = len(calls)
    for _ in range(3):
        operator.matvec(normal(5))
    operator.matmat(normal(5, 2))
    assert made == len(calls) == 1


def test_operator_of_a_linear_function_is_zero(x64):
    assert_close(HessianOperator(jnp.sum, normal(3)) @ normal(3), np.zeros(3))


def test_operator_solves_inside_jit(x64):
    fun, x = SCALARS["dict"]
    solve = jax.jit(lambda x, b: cg(HessianOperator(fun, x).matvec, b, tol=1e-12)[0])
    b = normal(3)
    assert_close(solve(x, b), np.linalg.solve(dense("dict"), b), rtol=1e-8)


def test_operator_in_scipy(x64):
    fun, x = SCALARS["nested"]
    operator = scipy.sparse.linalg.aslinearoperator(HessianOperator(fun, x))
    matrix = dense("nested")
    values = scipy.sparse.linalg.eigsh(operator, 3, v0=np.ones(len(matrix)), return_eigenvectors=False)
    exact = np.linalg.eigvalsh(matrix)
    np.testing.assert_allclose(np.sort(values), np.sort(exact[np.argsort(-np.abs(exact))[:3]]), rtol=1e-8)
    columns = normal(len(matrix), 2)  # of which SciPy hands over one at a time, as `(dim, 1)`
    assert_close(operator @ columns, matrix @ columns)


# Many coordinates: a tridiagonal Hessian.

MANY = 100_000


def chain(x):
    return 0.5 * jnp.sum(jnp.diff(x) ** 2) + 0.5 * jnp.sum(x**2) + jnp.sum(jnp.cos(x)) / 10


def sizes(jaxpr):
    """Sizes of all arrays that a program makes, in its inner programs too."""
    for equation in jaxpr.eqns:
        yield from (variable.aval.size for variable in equation.outvars)
        inner = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda each: hasattr(each, "jaxpr"))
        for each in inner:
            each = getattr(each, "jaxpr", each)
            if hasattr(each, "eqns"):
                yield from sizes(each)


LEAN = {
    **{mode: (lambda x, mode=mode: hvp(chain, x, x, mode), 2) for mode in HVP_MODES},
    "operator": (lambda x: HessianOperator(chain, x).matvec(x), 2),
    "conjugate gradients": (lambda x: cg(HessianOperator(chain, x).matvec, x)[0], 2),
    "exact diagonal": (lambda x: hessian_diagonal(chain, x), 2 * curvature.diagonal.COLUMNS_AT_ONCE),
    "probed diagonal": (lambda x: hessian_diagonal(chain, x, probes=100), 2),
    "Lanczos": (lambda x: lanczos(HessianOperator(chain, x).matvec, x, 10), 11),
}


@pytest.mark.parametrize("case", LEAN)
def test_no_array_is_larger_than_a_few_vectors(case):
    function, vectors = LEAN[case]
    assert MANY <= max(sizes(jax.make_jaxpr(function)(jnp.ones(MANY)).jaxpr)) <= vectors * MANY


def test_many_coordinates(x64):
    x, v = normal(2, MANY)
    curve = 1 - np.cos(x) / 10
    exact = curve * v
    exact[1:] += np.diff(v)
    exact[:-1] -= np.diff(v)
    assert_close(jax.jit(lambda x, v: hvp(chain, x, v))(x, v), exact)
    solution = jax.jit(lambda x, b: cg(HessianOperator(chain, x).matvec, b, tol=1e-10)[0])(x, exact)
    assert_close(solution, v, rtol=1e-7)


# Random probes.


def test_probes_err_as_they_say(x64):
    """Estimates are unbiased, and both their spread and their standard errors have the variance of the closed form."""
    matrix, n, sets = symmetric(np.arange(1.0, 7.0)), 10, 2000
    fun = lambda x: 0.5 * x @ matrix @ x
    estimate = jax.jit(jax.vmap(lambda key: hessian_diagonal(fun, jnp.ones(6), n, key)))
    values, errors = map(np.asarray, estimate(jax.random.split(jax.random.key(0), sets)))
    exact, variance = np.diag(matrix), (np.sum(matrix**2, axis=1) - np.diag(matrix) ** 2) / n
    assert np.mean(np.abs(values - exact) < 4 * errors) > 0.99
    assert np.all(np.abs(values.mean(axis=0) - exact) < 4 * np.sqrt(variance / sets))
    np.testing.assert_allclose(values.var(axis=0), variance, rtol=0.2)
    np.testing.assert_allclose((errors**2).mean(axis=0), variance, rtol=0.05)


def test_probes_are_exact_for_a_diagonal_hessian(x64):
    x = normal(5)
    value, error = hessian_diagonal(lambda x: jnp.sum(x**4), x, probes=7, seed=3)
    np.testing.assert_allclose(value, 12 * x**2, rtol=1e-14)
    np.testing.assert_array_equal(error, 0)


def test_probes_depend_on_the_seed_only(x64):
    estimate = jax.jit(lambda seed: hessian_diagonal(lambda x: x[0] * x[1], np.ones(2), 5, seed).value)
    estimates = [estimate(seed) for seed in (1, jax.random.key(1), 2)]
    np.testing.assert_array_equal(estimates[0], estimates[1])
    assert not np.array_equal(estimates[0], estimates[2])


# Lanczos.

DIM = 30
MATRICES = {
    "generic": symmetric(normal(DIM)),
    "identity": np.eye(DIM),
    "zero": np.zeros((DIM, DIM)),
    "permutation": np.eye(DIM)[::-1],
    "projection": symmetric(np.repeat([0.0, 1.0], DIM // 2)),
    "clusters": symmetric(np.repeat([1e-9, 1.0, 1e3], DIM // 3)),
    "ill-conditioned": symmetric(np.logspace(-12, 12, DIM)),
}
STARTS = {"ones": np.ones(DIM), "generic": normal(DIM), "zero": np.zeros(DIM), "first": np.eye(DIM)[0]}
full_lanczos = jax.jit(lambda matrix, start: lanczos(lambda v: matrix @ v, start, DIM))


@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("case", MATRICES)
def test_full_lanczos_is_an_eigenbasis(x64, case, start):
    matrix = MATRICES[case]
    values, vectors, residuals = map(np.asarray, full_lanczos(matrix, STARTS[start]))
    size = max(np.abs(matrix).max(), 1.0)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix), rtol=0, atol=1e-13 * DIM * size)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(DIM), rtol=0, atol=1e-12)
    np.testing.assert_allclose(matrix @ vectors, values * vectors, rtol=0, atol=1e-13 * DIM * size)
    assert residuals.max() < 1e-13 * DIM * size


def test_few_steps_of_lanczos_find_the_ends(x64):
    dim, steps = 300, 40
    spectrum = np.concatenate([[-5.0, -4.0], np.linspace(0, 1, dim - 4), [8.0, 10.0]])
    matrix = symmetric(spectrum)
    found = jax.jit(lambda start: lanczos(lambda v: matrix @ v, start, steps))(normal(dim))
    values, vectors, residuals = map(np.asarray, found)
    assert (values.shape, vectors.shape, residuals.shape) == ((steps,), (dim, steps), (steps,))
    ends = np.array([0, 1, -2, -1])
    np.testing.assert_allclose(values[ends], spectrum[ends], rtol=1e-10)
    assert np.all(np.diff(values) >= 0)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(steps), rtol=0, atol=1e-12)
    true = np.linalg.norm(matrix @ vectors - values * vectors, axis=0)
    np.testing.assert_allclose(residuals, true, rtol=1e-6, atol=1e-12)
    assert residuals.max() > 1e-4 > 1e-10 > residuals[ends].max()
    distances = np.abs(values[:, None] - spectrum).min(axis=1)
    assert np.all(distances <= residuals + 1e-12)


# Derivatives of numbers.

t, s = np.linspace(-2, 2, 6).reshape(2, 3), np.linspace(-3, 3, 5)
TANH = [
    lambda y: y,
    lambda y: 1 - y**2,
    lambda y: -2 * y * (1 - y**2),
    lambda y: -2 * (1 - y**2) * (1 - 3 * y**2),
    lambda y: 8 * y * (1 - y**2) * (2 - 3 * y**2),
]
DERIVATIVES = [(jnp.tanh, order, t, exact(np.tanh(t))) for order, exact in enumerate(TANH)]
DERIVATIVES += [(jnp.sin, order, s, np.sin(s + order * np.pi / 2)) for order in (1, 5, 6)]
DERIVATIVES += [(lambda z: z**3, 2, 0.5, 3.0), (lambda z: jnp.exp(2 * z), 3, np.array([]), np.array([]))]


@pytest.mark.parametrize(("fun", "order", "x", "exact"), DERIVATIVES)
def test_derivative(x64, fun, order, x, exact):
    value = jax.jit(derivative(fun, order))(x)
    assert value.shape == np.shape(x)
    np.testing.assert_allclose(value, exact, rtol=0, atol=1e-13)


# Precision and errors.


@pytest.mark.parametrize(("double", "dtype", "rtol"), [(False, jnp.float32, 1e-5), (True, jnp.float64, 1e-13)])
def test_precision(double, dtype, rtol):
    """Results have the precision of x, whatever that of v, under strict promotion."""
    with jax.enable_x64(double):
        point, v = np.array([0.3, -1.2, 2.0]), np.array([1, 0, -2])
        fun = lambda x: jnp.sum(x**4) + x[0] * x[1]
        exact = np.diag(12 * point**2) + np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])

        def everything(x):
            operator = HessianOperator(fun, x)
            return {
                "jacobian": (jacobian(curvature.grad(fun))(x), exact),
                "hessian": (curvature.hessian(fun)(x), exact),
                **{mode: (hvp(fun, x, v, mode), exact @ v) for mode in HVP_MODES},
                "vector": (operator @ v, exact @ v),
                "columns": (operator @ np.eye(3, dtype=int), exact),
                "diagonal": (hessian_diagonal(fun, x).value, np.diag(exact)),
                "probed": (hessian_diagonal(lambda x: jnp.sum(x**4), x, probes=3).value, 12 * point**2),
                "eigenvalues": (lanczos(operator.matvec, jnp.ones(3, dtype), 3).values, np.linalg.eigvalsh(exact)),
                "derivative": (derivative(lambda z: z**3)(x), 3 * point**2),
            }

        for name, (found, expected) in jax.jit(everything)(jnp.asarray(point, dtype)).items():
            assert found.dtype == dtype, name
            assert_close(found, expected, rtol)


ERRORS = {
    "jacobian mode": (lambda: jacobian(jnp.sin, "both"), "'auto', 'forward', 'reverse'"),
    "hvp mode": (lambda: hvp(jnp.sum, jnp.ones(2), jnp.ones(2), "forward"), "forward_over_reverse.*reverse_over"),
    "hvp shape": (lambda: hvp(jnp.sum, jnp.ones(2), jnp.ones(3)), r"\(2,\); it has \(3,\)"),
    "hvp structure": (lambda: hvp(jnp.sum, {"a": 1.0}, [1.0]), r"\{'a': \(\)\}; it has \[\(\)\]"),
    "matvec": (lambda: HessianOperator(jnp.sum, jnp.ones(2)) @ jnp.ones(3), r"\(2,\); it has \(3,\)"),
    "matmat": (lambda: HessianOperator(jnp.sum, jnp.ones(2)) @ jnp.ones((3, 2)), r"\(2, 'k'\).*\(3, 2\)"),
    "probes": (lambda: hessian_diagonal(jnp.sum, jnp.ones(2), probes=1), "at least 2"),
    "too many steps": (lambda: lanczos(lambda v: v, jnp.ones(2), 3), "from 1 to the dimension, 2; got 3"),
    "no steps": (lambda: lanczos(lambda v: v, jnp.ones(2), 0), "from 1"),
    "integer start": (lambda: lanczos(lambda v: v, jnp.arange(2), 1), "floating point"),
    "matrix start": (lambda: lanczos(lambda v: v, jnp.ones((2, 2)), 1), r"shape \(2, 2\)"),
    "negative order": (lambda: derivative(jnp.sin, -1), "order must be 0 or more; got -1"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_errors(case):
    call, message = ERRORS[case]
    with pytest.raises(ValueError, match=message):
        call()


def test_public_names():
    assert all(getattr(curvature, name).__doc__ for name in curvature.__all__)
