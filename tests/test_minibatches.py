"""Minibatches, and data that are not in memory: laws of the order, of the density, of fits and of the verdict."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest

import bbvi
from bbvi.algorithms.base import Initialisation
from bbvi.data import chunks, sampling
from bbvi.data.epochs import EpochShuffle
from bbvi.data.files import FileStore
from bbvi.data.reading import read_rows
from bbvi.data.stream import Stream
from bbvi.data.stream_store import StreamStore
from bbvi.draws import importance
from bbvi.start.record import Hints
from bbvi.start.subsample import find_start_by_sample, with_reference
from bbvi.target.cost import SLOW
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters

N, DIM = 600, 2
RNG = np.random.default_rng(0)
X = RNG.standard_normal((N, DIM))
Y = X @ np.array([1.0, -1.0]) + RNG.standard_normal(N)
COVARIANCE = np.linalg.inv(X.T @ X + np.eye(DIM))
MEAN, SD = COVARIANCE @ X.T @ Y, np.sqrt(np.diag(COVARIANCE))
MODEL = bbvi.Factorized(
    lambda w: -0.5 * jnp.sum(w**2), lambda w, rows: -0.5 * (rows["y"] - rows["x"] @ w) ** 2 - 0.5 * jnp.log(2 * jnp.pi)
)
CURVED = bbvi.Factorized(
    lambda w: -0.5 * jnp.sum(w**2), lambda w, rows: -jnp.logaddexp(0.0, -rows["y"] * (rows["x"] @ w))
)
POINTS = np.array([[0.0, 0.0], [1.0, -1.0], [0.3, 2.0]])
KINDS = ("arrays", "memmap", "stream")


def batches():
    """Rows in pieces of unequal lengths."""
    for first in range(0, N, 70):
        yield {"x": X[first : first + 70], "y": Y[first : first + 70]}


@pytest.fixture
def data(tmp_path):
    """The same rows in each form."""
    mapped = {}
    for name, array in (("x", X), ("y", Y)):
        mapped[name] = np.memmap(tmp_path / name, array.dtype, "w+", shape=array.shape)
        mapped[name][:] = array
    return {"arrays": {"x": X, "y": Y}, "memmap": mapped, "stream": Stream(batches, N)}


@pytest.fixture
def tall(monkeypatch):
    """As if the rows were very many: fits start from 100 of them, and sums go over chunks."""
    for name, value in (("SAMPLE_NUMBERS", 300), ("MANY_ROWS", 1), ("FEWEST_ROWS", 100)):
        monkeypatch.setattr(sampling, name, value)
    monkeypatch.setattr(chunks, "CHUNK_NUMBERS", 400)


def problem(data, model=MODEL):
    return Problem(make_parameters(DIM, None), read_rows(data, model), model)


# -- the order ---------------------------------------------------------------------------------------------------------

ORDERS = {  # rows, rows in a block, rows in a window
    "all at once": (53, 1, None),
    "windows of single rows": (53, 1, 10),
    "blocks in windows": (53, 4, 12),
    "blocks in one window": (53, 4, None),
    "one block": (53, 100, 100),
}


@pytest.mark.parametrize(("num_rows", "block", "window"), ORDERS.values(), ids=ORDERS)
def test_each_row_comes_once_in_each_epoch_in_an_order_that_seed_and_place_fix(num_rows, block, window):
    def order(seed=0):
        return EpochShuffle(num_rows, seed, lambda rows: rows, block, window)

    reader = order()
    found = np.concatenate([reader.read(first, 10) for first in range(0, 3 * num_rows + 1, 10)])
    epochs = found[: 3 * num_rows].reshape(3, num_rows)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.tile(np.arange(num_rows), (3, 1)))
    assert len({tuple(epoch) for epoch in epochs}) == 3
    np.testing.assert_array_equal(order().read(70, 50), found[70:120])  # from the middle on
    assert (order(seed=1).read(0, 50) != found[:50]).any()


def test_blocks_are_read_as_blocks():
    taken = []
    EpochShuffle(40, 0, lambda rows: taken.append(rows) or rows, block=5, window=20).read(0, 40)
    assert [len(each) for each in taken] == [20, 20]
    for each in taken:
        assert (each.reshape(4, 5) == each.reshape(4, 5)[:, :1] + np.arange(5)).all()


@pytest.mark.parametrize("kind", ["memmap", "stream"])
def test_rows_elsewhere_are_those_in_memory(x64, data, kind):
    source = FileStore(data[kind]) if kind == "memmap" else StreamStore(data[kind])
    reader = source.in_order()
    for first, count in ((0, 100), (100, 30), (60, 100), (N - 100, 100), (0, N)):  # forwards and backwards
        np.testing.assert_array_equal(reader.read(first, count)["x"], X[first : first + count])
    shuffled = source.reshuffled(0).read(0, N)
    np.testing.assert_array_equal(np.sort(shuffled["y"]), np.sort(Y))
    np.testing.assert_array_equal(source.at(np.array([3, 80, 599]))["y"], Y[[3, 80, 599]])


def of_kind(data, kind):
    """Data of a kind with a log density that sums over their rows; "plate" is one of a NumPyro model."""
    if kind != "plate":
        return problem(data[kind])

    def model(x, y):
        w = numpyro.sample("w", numpyro.distributions.Normal(jnp.zeros(DIM), 1).to_event(1))
        with numpyro.plate("rows", N, subsample_size=50) as rows:
            numpyro.sample("y", numpyro.distributions.Normal(x[rows] @ w, 1), obs=y[rows])

    found = bbvi.from_numpyro(model, X, Y)
    return Problem(make_parameters(found.dim, found.constraints), read_rows(found.data, found.logprob), found.logprob)


@pytest.mark.parametrize("kind", [*KINDS, "plate"])
def test_every_source_answers_the_same_questions(x64, data, tall, kind):
    whole = of_kind(data, kind)
    source = whole.source
    assert (source.num_rows, source.num_numbers, source.row_size) == (N, N * (DIM + 1), DIM + 1)
    assert source.num_sampled == 100
    assert source.is_in_memory == (kind in ("arrays", "plate"))
    sample = whole.minibatch(source.sample())
    assert float(sample.weight) == N / 100
    np.testing.assert_array_equal(sample.log_densities(POINTS), whole.sampled().log_densities(POINTS))
    batches = source.batches(50, seed=0)
    page = batches.pages(4)(1)  # steps 4 to 7
    assert {leaf.shape[:2] for leaf in jax.tree.leaves(page)} == {(4, 50)}
    assert batches.num_numbers == sum(leaf[0].size for leaf in jax.tree.leaves(page))
    each = [whole.minibatch(jax.tree.map(lambda leaf, i=i: leaf[i], batches.pages(12)(0))) for i in range(12)]
    mean = np.mean([batch.log_densities(POINTS) for batch in each], axis=0)
    np.testing.assert_allclose(mean, whole.log_densities(POINTS), rtol=1e-12)  # an epoch has each row once


# -- the density -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("referenced", [False, True])
@pytest.mark.parametrize("kind", ["arrays", "memmap"])
def test_the_mean_over_the_minibatches_of_an_epoch_is_the_density_of_all_rows(x64, data, kind, referenced):
    whole = problem(data[kind], CURVED)
    whole = with_reference(whole, np.ones(DIM)) if referenced else whole
    order = FileStore(data["memmap"]) if kind == "memmap" else None
    reader = order.reshuffled(0) if order else EpochShuffle(N, 0, lambda rows: rows)
    look = jax.jit(lambda rows: whole.minibatch(rows).values_and_gradients(POINTS)[:2])
    found = [look(reader.read(first, 50)) for first in range(0, N, 50)]
    values, gradients = (np.array(each) for each in zip(*found, strict=True))
    exact = whole.values_and_gradients(POINTS)
    np.testing.assert_allclose(values.mean(axis=0), exact[0], rtol=1e-12)
    np.testing.assert_allclose(gradients.mean(axis=0), exact[1], rtol=1e-10, atol=1e-10)
    assert (values.std(axis=0) > 0).all()


def test_a_reference_takes_the_noise_of_minibatches_away_around_it(x64):
    plain = problem({"x": X, "y": Y}, CURVED)
    points = MEAN + np.array([[0, 0], [1, 0], [0, -1]]) * SD
    exact, spreads = plain.values_and_gradients(points)[1], []
    for each in (plain, with_reference(plain, MEAN)):
        look = jax.jit(lambda rows, each=each: each.minibatch(rows).values_and_gradients(points)[1])
        spreads.append(np.std([look(RNG.permutation(N)[:50]) - exact for _ in range(20)], axis=0))
    assert np.abs(spreads[1][0]).max() < 1e-10 * spreads[0].max()
    assert spreads[1].max() < 0.3 * spreads[0].min()


@pytest.mark.parametrize("kind", KINDS)
def test_sums_over_chunks_have_the_values_and_derivatives_of_the_whole(x64, data, tall, monkeypatch, kind):
    whole = problem(data["arrays"], CURVED)
    directions = POINTS[::-1] + 1.0
    exact = whole.values_and_gradients(POINTS)[:2], whole.hessian_vector_products(POINTS, directions)
    monkeypatch.setattr(chunks, "WHOLE_SUM", 0)
    each = problem(data[kind], bbvi.Factorized(CURVED.log_prior, lambda w, rows: CURVED.log_likelihood(w, rows)))
    assert each.source.num_chunks == 5  # the last one short
    found = jax.jit(lambda: (each.values_and_gradients(POINTS)[:2], each.hessian_vector_products(POINTS, directions)))()
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11), found, exact)
    np.testing.assert_allclose(each.log_densities(POINTS), exact[0][0], rtol=1e-12)


def test_rows_are_read_once_for_all_draws_and_both_value_and_gradient(x64, tall):
    begun = []
    stream = Stream(lambda: begun.append(1) or batches(), N)
    each = problem(stream)
    read = len(begun)
    jax.block_until_ready(jax.jit(lambda: each.values_and_gradients(np.zeros((7, DIM))))())
    assert len(begun) - read <= 2  # one pass, and the first chunk of the next in the background


def test_operations_are_counted(x64, tall, monkeypatch):
    whole = problem({"x": X, "y": Y}).operations
    assert N * DIM <= whole <= 10 * N * (DIM + SLOW)
    monkeypatch.setattr(chunks, "WHOLE_SUM", 0)
    model = bbvi.Factorized(MODEL.log_prior, lambda w, rows: MODEL.log_likelihood(w, rows))
    chunked = problem({"x": X, "y": Y}, model).operations
    assert whole <= chunked <= 2 * whole


# -- the start ---------------------------------------------------------------------------------------------------------


def test_a_start_from_a_sample_ends_at_the_mean_of_all_rows(x64, tall):
    each = problem({"x": X, "y": Y})
    start = find_start_by_sample(each, Initialisation.BULK, Hints())
    sample = each.sampled()
    alone = np.linalg.solve(
        sample.data["x"].T @ sample.data["x"] * 6 + np.eye(DIM), sample.data["x"].T @ sample.data["y"] * 6
    )
    assert sample.data["x"].shape == (100, DIM)
    assert float(sample.weight) == 6
    assert np.abs((alone - MEAN) / SD).max() > 1  # what the sample alone says
    assert np.abs((start.gaussian.loc - MEAN) / SD).max() < 0.1
    factor = start.gaussian.scale.matrix()
    np.testing.assert_allclose(factor @ factor.T, COVARIANCE, rtol=0.6, atol=0.3 * SD.max() ** 2)
    assert start.sampled
    assert len(start.paths) == 1


def test_a_start_from_a_sample_keeps_modes_that_are_apart(x64, tall):
    squared = bbvi.Factorized(lambda w: -0.5 * jnp.sum(w**2), lambda w, rows: -0.5 * (rows - w[0] ** 2) ** 2)
    each = Problem(make_parameters(1, None), 4 + RNG.standard_normal(N), squared)
    start = find_start_by_sample(each, Initialisation.BULK, Hints())
    np.testing.assert_allclose(np.sort([path.loc[0] for path in start.paths]), [-2, 2], atol=0.05)


# -- fits --------------------------------------------------------------------------------------------------------------

OPTIONS = {"method": "ivon", "batch_size": 50, "num_steps": 300}


def interrupting(step):
    return lambda progress: progress.step >= step


@pytest.mark.parametrize("kind", KINDS)
def test_fits_agree_whatever_form_the_data_have(data, tall, kind):
    posterior = bbvi.fit(MODEL, DIM, data=data[kind], **OPTIONS)
    q = posterior.distribution
    np.testing.assert_allclose(q.mean(), MEAN, atol=0.1 * SD.min())
    np.testing.assert_allclose(q.sd(), 1 / np.sqrt(np.diag(X.T @ X + np.eye(DIM))), rtol=0.1)
    exact = [MODEL(x, {"x": X, "y": Y}) for x in posterior.pool.x[:5]]
    np.testing.assert_allclose(posterior.pool.log_p[:5], exact, rtol=1e-5)  # exact in float32 here
    assert posterior.diagnosis.status is bbvi.Status.RELIABLE
    if kind == "memmap":
        arrays = bbvi.fit(MODEL, DIM, data=data["arrays"], **OPTIONS)
        np.testing.assert_allclose(q.mean(), arrays.distribution.mean(), rtol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_interrupted_ends_with_the_same_bits(data, tall, tmp_path, kind, monkeypatch):
    options = OPTIONS | {"method": bbvi.IVON(batch_size=50, tolerance=0)}
    options.pop("batch_size")
    whole = bbvi.fit(MODEL, DIM, data=data[kind], **options)
    monkeypatch.setattr("bbvi.optimise.LOOK", 0.0)  # short blocks
    path = tmp_path / "state"
    part = bbvi.fit(MODEL, DIM, data=data[kind], checkpoint=path, callbacks=[interrupting(130)], **options)
    assert 130 <= len(part.history.elbo) < 300
    resumed = bbvi.fit(MODEL, DIM, data=data[kind], checkpoint=path, **options)
    np.testing.assert_array_equal(resumed.history.elbo, whole.history.elbo)
    np.testing.assert_array_equal(resumed.distribution.mean(), whole.distribution.mean())


def test_data_elsewhere_of_the_same_shapes_compile_nothing_anew(data, tall):
    options = OPTIONS | {"num_steps": 60}
    bbvi.fit(MODEL, DIM, data=data["memmap"], **options)
    again = bbvi.fit(MODEL, DIM, data=Stream(lambda: ({"x": b["x"], "y": b["y"] + 1} for b in batches()), N), **options)
    assert again.cost.compile_seconds < 0.1
    np.testing.assert_allclose(again.distribution.mean(), COVARIANCE @ X.T @ (Y + 1), atol=0.1 * SD.min())


# -- the verdict -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["arrays", "stream"])
def test_a_verdict_that_cannot_afford_all_rows_says_so(data, tall, monkeypatch, kind):
    full = bbvi.fit(MODEL, DIM, data=data[kind], **OPTIONS)
    monkeypatch.setitem(importance.AFFORDABLE, "cpu", 2**12)
    part = bbvi.fit(MODEL, DIM, data=data[kind], **OPTIONS)
    assert part.diagnosis.status is bbvi.Status.USABLE
    assert "judged on 100 of 600 rows" in str(part.diagnosis)
    assert part.diagnosis.log_evidence.value == pytest.approx(full.diagnosis.log_evidence.value, abs=0.5)
    assert len(np.unique(part.sample(200), axis=0)) > 100


def test_a_verdict_takes_fewer_draws_where_they_are_costly(data, tall, monkeypatch):
    monkeypatch.setitem(importance.AFFORDABLE, "cpu", 600 * problem(data["arrays"]).operations)
    posterior = bbvi.fit(MODEL, DIM, data=data["arrays"], **OPTIONS)
    assert posterior.diagnosis.status is bbvi.Status.RELIABLE
    assert len(posterior.pool) == 640
    assert "fewer draws" in str(posterior.diagnosis)
    assert set(map(tuple, posterior.sample(2000))) <= set(map(tuple, posterior.pool.x))


# -- mistakes ----------------------------------------------------------------------------------------------------------


def failing(epoch, mistake):
    """A stream that goes wrong in one of its epochs."""
    count = itertools.count(1)

    def begin():
        wrong = next(count) == epoch
        for i, batch in enumerate(batches()):
            yield from mistake(batch) if wrong and i == 3 else [batch]

    return Stream(begin, N)


def burn(batch):
    raise OSError("disk on fire")


MISTAKES = {
    "an error": (burn, OSError, "disk on fire"),
    "too few rows": (lambda batch: [], ValueError, "ended after 530 rows, but num_rows=600"),
    "too many rows": (lambda batch: [batch, batch], ValueError, "more rows than num_rows=600"),
    "another shape": (lambda batch: [{**batch, "x": batch["x"][:, :1]}], ValueError, r"data\['x'\].*must be alike"),
    "another structure": (lambda batch: [batch["x"]], TypeError, "structure"),
    "another type": (lambda batch: [{**batch, "x": batch["x"] + 1j}], TypeError, "complex128"),
    "NaN": (lambda batch: [{**batch, "y": batch["y"] * np.nan}], ValueError, r"data\['y'\].*hold NaN"),
}


@pytest.mark.parametrize("epoch", [2, 4])  # while the sample is read, and within a compiled sum
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_of_a_stream_are_raised_as_they_are(tall, mistake, epoch):
    function, error, message = MISTAKES[mistake]
    with pytest.raises(error, match=message):
        bbvi.fit(MODEL, DIM, data=failing(epoch, function), **OPTIONS)


def test_arguments_that_cannot_be_streamed_are_refused(data):
    used = iter(list(batches()))
    with pytest.raises(ValueError, match="fresh"):
        bbvi.fit(MODEL, DIM, data=Stream(lambda: used, N), **OPTIONS)
    with pytest.raises(TypeError, match="Factorized"):
        bbvi.fit(lambda w, data: -jnp.sum(w**2), DIM, data=data["stream"])
    with pytest.raises(TypeError, match="all of the data"):
        bbvi.fit(MODEL, DIM, data={"x": data["stream"]})
    with pytest.raises(ValueError, match="leading axis"):
        bbvi.fit(MODEL, DIM, data={**data["memmap"], "y": Y[:5]})
    with pytest.raises(ValueError, match="more than the 600 rows"):
        bbvi.fit(MODEL, DIM, data=data["stream"], batch_size=601)
    with pytest.raises(ValueError, match="num_rows"):
        Stream(batches, 0)
    with pytest.raises(TypeError, match="batches"):
        Stream(batches(), N)
