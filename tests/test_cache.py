"""Compiled programs are kept from one process to the next, safely, and JAX is left as it was."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import pytest

from bbvi.__main__ import main
from bbvi.runtime import cache
from bbvi.runtime.compiling import program
from bbvi.runtime.precision import scope

HITS = "/jax/compilation_cache/cache_hits"
FIT = """
import jax, jax.numpy as jnp, bbvi
import bbvi.runtime.cache as cache
cache.WORTH_KEEPING = 0.0
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event == {hits!r} else None)
print(bbvi.fit(lambda x: -0.5 * jnp.sum(x**2), 2, method="laplace").diagnosis.elbo)
print(len(hits) > 5, jax.config.jax_compilation_cache_dir)
"""


@pytest.fixture
def place(monkeypatch, tmp_path):
    """An empty folder of the user's own."""
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "programs"))
    monkeypatch.setattr(cache, "WORTH_KEEPING", 0.0)
    return tmp_path / "programs"


@pytest.fixture
def hits():
    """How often a program was found, by the end of the test."""
    found = []
    listener = lambda event, **_: found.append(event) if event == HITS else None
    jax.monitoring.register_event_listener(listener)
    yield found
    jax.monitoring.unregister_event_listener(listener)


def run(scale):
    """A program that is not in JAX's own memory: each call makes another function of the same text."""
    with scope(True):
        return float(program(lambda x: jnp.sum(jnp.sin(x)) * scale)(jnp.ones(3)))


def test_a_second_process_compiles_next_to_nothing(place):
    told = []
    for _ in range(2):
        environment = {**os.environ, "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")}
        command = [sys.executable, "-c", FIT.format(hits=HITS)]
        told.append(
            subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.split("\n")
        )
    assert [lines[1] for lines in told] == ["False None", "True None"]
    assert told[0][0] == told[1][0]  # the same numbers
    assert cache.size(place) > 0


def test_a_program_is_found_again(place, hits):
    assert run(2.0) == run(2.0)
    assert hits
    assert cache.size(place) > 0


def test_settings_of_jax_are_as_before():
    before = [getattr(jax.config, name) for name in cache.JAX_SETTINGS]
    run(3.0)
    with scope(True), scope(False):
        pass
    assert [getattr(jax.config, name) for name in cache.JAX_SETTINGS] == before


def test_a_cache_of_the_callers_own_stays_theirs(place, tmp_path):
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
    try:
        run(4.0)
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")
    finally:
        jax.config.update("jax_compilation_cache_dir", None)
        cache.compilation_cache.reset_cache()
    assert not place.exists()


@pytest.mark.parametrize("said", cache.OFF)
def test_it_can_be_turned_off(monkeypatch, place, hits, said, capsys):
    monkeypatch.setenv(cache.VARIABLE, said)
    run(5.0)
    run(5.0)
    assert not hits
    assert main(["cache"]) == 0
    assert "off" in capsys.readouterr().out


def test_a_folder_that_others_can_write_is_not_read(place, hits):
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    run(6.0)
    run(6.0)
    assert not hits
    assert cache.size(place) == 0


def test_a_folder_that_cannot_be_made_turns_it_off(monkeypatch, tmp_path, hits):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "below"))
    assert run(7.0) == run(7.0)
    assert not hits


@pytest.mark.parametrize("content", [b"", b"nothing of the kind", None], ids=["empty", "foreign", "cut short"])
def test_a_damaged_entry_is_ignored(place, content):
    before = run(8.0)
    for _, path in cache._entries(place):
        path.write_bytes(path.read_bytes()[:100] if content is None else content)
    assert run(8.0) == before


def test_the_oldest_programs_make_room(monkeypatch, place):
    run(9.0)
    (folder,) = place.iterdir()
    old = folder / "jit_old-cache"
    old.write_bytes(b"x" * 100)
    os.utime(old, (0, 0))
    monkeypatch.setattr(cache, "MOST_BYTES", cache.size(place) - 1)
    cache._make_room(folder)
    assert not old.exists()
    assert cache.size(place) > 0


def test_the_command_line_shows_and_empties_it(place, capsys):
    run(10.0)
    assert main(["cache", "--clear"]) == 0
    told = capsys.readouterr().out
    assert "programs removed" in told
    assert f"{place} (0.0 MB)" in told
    assert cache.size(place) == 0
