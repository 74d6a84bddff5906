"""Fits that are killed, disks that are full, files that are damaged: the right result, or one error that says why."""

import errno
import os
import resource
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import bbvi
from bbvi.storage import read_arrays, write_arrays
from benchmarks.kills import campaign
from tests.targets import DIM, smooth

ADVI = {"method": bbvi.ADVI(tolerance=0), "num_steps": 60}


def test_killed_fits_end_with_the_same_bits(tmp_path):
    killed, ended, differ, left_over = campaign("ladder to a mixture", 3, np.random.default_rng(0), tmp_path)
    assert killed >= 3
    assert ended
    assert differ == []
    assert len(left_over) <= killed


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
    monkeypatch.setattr("bbvi.checkpoint.INTERVAL", 0.0)

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


def other(x):
    return smooth(x) - 0.1 * jnp.sum(x**2)


FOREIGN = {
    "data": ({"data": np.zeros(4)}, "other arguments or data"),
    "init": ({"init": np.ones(DIM)}, "other arguments or data"),
    "seed": ({"seed": 1}, "other arguments or data"),
    "method": ({"method": "advi"}, "other arguments or data"),
    "precision": ({"precision": "single"}, "other arguments or data"),
    "log density": ({"logprob": other}, "another logprob"),
}


@pytest.mark.parametrize(("changes", "message"), FOREIGN.values(), ids=FOREIGN)
def test_a_checkpoint_of_another_run_is_refused(changes, message, tmp_path):
    path = tmp_path / "state"
    bbvi.fit(smooth, DIM, num_steps=5, checkpoint=path)
    with pytest.raises(ValueError, match=message):
        bbvi.fit(**{"logprob": smooth, "dim": DIM, "num_steps": 5, "checkpoint": path} | changes)


def damages(whole: bytes, rng: np.random.Generator):
    """Ways in which a file goes bad."""
    yield from (b"", b"hello", whole + b"x", b"x" + whole)
    for _ in range(25):
        cut, place, length = rng.integers(len(whole), size=3)
        yield whole[:cut]
        yield whole[:place] + bytes([whole[place] ^ 1 << int(rng.integers(8))]) + whole[place + 1 :]
        yield whole[:cut] + whole[place:]
        yield whole[:place] + bytes(int(length)) + whole[place + length :] if whole[place : place + length] else b""


def test_no_damage_goes_unnoticed(tmp_path):
    path, state = tmp_path / "fit.npz", tmp_path / "state"
    posterior = bbvi.fit(smooth, DIM, num_steps=5, checkpoint=state)
    posterior.save(path)
    for file, read, message in (
        (path, bbvi.load, "fit.npz' is no bbvi posterior, or is damaged"),
        (state, lambda path: bbvi.fit(smooth, DIM, num_steps=5, checkpoint=path), "state' cannot be read.*Delete it"),
    ):
        whole = file.read_bytes()
        for damaged in damages(whole, np.random.default_rng(0)):
            if damaged == whole:
                continue
            file.write_bytes(damaged)
            with pytest.raises(ValueError, match=message):
                read(file)


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
    "header of a list": replaced("header", lambda text: np.array("[]")),
    "header of text": replaced("header", lambda text: np.array("x")),
    "unknown family": replaced("header", lambda text: np.array(str(text).replace("full_rank", "half_rank"))),
    "other format": replaced("header", lambda text: np.array(str(text).replace("bbvi posterior", "posterior"))),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_a_file_of_wrong_arrays_is_refused(change, tmp_path):
    path = tmp_path / "fit.npz"
    bbvi.fit(smooth, DIM, num_steps=5).save(path)
    write_arrays(path, change(read_arrays(path)))
    with pytest.raises(ValueError, match="is no bbvi posterior, or is damaged"):
        bbvi.load(path)


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
