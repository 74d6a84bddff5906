"""Named, constrained parameters <-> one flat, unconstrained vector.

An angle, by `constraints.circular`, is its coordinate x modulo 2 pi. A density of the angle repeats itself along x, and
has infinite mass there. So it is multiplied by a window w(x - c) whose shifts by whole turns add up to one,

    w(u) = exp(-u^2 / 2 s^2) / sum_k exp(-(u + 2 pi k)^2 / 2 s^2),

after which x, taken modulo 2 pi, has exactly the density of the angle, for every centre c. Near the centre w is flat:
with c where the angle is likely, the posterior in x looks as it would without turns.
"""

import difflib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.compiling import program
from bbvi.precision import lenient_promotion
from bbvi.pytree import pytree, static

Array = Any
Shape = tuple[int, ...]
WINDOW = 1.5  # s of the windows of angles, in radians
TURNS = 8  # shifts of a window on either side


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

    def constrain(self, x: Array) -> tuple[Any, Array | float]:
        """The user's structure at one point `x` `(dim,)`, and the log-Jacobian of the map, a scalar."""
        values, log_volume, start = [], 0.0, 0
        for i, (constraint, shape, free_shape) in enumerate(
            zip(self.constraints, self.shapes, self.free_shapes, strict=True)
        ):
            stop = start + math.prod(free_shape)
            free, start = x[start:stop].reshape(free_shape), stop
            value = free
            if is_circular(constraint):
                value = _wrap(free) if self.turns else free
                log_volume += self._log_window(i, free)
            elif constraint is not None:
                with lenient_promotion():
                    bijection = _biject_to(constraint)
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
                free = centre + _wrap(value - centre)
                log_volume += self._log_window(i, free)
            elif constraint is not None:
                with lenient_promotion():
                    bijection = _biject_to(constraint)
                    free = bijection.inv(value)
                    log_volume += jnp.sum(bijection.log_abs_det_jacobian(free, value))
            pieces.append(jnp.ravel(free))
        return jnp.concatenate(pieces), log_volume

    def _log_window(self, i: int, free: Array) -> Array | float:
        if self.centres is None:
            return 0.0
        turns = 2 * jnp.pi * jnp.arange(-TURNS, TURNS + 1, dtype=free.dtype)
        distances = (free - self.centres[i])[..., None] + turns
        return jnp.sum(jax.nn.log_softmax(-0.5 * (distances / WINDOW) ** 2)[..., TURNS])

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
        return np.where(angle, centre + _wrap(xs - centre), xs)

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
            name + "".join(f"[{i}]" for i in index)
            for name, shape in zip(self.names, self.free_shapes, strict=True)
            for index in np.ndindex(*shape)
        ]


@program
def _constrain_all(parameters: Parameters, xs: Array) -> Any:
    return jax.vmap(lambda x: parameters.constrain(x)[0])(xs)


@program
def _unconstrain_all(parameters: Parameters, leaves: list[Array]) -> Array:
    return jax.vmap(lambda each: parameters.unconstrain(each)[0])([jnp.asarray(leaf) for leaf in leaves])


def _biject_to(constraint: Any) -> Any:
    from numpyro.distributions import biject_to

    return biject_to(constraint)


def make_parameters(dim: Any, constraints: Any = None) -> Parameters:
    """Read `fit`'s arguments `dim` and `constraints`.

    Arguments:
        dim: an int n (one vector `(n,)`), or a pytree of shapes (tuples of ints), ints or example arrays.
        constraints: None, or numpyro constraints in the structure of `dim`. A dict may leave out parameters, and
            one constraint may stand for a whole subtree.

    Raises:
        ValueError, TypeError: naming the argument, what is wrong and the remedy.
    """
    check_keys("dim", dim, _is_shape)
    check_keys("constraints", constraints, _is_constraint)
    leaves, treedef = jax.tree_util.tree_flatten_with_path(dim, is_leaf=_is_shape)
    if not leaves:
        raise ValueError(f"dim={dim!r} holds no parameters. Give an int, or a pytree of shapes or example arrays.")
    shapes = tuple(_shape(leaf, path) for path, leaf in leaves)
    chosen = tuple(_constraint_at(constraints, path) for path, _ in leaves)
    _refuse_leftover(constraints, [path for path, _ in leaves])
    names = tuple(_name(path) for path, _ in leaves)
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"dim has two parameters called {min(twice)!r}: a dot joins the keys of a path. Rename one.")
    free_shapes = tuple(_free_shape(*each) for each in zip(names, chosen, shapes, strict=True))
    # Of an empty parameter there is nothing to constrain.
    chosen = tuple(each if math.prod(shape) else None for each, shape in zip(chosen, shapes, strict=True))
    parameters = Parameters(chosen, treedef, shapes, free_shapes, names)
    if parameters.dim < 1:
        raise ValueError(f"dim={dim!r} has no free coordinate: there is nothing to infer.")
    return parameters


def check_keys(argument: str, tree: Any, is_leaf: Any = None) -> None:
    """Refuse dicts whose keys have no order: JAX goes through a pytree in it."""
    try:
        jax.tree.structure(tree, is_leaf=is_leaf)
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"{argument} holds a dict whose keys cannot be sorted, as those of several types cannot. Use str as keys."
        ) from error


def _is_int(x: Any) -> bool:
    return isinstance(x, int | np.integer) and not isinstance(x, bool)


def _is_shape(x: Any) -> bool:
    return isinstance(x, tuple) and not hasattr(x, "_fields") and all(_is_int(n) for n in x)


def _shape(leaf: Any, path: Any) -> Shape:
    if _is_shape(leaf):
        shape = tuple(int(n) for n in leaf)
    elif _is_int(leaf):
        shape = (int(leaf),)
    elif hasattr(leaf, "shape") or isinstance(leaf, float):
        return tuple(np.shape(leaf)) if isinstance(leaf, float) else tuple(leaf.shape)
    else:
        where = f"dim at {_name(path)!r}" if path else "dim"
        raise TypeError(
            f"{where} is {leaf!r}, a {type(leaf).__name__}. Each leaf must be an int, a shape such as (3, 2) or () "
            "for a scalar, or an example array."
        )
    if any(n < 0 for n in shape) or (not path and shape == (0,)):
        raise ValueError(f"dim holds the shape {leaf!r}. Lengths must be positive.")
    return shape


def _name(path: Any) -> str:
    name = jax.tree_util.keystr(path, simple=True, separator=".")
    named = path and isinstance(path[0], jax.tree_util.DictKey | jax.tree_util.GetAttrKey)
    return name if named else f"x.{name}".rstrip(".")


def _is_constraint(x: Any) -> bool:
    return hasattr(x, "feasible_like") and callable(x)  # numpyro's Constraint, without importing numpyro


def _key(entry: Any) -> Any:
    return getattr(entry, "key", getattr(entry, "idx", getattr(entry, "name", None)))


def _constraint_at(constraints: Any, path: Any) -> Any:
    node = constraints
    for entry in path:
        if node is None or _is_constraint(node):
            break
        key = _key(entry)
        if isinstance(node, dict):
            node = node.get(key)
        elif hasattr(node, "_fields") and isinstance(key, str):
            node = getattr(node, key)
        elif isinstance(node, list | tuple):
            node = node[key] if isinstance(key, int) and key < len(node) else None
        else:
            break
    if node is None or is_real(node):
        return None
    if not _is_constraint(node):
        raise TypeError(
            f"constraints for {_name(path)!r} is {node!r}, which is no numpyro constraint. Use for example "
            "numpyro.distributions.constraints.positive, in the same structure as dim."
        )
    return node


def is_circular(constraint: Any) -> bool:
    """Whether a numpyro constraint makes its parameter an angle."""
    return type(getattr(constraint, "base_constraint", constraint)).__name__ == "_Circular"


def _wrap(angle: Array) -> Array:
    """An angle in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def is_real(constraint: Any) -> bool:
    """Whether a numpyro constraint leaves its parameter unconstrained."""
    return type(getattr(constraint, "base_constraint", constraint)).__name__ in ("_Real", "_RealVector")


def _refuse_leftover(constraints: Any, paths: list[Any]) -> None:
    known = {tuple(_key(entry) for entry in path[:depth]) for path in paths for depth in range(len(path) + 1)}
    given = jax.tree_util.tree_leaves_with_path(constraints, is_leaf=_is_constraint)
    for path, _ in given:
        keys = tuple(_key(entry) for entry in path)
        if keys not in known:
            names = [_name(p) for p in paths]
            raise ValueError(
                f"constraints names {_name(path)!r}, which dim does not have. {nearest(_name(path), names)}"
            )


def nearest(name: str, known: Any) -> str:
    """A sentence that helps after a wrong name."""
    known = sorted(map(str, known))
    close = difflib.get_close_matches(name, known, n=1)
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    return (f"Did you mean {close[0]!r}? " if close else "") + f"Known: {shown}."


def _free_shape(name: str, constraint: Any, shape: Shape) -> Shape:
    if constraint is None:
        return shape
    try:
        bijection = _biject_to(constraint)
        free_shape = tuple(bijection.inverse_shape(shape))
        fits = tuple(bijection.forward_shape(free_shape)) == shape
    except NotImplementedError as error:
        raise ValueError(
            f"constraints for {name!r} is {constraint}, which numpyro cannot map from unconstrained space "
            "(biject_to knows no transform for it). Discrete parameters must be summed out."
        ) from error
    except (ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"constraints for {name!r} is {constraint}, which does not fit its shape {shape}: {error}"
        ) from error
    if not fits or len(shape) < constraint.event_dim:
        raise ValueError(f"constraints for {name!r} is {constraint}, which does not fit its shape {shape}.")
    _check_bounds(name, constraint)
    return free_shape


def _check_bounds(name: str, constraint: Any) -> None:
    inner = constraint
    while hasattr(inner, "base_constraint"):
        inner = inner.base_constraint
    given = {side: getattr(inner, side) for side in ("lower_bound", "upper_bound") if hasattr(inner, side)}
    try:
        bounds = {side: np.asarray(bound, float) for side, bound in given.items()}
        ordered = np.all(bounds.get("lower_bound", -np.inf) < bounds.get("upper_bound", np.inf))
    except (ValueError, TypeError) as error:
        raise TypeError(f"constraints for {name!r} is {constraint}, whose bounds are no numbers: {error}") from error
    if not ordered or not all(np.isfinite(bound).all() for bound in bounds.values()):
        raise ValueError(
            f"constraints for {name!r} is {constraint}. Its bounds must be finite, the lower one below the upper one. "
            "Where there is no bound, use constraints.greater_than, less_than or real."
        )
