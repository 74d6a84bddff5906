"""Log densities with known answers, shared so that each compiles once."""

import jax.numpy as jnp
import numpy as np

DIM = 4
MEAN = np.array([1.0, -2.0, 0.5, 3.0])
PRECISION = np.array(
    [[4.0, 1.0, 0.5, 0.0], [1.0, 3.0, -0.8, 0.2], [0.5, -0.8, 2.0, 0.3], [0.0, 0.2, 0.3, 0.5]],
)
COVARIANCE = np.linalg.inv(PRECISION)
LOG_EVIDENCE = 0.5 * DIM * np.log(2 * np.pi) - 0.5 * np.linalg.slogdet(PRECISION)[1]


def gaussian(x):
    """Unnormalised N(MEAN, COVARIANCE)."""
    centred = x - jnp.asarray(MEAN, x.dtype)
    return -0.5 * centred @ jnp.asarray(PRECISION, x.dtype) @ centred


def independent(x):
    """N(MEAN, diag(1, 1/4, 1/9, 1/16)), unnormalised."""
    return -0.5 * jnp.sum(((x - jnp.asarray(MEAN, x.dtype)) * jnp.arange(1, 5, dtype=x.dtype)) ** 2)


def smooth(x):
    """A smooth density that is not Gaussian: skewed, with light tails."""
    return jnp.sum(jnp.sin(x) - 0.5 * x**2 - 0.02 * x**4) - 0.1 * jnp.sum(x[:-1] * x[1:])


def quadratic_with_data(x, data):
    """Normal means with known scale: data is {"y": (n, dim)}."""
    return -0.5 * jnp.sum((data["y"] - x) ** 2) - 0.5 * jnp.sum(x**2)
