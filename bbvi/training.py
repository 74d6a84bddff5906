"""Training of a network that says where groups' own parameters are, together with what all groups share.

The shared parameters, the weights and a seed for the draws from the network's Gaussians are one vector x. Its q is a
mean-field Gaussian in the first and a point in the weights, and the seed is standard normal under the prior and under
q, where it stays. So a training is stochastic VI as any other: the noise of a step comes from outside, rows come in
minibatches from wherever they are, and a checkpoint keeps all.

The fit proper comes afterwards, with the network held: `bbvi.fit` of what `train` returns.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bbvi.algorithms import StochasticVI
from bbvi.algorithms.base import extract
from bbvi.algorithms.optimizer import Optimizer
from bbvi.algorithms.pages import StepInputs
from bbvi.callbacks.checkpoint import Checkpoint, fingerprint
from bbvi.callbacks.progress import showing
from bbvi.data.out_of_core import plain_errors
from bbvi.data.reading import check_rows, read_rows
from bbvi.distributions.partly_point import PartlyPoint
from bbvi.draws.importance import log_densities
from bbvi.fitting.arguments import positive, read_init, read_seed
from bbvi.models import Model
from bbvi.models.amortised import AmortisedModel, Trained
from bbvi.optimise import Allowance, Run, begin, drive
from bbvi.runtime.precision import scope, use_double
from bbvi.target.parameters import Parameters
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters

TRAINING_STEPS = 4000  # unless another number is given
TRAINING_DRAWS = 4  # of the shared parameters in each step, each with one of each group's own
STEP_LENGTH = 0.01  # of Adam, in standard deviations of shared parameters and in units of weights
GAP_GROUPS = 64  # behind the gap that a model notes, of so many draws of the shared parameters


def train(
    model: Model,
    *,
    batch_size: int | None = None,
    num_steps: int | None = None,
    optimizer: Any = None,
    init: Any = None,
    seed: int = 0,
    progress: bool | None = None,
    checkpoint: str | Path | None = None,
) -> AmortisedModel:
    """Train the network of a model by `from_groups(..., amortise=...)`, with the shared parameters.

    The evidence bound is maximised over a mean-field q of the shared parameters, the weights of the network, and the
    parameters that are to be maximised. `fit` does it with its own `batch_size`, `seed`, `init` and `checkpoint` where
    the network has not been trained before.

    Arguments:
        model: of `from_groups` with `amortise`. A training begins anew, whatever weights it has.
        batch_size: groups in each step; None for all.
        num_steps: 4000 by default.
        optimizer: any optax transformation, made to minimise; None for `optax.adam(0.01)`. Its steps are in standard
            deviations of the shared parameters and in units of the weights; it begins anew after each round of steps.
        init: a point in the structure of `dim`, on the constrained scale, where shared parameters begin; None for zero
            on the unconstrained scale.
        seed: of all random numbers.
        progress, checkpoint: as in `fit`.

    Returns:
        The model with the trained network in its field `weights`, and in `point` the values of maximised parameters.
        `model.notes`, and so the verdict of a fit, has the gap of `amortisation_gap`.

    Raises:
        TypeError, ValueError: naming the argument, what is wrong with it and the remedy; FloatingPointError, naming the
            groups without a finite density where the training begins.

    Example:
        >>> y = np.random.default_rng(0).standard_normal((50, 3)) + np.arange(50)[:, None] / 25
        >>> model = bbvi.from_groups(
        ...     log_prior=lambda p: -0.5 * p["mean"] ** 2,
        ...     log_local=lambda p, own: -0.5 * (own["a"] - p["mean"]) ** 2 - 0.5 * jnp.log(2 * jnp.pi),
        ...     log_likelihood=lambda p, own, rows: -0.5 * (rows - own["a"]) ** 2,
        ...     dim={"mean": ()},
        ...     local={"a": ()},
        ...     data=y.ravel(),
        ...     group=np.repeat(np.arange(50), 3),
        ...     amortise=bbvi.SetEncoder(hidden=(8,)),
        ... )
        >>> trained = bbvi.train(model, batch_size=10, num_steps=300)
        >>> trained.local({"mean": np.ones(4)}, data=np.zeros(3), group=["new"] * 3)["a"].shape
        (4, 1)
    """
    if not isinstance(model, AmortisedModel):
        raise TypeError("model has no network: make it by bbvi.from_groups(..., amortise=bbvi.SetEncoder()).")
    steps = TRAINING_STEPS if num_steps is None else positive("num_steps", num_steps)
    size = None if batch_size is None else positive("batch_size", batch_size)
    algorithm = StochasticVI(
        optimizer=Optimizer(optax.adam(STEP_LENGTH) if optimizer is None else optimizer),
        num_draws=TRAINING_DRAWS if len(model.maximised) < len(model.dim) else 1,
        batch_size=size,
        tolerance=0.0,
    )
    seed, kept = read_seed(seed), None if checkpoint is None else Checkpoint(checkpoint)
    if size is not None:
        check_rows(size, model.logprob, model.data)
    with scope(use_double("auto")), showing(progress) as bars:
        problem, q = _problem(model, init, seed)
        if kept:
            kept.claim(fingerprint(algorithm, problem.parameters, problem.data, q, seed))
        with plain_errors(problem.data):
            model.refuse_groups_without_bound(problem.parameters.constrain(q.loc)[0])
            if kept:
                kept.compare(np.asarray(q.loc)[None], partial(log_densities, problem))
            run = Run(begin(algorithm, problem, q, None, None))
            run = run if kept is None else kept.restore(run)
            inputs = StepInputs.of(algorithm.needs(problem.dim, q), problem, seed)
            save = None if kept is None else kept.save
            run = drive(algorithm, problem, run, Allowance(steps), inputs=inputs, callbacks=bars, save=save)
            if kept:
                kept.write(run)
            found = jax.device_get(extract(algorithm, run.state))
    return _trained(model, problem.parameters, found)


def _problem(model: AmortisedModel, init: Any, seed: int) -> tuple[Problem, PartlyPoint]:
    """The density of shared parameters, weights and noise, and where its approximation begins."""
    shared = make_parameters(model.dim, model.constraints)
    x = read_init(init, shared)
    values = shared.constrain(np.zeros(shared.dim) if x is None else x)[0]
    weights = model.first_weights(seed)
    constraints = model.constraints if isinstance(model.constraints, Mapping) else {}
    split = lambda named: {name: each for name, each in named.items() if name in model.maximised}
    rest = lambda named: {name: each for name, each in named.items() if name not in model.maximised}
    parameters = make_parameters(
        Trained((), rest(model.dim), (split(model.dim), weights)),
        Trained(None, rest(constraints), (split(constraints), None)),
    )
    begins = Trained(np.zeros(()), rest(values), (split(values), weights))
    leaves = [jnp.asarray(leaf, float) for leaf in jax.tree.leaves(begins)]
    loc = jnp.asarray(parameters.unconstrain(leaves)[0], float)
    randoms = 1 + (make_parameters(rest(model.dim), rest(constraints)).dim if rest(model.dim) else 0)
    bound = model.bound
    problem = Problem(parameters, read_rows(model.data, bound), bound)
    problem.check()
    return problem, PartlyPoint(loc, jnp.zeros(randoms, loc.dtype))


def _trained(model: AmortisedModel, parameters: Parameters, q: PartlyPoint) -> AmortisedModel:
    """The model with the network that q holds, the point where q is, and a note on the gap."""
    with scope(use_double("auto")):
        noise = np.random.default_rng(0).standard_normal((GAP_GROUPS, q.noise_dim))
        draws = jax.tree.map(np.asarray, jax.vmap(lambda e: parameters.constrain(q.push_one(e))[0])(jnp.asarray(noise)))
        mean = jax.tree.map(np.asarray, parameters.constrain(jnp.asarray(q.loc))[0])
    found = model.with_weights(mean.point[1], mean.point[0])
    gap = found.amortisation_gap(draws.random or GAP_GROUPS, GAP_GROUPS)
    return replace(found, start=mean.random, notes=(*model.notes, f"network: {gap}"))


def with_network_trained(model: Model, given: Mapping[str, Any]) -> Model:
    """The model, whose network is trained by the arguments of `fit` if it has one that has not been trained.

    Raises:
        ValueError: where nothing is left for a fit.
    """
    if not isinstance(model, AmortisedModel):
        return model
    if model.weights is None:
        init = given["init"] if isinstance(given["init"], Mapping) and not model.maximised else None
        checkpoint = None if given["checkpoint"] is None else Path(f"{given['checkpoint']}.network")
        names = ("batch_size", "seed", "progress")
        model = train(model, init=init, checkpoint=checkpoint, **{name: given[name] for name in names})
    if not model.dim:
        raise ValueError(
            "All shared parameters were to be maximised, so that there is nothing left to fit. Take bbvi.train(model): "
            "what it returns has point, local and encode."
        )
    return model
