"""Named, constrained parameters <-> one flat, unconstrained vector."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.runtime.compiling import program
from bbvi.runtime.precision import lenient_promotion
from bbvi.runtime.pytree import pytree, static
from bbvi.runtime.types import Array
from bbvi.target.angles import is_circular, log_window, wrap

Shape = tuple[int, ...]


@pytree
class Parameters:
    """The shape of a parameter space.

    Fields:
        constraints: one numpyro constraint per parameter, None where it is unconstrained. Constraints are pytrees:
            their bounds are leaves here.
        treedef: the user's structure.
        shapes: shape of each parameter, as the user sees it (constrained).
        free_shapes: shape of each parameter, unconstrained (a simplex of 3 has 2 free coordinates).
        names: a name for each parameter.
    """

    constraints: tuple[Any, ...]
    treedef: Any = static()
    shapes: tuple[Shape, ...] = static()
    free_shapes: tuple[Shape, ...] = static()
    names: tuple[str, ...] = static()
    centres: tuple[Any, ...] | None = None  # of the windows of angles, like the free coordinates; None for no windows
    turns: bool = static(default=True)  # whether angles are taken modulo 2 pi

    @property
    def dim(self) -> int:
        """Number of free coordinates."""
        return sum(math.prod(shape) for shape in self.free_shapes)

    @property
    def unconstrained(self) -> bool:
        """Whether no parameter is constrained."""
        return all(constraint is None for constraint in self.constraints)

    def constrain(self, x: Array, other: Array | None = None, held: tuple[bool, ...] = ()) -> tuple[Any, Array | float]:
        """The user's structure at one point `x` `(dim,)`, and the log-Jacobian of the map, a scalar.

        Arguments:
            other: the same point again, from which parameters that are `held` are read: derivatives in `x` leave them
                out.
        """
        values, log_volume, start = [], 0.0, 0
        for i, (constraint, shape, free_shape) in enumerate(
            zip(self.constraints, self.shapes, self.free_shapes, strict=True)
        ):
            stop = start + math.prod(free_shape)
            source = other if other is not None and held[i] else x
            free, start = source[start:stop].reshape(free_shape), stop
            value = free
            if is_circular(constraint):
                value = wrap(free) if self.turns else free
                log_volume += self._log_window(i, free)
            elif constraint is not None:
                with lenient_promotion():
                    bijection = bijection_onto(constraint)
                    value = bijection(free)
                    log_volume += jnp.sum(bijection.log_abs_det_jacobian(free, value))
            values.append(value.reshape(shape))
        return jax.tree.unflatten(self.treedef, values), log_volume

    def unconstrain(self, leaves: Sequence[Array]) -> tuple[Array, Array | float]:
        """The inverse of `constrain`: parameters in order -> `x` `(dim,)` and the log-Jacobian of `constrain` there."""
        pieces, log_volume = [], 0.0
        for i, (constraint, value) in enumerate(zip(self.constraints, leaves, strict=True)):
            free = value
            if is_circular(constraint):
                centre = 0.0 if self.centres is None else self.centres[i]
                free = centre + wrap(value - centre)
                log_volume += self._log_window(i, free)
            elif constraint is not None:
                with lenient_promotion():
                    bijection = bijection_onto(constraint)
                    free = bijection.inv(value)
                    log_volume += jnp.sum(bijection.log_abs_det_jacobian(free, value))
            pieces.append(jnp.ravel(free))
        return jnp.concatenate(pieces), log_volume

    def within(self, coordinates: np.ndarray) -> tuple[bool, ...]:
        """Which of the parameters have all their free coordinates among these."""
        sizes = [math.prod(shape) for shape in self.free_shapes]
        inside = np.split(np.isin(np.arange(self.dim), coordinates), np.cumsum(sizes)[:-1])
        return tuple(bool(each.all()) for each in inside)

    def belong_to(self, names: Sequence[str]) -> np.ndarray:
        """Which coordinates are of the parameters with these names, `(dim,)` bool."""
        owner = np.repeat(self.names, [math.prod(shape) for shape in self.free_shapes])
        return np.isin(owner, list(names))

    def _log_window(self, i: int, free: Array) -> Array | float:
        return 0.0 if self.centres is None else log_window(free - self.centres[i])

    @property
    def circular(self) -> tuple[bool, ...]:
        """Which of the parameters are angles."""
        return tuple(map(is_circular, self.constraints))

    def centred(self, x: np.ndarray) -> "Parameters":
        """The same parameters with the windows of angles around those at `x` `(dim,)`."""
        if not any(self.circular):
            return self
        ends = np.cumsum([math.prod(shape) for shape in self.free_shapes])[:-1]
        pieces = zip(np.split(np.asarray(x), ends), self.free_shapes, strict=True)
        return replace(self, centres=tuple(piece.reshape(shape) for piece, shape in pieces))

    def nearest_turn(self, xs: np.ndarray) -> np.ndarray:
        """`xs` `(n, dim)` with angles moved by whole turns, next to the centres of their windows."""
        if self.centres is None:
            return xs
        sizes = [math.prod(shape) for shape in self.free_shapes]
        angle = np.repeat(self.circular, sizes)
        centre = np.concatenate([np.ravel(each) for each in self.centres])
        return np.where(angle, centre + wrap(xs - centre), xs)

    def unstructure(self, values: Any) -> np.ndarray:
        """The inverse of `structure`: n points in the user's structure, each leaf `(n, *shape)`, as `(n, dim)`."""
        return np.asarray(_unconstrain_all(self, self.treedef.flatten_up_to(values)))

    def structure(self, xs: Array) -> Any:
        """Draws `(n, dim)` in the user's structure: each parameter a NumPy array `(n, *shape)`."""
        if not self.unconstrained:
            return jax.tree.map(np.asarray, _constrain_all(self, xs))
        xs, ends = np.asarray(xs), np.cumsum([math.prod(shape) for shape in self.shapes])[:-1]
        pieces = np.split(xs, ends, axis=-1)
        return jax.tree.unflatten(
            self.treedef, [p.reshape(len(xs), *shape) for p, shape in zip(pieces, self.shapes, strict=True)]
        )

    def named(self, values: Any) -> dict[str, Any]:
        """The leaves of a structure like the user's, by parameter name."""
        return dict(zip(self.names, self.treedef.flatten_up_to(values), strict=True))

    def coordinate_names(self) -> list[str]:
        """A name for each of the `dim` free coordinates, such as `beta[2]`."""
        return [
            label(name, index)
            for name, shape in zip(self.names, self.free_shapes, strict=True)
            for index in np.ndindex(*shape)
        ]


def label(name: str, index: Iterable[SupportsIndex]) -> str:
    """The name of one number of an array, such as `beta[2][0]`; of a scalar, that of the array."""
    return name + "".join(f"[{i}]" for i in index)


def bijection_onto(constraint: Any) -> Any:
    """numpyro's map from unconstrained space onto the support of a constraint."""
    from numpyro.distributions import biject_to

    return biject_to(constraint)


@program
def _constrain_all(parameters: Parameters, xs: Array) -> Any:
    return jax.vmap(lambda x: parameters.constrain(x)[0])(xs)


@program
def _unconstrain_all(parameters: Parameters, leaves: list[Array]) -> Array:
    return jax.vmap(lambda each: parameters.unconstrain(each)[0])([jnp.asarray(leaf) for leaf in leaves])
