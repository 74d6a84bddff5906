"""What the answers are judged by: draws that come with posteriordb, else a long run of NUTS that is kept."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from benchmarks.posteriordb.contestants import Sampler, make_problem
from benchmarks.posteriordb.database import Case, load, quantities, reference_draws

CHAINS, WARM_UP, DRAWS = 4, 2000, 4000


class Reference(NamedTuple):
    """Moments of the quantities of a posterior, one row of numbers."""

    names: list[str]
    mean: np.ndarray  # (quantities,)
    sd: np.ndarray  # (quantities,)
    words: str
    effective: np.ndarray | None = None  # (quantities,) sample sizes of what NUTS found; older files have none
    quantiles: np.ndarray | None = None  # (2, quantities) of 5 and 95 %


def read_reference(folder: str | Path, name: str, kept: str | Path) -> Reference:
    """The reference of a posterior; where posteriordb has none, NUTS is run once and its draws' moments are kept."""
    draws = reference_draws(folder, name)
    if draws is not None:
        values = flatten(draws)
        return Reference(labels(draws), values.mean(axis=0), values.std(axis=0), f"{len(values)} draws of posteriordb")
    path = Path(kept) / f"{name}.npz"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")  # a run that is interrupted leaves no half of a file
        np.savez(part, **_sampled(load(folder, name))._asdict())
        part.replace(path)
    with np.load(path) as held:
        further = (held.get("effective"), held.get("quantiles"))
        return Reference(held["names"].tolist(), held["mean"], held["sd"], str(held["words"]), *further)


def compute_quantities(case: Case, draws: Any) -> dict[str, np.ndarray]:
    """The quantities of the reference from draws of the parameters."""
    with jax.enable_x64(True):
        return jax.device_get(jax.vmap(lambda p: quantities(case, p))(draws))


def flatten(draws: dict[str, Any]) -> np.ndarray:
    """`(n, quantities)`, in the order of the names."""
    return np.concatenate([np.reshape(draws[key], (len(draws[key]), -1)) for key in sorted(draws)], axis=1)


def labels(draws: dict[str, Any]) -> list[str]:
    """Names of the columns of `flatten`."""
    return [
        key + (f"[{','.join(map(str, index))}]" if index else "")
        for key in sorted(draws)
        for index in np.ndindex(np.shape(draws[key])[1:])
    ]


def _sampled(case: Case) -> Reference:
    problem = make_problem(case)
    sampler = Sampler(problem, WARM_UP, DRAWS, CHAINS)
    with jax.enable_x64(True):
        chains = sampler.run(0).x
    draws = compute_quantities(case, problem.parameters.structure(chains.reshape(-1, problem.dim)))
    values = flatten(draws)
    by_chain = values.reshape(CHAINS, -1, values.shape[-1])
    effective = effective_sample_size(by_chain)
    words = (
        f"{len(values)} draws of NUTS, R-hat at most {np.max(split_gelman_rubin(by_chain)):.3f}, effective sample size "
        f"at least {np.min(effective):.0f}"
    )
    quantiles = np.quantile(values, (0.05, 0.95), axis=0)
    return Reference(labels(draws), values.mean(axis=0), values.std(axis=0), words, effective, quantiles)
