"""Reading `fit`'s arguments `dim` and `constraints`: structures become `Parameters`, mistakes become messages."""

import math
from typing import Any

import jax
import numpy as np

from bbvi.runtime.spelling import nearest
from bbvi.target.parameters import Parameters, Shape, bijection_onto


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


def _free_shape(name: str, constraint: Any, shape: Shape) -> Shape:
    if constraint is None:
        return shape
    try:
        bijection = bijection_onto(constraint)
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
