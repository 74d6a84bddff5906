"""Draws that are kept throughout a run."""

import jax
import numpy as np


def balanced_draws(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Antithetic normal draws `(n, dim)` with unit variances, and sample covariance exactly I if n >= 2 dim."""
    half = rng.standard_normal((n // 2, dim))
    draws = np.concatenate([half, -half])
    if n < 2 * dim:
        return draws / np.sqrt(np.mean(draws**2, axis=0))
    factor = np.linalg.cholesky(draws.T @ draws / n)
    return np.linalg.solve(factor, draws.T).T


def blocks_of_draws(rng: np.random.Generator, n: int, dim: int, doublings: int) -> np.ndarray:
    """Balanced draws for a number that may be doubled so often, `(2^doublings, n, dim)`."""
    blocks = [balanced_draws(rng, n, dim) for _ in range(2**doublings)]
    return np.stack(blocks).astype(jax.dtypes.canonicalize_dtype(float))


def antithetic(rng: np.random.Generator, num: int, dim: int) -> np.ndarray:
    """Normal draws `(num, dim)` in pairs of opposite sign."""
    half = rng.standard_normal((num // 2, dim))
    return np.concatenate([half, -half]).astype(jax.dtypes.canonicalize_dtype(float))


def check_doublings(num_draws: int | None, max_doublings: int) -> None:
    """Refuse a first number of draws from which no error can be told, and a negative number of doublings.

    Raises:
        ValueError: when one of them is so.
    """
    check_pairs(num_draws, least=4)
    if max_doublings < 0:
        raise ValueError(f"max_doublings={max_doublings} must not be negative.")


def check_pairs(num_draws: int | None, least: int = 2) -> None:
    """Refuse a number of draws that does not make antithetic pairs.

    Raises:
        ValueError: when it is odd, or too small.
    """
    if num_draws is not None and (num_draws < least or num_draws % 2):
        sizes = (
            "even and positive: draws come in antithetic pairs"
            if least == 2
            else (f"even and at least {least}: {least // 2} antithetic pairs")
        )
        raise ValueError(f"num_draws={num_draws} must be {sizes}.")
