"""Which floating point type a fit runs in, without touching JAX's global flag."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import jax

from bbvi.runtime.cache import keeping_programs

PRECISIONS = ("auto", "double", "single")


def use_double(precision: str) -> bool:
    """Whether `precision` means float64 on the present device: "auto" does on a CPU."""
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ValueError(f"precision={precision!r} is unknown. Known: {', '.join(PRECISIONS)}.")
    return precision == "double" or (precision == "auto" and jax.default_backend() == "cpu")


@contextmanager
def scope(double: bool) -> Generator[None]:
    """Inside, JAX computes in float64 (or float32), only in this thread; and programs are kept (`cache.py`)."""
    with keeping_programs(), jax.enable_x64(double):
        yield


def lenient_promotion() -> AbstractContextManager[Any]:
    """For libraries that mix integers and floats, where the caller may have asked JAX to be strict."""
    return jax.numpy_dtype_promotion("standard")
