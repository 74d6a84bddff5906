"""A hierarchy of many groups with normal observations, of which the exact answer is known.

python -m benchmarks.groups [--groups 10000] [--rows 20] [--batch 500] [--some 100]

Groups have intercepts from N(mean, sd), and rows with a standard deviation of 1. The exact answer is summed up on a
grid of mean and log sd. Errors of the shared parameters are those of means in posterior standard deviations, and of
standard deviations as a share; those of the intercepts are of some groups. Seconds are those of a whole fit with its
compiling and its verdict.
"""

import argparse
import time

import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

import bbvi

NODES = 161  # of the grid, along each axis
WIDE = 6.0  # standard deviations that it reaches to each side


def simulate(groups: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Observations and their groups."""
    rng = np.random.default_rng(0)
    intercepts = rng.normal(0.5, 0.8, groups)
    labels = np.repeat(np.arange(groups), rows)
    return intercepts[labels] + rng.standard_normal(groups * rows), labels


def model_of(y: np.ndarray, labels: np.ndarray) -> bbvi.Model:
    """The hierarchy, one group at a time."""
    return bbvi.from_groups(
        lambda p: norm.logpdf(p["mean"], 0, 5) + norm.logpdf(p["log_sd"], 0, 2),
        lambda p, own: norm.logpdf(own["a"], p["mean"], jnp.exp(p["log_sd"])),
        lambda p, own, rows: norm.logpdf(rows["y"], own["a"], 1.0),
        dim={"mean": (), "log_sd": ()},
        local={"a": ()},
        data={"y": y},
        group=labels,
    )


def truth(y: np.ndarray, rows: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Means and standard deviations by a grid around the estimates from moments."""
    means = y.reshape(-1, rows).mean(axis=1)
    sd = np.sqrt(max(means.var() - 1 / rows, 1e-3))
    unit = means.std() / np.sqrt(len(means))
    mean, log_sd = np.meshgrid(
        means.mean() + WIDE * unit * np.linspace(-1, 1, NODES),
        np.log(sd) + WIDE * means.var() / sd**2 / np.sqrt(2 * len(means)) * np.linspace(-1, 1, NODES),
    )
    spread = np.exp(2 * log_sd) + 1 / rows
    squares = len(means) * (means.var() + (means.mean() - mean) ** 2)
    log_p = (
        -0.5 * squares / spread - 0.5 * len(means) * np.log(spread) - 0.5 * (mean / 5) ** 2 - 0.5 * (log_sd / 2) ** 2
    )
    weights = np.exp(log_p - log_p.max())
    weights /= weights.sum()
    share = np.exp(2 * log_sd) / spread

    def moments(at: np.ndarray, variance: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        first = np.sum(weights * at)
        return first, np.sqrt(np.sum(weights * ((at - first) ** 2 + variance)))

    own = [moments(share * each + (1 - share) * mean, share / rows) for each in means]
    return {"mean": moments(mean), "log_sd": moments(log_sd), "a": tuple(map(np.array, zip(*own, strict=True)))}


def main() -> None:
    """Fit all groups at once, and by batches."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("groups", 10_000), ("rows", 20), ("batch", 500), ("some", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    given = parser.parse_args()
    y, labels = simulate(given.groups, given.rows)
    model, some = model_of(y, labels), np.arange(min(given.some, given.groups))
    exact = truth(y, given.rows)
    for options in ({}, {"batch_size": given.batch}):
        tick = time.perf_counter()
        posterior = bbvi.fit(model, progress=False, **options)
        print(options or "all groups", f"{time.perf_counter() - tick:.1f} s", posterior.cost, sep="; ")
        for name in ("mean", "log_sd"):
            mean, sd = exact[name]
            off, wide = (posterior.mean()[name] - mean) / sd, posterior.sd()[name] / sd - 1
            print(f"  {name}: {off:+.3f} sd, {100 * wide:+.1f} %")
        draws = model.local(posterior.sample(1000), some.tolist())["a"]
        mean, sd = exact["a"][0][some], exact["a"][1][some]
        print(f"  groups' own: {np.abs(draws.mean(axis=0) - mean).max() / sd.mean():.3f} sd at most", end=", ")
        print(
            f"{100 * np.abs(draws.std(axis=0) / sd - 1).max():.1f} % (of 1000 draws); {posterior.diagnosis.status.name}"
        )


if __name__ == "__main__":
    main()
