"""The structure of a posterior: hyper-parameters, and blocks that are independent given them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import jax
import numpy as np

from bbvi.runtime.spelling import nearest
from bbvi.runtime.types import Array, Sparse
from bbvi.structure.compressed import CompressedHessian
from bbvi.structure.curvature_test import CurvatureTest
from bbvi.structure.names import in_ranges
from bbvi.structure.partition import MOST_HYPER, components, partition
from bbvi.structure.pattern import hessian_pattern
from bbvi.target.problem import Problem

LARGEST_BLOCK = 64  # coordinates
LARGEST_SINGLE_BLOCK = 300  # coordinates, where there is no other block
SEARCHED_BLOCK = 20  # the same where the structure is not given: a dense block takes as many products as coordinates


@dataclass(frozen=True, eq=False)
class Structure:
    """Coordinates of x that are hyper-parameters, and blocks of the others that are independent given these.

    Fields:
        names: of all coordinates.
        hyper: coordinates of the hyper-parameters in order, `(k,)`.
        blocks: coordinates of each block, `(G, b)`; blocks smaller than the largest are filled up with `dim`.
        products: with a Hessian, that it took to find them.
    """

    names: tuple[str, ...]
    hyper: np.ndarray
    blocks: np.ndarray
    products: int = 0

    @classmethod
    def of(
        cls, names: Iterable[str], hyper: np.ndarray, blocks: Sequence[np.ndarray], products: int = 0
    ) -> "Structure":
        """With blocks as a list of their coordinates."""
        names, sizes = tuple(names), np.array(list(map(len, blocks)))
        filled = np.full((len(blocks), sizes.max()), len(names))
        filled[np.arange(sizes.max()) < sizes[:, None]] = np.concatenate(blocks)
        return cls(names, hyper, filled, products)

    @property
    def dim(self) -> int:
        """Number of coordinates."""
        return len(self.names)

    @property
    def latent(self) -> np.ndarray:
        """Coordinates of all blocks, in order."""
        return np.sort(self.blocks[self.blocks < self.dim])

    @property
    def sizes(self) -> np.ndarray:
        """Number of coordinates of each block, `(G,)`."""
        return np.sum(self.blocks < self.dim, axis=1)

    def __str__(self) -> str:
        sizes = self.sizes
        hyper = _count(len(self.hyper), "hyper-parameter") + self._named(self.hyper)
        size = f"{sizes.max()}" if sizes.min() == sizes.max() else f"{sizes.min()} to {sizes.max()}"
        return f"{hyper} and {_count(len(sizes), 'block')} of {size}{self._named(self.latent)}"

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
        seconds: that the pattern of its Hessian may take.
        one_block: whether a single block is of use, as where all coordinates depend on one another.
    """
    pattern = _pattern(problem, seconds)
    if pattern is None:
        return None
    hyper, blocks = partition(pattern, [])
    if not _is_of_use(hyper, blocks) or (len(blocks) == 1 and not (one_block and len(blocks[0]) <= SEARCHED_BLOCK)):
        return None
    if problem.why_not_differentiable(3) is not None:
        return None
    hessian = CompressedHessian.of(problem, pattern, np.asarray(sd))
    hyper = CurvatureTest()(hessian, np.asarray(x), np.asarray(sd))
    if hyper is None:
        return None
    hyper, blocks = partition(pattern, hyper)
    if not _is_of_use(hyper, blocks):
        return None
    return Structure.of(problem.parameters.coordinate_names(), hyper, blocks, hessian.products)


def structure_of(
    problem: Problem, latents: Sequence[str], x: Array, sd: Array, seconds: float = 10.0
) -> Structure | None:
    """The structure in which the named parameters are latent and all others hyper-parameters.

    Arguments:
        problem: whose log density it is.
        latents: names of parameters.
        x: a point in the bulk, `(dim,)`.
        sd: about the standard deviations there, `(dim,)`.
        seconds: that the pattern of its Hessian may take.

    Returns:
        None where the pattern is not found in time, or the latent parameters do not fall into small blocks.

    Raises:
        ValueError: for a name that no parameter has, or where no parameter is named.
    """
    parameters = problem.parameters
    for name in latents:
        if name not in parameters.names:
            raise ValueError(f"latents holds {name!r}, which is no parameter. {nearest(name, parameters.names)}")
    owner = np.repeat(parameters.names, list(map(prod, parameters.free_shapes)))
    is_latent = np.isin(owner, list(latents))
    if not is_latent.any():
        raise ValueError(f"latents names no parameter with coordinates. Known: {', '.join(parameters.names)}.")
    pattern = _pattern(problem, seconds)
    if pattern is None or problem.why_not_differentiable(3) is not None:
        return None
    hyper, blocks = np.flatnonzero(~is_latent), components(pattern, np.flatnonzero(is_latent))
    if not _is_of_use(hyper, blocks):
        return None
    x, sd = np.asarray(x), np.asarray(sd)
    hessian = CompressedHessian.of(problem, pattern, sd)
    near = x + 0.1 * sd * np.random.default_rng(0).standard_normal((1, len(x)))
    if not hessian.is_right(hessian(near)):
        return None
    return Structure.of(parameters.coordinate_names(), hyper, blocks, hessian.products)


def _pattern(problem: Problem, seconds: float) -> Sparse | None:
    point = jax.ShapeDtypeStruct((problem.dim,), jax.dtypes.canonicalize_dtype(float))
    try:
        return hessian_pattern(problem.log_density, point, seconds)
    except (AssertionError, AttributeError, LookupError, NotImplementedError, TypeError, ValueError):
        return None  # a version of JAX may have primitives of another form; a fit goes on without a structure


def _is_of_use(hyper: np.ndarray, blocks: Sequence[np.ndarray]) -> bool:
    if not blocks or len(hyper) > MOST_HYPER:
        return False
    return max(map(len, blocks)) <= (LARGEST_SINGLE_BLOCK if len(blocks) == 1 else LARGEST_BLOCK)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' if number != 1 else ''}"
