"""Whether a mode is a spike that holds little of the posterior, and Newton steps from there to the bulk."""

from typing import NamedTuple

import jax
import numpy as np

from bbvi.algorithms.numerics.draws import antithetic
from bbvi.algorithms.numerics.paths import missing_entropy
from bbvi.algorithms.variational_newton import NewtonState, VariationalNewton
from bbvi.distributions import LocationScale
from bbvi.distributions.affine import Affine
from bbvi.distributions.scales import Triangular
from bbvi.optimise import Allowance, Run, begin, drive
from bbvi.outcome import Evaluations, Stop
from bbvi.runtime.compiling import program
from bbvi.runtime.deadline import OutOfTimeError
from bbvi.runtime.types import Array
from bbvi.start.paths import Ends, patience
from bbvi.target.problem import Problem

POLISH, PACE = 40, 4  # Newton steps at most, and between looks at what they gained
HOPE = 4  # times what the last of them gained may be missing
NARROWED = 0.01  # of the scale at the end of a path, which may have come there by large steps
LOOKS = 8  # draws that tell a mode from a spike
SPIKE, SPIKE_PER_DIM = 3.0, 0.1  # nats by which the ELBO at a spike falls short of Laplace's estimate, at least


def is_spike(problem: Problem, ends: Ends, rng: np.random.Generator) -> bool:
    """Whether draws around the best mode have far less density than its curvature promises, as far as time tells."""
    at_once = 2 if problem.is_long else LOOKS
    sets = (antithetic(rng, at_once, problem.dim) for _ in range(LOOKS // at_once))
    try:
        with patience(problem):
            elbo = np.mean([look_around(problem, ends.gaussians[0], noise)[1] for noise in sets])
    except OutOfTimeError:
        return False
    return not elbo > ends.elbo[0] - SPIKE - SPIKE_PER_DIM * problem.dim


@program
def look_around(problem: Problem, gaussian: Affine, noise: Array) -> tuple[Array, Array]:
    """Log densities `(n,)` at draws of a Gaussian by `noise` `(n, dim)`, in units of its volume, and its ELBO.

    A draw without density makes either -inf.
    """
    values = problem.in_coordinates(gaussian).log_densities(noise)
    return problem.layout.replicate((values, values.mean() + missing_entropy(noise, problem.dim)))


class Polished(NamedTuple):
    """A Gaussian after Newton steps."""

    gaussian: Affine  # with a triangular scale
    elbo: float  # in nats, on the draws
    evaluations: Evaluations


def polish(
    problem: Problem, gaussian: Affine, rng: np.random.Generator, aim: float = -np.inf, within: float = np.inf
) -> Polished:
    """The best Gaussian that Newton steps find from this one, on draws made by `rng`.

    Arguments:
        aim: an ELBO in nats. Steps end where they gain so little that they will not come there,
        within: or where they are still further away, in nats, after they have seen the curvature.
    """
    newton, dim = VariationalNewton(), problem.dim
    loc = np.zeros_like(gaussian.loc)
    structure = LocationScale(loc, Triangular(np.zeros((dim, dim), loc.dtype)))
    state = begin(newton, problem, structure, gaussian, newton.needs(dim).draws(rng))
    run, before = Run(state), -np.inf
    for steps in range(PACE, POLISH + 1, PACE):
        run = drive(newton, problem, run, Allowance(steps))
        if run.stop is Stop.INTERRUPTED:
            raise KeyboardInterrupt
        elbo = float(run.state.seen.elbo)
        if run.stop is not Stop.STEPS or aim - elbo > min(within, HOPE * (elbo - before)):
            break
        before = elbo
    end: NewtonState = run.state
    return Polished(jax.device_get(end.gaussian), float(end.seen.elbo), run.evaluations)


def narrowed(spike: Affine) -> Affine:
    """A narrower Gaussian there, from which Newton steps see the curvature of the spike alone."""
    return Affine(np.asarray(spike.loc), Triangular.of(NARROWED * np.asarray(spike.scale.matrix())))
