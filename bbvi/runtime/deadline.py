"""A time after which no program is waited for.

JAX cannot break off a program that runs, and while it waits for one, it listens neither to the clock nor to the
keyboard: one point at which an adaptive solver takes for ever holds up a fit for ever. So inside `deadline` each
program is run by a thread of its own, which is left to itself when time is up or the user presses Ctrl-C.

A program that was left may still run when Python ends, which would wait for it. Then the process is ended after a
second, with exit status 1 and a word.
"""

import atexit
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import jax

from bbvi.runtime import timing

SETTINGS = (  # of JAX, that may differ from thread to thread and change what is compiled
    "enable_x64",
    "numpy_dtype_promotion",
    "numpy_rank_promotion",
    "default_matmul_precision",
    "default_device",
)
_LIMIT: ContextVar[tuple[float, float] | None] = ContextVar("deadline", default=None)
_LEFT: list[threading.Thread] = []  # threads that nobody waits for


class OutOfTimeError(TimeoutError):
    """A program was not done by the deadline."""


@contextmanager
def deadline(at: float | None, each: float = float("inf")) -> Generator[None]:
    """Inside, programs that are not done in time raise `OutOfTimeError`.

    Arguments:
        at: time of `time.perf_counter()`, in seconds. None waits for ever, as JAX does.
        each: seconds that one program may take.
    """
    token = _LIMIT.set(None if at is None else (at, each))
    try:
        yield
    finally:
        _LIMIT.reset(token)


def shorter(each: float) -> AbstractContextManager[None]:
    """Inside, one program may take no more than so many seconds, where there is a deadline at all."""
    limit = _LIMIT.get()
    return deadline(None) if limit is None else deadline(limit[0], min(limit[1], each))


def call(function: Callable[[], Any]) -> Any:
    """What `function` returns, computed to its end; it runs a program of JAX.

    Raises:
        OutOfTimeError: when it is not done by the deadline.
    """
    limit = _LIMIT.get()
    if limit is None:
        return function()
    left = max(min(limit[0] - time.perf_counter(), limit[1]), 0.0)
    box: queue.SimpleQueue[Any] = queue.SimpleQueue()
    thread = threading.Thread(target=_run, args=(function, _settings(), box), daemon=True)
    thread.start()
    try:
        result, error, compiling = box.get(timeout=None if left == float("inf") else left)
    except BaseException as reason:  # Ctrl-C, or nothing in the box
        _leave(thread)
        if isinstance(reason, queue.Empty):
            raise OutOfTimeError("a program was not done by the deadline") from None
        raise
    timing.add_compile_seconds(compiling)
    if error is not None:
        raise error
    return result


def _run(function: Callable[[], Any], settings: dict[str, Any], box: queue.SimpleQueue[Any]) -> None:
    before = timing.compile_seconds()
    try:
        with ExitStack() as stack:
            for name, value in settings.items():
                stack.enter_context(getattr(jax, name)(value))
            result, error = jax.block_until_ready(function()), None
    except BaseException as raised:
        result, error = None, raised
    box.put((result, error, timing.compile_seconds() - before))


def _settings() -> dict[str, Any]:
    """What this thread has set of JAX's configuration: a new thread begins with the global values."""
    return {name: getattr(jax.config, f"jax_{name}") for name in SETTINGS}


def _leave(thread: threading.Thread) -> None:
    _LEFT.append(thread)
    _watch_exit()


@cache
def _watch_exit() -> None:
    atexit.register(_end)


def _end() -> None:
    for thread in _LEFT:
        thread.join(1.0)
    if any(thread.is_alive() for thread in _LEFT):
        print(
            "bbvi: an evaluation of a log density still runs, and JAX cannot stop it. The process is ended.",
            file=sys.stderr,
        )
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)
