"""From what the user gave to a checked posterior."""

import inspect
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bbvi import timing
from bbvi.algorithms import Algorithm
from bbvi.algorithms.base import Result
from bbvi.arguments import (
    no_derivative,
    positive,
    read_algorithm,
    read_callbacks,
    read_family,
    read_init,
    read_model,
    read_seed,
)
from bbvi.checkpoint import Checkpoint, fingerprint
from bbvi.constants import with_clean_caches
from bbvi.data.out_of_core import plain_errors, rows_of
from bbvi.data.reading import check_rows, observed, read_rows
from bbvi.deadline import OutOfTimeError, deadline
from bbvi.diagnostics.checks.base import Evidence
from bbvi.diagnostics.verdict import Diagnosis, diagnose
from bbvi.distributions import Distribution
from bbvi.driver import Callback, Run, begin, drive
from bbvi.estimators import Estimator
from bbvi.evaluation import Draws, draw, log_densities
from bbvi.ladder import SECONDS, Attempt, Plan, Rung, next_plan
from bbvi.maximise import with_best_params
from bbvi.models import Model
from bbvi.models.numpyro import NumPyroModel
from bbvi.outcome import History, Stop
from bbvi.posterior import Cost, Posterior, copy
from bbvi.precision import scope, use_double
from bbvi.problem import Problem, no_gradient, trace
from bbvi.progress import showing
from bbvi.provenance import Provenance
from bbvi.reading_parameters import make_parameters
from bbvi.sharding import make_layout
from bbvi.start import Start, Watch, find_start, start_at
from bbvi.tall import find_tall_start, for_verdict, is_sampled, with_reference

MAX_STEPS = 20_000
START, CHECK, FIXED = 0, 2, 5  # streams of random numbers
GRACE = 6.0  # seconds after the end of a budget for a program that does not come back,
CHECKS = 3.0  # and after that for the verdict
ONE_CALL, VERDICT = 120.0, 30.0  # seconds without a budget, where a point may take for ever: some steps, a verdict
MORE_TIME = "raise the budget"
WITNESSES = 4  # points at which the log density is compared with that of a checkpoint


@dataclass(frozen=True)
class Budget:
    """A limit on what a fit may take; the best result so far comes back.

    Arguments:
        seconds: of wall time, compiling included.
        gradients: evaluations of the log density with its gradient; a Hessian-vector product counts as two. Looked at
            before each step, which is taken while the last one could be taken again: the start, one step, and what a
            method does at the end are not cut short.

    Example:
        >>> bbvi.Budget(seconds=60, gradients=100_000)  # whichever comes first
        Budget(seconds=60, gradients=100000)
    """

    seconds: float | None = None
    gradients: int | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "gradients"):
            value = getattr(self, name)
            number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
            if value is not None and not (number and value > 0):
                raise ValueError(f"budget: {name}={value!r} must be a positive number.")


def fit(
    logprob: Callable[..., Any] | Model,
    dim: Any = None,
    *,
    data: Any = None,
    constraints: Any = None,
    method: str | Algorithm = "auto",
    family: str | type[Distribution] | Distribution | None = None,
    estimator: str | Estimator | None = None,
    optimizer: Any = None,
    init: Any = None,
    seed: int = 0,
    num_steps: int | None = None,
    num_draws: int | None = None,
    batch_size: int | None = None,
    budget: float | Budget | None = None,
    callbacks: Iterable[Callback] = (),
    progress: bool | None = None,
    checkpoint: str | Path | None = None,
    precision: str = "auto",
    devices: Sequence[Any] | Mesh | None = None,
) -> Posterior:
    """Fit a variational approximation to a log density, and check it.

    Arguments:
        logprob: `logprob(values)`, or `logprob(values, data)` when `data` is given: an unnormalised log density, a
            scalar, in any code that JAX can trace. Or a model by `bbvi.from_numpyro`, `bbvi.from_pymc` or
            `bbvi.from_stan`, which has its own `dim`, `constraints` and `data`.
        dim: an int n, for one vector `(n,)`; or a pytree of shapes or example arrays, which `logprob` then receives.
            In it a tuple of ints is a shape; lists, dicts and other tuples are structure.
        data: a pytree of arrays. Data given here, rather than closed over, can change without recompiling. For a
            `Factorized` log density also memory-mapped arrays (`np.memmap`), or a `Stream`, which are read piece by
            piece and never held in memory.
        constraints: numpyro constraints in the structure of `dim`. `logprob` receives constrained values, and the
            log-Jacobian is added to it. Parameters left out are unconstrained.
        method: "auto", "newton", "advi", "adam", "laplace", "pathfinder", "dadvi", "natural_gradient", "ivon", "bam",
            "gsm", or an Algorithm. "auto" tries cheap approximations first and climbs to richer ones while the verdict
            asks for more (see `bbvi/ladder.py`); with a family or options of its own, it is one method that fits them.
        family: "mean_field", "full_rank", "low_rank", "student_t", "sinh_arcsinh", "mixture", "flow", "spline_flow", a
            Distribution class, or an object of one, which gives its structure (such as the rank of a LowRank); `init`
            says where to start. Each method has its own default.
        estimator: of "advi": "sticking_the_landing" (the default), "elbo", "score_function", or an Estimator.
        optimizer: of "advi": any optax transformation; by default step sizes are found automatically.
        init: where to start: a point in the structure of `dim` on the constrained scale, a Distribution over
            unconstrained vectors, or a Posterior. By default quasi-Newton paths from several points find it.
        seed: of all random numbers. On one device the same call gives the same result.
        num_steps: steps at most of each method tried, 20 000 by default; each stops as soon as it has converged.
        num_draws: draws in each step, or the fixed draws of a method that has some.
        batch_size: rows of `data` used in each step, for "advi" and "ivon"; each row once in an epoch. Needs a
            `Factorized` log density.
        budget: seconds, or a `Budget`. Without one, and without a checkpoint, "auto" begins nothing new after a minute.
        callbacks: called between compiled blocks of steps with a `Progress`; a true return value stops the fit.
        progress: True or False; by default a bar appears in terminals and notebooks when a fit takes over a second.
        checkpoint: path of a file that keeps the state; the same call goes on where an interrupted one was, and ends
            with the same numbers as one that was not interrupted, unless a budget in seconds decides.
        precision: "double", "single", or "auto": double on a CPU, single elsewhere. JAX's global flag is not touched.
        devices: None for JAX's default device; a sequence of devices, over which the rows of `data` are split if they
            are large and their number divides by that of the devices, else the draws; or a `jax.sharding.Mesh` whose
            axes are called "data" and "draw". The result is that of one device up to rounding. Devices may belong to
            several processes (`jax.distributed`), which all make the same call.

    Returns:
        A Posterior. Ctrl-C while steps are taken returns the one reached so far.

    Raises:
        TypeError, ValueError: naming the argument, what is wrong with it and the remedy; FloatingPointError when the
            log density is not finite at any starting point.

    Example:
        >>> posterior = bbvi.fit(lambda x: -0.5 * jnp.sum(x**2), 3)
        >>> posterior.diagnosis.status
        <Status.RELIABLE: ...>
    """
    began, compiled = time.perf_counter(), timing.compile_seconds()
    model = read_model(logprob, dim, constraints, data)
    seed, callbacks = read_seed(seed), read_callbacks(callbacks)
    if isinstance(model, NumPyroModel) and model.maximised:
        with scope(use_double(precision)):
            model = with_best_params(model, seed)
    parameters = make_parameters(model.dim, model.constraints)
    given = {
        "method": method,
        "family": family,
        "estimator": estimator,
        "optimizer": optimizer,
        "seed": seed,
        "num_steps": num_steps,
        "num_draws": num_draws,
        "batch_size": batch_size,
        "budget": budget,
        "callbacks": callbacks,
        "progress": progress,
        "precision": precision,
        "devices": devices,
    }

    def refit(new: Any, **changes: Any) -> Posterior:
        return fit(new if isinstance(new, Model) else replace(model, data=new), **(given | changes))

    options = (family, estimator, optimizer, num_draws, batch_size)
    climbs = (
        isinstance(method, str) and method == "auto" and all(given is None for given in (*options, model.batch_size))
    )
    takes_rows = isinstance(method, str) and method in ("auto", "advi", "ivon")
    batch_size = model.batch_size if batch_size is None and takes_rows else batch_size
    algorithm = read_algorithm(
        method,
        family,
        parameters.dim,
        estimator=estimator,
        optimizer=optimizer,
        num_draws=num_draws,
        batch_size=batch_size,
    )
    if batch_size is not None:
        check_rows(batch_size, model.logprob, model.data)
    limit = budget if isinstance(budget, Budget) else Budget(seconds=budget)
    if limit.gradients is not None and not algorithm.uses_gradients:
        raise ValueError("budget: the estimator uses no gradients to count. Give seconds, or num_steps.")
    if not isinstance(progress, bool | None):
        raise TypeError(f"progress={progress!r} must be True, False or None.")
    max_steps = MAX_STEPS if num_steps is None else positive("num_steps", num_steps)

    with scope(double := use_double(precision)):
        data = read_rows(model.data, model.logprob)
        layout = make_layout(devices, data)
    if layout.mesh is not None and not rows_of(data).is_in_memory:
        raise ValueError("devices: rows in files or streams are read by one device. Give arrays, or leave devices out.")
    kept = None if checkpoint is None else Checkpoint(checkpoint, layout.leads)
    with scope(double), plain_errors(data):
        problem = Problem(parameters, data, model.logprob, layout=layout)
        prototype = read_family(family, init, parameters.dim, algorithm)
        if kept:
            begins = init.distribution if isinstance(init, Posterior) else init
            kept.claim(fingerprint(algorithm, prototype, parameters, problem.data, begins, seed, double))
        width = trace(problem)
        twice = algorithm.derivatives(prototype) == 2  # a gradient that is missing is missed when the start needs it
        if twice and (reason := problem.why_not_differentiable(2)):
            if first := problem.why_not_differentiable(1):
                raise no_gradient(first) from first
            if not climbs:
                raise no_derivative(f"method={algorithm.name!r}", reason)
            algorithm = read_algorithm("advi", None, parameters.dim)
            prototype = read_family(None, init, parameters.dim, algorithm)
        data = layout.place(data, split=True)
        problem = replace(problem, parameters=layout.place(parameters), data=data)
        clock = _Clock(began, limit.seconds, problem.is_irregular, one_process=layout.mesh is None)
        attempts: list[Attempt] = []
        with showing(progress) as bar, clock.for_steps():
            watch = Watch(clock.until, bar)
            start = with_clean_caches(lambda: _find_start(problem, algorithm, init, seed, model, watch))
            parameters = parameters.centred(start.loc)
            start = start._replace(path_locs=parameters.nearest_turn(start.path_locs))
            problem = replace(problem, parameters=layout.place(parameters))
            if kept:
                kept.compare(start.around(WITNESSES), partial(log_densities, problem))
            if algorithm.rows_per_step is not None and algorithm.uses_gradients:
                problem = with_reference(problem, start.loc)
            begins = family is None and isinstance(init, type(prototype))  # init is what to begin with
            plan: Plan | None = Plan(algorithm, prototype, None if begins else start[:2])
            while plan is not None:
                patience = SECONDS if kept is None else np.inf  # the clock starts anew with each call
                left = layout.agree(*_left(limit, start, attempts, time.perf_counter() - began, patience))
                if attempts and min(left) <= 0:
                    break
                run = [*callbacks, *bar], kept, width, clock
                try:
                    attempts.append(_attempt(problem, start, plan, seed, max_steps, left, *run))
                    plan = next_plan(problem, start, attempts) if climbs else None
                except OutOfTimeError as error:
                    if not attempts:
                        raise TimeoutError(
                            f"budget: {algorithm.name} had no first result in time. Raise it, or give init= a point."
                        ) from error
                    break
        defaults = inspect.signature(fit).parameters
        changed = {name: value for name, value in given.items() if value is not defaults[name].default}
        origin = Provenance.of(model, {"init": init, **changed})
        best = min(attempts, key=lambda attempt: attempt.rank)
        width = width if best.problem is problem else trace(best.problem)
    diagnosis = _with_what_was_left(best, attempts, plan)
    diagnosis = replace(diagnosis, reasons=(*diagnosis.reasons, *model.notes))
    history = History(*map(np.concatenate, zip(*(attempt.history for attempt in attempts), strict=True)))
    cost = Cost(
        log_densities=start.log_densities + sum(attempt.log_densities for attempt in attempts),
        gradients=start.gradients + sum(attempt.gradients for attempt in attempts),
        hessian_vector_products=sum(attempt.hessian_vector_products for attempt in attempts),
        compile_seconds=timing.compile_seconds() - compiled,
        run_seconds=time.perf_counter() - began - (timing.compile_seconds() - compiled),
    )
    return Posterior(
        copy(best.q),
        diagnosis,
        history,
        cost,
        best.plan.algorithm.name,
        parameters,
        {**observed(model.data), **model.observed},
        best.pool.thinned(),
        double,
        best.problem,
        width,
        tuple(map(Rung.of, attempts)),
        model,
        refit,
        origin,
    )


@dataclass(frozen=True)
class _Clock:
    """When to stop waiting. Steps end on time by themselves; `GRACE` is for a program that does not come back."""

    began: float  # by time.perf_counter()
    seconds: float | None  # of the budget
    irregular: bool  # whether a point of the log density may take for ever
    one_process: bool  # several have to run the same programs

    @property
    def until(self) -> float:
        """When the budget is spent."""
        return np.inf if self.seconds is None else self.began + self.seconds

    def for_steps(self) -> AbstractContextManager[None]:
        """The wait for the start and for steps."""
        watched = self.one_process and (self.seconds is not None or self.irregular)
        return deadline(self.until + GRACE if watched else None, ONE_CALL if self.irregular else np.inf)

    def for_check(self) -> AbstractContextManager[None]:
        """The wait for a verdict, which has to come of what is known by then."""
        if not self.one_process:
            return deadline(None)
        if self.seconds is not None:
            return deadline(max(self.until + GRACE, time.perf_counter()) + CHECKS)
        return deadline(time.perf_counter() + VERDICT if self.irregular else None)


def _with_what_was_left(best: Attempt, attempts: Sequence[Attempt], pending: Plan | None) -> Diagnosis:
    """The verdict on the best attempt, with a word on what there was no time or budget for."""
    last = attempts[-1]
    if pending is not None:
        left = f"{pending.algorithm.name} ({pending.q.name}) was not tried"
    elif last is not best and last.diagnosis.stop is Stop.BUDGET:
        left = f"{last.plan.algorithm.name} ({last.q.name}) was not finished"
    else:
        return best.diagnosis
    reason = f"{left}: the budget was spent, which is {SECONDS:.0f} seconds unless one is given"
    verdict = best.diagnosis
    return replace(verdict, reasons=(*verdict.reasons, reason), advice=(*verdict.advice, MORE_TIME))


def _find_start(problem: Problem, algorithm: Algorithm, init: Any, seed: int, model: Model, watch: Watch) -> Start:
    def prior(num: int) -> np.ndarray | None:
        drawn = model.prior(seed, num)
        return None if drawn is None else problem.parameters.unstructure(drawn)

    if isinstance(init, Posterior):
        init = init.distribution
    if not isinstance(init, Distribution):
        point = read_init(init, problem.parameters)
        by_sample = is_sampled(problem) or not rows_of(problem.data).is_in_memory
        find = find_tall_start if by_sample else find_start
        return find(problem, np.random.default_rng((seed, START)), point, algorithm.begins, prior, watch)
    if init.dim != problem.dim:
        raise ValueError(f"init has dim {init.dim}, but the parameters have {problem.dim} free coordinates.")
    dtype = jax.dtypes.canonicalize_dtype(float)
    loc, scale, _ = init.standardise()
    return start_at(np.asarray(loc, dtype), np.asarray(scale, dtype))


def _left(
    limit: Budget, start: Start, attempts: Sequence[Attempt], elapsed: float, patience: float
) -> tuple[float, float]:
    """Gradients and seconds that the next rung may take; without a limit, further ones have `patience` seconds."""
    gradients, seconds = np.inf, np.inf
    if limit.gradients is not None:
        spent = sum(attempt.gradients + 2 * attempt.hessian_vector_products for attempt in attempts)
        gradients = limit.gradients - start.gradients - spent
    if limit.seconds is not None:
        seconds = limit.seconds - elapsed
    elif attempts and limit.gradients is None:
        seconds = patience - elapsed
    return gradients, seconds


def _attempt(
    problem: Problem,
    start: Start,
    plan: Plan,
    seed: int,
    num_steps: int,
    left: Sequence[float],
    callbacks: Sequence[Callback],
    kept: Checkpoint | None,
    width: int,
    clock: _Clock,
) -> Attempt:
    """Run one algorithm to its end, and check what it found."""
    algorithm = plan.algorithm
    draws = algorithm.draws(np.random.default_rng((seed, FIXED)), problem.dim)
    state = begin(algorithm, problem, plan.q, plan.near, draws)
    state, history = (kept.restore(state) if kept else None) or (state, None)
    if kept:
        kept.check_alike(problem.layout)
    gradients, seconds = left
    run = drive(
        algorithm,
        problem,
        state,
        seed,
        num_steps=num_steps,
        gradients=None if gradients == np.inf else max(0, int(gradients)),
        history=history,
        callbacks=callbacks,
        seconds=None if seconds == np.inf else seconds,
        save=kept.save if kept and problem.layout.leads else None,
    )
    if kept and problem.layout.leads:
        kept.write(run)
    with clock.for_check():
        result = algorithm.finish(problem, run.state)
    run = run._replace(state=None)  # whose memory the check may need
    if run.stop is Stop.CONVERGED and not result.converged:
        run = run._replace(stop=Stop.STALLED)
    with clock.for_check():
        checks = [_check(problem, q, start, run, result, seed, width) for q in result.candidates]
    chosen = min(range(len(checks)), key=lambda i: checks[i][2].rank)
    judged, pool, diagnosis = checks[chosen]
    history = run.history
    return Attempt(
        plan,
        result.candidates[chosen],
        judged,
        pool,
        diagnosis,
        history,
        log_densities=int(history.log_densities.sum()) + sum(len(pool) for _, pool, _ in checks),
        gradients=int(history.gradients.sum()) + result.gradients,
        hessian_vector_products=int(history.hessian_vector_products.sum()) + result.hessian_vector_products,
    )


def _check(
    problem: Problem, q: Distribution, start: Start, run: Run, result: Result, seed: int, width: int
) -> tuple[Problem, Draws, Diagnosis]:
    judged, limits = for_verdict(problem, q)
    pool = draw(judged, q, (seed, CHECK), 1, width if judged is problem else trace(judged))
    evidence = Evidence(
        problem=judged,
        q=q,
        start=start,
        draws=pool,
        stop=run.stop,
        elbo=run.history.elbo,
        limits=limits,
        remarks=result.findings,
    )
    return judged, pool, diagnose(evidence)
