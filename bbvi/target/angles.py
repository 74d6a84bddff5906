"""Parameters that are angles.

An angle, by `constraints.circular`, is its coordinate x modulo 2 pi. A density of the angle repeats itself along x, and
has infinite mass there. So it is multiplied by a window w(x - c) whose shifts by whole turns add up to one,

    w(u) = exp(-u^2 / 2 s^2) / sum_k exp(-(u + 2 pi k)^2 / 2 s^2),

after which x, taken modulo 2 pi, has exactly the density of the angle, for every centre c. Near the centre w is flat:
with c where the angle is likely, the posterior in x looks as it would without turns.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.runtime.types import Array

WINDOW_WIDTH = 1.5  # s of the windows, in radians
WINDOW_TURNS = 8  # shifts of a window on either side


def is_circular(constraint: Any) -> bool:
    """Whether a numpyro constraint makes its parameter an angle."""
    return type(getattr(constraint, "base_constraint", constraint)).__name__ == "_Circular"


def wrap(angle: Array) -> Array:
    """An angle in [-pi, pi)."""
    return (angle + np.pi) % (2 * np.pi) - np.pi


def log_window(distance: Array) -> Array:
    """Sum of log w(u) over an array of distances u from the centres of the windows, a scalar."""
    turns = 2 * jnp.pi * jnp.arange(-WINDOW_TURNS, WINDOW_TURNS + 1, dtype=distance.dtype)
    return jnp.sum(jax.nn.log_softmax(-0.5 * ((distance[..., None] + turns) / WINDOW_WIDTH) ** 2)[..., WINDOW_TURNS])
