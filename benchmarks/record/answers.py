"""What is known of the shapes beyond their moments: how to draw from them, and their evidence."""

from collections.abc import Callable
from math import lgamma, log, pi
from typing import NamedTuple

import numpy as np

from benchmarks.shapes import FOUR_CENTRES, FOUR_WEIGHTS, draw_skewed

LEFT = 0.3  # weight of the left one of two modes


class Answer(NamedTuple):
    """Of a shape, what is known exactly; None stands for what is not."""

    draw: Callable[[np.random.Generator, int], np.ndarray] | None = None  # independent draws (n, dim)
    log_evidence: float | None = None  # nats, of the density as it is written


def _funnel(dim: int) -> Answer:
    def draw(rng: np.random.Generator, n: int) -> np.ndarray:
        neck = 3 * rng.standard_normal((n, 1))
        return np.append(neck, rng.standard_normal((n, dim - 1)) * np.exp(neck / 2), axis=1)

    return Answer(draw, 0.5 * dim * log(2 * pi) + log(3))


def _banana(rng: np.random.Generator, n: int) -> np.ndarray:
    a = 2 * rng.standard_normal(n)
    return np.stack([a, 0.5 * a**2 - 2 + 0.5 * rng.standard_normal(n)], axis=1)


def _two_modes(rng: np.random.Generator, n: int) -> np.ndarray:
    side = np.where(rng.random((n, 1)) < LEFT, -5.0, 5.0)
    return side + rng.standard_normal((n, 10))


def _four_modes(rng: np.random.Generator, n: int) -> np.ndarray:
    scale = np.sqrt(8 / rng.chisquare(8, size=(n, 1)))
    return FOUR_CENTRES[rng.choice(4, size=n, p=FOUR_WEIGHTS)] + scale * rng.standard_normal((n, 8))


def _far_skewed(rng: np.random.Generator, n: int) -> np.ndarray:
    side = np.where(rng.random((n, 1)) < LEFT, 1.0, -1.0)
    return side * (np.log(rng.gamma(2.0, size=(n, 20))) - 5)


def _two_moons(rng: np.random.Generator, n: int) -> np.ndarray:
    """By rejection, within a ring that holds all but 1e-6 of it; a side's height is 1 at most, both's hardly more."""
    kept = np.zeros((0, 2))
    while len(kept) < n:
        radius, angle = np.sqrt(rng.uniform(1.0, 9.0, 4 * n)), rng.uniform(0, 2 * pi, 4 * n)
        x = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        sides = sum(np.exp(-0.5 * ((x[:, 0] - at) / 0.6) ** 2) for at in (-2, 2))
        height = np.exp(-0.5 * ((radius - 2) / 0.2) ** 2) * sides
        kept = np.concatenate([kept, x[1.01 * rng.random(4 * n) < height]])
    return kept[:n]


def _rosenbrock(rng: np.random.Generator, n: int) -> np.ndarray:
    a = 1 + rng.standard_normal((n, 18))
    b = a**2 + 0.1**0.5 * rng.standard_normal((n, 18))
    return np.stack([a, b], axis=2).reshape(n, 36)


def _log_t(df: float, dim: int) -> float:
    """Log of the integral of (1 + |x|^2 / df)^-((df + dim) / 2)."""
    return lgamma(df / 2) + 0.5 * dim * log(df * pi) - lgamma((df + dim) / 2)


ANSWERS: dict[str, Answer] = {
    "funnel_10": _funnel(10),
    "funnel_100": _funnel(100),
    "banana": Answer(_banana, 0.0),
    "two_modes_10": Answer(_two_modes, 0.0),
    "four_modes_8": Answer(_four_modes, _log_t(8, 8)),
    "far_skewed_20": Answer(_far_skewed, 0.0),
    "clusters_8": Answer(),
    "two_moons": Answer(_two_moons),
    "heavy_10": Answer(lambda rng, n: rng.standard_t(5, size=(n, 10)), 10 * _log_t(5, 1)),
    "skewed_2": Answer(lambda rng, n: draw_skewed(rng, n, 2), log(pi)),
    "rosenbrock_36": Answer(_rosenbrock, 18 * (log(2 * pi) + 0.5 * log(0.1))),
}
