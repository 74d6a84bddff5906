"""From what the user gave to a checked posterior."""

import hashlib
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bbvi import timing
from bbvi.algorithms import Algorithm
from bbvi.algorithms.base import Result
from bbvi.algorithms.start import Start, find_start, start_at
from bbvi.arguments import check_rows, observed, positive, read_algorithm, read_data, read_family, read_init
from bbvi.checkpoint import Checkpoint
from bbvi.diagnostics.concerns import find_concerns
from bbvi.diagnostics.verdict import Diagnosis, diagnose
from bbvi.distributions import Distribution
from bbvi.driver import Callback, Run, Stop, drive
from bbvi.estimators import Estimator
from bbvi.evaluation import Draws, draw
from bbvi.parameters import make_parameters
from bbvi.posterior import Cost, Posterior, copy
from bbvi.precision import scope, use_double
from bbvi.problem import Problem, trace
from bbvi.progress import showing

MAX_STEPS = 20_000
START, CHECK, FIXED = 0, 2, 5  # streams of random numbers


@dataclass(frozen=True)
class Budget:
    """A limit on what a fit may take; the best result so far comes back.

    Arguments:
        seconds: of wall time, compiling included.
        gradients: evaluations of the log density with its gradient; a Hessian-vector product counts as two. Looked at
            before each step, which is taken while the last one could be taken again: the start, one step, and what a
            method does at the end are not cut short.
    """

    seconds: float | None = None
    gradients: int | None = None

    def __post_init__(self) -> None:
        for name in ("seconds", "gradients"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int | float | np.number) or not value > 0):
                raise ValueError(f"budget: {name}={value!r} must be a positive number.")


def fit(
    logprob: Callable[..., Any],
    dim: Any,
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
) -> Posterior:
    """Fit a variational approximation to a log density, and check it.

    Arguments:
        logprob: `logprob(values)`, or `logprob(values, data)` when `data` is given: an unnormalised log density, a
            scalar, in any code that JAX can trace.
        dim: an int n, for one vector `(n,)`; or a pytree of shapes or example arrays, which `logprob` then receives.
            In it a tuple of ints is a shape; lists, dicts and other tuples are structure.
        data: a pytree of arrays. Data given here, rather than closed over, can change without recompiling.
        constraints: numpyro constraints in the structure of `dim`. `logprob` receives constrained values, and the
            log-Jacobian is added to it. Parameters left out are unconstrained.
        method: "auto", "advi", "laplace", "pathfinder", "dadvi", "newton", "natural_gradient", "ivon", "bam", "gsm", or
            an Algorithm. "auto" is "advi" with the family "full_rank" up to 100 coordinates and "mean_field" above.
        family: "mean_field", "full_rank", "low_rank", a Distribution class, or an object of one, which gives its
            structure (such as the rank of a LowRank); `init` says where to start. Each method has its own default.
        estimator: of "advi": "sticking_the_landing" (the default), "elbo", "score_function", or an Estimator.
        optimizer: of "advi": any optax transformation; by default step sizes are found automatically.
        init: where to start: a point in the structure of `dim` on the constrained scale, a Distribution over
            unconstrained vectors, or a Posterior. By default quasi-Newton paths from several points find it.
        seed: of all random numbers. On one device the same call gives the same result.
        num_steps: steps at most, 20 000 by default; a fit stops as soon as it has converged.
        num_draws: draws in each step, or the fixed draws of a method that has some.
        batch_size: rows of `data` used in each step. Needs a `Factorized` log density.
        budget: seconds, or a `Budget`.
        callbacks: called between compiled blocks of steps with a `Progress`; a true return value stops the fit.
        progress: True or False; by default a bar appears in terminals and notebooks when a fit takes over a second.
        checkpoint: path of a file that keeps the state; the same call goes on where an interrupted one was.
        precision: "double", "single", or "auto": double on a CPU, single elsewhere. JAX's global flag is not touched.

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
    if not callable(logprob):
        raise TypeError(f"logprob={logprob!r} must be a function of the parameters that returns a scalar log density.")
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
        raise ValueError(f"seed={seed!r} must be a non-negative integer.")
    parameters = make_parameters(dim, constraints)
    algorithm = read_algorithm(
        method, estimator=estimator, optimizer=optimizer, num_draws=num_draws, batch_size=batch_size
    )
    if batch_size is not None:
        check_rows(batch_size, logprob, data)
    limit = budget if isinstance(budget, Budget) else Budget(seconds=budget)
    if limit.gradients is not None and not algorithm.uses_gradients:
        raise ValueError("budget: the estimator uses no gradients to count. Give seconds, or num_steps.")
    callbacks = tuple(callbacks)
    if not all(map(callable, callbacks)):
        raise TypeError(f"callbacks={callbacks!r} must be functions of a Progress.")
    max_steps = MAX_STEPS if num_steps is None else positive("num_steps", num_steps)

    with scope(double := use_double(precision)):
        problem = Problem(parameters, read_data(data), logprob)
        prototype = read_family(family, init, parameters.dim, algorithm)
        width = trace(problem)
        problem = jax.device_put(problem)
        start = _find_start(problem, algorithm, init, seed)
        draws = algorithm.draws(np.random.default_rng((seed, FIXED)), parameters.dim)
        state = _begin(algorithm, problem, prototype, start.loc, start.scale, draws)
        kept = None if checkpoint is None else Checkpoint(checkpoint, _fingerprint(algorithm, problem, state, seed))
        state, history = (kept.restore(state) if kept else None) or (state, None)

        with showing(progress) as bar:
            run = drive(
                algorithm,
                problem,
                state,
                seed,
                num_steps=max_steps,
                gradients=None if limit.gradients is None else max(0, int(limit.gradients) - start.gradients),
                history=history,
                callbacks=[*callbacks, *bar],
                seconds=None if limit.seconds is None else limit.seconds - (time.perf_counter() - began),
                save=kept.save if kept else None,
            )
        if kept:
            kept.write(run)
        result = algorithm.finish(problem, run.state)
        if run.stop is Stop.CONVERGED and not result.converged:
            run = run._replace(stop=Stop.STALLED)
        checks = [_check(problem, q, start, run, result, seed, width) for q in result.candidates]
        chosen = min(range(len(checks)), key=lambda i: checks[i][1].rank)
    pool, diagnosis = checks[chosen]
    history = run.history
    cost = Cost(
        log_densities=start.log_densities + int(history.log_densities.sum()) + sum(len(pool) for pool, _ in checks),
        gradients=start.gradients + int(history.gradients.sum()) + result.gradients,
        hessian_vector_products=int(history.hessian_vector_products.sum()) + result.hessian_vector_products,
        compile_seconds=timing.compile_seconds() - compiled,
        run_seconds=time.perf_counter() - began - (timing.compile_seconds() - compiled),
    )
    return Posterior(
        copy(result.candidates[chosen]),
        diagnosis,
        history,
        cost,
        algorithm.name,
        parameters,
        observed(data),
        pool,
        double,
        problem,
        width,
    )


def _find_start(problem: Problem, algorithm: Algorithm, init: Any, seed: int) -> Start:
    if isinstance(init, Posterior):
        init = init.distribution
    if not isinstance(init, Distribution):
        point = read_init(init, problem.parameters)
        return find_start(problem, np.random.default_rng((seed, START)), point, algorithm.begins)
    if init.dim != problem.dim:
        raise ValueError(f"init has dim {init.dim}, but the parameters have {problem.dim} free coordinates.")
    dtype = jax.dtypes.canonicalize_dtype(float)
    loc, scale, _ = init.standardise()
    return start_at(np.asarray(loc, dtype), np.asarray(scale, dtype))


@partial(jax.jit, static_argnames="algorithm")
def _begin(algorithm: Algorithm, problem: Problem, prototype: Distribution, loc: Any, scale: Any, draws: Any) -> Any:
    return algorithm.init(problem, prototype.near(loc, scale), draws)


def _check(
    problem: Problem, q: Distribution, start: Start, run: Run, result: Result, seed: int, width: int
) -> tuple[Draws, Diagnosis]:
    pool = draw(problem, q, (seed, CHECK), 1, width)
    found = find_concerns(problem, q, start, pool, run.history.elbo)
    return pool, diagnose(pool, run.stop, [*found, *result.concerns])


def _fingerprint(algorithm: Algorithm, problem: Problem, state: Any, seed: int) -> str:
    """What must agree for a checkpoint to be gone on with; the code of the log density is the user's to keep."""
    digest = hashlib.sha256()
    shapes = [(leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(state)]
    digest.update(repr((algorithm, problem.parameters.names, problem.parameters.shapes, shapes, seed)).encode())
    for leaf in jax.tree.leaves((problem.parameters, problem.data)):
        digest.update(np.ascontiguousarray(leaf).data)
    return digest.hexdigest()
