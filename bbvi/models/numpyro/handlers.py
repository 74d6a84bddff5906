"""How a NumPyro model is run, other than as it was written."""

from collections.abc import Callable
from copy import copy
from typing import Any

import jax.numpy as jnp
import numpy as np

from bbvi.runtime.types import Array


def settle(model: Callable[..., Any], plate: str | None, rows: Array | None) -> Callable[..., Any]:
    """The model with its plates run in full, or on `rows`; and with the prior of what `obs_mask` leaves out in full.

    numpyro masks the prior of the entries that are observed, in which the latent site has no use. Such coordinates
    would be improper; with their prior they change nothing. Observations become arrays of JAX.
    """
    from numpyro.primitives import Messenger

    class Settle(Messenger):
        def process_message(self, msg: Any) -> None:
            if msg["type"] == "plate":
                size = msg["args"][0]
                chosen = jnp.arange(size) if rows is None or msg["name"] != plate else jnp.asarray(rows)
                msg["value"], msg["args"] = chosen, (size, len(chosen))
            elif msg["type"] == "sample" and msg["name"].endswith("_unobserved") and not msg["is_observed"]:
                msg["fn"] = getattr(msg["fn"], "base_dist", msg["fn"]) if hasattr(msg["fn"], "_mask") else msg["fn"]
            elif msg["type"] == "sample" and msg["is_observed"] and isinstance(msg["value"], float | np.ndarray):
                msg["value"] = jnp.asarray(msg["value"])  # numpyro compares what is no JAX array by NumPy

    return Settle(model)


def with_whole_shapes(model: Callable[..., Any]) -> Callable[..., Any]:
    """The model with distributions that can draw where they come out of a scan: their parts get its axis too."""
    from numpyro.distributions import Distribution
    from numpyro.distributions.batch_util import promote_batch_shape
    from numpyro.primitives import Messenger

    class WithWholeShapes(Messenger):
        def process_message(self, msg: Any) -> None:
            if msg["type"] == "sample" and "_scan_current_index" in msg["infer"]:
                msg["fn"] = fn = copy(msg["fn"])
                for name, part in vars(fn).items():
                    if isinstance(part, Distribution) and name != "base_dist":
                        setattr(fn, name, promote_batch_shape(part))

    return WithWholeShapes(model)
