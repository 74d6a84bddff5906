"""The structure of a posterior: hyper-parameters, and blocks that are nearly independent given them."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import numpy as np

from bbvi.distributions.split import Split
from bbvi.runtime.spelling import nearest
from bbvi.runtime.types import Array, Sparse
from bbvi.structure.arrangement import arrange, filled_up
from bbvi.structure.compressed import CompressedHessian
from bbvi.structure.curvature_test import CurvatureTest
from bbvi.structure.dissection import Dissection, dissect
from bbvi.structure.names import in_ranges
from bbvi.structure.partition import MOST_HYPER, components, partition
from bbvi.structure.pattern import hessian_pattern
from bbvi.structure.soft_sums import distinct
from bbvi.target.problem import Problem

LARGEST_BLOCK = 64  # coordinates
LARGEST_SINGLE_BLOCK = 300  # coordinates, where there is no other block
SEARCHED_BLOCK = 20  # the same where the structure is not given: a dense block takes as many products as coordinates
LARGEST_COST = 3e8  # multiplications in a factorisation of blocks between separators, about


@dataclass(frozen=True, eq=False)
class Structure:
    """Coordinates of x that are hyper-parameters, and blocks of the others that do not touch each other.

    Blocks are independent given the hyper-parameters and, in a chain or a lattice, the separators.

    Fields:
        names: of all coordinates.
        pattern: of the Hessian, `(dim, dim)`, symmetric, with the whole diagonal.
        hyper: coordinates of the hyper-parameters in order, `(k,)`.
        separators: coordinates of the separators in order, `(s,)`; none where blocks are independent without them.
        blocks: coordinates of each block, `(G, b)`; blocks smaller than the largest are filled up with `dim`.
        sums: rows v of terms -(v.x)^2 / 2 that hold a sum near a value, `(r, dim)`; the pattern is without these.
        products: with a Hessian, that it took to find them.
    """

    names: tuple[str, ...]
    pattern: Sparse
    hyper: np.ndarray
    separators: np.ndarray
    blocks: np.ndarray
    sums: np.ndarray
    products: int = 0

    def split(self) -> Split:
        """What takes a vector apart, and finds the entries of Hessians in few products."""
        return arrange(self.pattern, self.hyper, self.separators, self.blocks, self.sums)

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return len(self.names)

    @property
    def latent(self) -> np.ndarray:
        """Coordinates of all blocks and separators, in order."""
        return np.sort(np.concatenate([self.separators, self.blocks[self.blocks < self.dim]]))

    @property
    def sizes(self) -> np.ndarray:
        """Number of coordinates of each block, `(G,)`."""
        return np.sum(self.blocks < self.dim, axis=1)

    def __str__(self) -> str:
        sizes = self.sizes
        hyper = _count(len(self.hyper), "hyper-parameter") + self._named(self.hyper)
        size = f"{sizes.max()}" if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
        between = f" between {_count(len(self.separators), 'separator')}" if len(self.separators) else ""
        held = f" with {_count(len(self.sums), 'sum')} held near a value" if len(self.sums) else ""
        return f"{hyper} and {_count(len(sizes), 'block')} of {size}{between}{self._named(self.latent)}{held}"

    def _named(self, coordinates: np.ndarray) -> str:
        return f" ({in_ranges([self.names[i] for i in coordinates])})" if len(coordinates) else ""


def find_structure(
    problem: Problem, x: Array, sd: Array, seconds: float = 1.0, *, one_block: bool = True
) -> Structure | None:
    """The structure of a posterior, read off its log density; None where there is none of use.

    Arguments:
        problem: whose log density it is.
        x: a point in the bulk, `(dim,)`.
        sd: about the standard deviations there, `(dim,)`.
        seconds: of processor time that the pattern of its Hessian may take.
        one_block: whether a single block is of use, as where all coordinates depend on one another.
    """
    wide: list[np.ndarray] = []
    found = _found(problem, _pattern(problem, seconds, wide), x, sd, one_block, wide)
    return found if found or not wide else _found(problem, _pattern(problem, seconds), x, sd, one_block)


def _found(
    problem: Problem, pattern: Sparse | None, x: Array, sd: Array, one_block: bool, wide: Sequence[np.ndarray] = ()
) -> Structure | None:
    """The structure, given the pattern of the Hessian but for the sums of coordinates in `wide`."""
    if pattern is None:
        return None
    hyper, blocks = partition(pattern, [])
    parts = _parts(pattern, hyper, blocks)
    if parts is None or not _is_searched(parts, one_block):
        return None
    if problem.why_not_differentiable(3) is not None:
        return None
    x, sd = np.asarray(x), np.asarray(sd)
    hessian = _compressed(problem, pattern, x, sd, wide)
    scales = None if hessian is None else CurvatureTest()(hessian, x, sd)
    if hessian is None or scales is None:
        return None
    after, rest = partition(pattern, scales)
    if not np.array_equal(after, hyper):
        parts = _parts(pattern, after, rest)
    if parts is None or not _is_searched(parts, one_block):
        return None
    return _structure(problem, hessian, after, parts)


def structure_of(
    problem: Problem, latents: Sequence[str], x: Array, sd: Array, seconds: float = 10.0
) -> Structure | None:
    """The structure in which the named parameters are latent and all others hyper-parameters.

    Arguments:
        problem: whose log density it is.
        latents: names of parameters.
        x: a point in the bulk, `(dim,)`.
        sd: about the standard deviations there, `(dim,)`.
        seconds: of processor time that the pattern of its Hessian may take.

    Returns:
        None where the pattern is not found in time, or the latent parameters do not fall into small blocks.

    Raises:
        ValueError: for a name that no parameter has, or where no parameter is named.
    """
    parameters = problem.parameters
    for name in latents:
        if name not in parameters.names:
            raise ValueError(f"latents holds {name!r}, which is no parameter. {nearest(name, parameters.names)}")
    is_latent = parameters.belong_to(latents)
    if not is_latent.any():
        raise ValueError(f"latents names no parameter with coordinates. Known: {', '.join(parameters.names)}.")
    if problem.why_not_differentiable(3) is not None:
        return None
    wide: list[np.ndarray] = []
    found = _given(problem, _pattern(problem, seconds, wide), is_latent, x, sd, wide)
    return found if found or not wide else _given(problem, _pattern(problem, seconds), is_latent, x, sd)


def _given(
    problem: Problem,
    pattern: Sparse | None,
    is_latent: np.ndarray,
    x: Array,
    sd: Array,
    wide: Sequence[np.ndarray] = (),
) -> Structure | None:
    """The structure in which these coordinates are latent, given the pattern of the Hessian but for sums."""
    if pattern is None:
        return None
    hyper, blocks = np.flatnonzero(~is_latent), components(pattern, np.flatnonzero(is_latent))
    x, sd = np.asarray(x), np.asarray(sd)
    hessian = _compressed(problem, pattern, x, sd, wide)
    near = x + 0.1 * sd * np.random.default_rng(0).standard_normal((1, len(x)))
    if hessian is None or not hessian.is_right(hessian(near)):
        return None
    return _structure(problem, hessian, hyper, _parts(hessian.pattern, hyper, blocks))


def _compressed(
    problem: Problem, pattern: Sparse, x: np.ndarray, sd: np.ndarray, wide: Sequence[np.ndarray]
) -> CompressedHessian | None:
    sets = distinct(wide)
    return None if sets is None else CompressedHessian.of(problem, pattern, x, sd, sets)


def _pattern(problem: Problem, seconds: float, wide: list[np.ndarray] | None = None) -> Sparse | None:
    point = jax.ShapeDtypeStruct((problem.dim,), jax.dtypes.canonicalize_dtype(float))
    try:
        return hessian_pattern(problem.log_density, point, seconds, wide)
    except (AssertionError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError):
        return None  # a version of JAX may have primitives of another form; a fit goes on without a structure


def _structure(
    problem: Problem, hessian: CompressedHessian, hyper: np.ndarray, parts: Dissection | None
) -> Structure | None:
    if parts is None:
        return None
    names, filled = tuple(problem.parameters.coordinate_names()), filled_up(parts.blocks, problem.dim)
    return Structure(names, hessian.pattern, hyper, parts.separators, filled, hessian.sums, hessian.products)


def _parts(pattern: Sparse, hyper: np.ndarray, blocks: Sequence[np.ndarray]) -> Dissection | None:
    """Separators, if any, and blocks that are small enough; None where there are none."""
    if not blocks or len(hyper) > MOST_HYPER:
        return None
    whole = Dissection(hyper[:0], list(blocks))
    largest = max(map(len, blocks))
    if largest <= (SEARCHED_BLOCK if len(blocks) == 1 else LARGEST_BLOCK):
        return whole
    found = dissect(pattern, np.sort(np.concatenate(blocks)))
    if found is not None and found.cost < min(LARGEST_COST, whole.cost / 4):
        return found
    return whole if len(blocks) == 1 and largest <= LARGEST_SINGLE_BLOCK else None


def _is_searched(parts: Dissection, one_block: bool) -> bool:
    """Whether this is of use where it was not asked for."""
    return len(parts.blocks) > 1 or (one_block and len(parts.blocks[0]) <= SEARCHED_BLOCK)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
