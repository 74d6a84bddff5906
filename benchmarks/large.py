"""Laplace's approximation where a matrix of the Hessian would be large.

python benchmarks/large.py [--dim 10000] [--rows 300]
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import bbvi
from bbvi.fitting.arguments import METHODS
from benchmarks.cases import make_problem
from benchmarks.second_order import candidates, print_row, print_titles
from benchmarks.speed import logistic


def wide_inputs(rows: int, dim: int) -> np.ndarray:
    """More columns than rows; the first columns have large scales, so that data and prior both matter."""
    scales = 1 / (1 + np.arange(dim) / 50)
    return np.random.default_rng(0).standard_normal((rows, dim)) * scales


def gaussian(w: Any, data: Any) -> Any:
    """Linear regression with unit noise and standard normal weights."""
    inputs, outputs = data
    return -0.5 * jnp.sum((outputs - inputs @ w) ** 2) - 0.5 * jnp.sum(w**2)


def poisson(w: Any, data: Any) -> Any:
    """Poisson regression with standard normal weights."""
    inputs, outputs = data
    return jnp.sum(outputs * (inputs @ w) - jnp.exp(inputs @ w)) - 0.5 * jnp.sum(w**2)


class Link(NamedTuple):
    """A regression: its log density, mean and variance of an output given its linear predictor, outputs given means."""

    logprob: Callable[..., Any]
    mean: Callable[[np.ndarray], np.ndarray]
    variance: Callable[[np.ndarray], np.ndarray]
    draw: Callable[[np.random.Generator, np.ndarray], np.ndarray]


LINKS = {
    "linear": Link(gaussian, lambda eta: eta, np.ones_like, lambda rng, mean: rng.normal(mean)),
    "logistic": Link(
        logistic,
        lambda eta: 1 / (1 + np.exp(-eta)),
        lambda eta: 0.25 / np.cosh(eta / 2) ** 2,
        lambda rng, mean: rng.binomial(1, mean),
    ),
    "Poisson": Link(poisson, np.exp, np.exp, lambda rng, mean: rng.poisson(mean)),
}


def exact_laplace(link: Link, inputs: np.ndarray, outputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mode and standard deviations of Laplace's approximation, with matrices of size rows only (Woodbury).

    With weights v = variance(X w), Newton's method from w goes to X^T (1/v + X X^T)^-1 (X w + (y - mean(X w)) / v),
    and diag (I + X^T v X)^-1 = 1 - diag X^T (1/v + X X^T)^-1 X.
    """
    gram, w = inputs @ inputs.T, np.zeros(inputs.shape[1])
    for _ in range(100):
        eta = inputs @ w
        v = link.variance(eta)
        inner = np.diag(1 / v) + gram
        full = inputs.T @ np.linalg.solve(inner, eta + (outputs - link.mean(eta)) / v)
        w = w + (full - w) / max(1.0, np.abs(inputs @ (full - w)).max())  # no linear predictor moves by more than 1
    return w, np.sqrt(1 - np.sum(inputs * np.linalg.solve(inner, inputs), axis=0))


def peak_memory() -> float:
    """The most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


LARGE_TITLES = (
    "regression",
    "largest mean error",
    "largest sd error",
    "median sd error",
    "prior: largest sd error",
    "gradients",
    "products",
    "s",
    "MB before",
    "MB after",
    "whole fit: s",
    "MB after",
    "k-hat, verdict",
)


def large(dim: int = 10_000, rows: int = 300) -> None:
    """Print Laplace's approximation at a size at which a matrix of the Hessian would be large."""
    print(
        f"\n### Laplace by Hessian-vector products: {dim} coordinates, {rows} rows\n\nEach in a process of its own. "
        "Errors against the exact mode and curvature by Woodbury's identity, and those of the prior for comparison. "
        "Memory is the peak of the process: before, after the approximation, and after a whole fit with its verdict. A "
        f"matrix would add {8 * dim**2 / 1e6:.0f} MB.\n"
    )
    print_titles(LARGE_TITLES)
    for name in LINKS:
        process = multiprocessing.get_context("spawn").Process(target=large_row, args=(name, dim, rows))
        process.start()
        process.join()


def large_row(name: str, dim: int, rows: int) -> None:
    """A row of that table."""
    jax.config.update("jax_enable_x64", True)
    link, rng, inputs = LINKS[name], np.random.default_rng(1), wide_inputs(rows, dim)
    eta = inputs @ rng.standard_normal(dim) * (1.0 if name == "linear" else 0.3)
    outputs = link.draw(rng, link.mean(eta)).astype(float)
    mode, sd = exact_laplace(link, inputs, outputs)
    problem = make_problem(link.logprob, dim, (inputs, outputs))
    family = bbvi.Spiked.standard(dim, rank=rows + 20)

    before, tick = peak_memory(), time.perf_counter()
    (q,) = candidates(problem, METHODS["laplace"](), family)
    mean_error, sd_error = np.abs(np.asarray(q.mean()) - mode) / sd, np.abs(np.asarray(q.sd()) / sd - 1)
    seconds, between, tick = time.perf_counter() - tick, peak_memory(), time.perf_counter()
    posterior = bbvi.fit(link.logprob, dim, data=(inputs, outputs), method="laplace", family=family, progress=False)
    whole, diagnosis, cost = time.perf_counter() - tick, posterior.diagnosis, posterior.cost
    print_row(
        [
            name,
            f"{mean_error.max():.2g}",
            f"{sd_error.max():.2g}",
            f"{np.median(sd_error):.2g}",
            f"{np.abs(1 / sd - 1).max():.2g}",
            str(cost.gradients),
            str(cost.hessian_vector_products),
            f"{seconds:.1f}",
            f"{before:.0f}",
            f"{between:.0f}",
            f"{whole:.1f}",
            f"{peak_memory():.0f}",
            f"{diagnosis.k_hat:.2f} {diagnosis.status.name.lower()}",
        ]
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=300)
    arguments = parser.parse_args()
    large(arguments.dim, arguments.rows)


if __name__ == "__main__":
    main()
