"""What steps need, a page of steps at a time: random numbers, and minibatches.

A page depends on the seed and its number alone, and is made while the device is busy with the one before it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from bbvi.algorithms.base import Needs, no_noise
from bbvi.draws.random import RandomStream, stream
from bbvi.target.problem import Problem

MAX_PAGE = 200  # steps for which random numbers are drawn at once, at most
PAGE_NUMBERS = 2**21  # in a page, at most


class Pages:
    """Pages by `make(page)`, with a leading axis of `length` steps."""

    def __init__(self, make: Callable[[int], Any], length: int) -> None:
        self._make, self._length = make, length
        self._pages: dict[int, Any] = {}

    def at(self, step: int) -> tuple[tuple[Any, int], int]:
        """The page that holds `step` and its place there; and how many steps are left from there on."""
        page, place = divmod(step, self._length)
        if page not in self._pages:
            self._pages = {page: self._make(page)}
        return (self._pages[page], place), self._length - place

    def prefetch(self, step: int) -> None:
        """Make the page after the one that holds `step`, and forget the ones before it."""
        page = step // self._length
        if page + 1 not in self._pages:
            self._pages = {page: self._pages[page], page + 1: self._make(page + 1)}


class StepInputs(NamedTuple):
    """What an algorithm is handed at each step."""

    noise: Pages  # random numbers
    batches: Pages | None  # minibatches, None where each step sees all rows

    @classmethod
    def of(cls, needs: Needs | None, problem: Problem, seed: int) -> "StepInputs":
        """What these needs ask for; without any there is no noise."""
        return cls(_noise(needs, problem, seed), _batches(needs, problem, seed))


def _noise(needs: Needs | None, problem: Problem, seed: int) -> Pages:
    """Random numbers for the steps of an algorithm."""
    noise = no_noise if needs is None else needs.noise

    def make(page: int, steps: int) -> Any:
        return noise(stream(seed, RandomStream.STEPS, page), problem, steps)

    length = _page_length(sum(np.size(leaf) for leaf in jax.tree.leaves(make(0, 1))))
    return Pages(lambda page: make(page, length), length)


def _batches(needs: Needs | None, problem: Problem, seed: int) -> Pages | None:
    """Minibatches for the steps, as the source of the rows hands them out, read in the background."""
    if needs is None or needs.rows is None:
        return None
    assert problem.source is not None
    batches = problem.source.batches(needs.rows, seed)
    length = _page_length(batches.num_numbers)
    return Pages(batches.pages(length), length)


def _page_length(numbers: int) -> int:
    """Steps in a page, when one takes so many numbers."""
    return max(1, min(MAX_PAGE, PAGE_NUMBERS // max(numbers, 1)))
