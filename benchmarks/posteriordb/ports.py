"""Are the models here those of posteriordb? Its reference draws say so.

    python -m benchmarks.posteriordb.ports [FOLDER]

For draws x of a density p on unconstrained space, with g = grad log p(x), integration by parts gives

    E[g] = 0    and    E[(x - E x) g^T] = -I,

whatever the normalising constant. For each posterior with reference draws this prints the largest deviation of the
means over the draws from both, in standard errors. A prior left out, a rate for a scale or a missing log-Jacobian show.
"""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from bbvi.target.problem import Problem
from benchmarks.posteriordb.contestants import make_problem
from benchmarks.posteriordb.database import load, names, reference_draws
from benchmarks.posteriordb.parts import Params

# Parameters from what posteriordb reports, where that is something else.
PARAMETERS: dict[str, Callable[[Params], Params]] = {
    "eight_schools_noncentered": lambda r: r | {"theta_trans": (r["theta"] - r["mu"][:, None]) / r["tau"][:, None]},
}


class Deviations(NamedTuple):
    """Largest deviations, in standard errors, over so many numbers."""

    gradient: float  # of E[g] from 0, over dim
    product: float  # of E[(x - E x) g^T] from -I, over dim^2
    dim: int


def find_deviations(folder: str | Path, name: str) -> Deviations | None:
    """What the reference draws say of the port, or None where there are no draws."""
    reference = reference_draws(folder, name)
    if reference is None:
        return None
    problem = make_problem(load(folder, name))
    x = unconstrained(problem, name, reference)
    with jax.enable_x64(True):
        g = np.asarray(jax.jit(lambda x: problem.values_and_gradients(x)[1])(x))
    products = np.einsum("ni,nj->nij", x - x.mean(axis=0), g) + np.eye(problem.dim)
    return Deviations(*(float(np.max(np.abs(_z(each)))) for each in (g, products)), problem.dim)


def unconstrained(problem: Problem, name: str, reference: Params) -> np.ndarray:
    """Reference draws as vectors `(draws, dim)` on unconstrained space."""
    reference = PARAMETERS.get(name.rsplit("-", 1)[-1], lambda r: r)(reference)
    leaves = [reference[key] for key in problem.parameters.names]
    with jax.enable_x64(True):
        return np.asarray(jax.jit(jax.vmap(lambda *each: problem.parameters.unconstrain(each)[0]))(*leaves))


def _z(values: np.ndarray) -> np.ndarray:
    return values.mean(axis=0) / (values.std(axis=0) / len(values) ** 0.5)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default=os.environ.get("BBVI_POSTERIORDB"))
    folder = parser.parse_args().folder
    if folder is None:
        parser.error("give the folder that holds posterior_database/, or set BBVI_POSTERIORDB to it")
    print("| posterior | dim | E[g] = 0 | E[(x - E x) g^T] = -I |")
    print("|---|---|---|---|")
    for name in names(folder):
        found = find_deviations(folder, name)
        if found is not None:
            print(f"| {name} | {found.dim} | {found.gradient:.1f} | {found.product:.1f} |", flush=True)


if __name__ == "__main__":
    main()
