"""What was asked of `fit`, read once: whatever can be refused without compiling anything is refused here."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from bbvi.algorithms import Algorithm
from bbvi.data.out_of_core import rows_of
from bbvi.data.reading import check_rows, read_rows
from bbvi.distributions import Distribution
from bbvi.draws.random import RandomStream
from bbvi.fitting.arguments import (
    positive,
    read_algorithm,
    read_callbacks,
    read_family,
    read_init,
    read_latents,
    read_seed,
)
from bbvi.fitting.budget import Budget
from bbvi.models import Model
from bbvi.optimise import Callback
from bbvi.posterior import Posterior
from bbvi.runtime.precision import scope, use_double
from bbvi.runtime.sharding import Layout, make_layout
from bbvi.start.record import Hints
from bbvi.target.messages import no_derivative, no_gradient
from bbvi.target.parameters import Parameters
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters

DEFAULT_STEPS = 20_000  # of each method, unless another number is given
BY_ROWS = ("auto", "advi", "ivon")  # methods that a model's own minibatches go to


@dataclass(frozen=True, kw_only=True)
class Task:
    """What was asked.

    Fields:
        model: the log density with its data, and what else is known of it.
        parameters: names, shapes and constraints.
        data: in the types that are computed in.
        double: whether to compute in float64.
        layout: of arrays on devices.
        algorithm: the first one to run, and the only one unless the task is `automatic`.
        automatic: whether the diagnosis decides what is tried next.
        structure: a q of the family to fit.
        init: a point `(dim,)` to start from, a Distribution, or None.
        begins_with_init: whether `init` is itself what the algorithm begins with.
        latents: names of the parameters to integrate out, None to find them.
        seed, num_steps, budget, callbacks, progress: as in `fit`.
    """

    model: Model
    parameters: Parameters
    data: Any
    double: bool
    layout: Layout
    algorithm: Algorithm[Any]
    automatic: bool
    structure: Distribution
    init: np.ndarray | Distribution | None
    begins_with_init: bool
    latents: tuple[str, ...] | None
    seed: int
    num_steps: int
    budget: Budget
    callbacks: tuple[Callback, ...]
    progress: bool | None

    @classmethod
    def read(cls, model: Model, given: Mapping[str, Any]) -> "Task":
        """From the model and the further arguments of `fit`, by name.

        Raises:
            TypeError, ValueError: naming the argument, what is wrong with it and the remedy.
        """
        parameters = make_parameters(model.dim, model.constraints)
        method, family, budget = given["method"], given["family"], given["budget"]
        options = {name: given[name] for name in ("estimator", "optimizer", "num_draws")}
        named = method if isinstance(method, str) else None
        batch_size = given["batch_size"]
        if batch_size is None and named in BY_ROWS:
            batch_size = model.batch_size
        plain = all(value is None for value in (family, batch_size, *options.values()))
        algorithm = read_algorithm(method, family, parameters.dim, **options, batch_size=batch_size)
        latents = read_latents(given["latents"], parameters, named if plain else None)
        if batch_size is not None:
            check_rows(batch_size, model.logprob, model.data)
        budget = budget if isinstance(budget, Budget) else Budget(seconds=budget)
        needs = algorithm.needs(parameters.dim)
        if budget.gradients is not None and not needs.derivatives:
            raise ValueError("budget: the estimator uses no gradients to count. Give seconds, or num_steps.")
        if not isinstance(given["progress"], bool | None):
            raise TypeError(f"progress={given['progress']!r} must be True, False or None.")
        num_steps = DEFAULT_STEPS if given["num_steps"] is None else positive("num_steps", given["num_steps"])
        init = model.start if given["init"] is None else given["init"]
        init = init.distribution if isinstance(init, Posterior) else init
        with scope(double := use_double(given["precision"])):
            data = read_rows(model.data, model.logprob)
            layout = make_layout(given["devices"], data)
            if layout.mesh is not None and not rows_of(data).is_in_memory:
                raise ValueError(
                    "devices: rows in files or streams are read by one device. Give arrays, or leave devices out."
                )
            structure = read_family(family, init, parameters.dim, algorithm)
            init = _read_init(init, parameters)
        return cls(
            model=model,
            parameters=parameters,
            data=data,
            double=double,
            layout=layout,
            algorithm=algorithm,
            automatic=named == "auto" and plain,
            structure=structure,
            init=init,
            begins_with_init=family is None and _alike(init, structure),
            latents=latents,
            seed=read_seed(given["seed"]),
            num_steps=num_steps,
            budget=budget,
            callbacks=read_callbacks(given["callbacks"]),
            progress=given["progress"],
        )

    def problem(self) -> Problem:
        """The target: traced once, which shows what its log density returns, and placed on the devices."""
        problem = Problem(self.parameters, self.data, self.model.logprob, layout=self.layout)
        problem.check()
        return problem

    def placed(self, problem: Problem) -> Problem:
        """The problem with its arrays on the devices."""
        data = self.layout.device_put(problem.data, shard=True)
        return replace(problem, parameters=self.layout.device_put(problem.parameters), data=data)

    def suited(self, problem: Problem) -> "Task":
        """The task, with an algorithm for which JAX can differentiate the log density.

        Raises:
            TypeError: when the algorithm that was asked for needs derivatives that JAX cannot make.
        """
        dim = self.parameters.dim
        # A first derivative that is missing is missed when the start needs it.
        twice = self.algorithm.needs(dim, self.structure).derivatives == 2
        if not twice or not (reason := problem.why_not_differentiable(2)):
            return self
        if first := problem.why_not_differentiable(1):
            raise no_gradient(first) from first
        if not self.automatic:
            raise no_derivative(f"method={self.algorithm.name!r}", reason)
        algorithm = read_algorithm("advi", None, dim)
        return replace(self, algorithm=algorithm, structure=read_family(None, self.init, dim, algorithm))

    def hints(self, problem: Problem, until: float, callbacks: Any) -> Hints:
        """What is known before a start is sought."""

        def prior(num: int) -> np.ndarray | None:
            drawn = self.model.prior(self.seed, num)
            return None if drawn is None else problem.parameters.unstructure(drawn)

        why = lambda xs: self.model.why_not_finite(problem.parameters.structure(xs))
        point = self.init if isinstance(self.init, np.ndarray) else None
        rng = np.random.default_rng((self.seed, RandomStream.START))
        return Hints(point=point, prior=prior, why=why, rng=rng, until=until, callbacks=callbacks)


def _read_init(init: Any, parameters: Parameters) -> np.ndarray | Distribution | None:
    if not isinstance(init, Distribution):
        return read_init(init, parameters)
    if init.dim != parameters.dim:
        raise ValueError(f"init has dim {init.dim}, but the parameters have {parameters.dim} free coordinates.")
    return init


def _alike(init: Any, structure: Distribution) -> bool:
    """Whether init is a distribution of the same structure."""
    return isinstance(init, Distribution) and jax.tree.structure(init) == jax.tree.structure(structure)
