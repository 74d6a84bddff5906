"""Whether a posterior is a hierarchy that nested Laplace is for, and where that begins."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from typing import NamedTuple

import jax
import numpy as np

from bbvi.data.out_of_core import rows_of
from bbvi.distributions.affine import Affine
from bbvi.distributions.hierarchical import Hierarchical
from bbvi.distributions.scales import Diagonal, Triangular
from bbvi.distributions.split import Split
from bbvi.nested.climb import climb
from bbvi.nested.lines import suit
from bbvi.nested.sampling import import_ahead, is_found
from bbvi.nested.together import is_found_together
from bbvi.outcome import NOTHING, Evaluations
from bbvi.runtime.deadline import OutOfTimeError
from bbvi.start.record import Start
from bbvi.structure import Structure, bending, find_structure, structure_of
from bbvi.structure.find import LARGEST_SINGLE_BLOCK
from bbvi.target.problem import Problem

FEW_HYPER = 8  # hyper-parameters, above which some of them may only have looked like it from a start far off
MOST_BESIDE = 20  # coordinates beside one long parameter
DENSE_OPERATIONS = 2**30  # that a dense Hessian of it may take, about
DEAR_OPERATIONS = 2**23  # in as many evaluations as coordinates, from which steps of Newton are dear
BENT = 0.2  # norm of the change of the curvature, from which a Gaussian of all coordinates is not worth these


class Hierarchy(NamedTuple):
    """A structure that was found."""

    q: Hierarchical  # a member with it, to begin with
    evaluations: Evaluations  # that it took to find


def find_hierarchy(
    problem: Problem, start: Start, latents: Sequence[str] | None = None, *, one_block: bool = True
) -> Hierarchy | None:
    """The structure of the log density; None where it has none that nested Laplace could use.

    Arguments:
        latents: names of the parameters to integrate out; None to find them.
        one_block: whether a single block is of use, where they are to be found.

    Raises:
        ValueError: where there are no parameters of these names.
    """
    if why_not(problem, start) is not None:
        return None
    found = _near(problem, start.gaussian, latents, one_block)
    if found is None:
        return None
    if not _is_to_climb(found.q.split):
        return _with_mode(problem, found)
    q, climbed = climb(problem, found.q)
    here = found._replace(q=q, evaluations=found.evaluations + climbed)
    if latents is not None or q.split.num_hyper <= FEW_HYPER:
        return here
    # Where the start was far off, coordinates may have counted as hyper-parameters that do not in the bulk.
    scale = Diagonal.of(q.split.join(q.hyper.scale.sd(), q.split.latent(start.gaussian.scale.sd())))
    again = _near(problem, Affine(np.asarray(q.mean()), scale), None, one_block)
    if again is None or np.array_equal(again.q.split.hyper, q.split.hyper):
        return here
    return again._replace(evaluations=here.evaluations + again.evaluations)


def _with_mode(problem: Problem, found: Hierarchy) -> Hierarchy:
    """The same, or at the origin: the start may be a spike from which no mode of the latent coordinates is found."""
    q = found.q
    try:
        is_well, looked = (is_found if suit(q.split) else is_found_together)(problem, q)
    except OutOfTimeError:
        return found
    origin = np.zeros(q.dim, q.centre.dtype)
    begin = q if is_well else jax.device_get(q.around(Affine(origin, Diagonal(origin))))
    return Hierarchy(begin, found.evaluations + looked)


def _is_to_climb(split: Split) -> bool:
    """Whether a climb is worth its time: hyper-parameters are dear, or many where latent coordinates are connected."""
    return split.is_large or (split.is_connected and split.num_hyper > FEW_HYPER)


def _near(problem: Problem, gaussian: Affine, latents: Sequence[str] | None, one_block: bool) -> Hierarchy | None:
    """The structure as it is seen near a Gaussian."""
    loc, sd = gaussian.loc, np.asarray(gaussian.scale.sd())
    if latents is None:
        found = find_structure(problem, loc, sd, one_block=one_block)
    else:
        found = structure_of(problem, latents, loc, sd)
    if found is None or not len(found.hyper):
        return None
    blank = _blank(found, problem.parameters.within(found.hyper))
    import_ahead()
    return Hierarchy(jax.device_get(blank.around(gaussian)), Evaluations(hessian_vector_products=found.products))


def one_long_parameter(problem: Problem) -> list[str] | None:
    """The name of the one long parameter beside few other coordinates, as of a Gaussian process; None without one.

    Its Hessian is dense, so it is None where that would cost too much.
    """
    parameters = problem.parameters
    sizes = {name: prod(shape) for name, shape in zip(parameters.names, parameters.free_shapes, strict=True)}
    name = max(sizes, key=lambda name: sizes[name])
    others = parameters.dim - sizes[name]
    fits = 0 < others <= MOST_BESIDE and MOST_BESIDE < sizes[name] <= LARGEST_SINGLE_BLOCK
    return [name] if fits and sizes[name] * problem.operations <= DENSE_OPERATIONS else None


def bent_parameter(problem: Problem, start: Start) -> tuple[list[str] | None, Evaluations]:
    """Such a parameter where another one bends it and a first stage without structure would be dear; the cost.

    Gaussian processes are bent by their amplitudes and lengths by 0.7 to 2 where Newton's steps are dear, regressions
    with so many rows by 0.1 at most.
    """
    named = one_long_parameter(problem)
    is_dear = problem.dim * problem.operations >= DEAR_OPERATIONS
    if named is None or not is_dear or why_not(problem, start) or problem.why_not_differentiable(3):
        return None, NOTHING
    others = np.flatnonzero(~problem.parameters.belong_to(named))
    norms, spent = bending(problem, start.gaussian, others)
    return named if (norms > BENT).any() else None, spent


def why_not(problem: Problem, start: Start) -> str | None:
    """What stands against looking for a structure; None where nothing does."""
    if start.sampled or problem.is_split or not rows_of(problem.data).is_in_memory:
        return "it needs all rows of the data, in memory"
    if problem.layout.mesh is not None:
        return "it runs on one device"
    if problem.is_irregular:
        return "the log density has a loop of unknown length"
    return None


def _blank(structure: Structure, held: tuple[bool, ...]) -> Hierarchical:
    """A member with this structure."""
    split, dtype = replace(structure.split(), held=held), jax.dtypes.canonicalize_dtype(float)
    hyper = Affine(np.zeros(split.num_hyper, dtype), Triangular(np.zeros((split.num_hyper,) * 2, dtype)))
    return Hierarchical.of_split(split, hyper)
