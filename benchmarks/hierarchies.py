"""Random intercepts of many groups, and random walks, by the default: time, cost, and errors against quadrature.

    python -m benchmarks.hierarchies --groups 100 1000 10000
    python -m benchmarks.hierarchies --kind trials --groups 200 --rows 2
    python -m benchmarks.hierarchies --kind walk --groups 100 1000
    python -m benchmarks.hierarchies --kind process --groups 100 --latents f
    python -m benchmarks.hierarchies --kind volatility --groups 2500 --nuts 3000
    python -m benchmarks.hierarchies --kind map --groups 1936 --nuts 1000

Each size is fitted twice, in its centred form: the first time compiles. Errors are those of the mean and the log
standard deviation of the intercepts, against sums over a grid in which each group is integrated numerically; for a
random walk that of the log standard deviation of its steps and of all its states; for a Gaussian process those of the
logarithms of its amplitude and length. They are in posterior standard deviations, and relative for the standard
deviations. Stochastic volatilities and maps of counts (the BYM2 model on a square lattice, with a soft sum-to-zero
constraint) have no such answer: they are compared with a chain of NumPyro's NUTS, with as many draws as `--nuts` says
after half as many to warm up.
"""

import argparse
import time

import numpy as np

import bbvi
from tests.hierarchies import (
    bym2,
    counts,
    exact,
    exact_process,
    exact_walk,
    process,
    simulate,
    simulate_bym2,
    simulate_process,
    simulate_volatility,
    simulate_walk,
    trials,
    volatility,
    walk,
)

KINDS = {
    "counts": counts,
    "trials": trials,
    "walk": walk,
    "volatility": volatility,
    "process": process,
    "map": bym2,
}
REACH = 7  # standard deviations, to which the grid goes


def main() -> None:
    """Print a row for each number of groups."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--kind",
        choices=KINDS,
        default="counts",
        help="Poisson counts, outcomes of trials, counts along a random walk, stochastic volatilities, a Gaussian "
        "process with noise, or counts on a map",
    )
    parser.add_argument(
        "--groups", type=int, nargs="+", default=[100, 1000, 10_000], help="numbers of groups, states or sites"
    )
    parser.add_argument("--rows", type=int, default=3, help="rows in each group (default: %(default)s)")
    parser.add_argument("--non-centred", action="store_true", help="the other form of the same model")
    parser.add_argument("--method", default="auto", help="the method (default: %(default)s)")
    parser.add_argument("--latents", nargs="+", help="names of what to integrate out; of a process its values are `f`")
    parser.add_argument(
        "--nuts", type=int, default=2000, help="draws of NUTS, where it is the answer (default: %(default)s)"
    )
    given = parser.parse_args()
    kind = KINDS[given.kind]
    print("   dim   cold s   warm s  gradients  status      k-hat  error of mean  of sd  method")
    for groups in given.groups:
        if kind is walk:
            data, logprob, dim = simulate_walk(groups, 3 / groups**0.5), walk, groups + 1
        elif kind is volatility:
            data, logprob, dim = simulate_volatility(groups), volatility, groups + 3
        elif kind is bym2:
            data, logprob = simulate_bym2(groups), bym2
            dim = 4 + 2 * len(data["y"])
        elif kind is process:
            shapes = {"log_amplitude": (), "log_length": (), "f": (groups,)}
            data, logprob, dim = simulate_process(groups), process(not given.non_centred), shapes
        else:
            data, logprob, dim = simulate(kind, groups, given.rows), kind(not given.non_centred), groups + 2
        print(_row(kind, logprob, dim, data, given), flush=True)


def _row(kind, logprob, dim, data, given: argparse.Namespace) -> str:
    seconds = []
    for _ in range(2):
        tick = time.perf_counter()
        posterior = bbvi.fit(logprob, dim, data=data, method=given.method, latents=given.latents)
        seconds.append(time.perf_counter() - tick)
    mean, sd, cost = posterior.mean(), posterior.sd(), posterior.cost
    if kind is walk:
        means, sds, _ = exact_walk(data)
    elif kind in (volatility, bym2):
        means, sds = _by_nuts(logprob, data, dim, given.nuts)
    elif kind is process:
        means, sds = (each[:2] for each in exact_process(data)[:2])
        mean, sd = (np.array([each["log_amplitude"], each["log_length"]]) for each in (mean, sd))
    else:
        mean, sd = mean[:2], sd[:2]
        means, sds, _ = exact(kind, data, [(m - REACH * s, m + REACH * s) for m, s in zip(mean, sd, strict=True)])
    error, ratio = np.max(np.abs(mean - means) / sds), np.max(np.abs(sd / sds - 1))
    gradients = cost.gradients + 2 * cost.hessian_vector_products
    dim = posterior.distribution.dim
    return (
        f"{dim:6d} {seconds[0]:8.1f} {seconds[1]:8.2f} {gradients:10d}  {posterior.diagnosis.status.name:11s}"
        f"{posterior.diagnosis.resampling_k_hat:6.2f} {error:14.3f} {100 * ratio:5.1f}%  {posterior.method}"
    )


def _by_nuts(logprob, data, dim: int, draws: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations by NUTS from the origin; prints its time, and how many draws were effective."""
    import jax
    from numpyro.diagnostics import effective_sample_size
    from numpyro.infer import MCMC, NUTS

    with jax.enable_x64(True):
        kernel = NUTS(potential_fn=lambda x: -logprob(x, data))
        chain = MCMC(kernel, num_warmup=draws // 2, num_samples=draws, progress_bar=False)
        tick = time.perf_counter()
        chain.run(jax.random.key(0), init_params=np.zeros(dim))
        x = np.asarray(chain.get_samples())
    effective = effective_sample_size(x[None])
    seconds = time.perf_counter() - tick
    words = f"{seconds:.0f} s for {draws} draws, of which {effective.min():.0f} to {effective.max():.0f} are effective"
    print(f"  NUTS: {words}", flush=True)
    return x.mean(axis=0), x.std(axis=0)


if __name__ == "__main__":
    main()
