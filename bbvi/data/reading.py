"""Reading the argument `data`: what is wrong is said before anything compiles."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.data.density import source_of
from bbvi.data.factorized import Factorized
from bbvi.data.files import FileStore
from bbvi.data.out_of_core import OutOfCore, Rows
from bbvi.data.stream import Stream
from bbvi.data.stream_store import StreamStore
from bbvi.runtime.dtypes import dtype_of, is_numeric


def read_data(data: Any, nan: bool = False) -> Any:
    """Data as NumPy arrays; floating point ones in the type that is computed in. `nan` allows NaN among them."""
    dtype = jax.dtypes.canonicalize_dtype(float)

    def read(path: Any, leaf: Any) -> np.ndarray:
        name = "data" + jax.tree_util.keystr(path)
        if isinstance(leaf, np.ma.MaskedArray):
            raise TypeError(f"{name} is a masked array. Fill it, and give a mask along with the data.")
        if not is_numeric(kind := dtype_of(leaf)):
            raise TypeError(f"{name} is {type(leaf).__name__} of dtype {kind}. Data must be arrays of numbers.")
        array = np.asarray(leaf)
        if jnp.issubdtype(array.dtype, np.floating):
            array = array.astype(dtype)
        if not nan and jnp.issubdtype(array.dtype, np.inexact) and np.isnan(array).any():
            raise ValueError(
                f"{name} holds NaN in {int(np.isnan(array).sum())} of {array.size} entries. Drop those entries, or "
                "fill them and give a mask along with the data."
            )
        return array

    return jax.tree_util.tree_map_with_path(read, data)


def read_rows(data: Any, logprob: Any) -> Any:
    """Data as arrays, or as `OutOfCore` where they are not in memory and the log density is a sum over rows."""
    leaves = jax.tree.leaves(data)
    stored = any(isinstance(leaf, np.memmap) for leaf in leaves)
    if isinstance(data, Stream):
        if not isinstance(logprob, Factorized):
            raise TypeError("data: a Stream needs a log density that is a sum over rows, bbvi.Factorized(...).")
        return OutOfCore.of(StreamStore(data))
    if any(isinstance(leaf, Stream) for leaf in leaves):
        raise TypeError("data: a Stream must be all of the data: let its iterator give everything that a row has.")
    if not (stored and isinstance(logprob, Factorized)):
        return read_data(data)
    _check_lengths(data)
    for leaf in leaves:
        if not is_numeric(leaf.dtype):
            raise TypeError(f"data: dtype {leaf.dtype}. Data must be arrays of numbers.")
    return OutOfCore.of(FileStore(data))


def _check_lengths(data: Any) -> None:
    lengths = {np.shape(leaf)[:1] for leaf in jax.tree.leaves(data)}
    if len(lengths) != 1 or lengths == {()}:
        raise ValueError(f"Rows of data need arrays that share their leading axis; it is {sorted(lengths)} here.")


def check_rows(batch_size: int, logprob: Any, data: Any) -> None:
    """Refuse minibatches of what is not a sum over rows of data."""
    if isinstance(data, Stream):
        rows = data.num_rows if isinstance(logprob, Factorized) else None
    else:
        source = source_of(logprob, data)
        if isinstance(logprob, Factorized) and isinstance(source, Rows):
            _check_lengths(data)
        rows = None if source is None else source.num_rows
    if rows is None:
        raise ValueError(
            "batch_size needs a log density that separates prior and likelihood, so that the likelihood of some rows "
            "can stand for all. Give bbvi.Factorized(log_prior, log_likelihood) as logprob, or subsample a plate of a "
            "NumPyro model."
        )
    if batch_size > rows:
        raise ValueError(f"batch_size={batch_size} is more than the {rows} rows of data.")


def is_held(data: Any) -> bool:
    """Whether data as they were given are in memory, rather than in files or streams."""
    return not any(isinstance(leaf, np.memmap | Stream) for leaf in jax.tree.leaves(data))


def observed(data: Any) -> dict[str, np.ndarray]:
    """The arrays in memory of a mapping, by name, for arviz; nothing for other structures."""
    if not isinstance(data, Mapping):
        return {}
    held = {name: value for name, value in data.items() if hasattr(value, "shape") and not isinstance(value, np.memmap)}
    arrays = {str(name): np.asarray(value) for name, value in held.items()}
    return {name: array for name, array in arrays.items() if array.ndim}
