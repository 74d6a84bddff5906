"""Bad input for `bbvi.fit`, made at random, and what counts as a right answer to it.

Tests take a little of it (tests/test_bad_input.py), the campaign much (benchmarks/campaign.py).
"""

import math
import traceback
from fractions import Fraction
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from hypothesis import strategies as st
from numpyro.distributions import constraints

import bbvi

HOME = str(Path(bbvi.__file__).parent)
REFUSALS = (TypeError, ValueError, FloatingPointError, OSError)


class Reached(Exception):
    """The log density was called: the arguments were taken."""


def outcome(call, names):
    """What came of a call: "right", "taken" (up to the log density), "refused", or words on what is wrong.

    Arguments:
        call: returns None, or words on what is wrong with its result.
        names: one of which the message of a refusal must hold.
    """
    try:
        return call() or "right"
    except Reached:
        return "taken"
    except Exception as error:
        said = f"{type(error).__name__}: {str(error)[:300]}"
        last = traceback.extract_tb(error.__traceback__)[-1]
        if not isinstance(error, REFUSALS):
            return f"not an error of bbvi: {said}, at {last.filename}:{last.lineno}"
        if not last.filename.startswith(HOME):
            return f"raised elsewhere: {said}, at {last.filename}:{last.lineno}"
        if not any(name in str(error) for name in names):
            return f"names none of {', '.join(names)}: {said}"
        return "refused"


# -- arguments -------------------------------------------------------------------------------------------------------

ODD = [
    True, False, 0, -1, 1, 2, 3, 7, 2**70, -(2**70), 0.0, -0.0, 0.5, 1e-300, 1e300, math.nan, math.inf, -math.inf, 1j,
    "", "x", "auto", "double", "mean_field", "newton", "\x00", "ü", b"x", [], [1], [None], {}, {"a": 1},
    {1: 2, "a": 3}, (), (1,), (2, 2), (-1,), (1.5,), ("a",), set(), frozenset([1]), object(), int, float, len,
    Exception, Ellipsis, NotImplemented, range(3), Fraction(1, 2), Path("x"), np.float32(1), np.float64(np.nan),
    np.int8(2), np.uint64(2**63), np.bool_(True), np.str_("x"), np.zeros(0), np.zeros(2), np.zeros((2, 2)),
    np.full(2, np.nan), np.full(2, np.inf), np.array(1), np.array(1.5), np.array("x"), np.array([None, 1]),
    np.array(["a", "b"]), np.zeros(2, complex), np.zeros(2, "datetime64[s]"),
    np.ma.masked_array([1.0, 2.0], [True, False]), np.zeros(2, bool), np.ones(2, int), np.zeros(2, [("a", float)]),
    jnp.zeros(2), jnp.zeros(2, jnp.bfloat16), jnp.zeros(0), jnp.ones((), int), jax.ShapeDtypeStruct((2,), float),
    jax.random.key(0), bbvi.MeanField, bbvi.MeanField.standard(2), bbvi.MeanField.standard(3),
    bbvi.FullRank.standard(2), bbvi.ADVI, bbvi.ADVI(), bbvi.ELBO, bbvi.ELBO(), bbvi.IID(), bbvi.Distribution,
    bbvi.Budget(seconds=1), optax.adam(0.1), optax.adam, constraints.positive, constraints.simplex,
    constraints.boolean, constraints.interval(2.0, 1.0), lambda: 1, lambda *a, **k: None, print,
]  # fmt: skip
ARGUMENTS = [
    "dim", "data", "constraints", "method", "family", "estimator", "optimizer", "init", "seed", "num_steps",
    "num_draws", "batch_size", "budget", "callbacks", "progress", "checkpoint", "precision",
]  # fmt: skip


def stop(values, *data):
    """A log density that ends the fit as soon as the arguments have been read."""
    raise Reached


def odd_arguments():
    """One or two arguments with odd values."""
    return st.dictionaries(st.sampled_from(ARGUMENTS), st.sampled_from(ODD), min_size=1, max_size=2)


def try_reading(options):
    """Odd arguments up to the first call of the log density."""
    options = dict(options)
    dim = options.pop("dim", 2)
    return outcome(lambda: bbvi.fit(stop, dim, **options), [*options, "dim"])


def try_arguments(options):
    """Odd arguments, and a fit with those that were taken."""
    said, options = try_reading(options), dict(options)
    dim, names = options.pop("dim", 2), [*options, "dim"]
    if said != "taken" or not isinstance(dim, int) or dim > 9:
        return said
    one = not {"family", "estimator", "optimizer", "num_draws"} & set(options)
    options = {"num_steps": 2, "progress": False, "method": "laplace" if one else "auto", **options}
    return outcome(lambda: fits(bbvi.fit(lambda x, *data: -0.5 * jnp.sum(x**2), dim, **options)), names)


def fits(posterior):
    """Words on what is wrong with how a posterior shows."""
    return None if "Status" in repr(posterior) else "no verdict"


# -- structures, constraints and data --------------------------------------------------------------------------------

SIZES = st.integers(0, 3)
SHAPES = st.lists(SIZES, max_size=3).map(tuple)
DTYPES = ["float64", "float32", "float16", jnp.bfloat16, "int8", "uint64", "bool", "complex64", "object", "U3"]


def arrays(dtypes=DTYPES):
    """Arrays of ones, or of something like ones."""
    return st.builds(lambda shape, dtype: np.ones(shape).astype(dtype), SHAPES, st.sampled_from(dtypes))


GOOD_LEAVES = SHAPES | SIZES | arrays(DTYPES[:7])
BAD_LEAVES = st.sampled_from(
    [None, "x", "", -1, (-1, 2), (1.5,), (True,), True, 1.5, math.nan, 1j, object(), len, set()]
)
KEYS = (
    st.sampled_from(["a", "b", "a.b", "a.0"])
    | st.text("ab./ü[]' \x00", max_size=3)
    | st.integers(-2, 2)
    | st.sampled_from([None, (1, 2), True, 0.5])
)


def trees(leaves):
    """Nested dicts, lists and tuples, empty ones too."""
    return st.recursive(
        leaves,
        lambda inner: (
            st.dictionaries(KEYS, inner, max_size=3)
            | st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
        ),
        max_leaves=5,
    )


def structures():
    """Values for `dim`."""
    return trees(GOOD_LEAVES) | trees(GOOD_LEAVES | BAD_LEAVES)


def try_structure(dim):
    seen = []

    def logprob(values):
        seen.append(values)
        raise Reached

    def call():
        try:
            bbvi.fit(logprob, dim)
        except Reached:
            from bbvi.target.reading import make_parameters

            names = make_parameters(dim).names
            if len(set(names)) < len(names):
                return f"the same name twice: {names}"
            raise

    return outcome(call, ["dim"])


CONSTRAINTS = [
    each for name, each in sorted(vars(constraints).items()) if hasattr(each, "feasible_like") and callable(each)
    and not isinstance(each, type)
]  # fmt: skip
BOUNDS = st.sampled_from([0.0, 1, -1.5, math.inf, -math.inf, math.nan, np.zeros(2), np.ones(3), None, "a", jnp.ones(2)])
MADE = st.one_of(
    st.builds(lambda a, b: (constraints.interval, a, b), BOUNDS, BOUNDS),
    st.builds(lambda a: (constraints.greater_than, a), BOUNDS),
    st.builds(lambda a: (constraints.less_than, a), BOUNDS),
    st.builds(lambda c, n: (constraints.independent, c, n), st.sampled_from(CONSTRAINTS), st.integers(0, 2)),
)


def made(parts):
    kind, *arguments = parts
    return kind(*arguments)


def constrained():
    """Pairs of `dim` and `constraints`."""
    one = st.sampled_from(CONSTRAINTS) | MADE.map(made) | st.sampled_from([None, 1, "positive", constraints.Constraint])
    leaves = st.dictionaries(st.sampled_from("abc"), SHAPES, min_size=1, max_size=2)
    whole = st.tuples(leaves, st.dictionaries(st.sampled_from("abc"), one, max_size=2) | one)
    return (
        whole | st.tuples(SHAPES, one) | st.tuples(st.lists(SHAPES, min_size=1, max_size=2), st.lists(one, max_size=3))
    )


def try_constraints(case):
    dim, given = case

    def call():
        try:
            bbvi.fit(stop, dim, constraints=given)
        except Reached:
            return check_constraints(dim, given) or "taken"

    return outcome(call, ["dim", "constraints"])


def check_constraints(dim, given):
    """Words on what is wrong with parameters that were taken: each point must map to finite values, and back."""
    from bbvi.target.reading import make_parameters

    with jax.enable_x64(True):
        parameters = make_parameters(dim, given)
        x = np.random.default_rng(0).standard_normal(parameters.dim)
        values, log_volume = parameters.constrain(jnp.asarray(x))
        leaves = jax.tree.leaves(values)
        if not all(np.isfinite(leaf).all() for leaf in [*leaves, log_volume]):
            return f"not finite under {given!r}: {values}, {log_volume}"
        back = np.asarray(parameters.unconstrain(leaves)[0])
        if back.shape != x.shape or not np.allclose(back, x, atol=1e-4):
            return f"does not come back under {given!r}: {x} {back}"
        return None


DATA = [
    None, 1, 1.5, True, "x", b"x", math.nan, math.inf, 1j, [], {}, (), [[1, 2], [3]], [1, "a"], [None], {"a": None},
    np.array([1.0, np.nan]), np.array([1.0, np.inf]), np.array([[1, 2], [3, 4]], object), np.array(["a"]), object(),
    np.zeros(0), np.zeros((0, 3)), np.ma.masked_array([1.0, 2.0], [True, False]), np.zeros(2, "timedelta64[s]"),
    jnp.ones(2, jnp.bfloat16), jnp.array([1, jnp.nan], jnp.bfloat16), np.float16(1), 2**70, jax.random.key(0), set(),
    range(3), np.zeros(2, [("a", float)]), Fraction(1, 2), "nan", len, np.matrix([[1.0]]), jnp.array([jnp.nan]),
    np.array([1, np.nan], complex), np.array(np.nan, np.float32), np.uint64(2**63), [jnp.ones(2), np.ones(3)],
]  # fmt: skip


def odd_data():
    """Values for `data`."""
    return trees(st.sampled_from(DATA) | arrays())


def try_data(data):
    def logprob(values, *seen):
        leaves = jax.tree.leaves(seen)
        if any(jnp.issubdtype(leaf.dtype, jnp.floating) and leaf.dtype != values.dtype for leaf in leaves):
            raise AssertionError(f"dtypes {[leaf.dtype for leaf in leaves]}")
        raise Reached

    return outcome(lambda: bbvi.fit(logprob, 2, data=data) and None, ["data"])


NUMBERS = st.sampled_from([0.0, 1, 1.0, -1.0, 1e300, math.nan, math.inf, None, "x", np.zeros(2), [1.0, 2.0], 1j, True])
INITS = st.sampled_from(ODD) | trees(NUMBERS) | st.fixed_dictionaries({"a": NUMBERS, "b": NUMBERS})


def inits():
    return INITS


def half_normal(values):
    """Of `a`, which is positive, beside a standard normal `b`."""
    return -0.5 * values["a"] ** 2 - 0.5 * jnp.sum(values["b"] ** 2)


def try_init(init):
    dim, positive = {"a": (), "b": (2,)}, {"a": constraints.positive}
    return outcome(
        lambda: fits(bbvi.fit(half_normal, dim, constraints=positive, init=init, method="advi", num_steps=1)), ["init"]
    )


RETURNS = {
    "None": lambda x: None,
    "a string": lambda x: "0",
    "a list": lambda x: [0.0],
    "a dict": lambda x: {"a": x},
    "a function": lambda x: len,
    "an object": lambda x: object(),
    "a vector": lambda x: x,
    "one entry": lambda x: x[:1],
    "empty": lambda x: x[:0],
    "a matrix": lambda x: x[:, None] * x,
    "an int": lambda x: 0,
    "a bool": lambda x: True,
    "ints": lambda x: x.astype(int).sum(),
    "unsigned": lambda x: x.astype(jnp.uint8).sum(),
    "bools": lambda x: (x > 0).all(),
    "complex": lambda x: jax.lax.complex(x[0], x[1]),
    "Python's complex": lambda x: 1j,
    "a key": lambda x: jax.random.key(0),
    "NumPy's strings": lambda x: np.array("a"),
    "NumPy's objects": lambda x: np.array(None),
    "NumPy's dates": lambda x: np.datetime64("2020-01-01"),
    "a pair": lambda x: (x[0], x[1]),
    "Python's nan": lambda x: math.nan,
}


def try_return(name):
    said = outcome(lambda: bbvi.fit(RETURNS[name], 2, method="advi", num_steps=2) and None, ["logprob"])
    return f"was taken: {name}" if said == "right" else said


# -- log densities ---------------------------------------------------------------------------------------------------

PROPER = {
    "gaussian": lambda z: -0.5 * z**2,
    "steps": lambda z: -jnp.floor(jnp.abs(z)),
    "uniform": lambda z: jnp.where(jnp.abs(z) < 1, 0.0, -jnp.inf),
    "NaN on one side": lambda z: jnp.where(z > 0, -0.5 * z**2, jnp.nan),
    "-inf on one side": lambda z: jnp.where(z > 0, -0.5 * z**2, -jnp.inf),
    "+inf beyond 2": lambda z: jnp.where(z > 2, jnp.inf, -0.5 * z**2),
    "laplace": lambda z: -jnp.abs(z),
    "student t": lambda z: -4 * jnp.log1p(z**2 / 7),
    "stretched": lambda z: -jnp.sqrt(jnp.abs(z)),
    "quartic": lambda z: -(z**4),
    "unbounded at 0": lambda z: -0.5 * jnp.log(jnp.abs(z)) - 0.5 * z**2,
    "a jump": lambda z: -0.5 * z**2 - jnp.where(z > 0, 0.0, 2.0),
    "ripples": lambda z: -0.5 * z**2 + jnp.sin(20 * z),
    "two modes": lambda z: jnp.logaddexp(-0.5 * (z - 4) ** 2, -0.5 * (z + 4) ** 2),
    "overflows": lambda z: z - jnp.exp(z),
    "narrow": lambda z: -0.5e12 * z**2,
    "a wall": lambda z: jnp.where(z > 1, -jnp.inf, -0.5 * z**2),
    "+inf on a strip": lambda z: jnp.where(jnp.abs(z - 0.5) < 0.1, jnp.inf, -0.5 * z**2),
    "a floor of no weight": lambda z: jnp.logaddexp(-0.5 * z**2, jnp.where(jnp.abs(z) < 300, -60.0, -jnp.inf)),
}
IMPROPER = {
    "constant": lambda z: 0 * z,
    "linear": lambda z: z,
    "flat on one side": lambda z: -0.5 * jnp.minimum(z, 0) ** 2,
    "unbounded": lambda z: 0.5 * z**2,
    "explodes": jnp.exp,
    "a floor": lambda z: jnp.where(jnp.abs(z) < 1, 0.0, -5.0),
    "a low floor": lambda z: jnp.logaddexp(-0.5 * z**2, -12.0),
    "a floor on one side": lambda z: jnp.where(z < 0, -0.5 * z**2, jnp.logaddexp(-0.5 * z**2, -6.0)),
    "a tail like 1/z": lambda z: jnp.logaddexp(-0.5 * z**2, -3.0 - jnp.log1p(jnp.abs(z))),
    "two levels": lambda z: jnp.where(z > 0, 0.0, -1.0),
    "tails too heavy": lambda z: -0.5 * jnp.log1p(z**2),
    "no mass but at 0": lambda z: -1.5 * jnp.log(jnp.abs(z)) - 0.5 * z**2,
}
NOWHERE = {
    "NaN": lambda z: z * jnp.nan,
    "-inf": lambda z: 0 * z - jnp.inf,
    "+inf": lambda z: 0 * z + jnp.inf,
    "a point": lambda z: jnp.where(z == 0, 0.0, -jnp.inf),
}
SHAPES_OF_DENSITIES = {**PROPER, **IMPROPER, **NOWHERE}


def density(x, data):
    """One program for all of them: which, where, how wide and how high is data.

    It is the density of the first coordinate and, unless they are to be Gaussian, of the others.
    """
    z = (x - data["loc"]) / data["scale"]
    odd = jax.lax.switch(data["which"], list(SHAPES_OF_DENSITIES.values()), z)
    odd = jnp.where(data["alone"] & (jnp.arange(len(x)) > 0), -0.5 * z**2, odd)
    return odd.sum() + data["height"]


def densities(methods, dims=(1, 2, 3)):
    """What `try_density` takes."""
    return st.tuples(
        st.sampled_from(methods),
        st.sampled_from(dims),
        st.sampled_from(list(SHAPES_OF_DENSITIES)),
        st.sampled_from([1.0, 1.0, 1e-3, 1e3, 1e-10, 1e10, 1e-30, 1e30, 1e-150, 1e150]),
        st.sampled_from([0.0, 0.0, 1.0, -300.0]),
        st.sampled_from([0.0, 0.0, 1e8, -1e8, 1e300]),
        st.booleans(),
    )


def moments(name):
    """Mean and standard deviation of a proper density, by sums over a fine grid."""
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        wide = 1e-4 if name == "narrow" else 1.0
        z = np.linspace(-400, 400, 2_000_000) * wide
        log_p = np.asarray(PROPER[name](jnp.asarray(z)))
        p = np.where(np.isfinite(log_p), np.exp(np.where(np.isfinite(log_p), log_p, 0)), 0)
        mean = np.average(z, weights=p)
        return mean, np.average((z - mean) ** 2, weights=p) ** 0.5


MOMENTS = {}


def judge(posterior, name, loc, scale, alone=False):
    """Words on what is wrong with a posterior of one of the densities, or None."""
    verdict = posterior.diagnosis
    text = repr(posterior)
    if "Status" not in text or not (verdict.reasons or verdict.trusted):
        return "no verdict"
    if not verdict.trusted:
        return None
    if name not in PROPER:
        return f"trusted: {verdict.status.name}, though it is improper"
    if name not in MOMENTS:
        MOMENTS[name] = moments(name)
    dim = np.size(posterior.mean())
    kinds = [MOMENTS[name]] + [(0.0, 1.0) if alone else MOMENTS[name]] * (dim - 1)
    true_mean, true_sd = np.transpose(kinds)
    mean, sd = ((posterior.mean() - loc) / scale - true_mean) / true_sd, posterior.sd() / scale / true_sd
    few = 5 / max(verdict.effective_sample_size, 1) ** 0.5
    if np.abs(mean).max() > max(0.1, few) or np.abs(np.log(sd)).max() > max(0.15, few):
        return f"{verdict.status.name}, but means are off by {mean} sd, and sd by factors {sd}"
    return None


def try_density(case, num_steps=400):
    (method, family), dim, name, scale, loc, height, alone = case
    loc = loc * scale if scale > 1e-20 else 0.0
    which = np.int32(list(SHAPES_OF_DENSITIES).index(name))
    data = {"which": which, "loc": loc, "scale": scale, "height": height, "alone": np.bool_(alone)}

    def call():
        posterior = bbvi.fit(density, dim, data=data, method=method, family=family, num_steps=num_steps)
        return judge(posterior, name, loc, scale, alone)

    return outcome(call, ["logprob"])


# -- files -----------------------------------------------------------------------------------------------------------


def edits():
    """Changes of a file's bytes: a list of (place in [0, 1], kind, byte)."""
    place = st.floats(0, 1, exclude_max=True)
    return st.lists(st.tuples(place, st.sampled_from(["flip", "cut", "insert", "drop", "repeat"]), st.integers(0, 255)),
                    min_size=1, max_size=4)  # fmt: skip


def edited(content, changes):
    for place, kind, byte in changes:
        at = int(place * len(content))
        head, tail = content[:at], content[at:]
        content = {
            "flip": head + bytes([tail[0] ^ (byte or 1)]) + tail[1:] if tail else head,
            "cut": head,
            "insert": head + bytes([byte]) + tail,
            "drop": head + tail[byte + 1 :],
            "repeat": head + head[-byte - 1 :] + tail,
        }[kind]
    return content


VALUES = st.sampled_from([None, True, -1, 0, 1.5, "", "x", [], {}, [1], {"dict": 1}, 2**70, math.nan, "\x00"])
KINDS = ["nan", "shape", "dtype", "drop", "text", "negative"]


def rewrites():
    """Changes of what a file says, in a file that is whole: an array or a piece of the header that is another."""
    arrays = st.tuples(st.just("array"), st.integers(0, 99), st.sampled_from(KINDS))
    header = st.tuples(st.just("header"), st.lists(st.integers(0, 9), min_size=1, max_size=4), VALUES)
    return arrays | header


def rewritten(arrays, header, change):
    """Arrays and header of a file after a change."""
    kind, place, value = change
    if kind == "array":
        name = sorted(arrays)[place % len(arrays)]
        old = arrays[name]
        new = {
            "nan": np.full(old.shape, np.nan),
            "shape": old[..., None],
            "dtype": old.astype("complex64") if old.dtype.kind in "fiub" else old,
            "text": np.full(old.shape, "x"),
            "negative": -1 * old if old.dtype.kind in "fi" else old,
        }
        rest = {key: array for key, array in arrays.items() if key != name}
        return (rest if value == "drop" else {**rest, name: new[value]}), header
    return arrays, _put(header, place, value)


def _put(node, place, value):
    if not place or not isinstance(node, dict | list) or not node:
        return value
    keys = sorted(node) if isinstance(node, dict) else list(range(len(node)))
    key = keys[place[0] % len(keys)]
    changed = _put(node[key], place[1:], value)
    if isinstance(node, dict):
        return {**node, key: changed}
    return [changed if i == key else item for i, item in enumerate(node)]


def try_file(path, content, report=False):
    """`load` a file of these bytes: refused, or what it gives prints, draws and, if asked for, reports."""
    Path(path).write_bytes(content)

    def call():
        posterior = bbvi.load(path)
        text, draws = repr(posterior), posterior.sample(5)
        if report:
            posterior.report(f"{path}.html")
        return None if text and jax.tree.leaves(draws) else "nothing"

    return outcome(call, [f"path={str(path)!r}"])
