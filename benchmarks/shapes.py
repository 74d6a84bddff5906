"""Posteriors of shapes that no Gaussian has, with exact answers.

Exact moments come from closed forms, from independent draws or, in two dimensions, from a grid. A quantity is a
coordinate, unless it has no variance to speak of; of a mixture also on which side of zero a draw lies, of one whose
components can be exchanged nothing else.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from jax.scipy.stats import norm
from scipy.special import polygamma

FOUR_WEIGHTS = np.array([0.1, 0.2, 0.3, 0.4])
FOUR_CENTRES = 4.0 * np.array([[1, 1] * 4, [1, -1] * 4, [-1, 1] * 4, [-1, -1] * 4])
CLUSTERED = np.concatenate([np.random.default_rng(3).normal(at, 0.6, 40) for at in (-4.5, -1.5, 1.5, 4.5)])


class Shape(NamedTuple):
    """A log density, and what is known of it."""

    logprob: Callable
    dim: int
    quantities: Callable[[np.ndarray], np.ndarray]  # of draws (n, dim), (n, k)
    mean: np.ndarray  # (k,)
    sd: np.ndarray  # (k,)


def funnel(x):
    """Neal's: x_0 ~ N(0, 3^2), x_i ~ N(0, e^x_0)."""
    return -0.5 * (x[0] / 3) ** 2 - 0.5 * jnp.sum(x[1:] ** 2) * jnp.exp(-x[0]) - 0.5 * (len(x) - 1) * x[0]


def banana(x):
    """a ~ N(0, 2^2), b ~ N(a^2 / 2 - 2, 0.5^2)."""
    return norm.logpdf(x[0], 0, 2) + norm.logpdf(x[1], 0.5 * x[0] ** 2 - 2, 0.5)


def two_modes(x):
    """0.3 N(-5, I) + 0.7 N(5, I)."""
    left, right = norm.logpdf(x, -5.0, 1.0).sum(), norm.logpdf(x, 5.0, 1.0).sum()
    return jnp.logaddexp(np.log(0.3) + left, np.log(0.7) + right)


def four_modes(x):
    """Student-t, 8 degrees of freedom in one dimension and in 8, at four points, with weights 0.1 to 0.4."""
    densities = [-0.5 * (8 + len(x)) * jnp.log1p(jnp.sum((x - at) ** 2) / 8) for at in FOUR_CENTRES]
    return logsumexp(jnp.stack(densities) + np.log(FOUR_WEIGHTS))


def far_skewed(x):
    """Logarithms of Gamma(2, 1) variables around -5 with weight 0.3, and their mirror image with 0.7."""
    left, right = (jnp.sum(2 * y - jnp.exp(y)) for y in (x + 5, 5 - x))
    return jnp.logaddexp(np.log(0.3) + left, np.log(0.7) + right)


def clusters(x):
    """Four components of a normal mixture, with means x[:4] and log standard deviations x[4:], in any of 24 orders."""
    prior = norm.logpdf(x[:4], 0, 5).sum() + norm.logpdf(x[4:]).sum()
    return prior + logsumexp(norm.logpdf(CLUSTERED[:, None], x[:4], jnp.exp(x[4:])), axis=1).sum()


def two_moons(x):
    """A ring of radius 2, cut in two."""
    sides = jnp.logaddexp(-0.5 * ((x[0] - 2) / 0.6) ** 2, -0.5 * ((x[0] + 2) / 0.6) ** 2)
    return -0.5 * ((jnp.sqrt(jnp.sum(x**2)) - 2) / 0.2) ** 2 + sides


def rosenbrock(x):
    """Pairs a ~ N(1, 1), b ~ N(a^2, 0.1)."""
    a, b = x.reshape(-1, 2).T
    return -0.5 * jnp.sum((a - 1) ** 2) - 5 * jnp.sum((b - a**2) ** 2)


def heavy(x):
    """Independent Student-t variables with 5 degrees of freedom."""
    return -3 * jnp.sum(jnp.log1p(x**2 / 5))


def skewed(x):
    """Logarithms of Gamma(1/2, 1) variables, along a line that is bent."""
    bent = x.at[1:].add(-0.3 * x[:-1] ** 2)
    return jnp.sum(0.5 * bent - jnp.exp(bent))


def draw_skewed(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Independent draws."""
    x = np.log(rng.gamma(0.5, size=(n, dim)))
    for i in range(1, dim):
        x[:, i] += 0.3 * x[:, i - 1] ** 2
    return x


def by_grid(logprob: Callable) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation in two dimensions."""
    import jax

    points = np.stack(np.meshgrid(*[np.linspace(-5, 5, 801)] * 2), axis=-1).reshape(-1, 2)
    weights = np.exp(np.asarray(jax.vmap(logprob)(points), float))
    mean = weights @ points / weights.sum()
    return mean, np.sqrt(weights @ (points - mean) ** 2 / weights.sum())


def shapes() -> dict[str, Shape]:
    """All of them."""
    every, first, signed = lambda x: x, lambda x: x[:, :1], lambda x: np.append(x, x[:, :1] > 0, axis=1)
    bent = draw_skewed(np.random.default_rng(0), 10**6, 2)
    of_four = FOUR_WEIGHTS @ FOUR_CENTRES
    from_four = np.sqrt(8 / 6 + FOUR_WEIGHTS @ (FOUR_CENTRES - of_four) ** 2)
    left, spread = polygamma(0, 2) - 5, polygamma(1, 2)
    of_far = np.full(20, -0.4 * left), np.full(20, np.sqrt(spread + left**2 * (1 - 0.4**2)))
    of_modes = np.full(10, 5 * 0.4), np.full(10, np.sqrt(1 + 25 * (1 - 0.4**2)))
    return {
        "funnel_10": Shape(funnel, 10, first, np.zeros(1), np.full(1, 3.0)),
        "funnel_100": Shape(funnel, 100, first, np.zeros(1), np.full(1, 3.0)),
        "banana": Shape(banana, 2, every, np.zeros(2), np.array([2, np.sqrt(8.25)])),
        "two_modes_10": Shape(
            two_modes, 10, signed, np.append(of_modes[0], 0.7), np.append(of_modes[1], np.sqrt(0.21))
        ),
        "four_modes_8": Shape(four_modes, 8, every, of_four, from_four),
        "far_skewed_20": Shape(far_skewed, 20, every, *of_far),
        "clusters_8": Shape(clusters, 8, lambda x: x[:, :4] > 0, np.full(4, 0.5), np.full(4, 0.5)),
        "two_moons": Shape(two_moons, 2, every, *by_grid(two_moons)),
        "heavy_10": Shape(heavy, 10, every, np.zeros(10), np.full(10, np.sqrt(5 / 3))),
        "skewed_2": Shape(skewed, 2, every, bent.mean(axis=0), bent.std(axis=0)),
        "rosenbrock_36": Shape(rosenbrock, 36, every, np.tile([1.0, 2.0], 18), np.tile([1.0, 6.1**0.5], 18)),
    }
