"""The loop: `solve` takes all steps in one program, `drive` takes them in compiled blocks with a host beside it.

Between blocks, on the host, is everything else: the clock, callbacks, checkpoints, Ctrl-C. Random numbers are drawn a
page of steps at a time, from (seed, page), and a block of steps lies within a page (`pages.py`). Where blocks begin and
end changes nothing, so a run that is resumed from a checkpoint ends with the same bits as one that was never
interrupted.
"""

import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.algorithms import Algorithm
from bbvi.algorithms.base import CONVERGED, NEVER, RUNNING, STALLED, Adaptive, Info, Pausing, with_entry
from bbvi.algorithms.pages import StepInputs
from bbvi.distributions import Distribution
from bbvi.distributions.affine import Affine
from bbvi.outcome import Evaluations, History, Stop
from bbvi.runtime.compiling import program
from bbvi.runtime.deadline import OutOfTimeError
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

LOOK = 0.5  # seconds between looks at the clock, the keyboard and the callbacks
STOPS = {CONVERGED: Stop.CONVERGED, STALLED: Stop.STALLED, RUNNING: Stop.STEPS}


class Solved(NamedTuple):
    """What `solve` ends with."""

    state: Any
    steps: Array  # () taken
    evaluations: Evaluations  # made by them


def solve(algorithm: Algorithm[Any], problem: Problem, state: Any, max_steps: int = NEVER) -> Solved:
    """Steps of an algorithm without noise until its status says stop; pure, to be compiled, and mapped where wanted."""

    def going(now: Solved) -> Array:
        return (algorithm.status(now.state) == RUNNING) & (now.steps < max_steps)

    def body(now: Solved) -> Solved:
        state, info = algorithm.step(None, problem, now.state)
        return Solved(state, now.steps + 1, jax.tree.map(jnp.add, now.evaluations, info.evaluations))

    zero = jnp.zeros((), int)
    return jax.lax.while_loop(going, body, Solved(state, zero, Evaluations(zero, zero, zero)))


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


Callback = Callable[[Progress], Any]


class Run(NamedTuple):
    """Where a run is: before its first step, where it goes on from, or where it has ended."""

    state: Any
    pieces: tuple[History, ...] = ()  # of the steps taken, one after the other
    stop: Stop = Stop.STEPS

    @property
    def history(self) -> History:
        """All steps taken."""
        columns = zip(*self.pieces, strict=True) if self.pieces else [[column] for column in History.empty()]
        return History(*map(np.concatenate, columns))

    @property
    def step(self) -> int:
        """Steps taken."""
        return sum(len(piece.elbo) for piece in self.pieces)

    @property
    def evaluations(self) -> Evaluations:
        """All that was evaluated."""
        return sum((piece.evaluations.total() for piece in self.pieces), Evaluations())

    def after(self, block: Any) -> "Run":
        """This run after one more block of steps, which has been begun."""
        state, taken, trace, status = jax.block_until_ready(block)
        rows = History(
            *(np.asarray(column)[: int(taken)] for column in (*trace[:3], *vars(trace.evaluations).values()))
        )
        pieces = self.pieces if len(self.pieces) < 100 else (self.history,)
        return Run(state, (*pieces, rows), STOPS[int(status)])

    def paused(self, algorithm: Algorithm[Any]) -> "Run":
        """This run after its algorithm has looked at its state on the host, where that is due."""
        if not isinstance(algorithm, Pausing) or int(algorithm.steps_to_pause(self.state)):
            return self
        state = algorithm.pause(jax.device_get(self.state))
        return self._replace(state=state, stop=STOPS[int(algorithm.status(state))])


class Allowance(NamedTuple):
    """What a run may take."""

    num_steps: int
    gradients: int = NEVER  # gradient equivalents
    seconds: float = np.inf


@program(static_argnames="algorithm")
def begin(algorithm: Algorithm[Any], problem: Problem, q: Distribution, around: Affine | None, draws: Any) -> Any:
    """The state of an algorithm before its first step.

    Arguments:
        q: what to begin with.
        around: a Gaussian; then it begins with the member most like it that has q's structure.
    """
    return problem.layout.replicate(algorithm.init(problem, q if around is None else q.around(around), draws))


def drive(
    algorithm: Algorithm[Any],
    problem: Problem,
    run: Run,
    limits: Allowance,
    *,
    inputs: StepInputs | None = None,
    callbacks: Iterable[Callback] = (),
    save: Callable[[Run], None] | None = None,
) -> Run:
    """Step until the status of the algorithm, a limit or someone says stop.

    Arguments:
        run: where to go on from, such as `Run(state)`.
        limits: a step is taken while the gradients left suffice for another one like the last. The clock is looked at
            between blocks, whose length follows the speed seen.
        inputs: random numbers and minibatches for the steps; None where the algorithm needs neither.
        callbacks: called with a `Progress` between blocks; a true return value stops the run.
        save: called with the run so far between blocks.
    """
    advance = _advance_in_place if problem.is_long else _advance
    if run.pieces:
        run = run._replace(stop=STOPS[int(algorithm.status(run.state))])
    noise, rows = inputs or StepInputs.of(None, problem, 0)
    blocks, block = _Blocks(limits, run.step), None
    try:
        while run.stop is Stop.STEPS and run.step < limits.num_steps:
            step = run.step
            draws, rest = noise.at(step)
            batches, more = (None, NEVER) if rows is None else rows.at(step)
            left, last = _left(run, limits)
            if step and left < last:
                run = run._replace(stop=Stop.BUDGET)
                break
            most = blocks.begin(min(rest, more, limits.num_steps - step))
            block = None
            block = advance(algorithm, problem, run.state, draws, batches, most, min(left, NEVER), last)
            noise.prefetch(step)  # while the device is busy
            # One assignment, so that an interrupt finds the run before the block or after it.
            run = run.after(block).paused(algorithm)
            blocks.end(run.step - step)
            if save is not None:
                save(run)
            progress = _progress(run, limits.num_steps, blocks.elapsed, algorithm.name)
            asked = [callback(progress) for callback in callbacks]  # all of them, whatever the first says
            told = problem.layout.broadcast_from_first(blocks.length, any(asked), blocks.is_late(run.step))
            blocks.length, stopped, late = map(int, told)
            if run.stop is Stop.STEPS and (stopped or late):
                run = run._replace(stop=Stop.CALLBACK if stopped else Stop.BUDGET)
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


class _Blocks:
    """How long blocks of steps are: about as many as fit between two looks at the clock."""

    def __init__(self, limits: Allowance, first_step: int) -> None:
        self._limits, self._first_step = limits, first_step
        self._began = self._tick = time.perf_counter()
        self.length = 1

    @property
    def elapsed(self) -> float:
        """Seconds since the run began."""
        return time.perf_counter() - self._began

    def begin(self, most: int) -> int:
        """Steps in the block that begins now."""
        self._tick = time.perf_counter()
        return min(self.length, most)

    def end(self, taken: int) -> None:
        """The block took so many steps."""
        per_look = int(LOOK * taken / max(time.perf_counter() - self._tick, 1e-9))
        self.length = min(max(2, per_look), 8 * self.length)  # the first block compiles, which says nothing of speed

    def is_late(self, step: int) -> bool:
        """Whether time is up, once a step has been taken."""
        return self.elapsed >= self._limits.seconds and step > self._first_step


def _left(run: Run, limits: Allowance) -> tuple[int, int]:
    """Gradient equivalents that are left, and those of the last step."""
    if limits.gradients == NEVER:
        return NEVER, 0
    last = int(run.pieces[-1].gradient_equivalents[-1]) if run.pieces else 0
    return limits.gradients - int(run.evaluations.gradient_equivalents), last


def _take_steps(
    algorithm: Algorithm[Any],
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
    adaptive = algorithm if isinstance(algorithm, Adaptive) else None
    due = jnp.asarray(NEVER, int) if adaptive is None else adaptive.steps_to_adapt(state)
    count = jnp.minimum(limit, algorithm.steps_to_pause(state) if isinstance(algorithm, Pausing) else due)
    length = len(jax.tree.leaves(draws[0])[0])
    numbers, counts = jnp.zeros(length, float), jnp.zeros(length, int)
    trace = Info(numbers, numbers, counts, Evaluations(counts, counts, counts))

    def affordable(carry: tuple[Array, Array, Array, Any, Info]) -> Array:
        i, left, last, state, _ = carry
        return (i < count) & (left >= last) & ~((i > 0) & (algorithm.status(state) != RUNNING))

    def body(carry: tuple[Array, Array, Array, Any, Info]) -> tuple[Array, Array, Array, Any, Info]:
        i, left, _, state, trace = carry
        batch = problem if batches is None else problem.minibatch(_entry(*batches, i))
        state, info = algorithm.step(_entry(*draws, i), batch, state)
        state = jax.tree.map(_plain, state)
        trace = jax.tree.map(lambda rows, row: with_entry(rows, i, row), trace, info)
        cost = jnp.asarray(info.evaluations.gradient_equivalents, left.dtype)
        return i + 1, left - cost, cost, state, trace

    taken, _, _, state, trace = jax.lax.while_loop(
        affordable, body, (jnp.zeros((), int), jnp.asarray(left), jnp.asarray(last), state, trace)
    )
    if adaptive is not None:
        state = jax.lax.cond(taken == due, lambda s: adaptive.adapt(problem, s), lambda s: s, state)
    return problem.layout.replicate((state, taken, trace, algorithm.status(state)))


_advance = program(_take_steps, static_argnames="algorithm")
_advance_in_place = program(_take_steps, static_argnames="algorithm", donate_argnames="state")


def _plain(leaf: Array) -> Array:
    """The same array, whose type is no longer weak: a block is compiled once for the states before and after it."""
    return jax.lax.convert_element_type(leaf, leaf.dtype)


def _is_gone(state: Any) -> bool:
    """Whether a block of steps has written, or will write, its own state over this one."""
    return any(isinstance(leaf, jax.Array) and leaf.is_deleted() for leaf in jax.tree.leaves(state))


def _entry(page: Any, place: Array, i: Array) -> Any:
    # Places are not negative: to tell JAX so saves operations.
    entry = partial(jax.lax.dynamic_index_in_dim, keepdims=False, allow_negative_indices=False)
    return jax.tree.map(lambda leaf: entry(jnp.asarray(leaf), place + i), page)


def _progress(run: Run, num_steps: int, seconds: float, method: str) -> Progress:
    rows = run.pieces[-1]
    n = max(len(rows.elbo), 1)
    error = float(np.sqrt(np.sum(rows.standard_error**2)) / n)
    non_finite = int(rows.non_finite.sum())
    return Progress(run.step, num_steps, float(rows.elbo.mean()), error, seconds, non_finite, run.state, method)
