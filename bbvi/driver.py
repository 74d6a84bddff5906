"""The only loop: compiled blocks of steps, and between them, on the host, everything else.

Random numbers are drawn a page of steps at a time, from (seed, page), and a block of steps lies within a page. Where
blocks begin and end changes nothing, so a run that is resumed from a checkpoint ends with the same bits as one that
was never interrupted. Minibatches come in pages of their own, in an order that is fixed in the same way
(`data/epochs.py`), and enter the step as the problem.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.algorithms import Algorithm
from bbvi.algorithms.base import NEVER, Info
from bbvi.compiling import program
from bbvi.deadline import OutOfTimeError
from bbvi.distributions import Distribution
from bbvi.outcome import History, Stop
from bbvi.problem import Problem
from bbvi.random import stream

Array = Any
MAX_PAGE = 200  # steps for which random numbers are drawn at once, at most
PAGE_ELEMENTS = 2**21  # random numbers in a page, at most
STREAM = 1  # sets these random numbers apart from others with the same seed
LOOK = 0.5  # seconds between looks at the clock, the keyboard and the callbacks


class Progress(NamedTuple):
    """What callbacks are told after each block of steps."""

    step: int  # steps taken
    num_steps: int  # steps at most
    elbo: float  # mean over the block, in nats
    standard_error: float  # of that mean
    seconds: float  # since the first step
    non_finite: int  # draws in the block at which the log density was not finite
    state: Any  # of the algorithm; above 2**17 coordinates the next block writes over it
    method: str  # name of the algorithm


class Run(NamedTuple):
    """What the driver returns."""

    state: Any
    pieces: tuple[History, ...]  # one after the other
    stop: Stop

    @property
    def history(self) -> History:
        """All steps taken."""
        columns = zip(*self.pieces, strict=True) if self.pieces else [[np.zeros(0)]] * len(History._fields)
        return History(*map(np.concatenate, columns))

    @property
    def step(self) -> int:
        """Steps taken."""
        return sum(len(piece.elbo) for piece in self.pieces)

    def after(self, block: Any) -> "Run":
        """This run after one more block of steps, which has been begun."""
        state, taken, trace, converged = jax.block_until_ready(block)
        rows = History(*(np.asarray(column)[: int(taken)] for column in trace))
        pieces = self.pieces if len(self.pieces) < 100 else (self.history,)
        return Run(state, (*pieces, rows), Stop.CONVERGED if bool(converged) else Stop.STEPS)


Callback = Callable[[Progress], Any]


@program(static_argnames="algorithm")
def begin(algorithm: Algorithm, problem: Problem, q: Distribution, near: tuple[Array, Array] | None, draws: Any) -> Any:
    """The state of an algorithm before its first step.

    Arguments:
        q: what to begin with.
        near: mean and scale of a Gaussian; then it begins with the member most like it that has q's structure.
    """
    return problem.layout.everywhere(algorithm.init(problem, q if near is None else q.near(*near), draws))


def drive(
    algorithm: Algorithm,
    problem: Problem,
    state: Any,
    seed: int,
    *,
    num_steps: int,
    gradients: int | None = None,
    history: History | None = None,
    callbacks: Iterable[Callback] = (),
    seconds: float | None = None,
    save: Callable[[Run], None] | None = None,
) -> Run:
    """Step until the algorithm is done, `num_steps` have been taken, or someone says stop.

    Arguments:
        state, history: where to go on from.
        gradients: budget of evaluations of the gradient; a Hessian-vector product counts as two.
        seed: of the random numbers.
        callbacks: called with a `Progress` between blocks; a true return value stops the run.
        seconds: budget. It is looked at between blocks, whose length follows the speed seen.
        save: called with the run so far between blocks.
    """
    stop = Stop.CONVERGED if bool(algorithm.done(state)) else Stop.STEPS
    advance = _advance_in_place if problem.is_long else _advance
    block = None
    run = Run(state, () if history is None or not len(history.elbo) else (history,), stop)
    began, first_step, limit = time.perf_counter(), run.step, 1
    noise = _noise(algorithm, problem, state, seed)
    rows = None if algorithm.rows_per_step is None else _rows(problem, algorithm.rows_per_step, seed)
    try:
        while (step := run.step) < num_steps and run.stop is Stop.STEPS:
            tick = time.perf_counter()
            draws, rest = noise.at(step)
            batches, more = (None, NEVER) if rows is None else rows.at(step)
            spent, last = _spent(run)
            left = NEVER if gradients is None else gradients - spent
            if step and left < last:
                run = run._replace(stop=Stop.BUDGET)
                break
            most = min(limit, rest, more, num_steps - step)
            block = None
            block = advance(algorithm, problem, run.state, draws, batches, most, min(left, NEVER), last)
            noise.prefetch(step)  # while the device is busy
            # One assignment, so that an interrupt finds the run before the block or after it.
            run = run.after(block)
            per_look = int(LOOK * (run.step - step) / max(time.perf_counter() - tick, 1e-9))
            limit = min(max(2, per_look), 8 * limit)  # the first block compiles, which says nothing of speed
            if save is not None:
                save(run)
            elapsed = time.perf_counter() - began
            progress = _progress(run, num_steps, elapsed, algorithm.name)
            asked = [callback(progress) for callback in callbacks]  # all of them, whatever the first says
            late = seconds is not None and elapsed >= seconds and run.step > first_step
            limit, stopped, late = map(int, problem.layout.agree(limit, any(asked), late))
            if run.stop is Stop.STEPS and stopped:
                run = run._replace(stop=Stop.CALLBACK)
            elif run.stop is Stop.STEPS and late:
                run = run._replace(stop=Stop.BUDGET)
    except OutOfTimeError:
        if _is_gone(run.state):
            raise
        run = run._replace(stop=Stop.BUDGET)
    except KeyboardInterrupt:
        if _is_gone(run.state):  # the block under way writes over it
            if block is None:
                raise
            run = run.after(block)
        run = run._replace(stop=Stop.INTERRUPTED)
    return run


class _Pages:
    """What steps need, a page of steps at a time: `make(page)`, with a leading axis of length `length`."""

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


def _page_length(numbers: int) -> int:
    """Steps in a page, when one takes so many numbers."""
    return max(1, min(MAX_PAGE, PAGE_ELEMENTS // max(numbers, 1)))


def _noise(algorithm: Algorithm, problem: Problem, state: Any, seed: int) -> _Pages:
    """Random numbers for the steps."""

    def make(page: int, steps: int) -> Any:
        return algorithm.noise(stream(seed, STREAM, page), problem, state, steps)

    length = _page_length(sum(np.size(leaf) for leaf in jax.tree.leaves(make(0, 1))))
    return _Pages(lambda page: make(page, length), length)


def _rows(problem: Problem, size: int, seed: int) -> _Pages:
    """Minibatches for the steps, as the source of the rows hands them out, read in the background."""
    assert problem.source is not None
    batches = problem.source.batches(size, seed)
    length = _page_length(batches.num_numbers)
    return _Pages(batches.pages(length), length)


def _spent(run: Run) -> tuple[int, int]:
    """Gradients spent so far, and in the last step."""
    each = [piece.gradient_equivalents for piece in run.pieces]
    return int(sum(piece.sum() for piece in each)), int(each[-1][-1]) if each else 0


def _take_steps(
    algorithm: Algorithm,
    problem: Problem,
    state: Any,
    draws: tuple[Any, Array],
    batches: tuple[Any, Array] | None,
    limit: Array,
    left: Array,
    last: Array,
) -> tuple[Any, Array, Info, Array]:
    """At most `limit` steps, and the adaptation if it is due after them.

    Random numbers and minibatches come as a page of them and a place in it from which to go on. A step is taken while
    the gradients `left` suffice for another one like the last.
    """
    due = algorithm.steps_to_adapt(state)
    count = jnp.minimum(limit, due)
    length = len(jax.tree.leaves(draws[0])[0])
    trace = Info(jnp.zeros(length, float), jnp.zeros(length, float), *(jnp.zeros(length, int) for _ in range(4)))

    def affordable(carry: tuple[Array, Array, Array, Any, Info]) -> Array:
        i, left, last, state, _ = carry
        return (i < count) & (left >= last) & ~((i > 0) & algorithm.done(state))

    def body(carry: tuple[Array, Array, Array, Any, Info]) -> tuple[Array, Array, Array, Any, Info]:
        i, left, _, state, trace = carry
        batch = problem if batches is None else problem.minibatch(_entry(*batches, i))
        state, info = algorithm.step(_entry(*draws, i), batch, state)
        trace = jax.tree.map(lambda rows, row: rows.at[i].set(row), trace, info)
        cost = jnp.asarray(info.gradients + 2 * info.hessian_vector_products, left.dtype)
        return i + 1, left - cost, cost, state, trace

    taken, _, _, state, trace = jax.lax.while_loop(
        affordable, body, (jnp.zeros((), int), jnp.asarray(left), jnp.asarray(last), state, trace)
    )
    state = jax.lax.cond(taken == due, lambda s: algorithm.adapt(problem, s), lambda s: s, state)
    return problem.layout.everywhere((state, taken, trace, algorithm.done(state)))


_advance = program(_take_steps, static_argnames="algorithm")
_advance_in_place = program(_take_steps, static_argnames="algorithm", donate_argnames="state")


def _is_gone(state: Any) -> bool:
    """Whether a block of steps has written, or will write, its own state over this one."""
    return any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(state))


def _entry(page: Any, place: Array, i: Array) -> Any:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf)[place + i], page)


def _progress(run: Run, num_steps: int, seconds: float, method: str) -> Progress:
    rows = run.pieces[-1]
    n = max(len(rows.elbo), 1)
    error = float(np.sqrt(np.sum(rows.standard_error**2)) / n)
    non_finite = int(rows.non_finite.sum())
    return Progress(run.step, num_steps, float(rows.elbo.mean()), error, seconds, non_finite, run.state, method)
