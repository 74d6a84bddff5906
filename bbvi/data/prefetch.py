"""Reading ahead."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any


class Prefetch:
    """`make(0)`, `make(1)`, ..., each made by a thread in the background while the one before it is in use.

    Arguments:
        count: how many there are before the numbers begin again at 0; None where they never do.
    """

    def __init__(self, make: Callable[[int], Any], count: int | None = None) -> None:
        self._make, self._count = make, count
        self._thread = ThreadPoolExecutor(1, "bbvi-rows")
        self._next: tuple[int, Future[Any]] | None = None

    def __call__(self, number: int) -> Any:
        """`make(number)`. What goes wrong in the thread is raised here."""
        if self._next is not None and self._next[0] == number:
            future = self._next[1]
        else:
            future = self._thread.submit(self._make, number)
        following = number + 1 if self._count is None else (number + 1) % self._count
        self._next = following, self._thread.submit(self._make, following)
        return future.result()
