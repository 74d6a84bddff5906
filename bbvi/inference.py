"""From what the user gave to a checked posterior."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from bbvi.algorithms import Algorithm
from bbvi.callbacks.checkpoint import Checkpoint, fingerprint
from bbvi.callbacks.progress import showing
from bbvi.data.out_of_core import plain_errors, rows_of
from bbvi.data.reading import observed
from bbvi.distributions import Distribution, Family
from bbvi.distributions.affine import Affine
from bbvi.draws.importance import log_densities
from bbvi.estimators import Estimator
from bbvi.fitting.arguments import read_model
from bbvi.fitting.budget import PATIENCE, Budget, Clock, Stopwatch
from bbvi.fitting.stage import Stage, StageResult, summarise
from bbvi.fitting.stages import Fitting, with_what_was_left
from bbvi.fitting.task import Task
from bbvi.models import Model
from bbvi.models.provenance import Provenance
from bbvi.optimise import Callback
from bbvi.outcome import Cost, History
from bbvi.posterior import Posterior
from bbvi.record import copy
from bbvi.runtime.constants import with_clean_caches
from bbvi.runtime.precision import scope, use_double
from bbvi.start.find import find_start
from bbvi.start.maximise import with_params_set
from bbvi.start.record import Hints, Start, start_at
from bbvi.start.subsample import find_start_by_sample, is_sampled, with_reference
from bbvi.target.problem import Problem
from bbvi.training import with_network_trained

WITNESSES = 4  # points at which the log density is compared with that of a checkpoint


def fit(
    logprob: Callable[..., Any] | Model,
    dim: Any = None,
    *,
    data: Any = None,
    constraints: Any = None,
    method: str | Algorithm[Any] = "auto",
    family: str | Family | type[Distribution] | Distribution | None = None,
    estimator: str | Estimator | None = None,
    optimizer: Any = None,
    init: Any = None,
    latents: Sequence[str] | None = None,
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
            "gsm", "nested_laplace", or an Algorithm. "auto" tries cheap approximations first and climbs to richer ones
            while the verdict asks for more (see `bbvi/fitting/schedule.py`); with a family or options, it is one method
            that fits them.
        family: "mean_field", "full_rank", "low_rank", "student_t", "sinh_arcsinh", "mixture", "flow", "spline_flow", a
            Distribution class, or an object of one, which gives its structure (such as the rank of a LowRank); `init`
            says where to start. Each method has its own default.
        estimator: of "advi": "sticking_the_landing" (the default), "elbo", "score_function", or an Estimator.
        optimizer: of "advi": any optax transformation; by default step sizes are found automatically.
        init: where to start: a point in the structure of `dim` on the constrained scale, a Distribution over
            unconstrained vectors, or a Posterior. By default quasi-Newton paths from several points find it.
        latents: names of the parameters that "nested_laplace" integrates out, such as random effects; by default they
            are found. Then "auto" tries it first.
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
    given = {name: value for name, value in locals().items() if name in (fit.__kwdefaults__ or {})}
    watch = Stopwatch()
    model = read_model(logprob, dim, given.pop("constraints"), given.pop("data"))
    with scope(use_double(precision)):
        model = with_network_trained(with_params_set(model, seed), given)
    task = Task.read(model, given)
    given["callbacks"] = task.callbacks  # an iterator is read once
    kept = None if checkpoint is None else Checkpoint(checkpoint, task.layout.is_primary)
    with scope(task.double), plain_errors(task.data):
        if kept:
            kept.claim(fingerprint(task.algorithm, task.structure, task.parameters, task.data, task.init, task.seed))
        problem = task.problem()
        task, problem = task.suited(problem), task.placed(problem)
        patience = PATIENCE if kept is None else np.inf  # the clock starts anew with each call
        clock = Clock(watch, task.budget, problem.is_irregular, task.layout.mesh is None, patience)
        with showing(task.progress) as bars, clock.for_steps():
            start = with_clean_caches(lambda: _start(task, problem, task.hints(problem, clock.until, bars)))
            problem, start = _centred(problem, start)
            if kept:
                kept.compare(start.around(WITNESSES), partial(log_densities, problem))
            needs = task.algorithm.needs(problem.dim)
            if needs.rows is not None and needs.derivatives:
                problem = with_reference(problem, start.gaussian.loc)
            fitting = Fitting(
                task=task,
                problem=problem,
                start=start,
                clock=clock,
                callbacks=[*task.callbacks, *bars],
                checkpoint=kept,
            )
            plain = Stage(task.algorithm, task.structure, None if task.begins_with_init else start.gaussian)
            results, pending = fitting.run_stages(plain)
        provenance = Provenance.of(model, _changed(given))
        refit = partial(_refit, model, given)
        best = with_what_was_left(results, pending, PATIENCE)
        return _posterior(task, start, results, best, watch, refit, provenance)


def _refit(model: Model, given: Mapping[str, Any], new: Any, **changes: Any) -> Posterior:
    """The same call of `fit` with new data, or for a model another one, and other arguments."""
    kept = {name: value for name, value in given.items() if name not in ("init", "checkpoint")}
    return fit(new if isinstance(new, Model) else replace(model, data=new), **(kept | changes))


def _changed(given: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that are not the defaults."""
    defaults = fit.__kwdefaults__ or {}
    return {name: value for name, value in given.items() if value is not defaults[name] and name != "checkpoint"}


def _start(task: Task, problem: Problem, hints: Hints) -> Start:
    if isinstance(task.init, Distribution):
        dtype = jax.dtypes.canonicalize_dtype(float)
        gaussian, _ = task.init.standardise()
        return start_at(jax.tree.map(lambda leaf: np.asarray(leaf, dtype), gaussian))
    by_sample = is_sampled(problem) or not rows_of(problem.data).is_in_memory
    find = find_start_by_sample if by_sample else find_start
    return find(problem, task.algorithm.needs(problem.dim).start, hints)


def _centred(problem: Problem, start: Start) -> tuple[Problem, Start]:
    """The problem with the windows of angles around the start, and the start's paths next to these."""
    parameters = problem.parameters.centred(np.asarray(start.gaussian.loc))
    near = lambda path: Affine(parameters.nearest_turn(np.asarray(path.loc)[None])[0], path.scale)
    placed = problem.layout.device_put(parameters)
    spike = None if start.spike is None else near(start.spike)
    return replace(problem, parameters=placed), start._replace(paths=tuple(map(near, start.paths)), spike=spike)


def _posterior(
    task: Task,
    start: Start,
    results: Sequence[StageResult],
    best: StageResult,
    watch: Stopwatch,
    refit: Callable[..., Posterior],
    provenance: Provenance,
) -> Posterior:
    diagnosis = replace(best.diagnosis, reasons=(*best.diagnosis.reasons, *task.model.notes))
    spent = sum((result.evaluations for result in results), start.evaluations)
    return Posterior(
        distribution=copy(best.q),
        diagnosis=diagnosis,
        history=History(*map(np.concatenate, zip(*(result.history for result in results), strict=True))),
        cost=Cost.of(spent, watch.elapsed, watch.compiling),
        method=best.stage.algorithm.name,
        parameters=task.parameters.centred(np.asarray(start.gaussian.loc)),
        observed_data={**observed(task.model.data), **task.model.observed},
        pool=best.draws.thinned(),
        double=task.double,
        problem=best.problem,
        ladder=tuple(map(summarise, results)),
        model=task.model,
        refit=refit,
        origin=provenance,
    )
