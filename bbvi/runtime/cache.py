"""Compiled programs that are kept from one process to the next, so that the second one compiles next to nothing.

JAX's own persistent cache does it. Here is where it lies, when it is on, and what keeps it small. It is on while bbvi
is at work, unless the caller has a cache of JAX already, or the folder is not safe to read programs from.
"""

import hashlib
import os
import platform
import threading
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import jax
import jaxlib.version
from jax.experimental.compilation_cache import compilation_cache

VARIABLE = "BBVI_CACHE"  # of the environment: a folder, or "off"
OFF = ("off", "0", "false", "no")
MOST_BYTES = 2**29  # in the folder; the oldest programs are removed
WORTH_KEEPING = 0.05  # seconds that compiling has to take for a program to be kept
JAX_SETTINGS = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")

_lock = threading.Lock()
_inside = 0  # how many scopes are open
_before: tuple[object, ...] = ()


def folder() -> Path | None:
    """Where programs are kept; None where the environment says "off"."""
    asked = os.environ.get(VARIABLE, "").strip()
    if asked.lower() in OFF:
        return None
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return (Path(asked) if asked else Path(home) / "bbvi") / _kind()


@contextmanager
def keeping_programs() -> Generator[None]:
    """Inside, compiled programs are looked up in the folder, and kept there; afterwards JAX is as before."""
    global _inside
    with _lock:
        _inside += 1
        if _inside == 1:
            _begin()
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                _end()


def _begin() -> None:
    global _before
    if getattr(jax.config, JAX_SETTINGS[0]) or (place := _safe_folder(str(folder() or ""))) is None:
        return
    _before = tuple(getattr(jax.config, name) for name in JAX_SETTINGS)
    for name, value in zip(JAX_SETTINGS, (place, WORTH_KEEPING), strict=True):
        jax.config.update(name, value)


def _end() -> None:
    global _before
    if not _before:
        return
    for name, value in zip(JAX_SETTINGS, _before, strict=True):
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # which holds the folder
    _before = ()


@cache
def _safe_folder(path: str) -> str | None:
    """The folder, made and not too full; None where it cannot be written, or others can write it."""
    if not path:
        return None
    warnings.filterwarnings("ignore", message="Error (reading|writing) persistent compilation cache entry")
    place = Path(path)
    try:
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for each in (place, place.parent):
            found = each.stat()
            if hasattr(os, "getuid") and (found.st_uid != os.getuid() or found.st_mode & 0o022):
                return None
        _make_room(place)
    except OSError:
        return None
    return path if os.access(place, os.W_OK) else None


def _make_room(place: Path) -> None:
    """Remove the oldest programs where they are too many; another process may do so at the same time."""
    entries = sorted(_entries(place), key=lambda each: -each[1].stat().st_mtime)
    total = 0
    for size, path in entries:
        total += size
        if total > MOST_BYTES:
            path.unlink(missing_ok=True)


def size(place: Path) -> int:
    """Bytes of all programs in a folder."""
    return sum(size for size, _ in _entries(place))


def clear() -> int:
    """Remove all programs, those of other versions too; returns how many there were."""
    place, count = folder(), 0
    for _, path in [] if place is None else _entries(place.parent):
        path.unlink(missing_ok=True)
        count += 1
    return count


def _entries(place: Path) -> list[tuple[int, Path]]:
    """Sizes and paths of programs, in folders below as well."""
    return [(path.stat().st_size, path) for path in place.rglob("jit_*-cache") if path.is_file()]


@cache
def _kind() -> str:
    """A name for the machine and the versions that programs are of."""
    try:
        processor = Path("/proc/cpuinfo").read_text().split("\n\n")[0]
        processor = "\n".join(line for line in processor.split("\n") if line.startswith(("model name", "flags")))
    except OSError:
        processor = platform.processor()
    parts = (platform.system(), platform.machine(), processor, jax.__version__, jaxlib.version.__version__)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
