"""Bad input, made at random: a right result, or an error that names the argument. benchmarks/campaign.py tries more."""

import json
import threading
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpyro.distributions import constraints

import bbvi
from bbvi.runtime.storage import read_arrays, write_arrays
from benchmarks import bad_input as bad

pytestmark = pytest.mark.filterwarnings("ignore:.*encountered in", "ignore:.*overflow", "ignore::UserWarning")
FINE = ("right", "taken", "refused")


def examples(number):
    """So many examples, always the same."""
    ignored = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture]
    return settings(max_examples=number, derandomize=True, deadline=None, database=None, suppress_health_check=ignored)


@pytest.fixture(autouse=True)
def whole_tracebacks():
    """So that errors of JAX do not pass for bbvi's."""
    before = jax.config.jax_traceback_filtering
    jax.config.update("jax_traceback_filtering", "off")
    yield
    jax.config.update("jax_traceback_filtering", before)


@examples(200)
@given(bad.odd_arguments().filter(lambda options: "checkpoint" not in options))
def test_odd_arguments(options):
    assert bad.try_reading(options) in FINE


@examples(60)
@given(bad.structures())
def test_pytrees_of_shapes(dim):
    assert bad.try_structure(dim) in FINE


@examples(40)
@given(bad.constrained())
def test_constraints(case):
    assert bad.try_constraints(case) in FINE


@examples(60)
@given(bad.odd_data())
def test_data(data):
    assert bad.try_data(data) in FINE


@examples(40)
@given(bad.inits())
def test_init(init):
    assert bad.try_init(init) in FINE


@pytest.mark.parametrize("name", bad.RETURNS)
def test_what_logprob_returns(name):
    assert bad.try_return(name) == "refused"


DENSITIES = [
    ("gaussian", 1e-30, 0.0),
    ("gaussian", 1e30, 0.0),
    ("gaussian", 1.0, 1e300),
    *((name, 1.0, 0.0) for name in bad.SHAPES_OF_DENSITIES),
]


@pytest.mark.parametrize(("name", "scale", "height"), DENSITIES)
def test_log_densities(name, scale, height):
    said = bad.try_density((("newton", None), 1, name, scale, 0.0, height, False))
    assert said == ("refused" if name in bad.NOWHERE and name != "a point" else "right")


def test_a_hundred_thousand_coordinates():
    data = np.arange(1e5) % 7
    posterior = bbvi.fit(lambda x, data: -0.5 * jnp.sum((x - data) ** 2), 10**5, data=data, num_steps=10)
    np.testing.assert_allclose(posterior.distribution.mean(), data, atol=0.2)
    np.testing.assert_allclose(posterior.distribution.sd(), 1, atol=0.2)


ERRORS = {
    "keys": ({"dim": {1: 2, "a": 3}}, TypeError, "dim holds a dict whose keys cannot be sorted.*Use str"),
    "keys of data": ({"data": {1: 2.0, "a": 3.0}}, TypeError, "data holds a dict whose keys"),
    "keys of constraints": (
        {"dim": {"a": 1}, "constraints": {"a": constraints.positive, 1: constraints.positive}},
        TypeError,
        "constraints holds a dict whose keys",
    ),
    "one name twice": ({"dim": {"a": {"b": 1}, "a.b": 2}}, ValueError, "dim has two parameters called 'a.b'.*Rename"),
    "no bound": ({"constraints": constraints.greater_than(-np.inf)}, ValueError, "constraints for 'x'.*finite.*real"),
    "empty interval": ({"constraints": constraints.interval(2.0, 1.0)}, ValueError, "lower one below the upper"),
    "NaN as a bound": ({"constraints": constraints.less_than(np.nan)}, ValueError, "must be finite"),
    "text as a bound": ({"constraints": constraints.less_than("a")}, TypeError, "bounds are no numbers"),
    "callbacks": ({"callbacks": print}, TypeError, "callbacks=.*must be a list"),
    "progress": ({"progress": "yes"}, TypeError, "progress='yes' must be True, False or None"),
    "precision": ({"precision": np.array(["a", "b"])}, ValueError, "precision=.*Known: auto"),
    "method": ({"method": np.array(["a", "b"])}, TypeError, "method=.*must be a name"),
    "family": ({"family": ["flow"]}, TypeError, "family=.*must be a name"),
    "budget": ({"budget": True}, ValueError, "budget: seconds=True"),
    "masked data": ({"data": np.ma.masked_array([1.0, 2.0], [True, False])}, TypeError, "data is a masked array"),
    "keys of JAX": ({"data": jax.random.key(0)}, TypeError, "data is .* of dtype key"),
    "durations": ({"data": np.zeros(2, "timedelta64[s]")}, TypeError, "data is ndarray of dtype timedelta64"),
    "complex NaN": ({"data": np.array([1, np.nan], complex)}, ValueError, "data holds NaN in 1 of 2"),
}


@pytest.mark.parametrize(("options", "error", "message"), ERRORS.values(), ids=ERRORS)
def test_errors_say_what_to_do(options, error, message):
    dim = options.get("dim", 2)
    with pytest.raises(error, match=message):
        bbvi.fit(bad.stop, dim, **{name: value for name, value in options.items() if name != "dim"})


def test_an_empty_parameter_needs_no_constraint():
    with pytest.raises(bad.Reached):
        bbvi.fit(bad.stop, {"a": (0, 2), "b": 1}, constraints={"a": constraints.circular})


def test_callbacks_may_come_from_a_generator():
    seen = []
    options = {"method": "laplace", "callbacks": (seen.append for _ in range(1))}
    posterior = bbvi.fit(gaussian, 2, data=np.zeros(2), **options)
    told = len(seen)
    posterior.update(np.ones(2))
    assert 0 < told < len(seen)


# -- files -----------------------------------------------------------------------------------------------------------


def gaussian(x, data):
    return -0.5 * jnp.sum((x - data) ** 2)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "fit.npz"
    bbvi.fit(gaussian, 2, data=np.zeros(2), method="laplace").save(path)
    return path, path.read_bytes()


def test_bytes_of_files(file):
    path, whole = file

    @examples(150)
    @given(bad.edits())
    def law(changes):
        damaged = bad.edited(whole, changes)
        assert bad.try_file(path, damaged) == ("right" if damaged == whole else "refused")

    law()


def test_contents_of_files(file):
    path, whole = file
    path.write_bytes(whole)
    arrays = read_arrays(path)
    header = json.loads(str(arrays.pop("header")))

    @examples(60)
    @given(bad.rewrites())
    def law(change):
        held, said = bad.rewritten(arrays, header, change)
        write_arrays(path, {"header": np.array(json.dumps(said)), **held})
        assert bad.try_file(path, path.read_bytes()) in FINE

    law()


WRONG = {
    "weights that are not numbers": lambda arrays, header: (
        {**arrays, "pool.log_p": arrays["pool.log_p"] * np.nan},
        header,
    ),
    "a shape of text": lambda arrays, header: (arrays, {**header, "shapes": ["x"]}),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_what_cannot_be_printed_is_no_posterior(change, file):
    path, whole = file
    path.write_bytes(whole)
    arrays = read_arrays(path)
    arrays, header = change(arrays, json.loads(str(arrays.pop("header"))))
    write_arrays(path, {"header": np.array(json.dumps(header)), **arrays})
    with pytest.raises(ValueError, match="is no bbvi posterior, or is damaged"):
        bbvi.load(path)


# -- several fits ----------------------------------------------------------------------------------------------------


def settings_of_jax():
    return dict(jax.config.values), jnp.zeros(()).dtype


def leaves(posterior):
    return [*posterior.distribution.leaves().values(), posterior.pool.x, posterior.history.elbo]


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(leaves(a), leaves(b), strict=True))


def test_threads_do_not_disturb_each_other():
    """Fits in threads give the bits that they give alone, each in its own precision, and leave no settings behind."""
    cases = [{"data": np.full(2, float(i)), "seed": i, "precision": ("double", "single")[i % 2]} for i in range(4)]
    run = lambda case: bbvi.fit(gaussian, 2, method="advi", num_steps=60, **case)
    before, filters = settings_of_jax(), list(warnings.filters)
    found, errors = {}, []

    def work(i):
        try:
            found[i] = [run(cases[i]) for _ in range(3)]
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for i, case in enumerate(cases):
        alone = run(case)
        assert alone.distribution.loc.dtype == (np.float64, np.float32)[i % 2]
        assert all(same(alone, posterior) for posterior in found[i])
    assert settings_of_jax() == before
    assert warnings.filters == filters


def test_settings_are_left_alone_by_fits_that_fail():
    before = settings_of_jax()
    for options in ({"precision": "single"}, {"init": "x"}, {"data": "x"}):
        with pytest.raises((bad.Reached, TypeError, ValueError)):
            bbvi.fit(bad.stop, 2, **options)
    assert settings_of_jax() == before


@examples(5)
@given(st.integers(0, 2**70))
def test_a_seed_decides_everything(seed):
    one, two = (bbvi.fit(gaussian, 2, data=np.zeros(2), method="advi", num_steps=60, seed=seed) for _ in range(2))
    assert same(one, two)
    assert np.array_equal(one.sample(50, seed=seed), two.sample(50, seed=seed))
