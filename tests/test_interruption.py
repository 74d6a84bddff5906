"""Fits that are killed, disks that are full, files that are damaged: the right result, or one error that says why."""

import errno
import os
import resource
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import bbvi
from bbvi.algorithms.optimizer import Optimizer
from bbvi.callbacks.checkpoint import fingerprint
from bbvi.runtime.storage import read_arrays, write_arrays
from benchmarks.kills import campaign, numbers, same
from tests.targets import DIM, smooth

INIT = bbvi.FullRank.standard(DIM)  # spares the search for a start
ADVI = {"method": bbvi.ADVI(tolerance=0), "num_steps": 60, "init": INIT}
BASE = {"num_steps": 5, "init": INIT}


def test_killed_fits_end_with_the_same_bits(tmp_path):
    """More kills, and of other methods: benchmarks/kills.py."""
    killed, ended, differ, left_over = campaign("advi", 4, np.random.default_rng(0), tmp_path)
    assert killed >= 4
    assert ended
    assert differ == []
    assert len(left_over) <= killed


METHODS = {
    "optax": {"method": "advi", "family": "mean_field", "optimizer": optax.adam(0.01)},
    "adam": {"method": "adam", "family": "mean_field"},
    "natural gradient": {"method": "natural_gradient"},
    "ivon": {"method": "ivon"},
    "newton": {"method": "newton"},
    "dadvi": {"method": "dadvi", "init": bbvi.MeanField.standard(DIM)},
}


@pytest.mark.parametrize("options", METHODS.values(), ids=METHODS)
def test_a_fit_that_dies_goes_on_with_the_same_bits(options, tmp_path, monkeypatch):
    """In blocks whose states are of one type, so that they are compiled once."""
    monkeypatch.setattr("bbvi.callbacks.checkpoint.INTERVAL", 0.0)
    states = []
    options = {"init": INIT, "num_steps": 40, **options}

    def die(progress):
        states.append(progress.state)
        if progress.step > 1:
            raise MemoryError

    with pytest.raises(MemoryError):
        bbvi.fit(smooth, DIM, checkpoint=tmp_path / "state", callbacks=[die], **options)
    assert 1 < len(read_arrays(tmp_path / "state")["1.elbo"]) < 40
    assert not any(leaf.weak_type for state in states for leaf in jax.tree.leaves(state))
    resumed, whole = (bbvi.fit(smooth, DIM, checkpoint=tmp_path / name, **options) for name in ("state", "new"))
    assert same(numbers(resumed), numbers(whole)) == []


def test_ctrl_c_during_a_write_loses_nothing(tmp_path, monkeypatch):
    path, replace = tmp_path / "state", os.replace
    monkeypatch.setattr("bbvi.callbacks.checkpoint.INTERVAL", 0.0)

    def press(*arguments):
        monkeypatch.setattr("os.replace", replace)
        raise KeyboardInterrupt

    posterior = bbvi.fit(
        smooth, DIM, **ADVI, checkpoint=path, callbacks=[lambda progress: monkeypatch.setattr("os.replace", press)]
    )
    assert posterior.diagnosis.stop is bbvi.Stop.INTERRUPTED
    assert len(read_arrays(path)["1.elbo"]) == len(posterior.history.elbo) < 60
    assert os.listdir(tmp_path) == ["state"]


@pytest.fixture
def small_files():
    """The kernel refuses files of more than 600 bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.usefixtures("small_files")
def test_a_full_disk_leaves_what_was_there(tmp_path):
    path = tmp_path / "arrays.npz"
    path.write_bytes(b"before")
    with pytest.raises(OSError, match="too large"):
        write_arrays(path, {"x": np.zeros(1000)})
    assert path.read_bytes() == b"before"
    assert os.listdir(tmp_path) == ["arrays.npz"]


def no_space(*arguments):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_disk_that_fills_up_during_a_fit(tmp_path, monkeypatch):
    """The error says so, and the same call goes on from what was written before."""
    path = tmp_path / "state"
    monkeypatch.setattr("bbvi.callbacks.checkpoint.INTERVAL", 0.0)

    def fill(progress):
        monkeypatch.setattr("os.fsync", no_space)

    with pytest.raises(OSError, match=r"state' cannot be written.*No space left.*Make room.*goes on"):
        bbvi.fit(smooth, DIM, **ADVI, checkpoint=path, callbacks=[fill])
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["state"]
    assert len(read_arrays(path)["1.elbo"]) < 60
    resumed, whole = bbvi.fit(smooth, DIM, **ADVI, checkpoint=path), bbvi.fit(smooth, DIM, **ADVI)
    np.testing.assert_array_equal(resumed.history.elbo, whole.history.elbo)
    monkeypatch.setattr("os.fsync", no_space)
    with pytest.raises(OSError, match=r"path=.*fit.npz' cannot be written.*No space left.*Make room"):
        whole.save(tmp_path / "fit.npz")
    assert os.listdir(tmp_path) == ["state"]


PLACES = {
    "no file": (3, TypeError, "checkpoint=3 must be the path"),
    "a folder": ("{}", ValueError, "is a folder"),
    "nowhere": ("{}/none/state", ValueError, "does not exist"),
    "read-only": ("/proc/state", OSError, "cannot be written"),
}


@pytest.mark.parametrize(("path", "error", "message"), PLACES.values(), ids=PLACES)
def test_a_path_that_cannot_be_used_is_found_before_anything_is_computed(path, error, message, tmp_path):
    def logprob(x):
        raise AssertionError

    path = path.format(tmp_path) if isinstance(path, str) else path
    with pytest.raises(error, match=message):
        bbvi.fit(logprob, 2, checkpoint=path)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The bytes of a posterior and of a checkpoint."""
    folder = tmp_path_factory.mktemp("files")
    bbvi.fit(smooth, DIM, **BASE, checkpoint=folder / "state").save(folder / "fit.npz")
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def written(files, tmp_path):
    """A folder with a posterior and a checkpoint."""
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


FOREIGN = {
    "data": {"data": np.zeros(4)},
    "init": {"init": np.ones(DIM)},
    "seed": {"seed": 1},
    "method": {"method": "advi"},
    "family": {"family": "low_rank"},
    "precision": {"precision": "single"},
}


@pytest.mark.parametrize("changes", FOREIGN.values(), ids=FOREIGN)
def test_a_checkpoint_of_another_run_is_refused(changes, written):
    with pytest.raises(ValueError, match=r"other arguments or data.*Delete it"):
        bbvi.fit(smooth, DIM, checkpoint=written / "state", **BASE | changes)


def test_a_checkpoint_of_another_log_density_is_refused(written):
    """Also of one that is the same where the fit began."""
    assert not read_arrays(written / "state")["xs"][0].any()
    with pytest.raises(ValueError, match=r"another logprob: at a point where it was -?\d.*Delete it"):
        bbvi.fit(lambda x: smooth(x) - 0.1 * jnp.sum(x**2), DIM, checkpoint=written / "state", **BASE)


def test_optimizers_differ_in_their_numbers():
    rates = (0.1, 0.1, 0.2, np.float32(0.1), np.float32(0.2), optax.linear_schedule(0.1, 0.2, 9))
    digests = [fingerprint(bbvi.ADVI(optimizer=Optimizer(optax.adam(rate)))) for rate in rates]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 5


def damages(whole: bytes, rng: np.random.Generator):
    """Ways in which a file goes bad: bytes that are lost, changed, put in or set to zero."""
    yield from (b"", b"hello", whole + b"x", b"x" + whole, whole[:-1])
    for _ in range(60):
        (start, end), bit = np.sort(rng.choice(len(whole), 2, replace=False)), 1 << int(rng.integers(8))
        yield whole[:end]
        yield whole[:start] + whole[end:]
        yield whole[:start] + bytes([whole[start] ^ bit]) + whole[start + 1 :]
        yield whole[:end] + whole[start:]
        yield whole[:start] + bytes(int(end - start) + 1) + whole[end:]


READERS = {
    "fit.npz": (bbvi.load, "fit.npz' is no bbvi posterior, or is damaged"),
    "state": (lambda path: bbvi.fit(smooth, DIM, checkpoint=path, **BASE), "state' cannot be read.*Delete it"),
}


@pytest.mark.parametrize("name", READERS)
def test_no_damage_goes_unnoticed(name, written):
    (read, message), whole = READERS[name], (written / name).read_bytes()
    for damaged in damages(whole, np.random.default_rng(0)):
        (written / name).write_bytes(damaged)
        with pytest.raises(ValueError, match=message):
            read(written / name)


def test_no_byte_can_change(tmp_path):
    path = tmp_path / "x"
    write_arrays(path, {"x": np.arange(3), "name": np.array("n")}, compress=True)
    whole = path.read_bytes()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << place % 8]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"digest|another kind"):
            read_arrays(path)


def without(name):
    return lambda arrays: {key: array for key, array in arrays.items() if key != name}


def replaced(name, change):
    return lambda arrays: {**arrays, name: change(arrays[name])}


WRONG = {
    "no header": without("header"),
    "no pool": without("pool.x"),
    "no leaf": without("q.loc"),
    "short history": replaced("history.elbo", lambda rows: rows[:-1]),
    "other dim": replaced("pool.x", lambda x: x[:, :-1]),
    "fewer draws": replaced("pool.log_p", lambda rows: rows[:-1]),
    "other leaf": replaced("q.loc", lambda loc: np.zeros(len(loc) + 1)),
    "complex numbers": replaced("pool.log_r", lambda rows: rows.astype("complex64")),
    "text for numbers": replaced("history.elbo", lambda rows: np.full(rows.shape, "x")),
    "numbers for truth values": replaced("pool.from_q", lambda rows: np.full(rows.shape, np.nan)),
    "counts that are none": replaced("history.gradients", lambda rows: np.full(rows.shape, np.nan)),
    "header of a list": replaced("header", lambda text: np.array("[]")),
    "header of text": replaced("header", lambda text: np.array("x")),
    "unknown family": replaced("header", lambda text: np.array(str(text).replace("full_rank", "half_rank"))),
    "other format": replaced("header", lambda text: np.array(str(text).replace("bbvi posterior", "posterior"))),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_file_of_wrong_arrays_is_refused(change, written):
    path = written / "fit.npz"
    write_arrays(path, change(read_arrays(path)))
    with pytest.raises(ValueError, match="is no bbvi posterior, or is damaged"):
        bbvi.load(path)


OLDER = {
    "before there was a digest": (lambda path: np.savez(path, fingerprint="x"), "was not written by this"),
    "of another version": (lambda path: write_arrays(path, {"format": np.array("older")}), "is no checkpoint of bbvi"),
}


@pytest.mark.parametrize(("write", "message"), OLDER.values(), ids=OLDER)
def test_a_checkpoint_of_another_version_is_refused(write, message, tmp_path):
    write(tmp_path / "state.npz")
    with pytest.raises(ValueError, match=message + ".*Delete it"):
        bbvi.fit(smooth, DIM, checkpoint=tmp_path / "state.npz", **BASE)


def test_what_killed_writes_left_is_removed_in_time(tmp_path):
    path, old, young = (tmp_path / name for name in ("x", "x.0123abcd.partial", "x.0123abce.partial"))
    bystander = tmp_path / "x.notes.partial"
    for file in (old, young, bystander):
        file.touch()
    os.utime(old, (0, 0))
    os.utime(bystander, (0, 0))
    write_arrays(path, {"x": np.zeros(1)})
    assert {file.name for file in Path(tmp_path).iterdir()} == {"x", young.name, bystander.name}


def test_objects_are_not_stored(tmp_path):
    with pytest.raises(TypeError, match="y has dtype object"):
        write_arrays(tmp_path / "x", {"y": np.array([None])})
