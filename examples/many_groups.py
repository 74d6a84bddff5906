"""A logistic regression of very many groups, each with an intercept of its own, from files on disk.

    python examples/many_groups.py [GROUPS]

Each of 2000 customers, by default, has 20 visits, with or without a discount. Rows are written to a memory-mapped file,
sorted by customer, and read from there a batch of customers at a time; 100 000 customers make two million rows.
"""

import sys
import tempfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

import bbvi

VISITS, BATCH = 20, 200
MEAN, SD, SLOPE = -1.0, 0.8, 1.5  # of the simulated customers
SHOWN = [0, 1, 2]  # customers


def log_prior(p):
    return norm.logpdf(p["mean"], 0, 2) + norm.logpdf(p["log_sd"]) + norm.logpdf(p["slope"], 0, 2)


def log_local(p, own):  # of one customer
    return norm.logpdf(own["intercept"], p["mean"], jnp.exp(p["log_sd"]))


def log_likelihood(p, own, rows):  # one number for each visit of this customer
    logit = own["intercept"] + p["slope"] * rows["discount"]
    return rows["bought"] * logit - jnp.logaddexp(0.0, logit)


def write(folder, groups):
    """Rows in files, opened to be read, and the customers' true intercepts."""
    rng, count = np.random.default_rng(0), groups * VISITS
    files = {name: Path(folder) / f"{name}.npy" for name in ("discount", "bought")}
    rows = {name: np.lib.format.open_memmap(path, "w+", np.float32, (count,)) for name, path in files.items()}
    intercepts = rng.normal(MEAN, SD, groups)
    for first in range(0, count, 2**16):  # never all of them in memory
        part = slice(first, min(first + 2**16, count))
        customer = np.arange(part.start, part.stop) // VISITS
        rows["discount"][part] = rng.random(len(customer)) < 0.3
        chance = 1 / (1 + np.exp(-intercepts[customer] - SLOPE * rows["discount"][part]))
        rows["bought"][part] = rng.random(len(customer)) < chance
    return {name: np.load(path, mmap_mode="r") for name, path in files.items()}, intercepts


def main():
    groups = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    with tempfile.TemporaryDirectory() as folder:
        rows, intercepts = write(folder, groups)
        model = bbvi.from_groups(
            log_prior,
            log_local,
            log_likelihood,
            dim={"mean": (), "log_sd": (), "slope": ()},
            local={"intercept": ()},
            data=rows,
            group=np.repeat(np.arange(groups), VISITS),
        )
        posterior = bbvi.fit(model, batch_size=BATCH)
        print(posterior)
        print(f"simulated: mean {MEAN}, log_sd {np.log(SD):.3f}, slope {SLOPE}")
        own = model.local(posterior.sample(200), groups=SHOWN)["intercept"]
        for i in SHOWN:
            print(f"customer {i}: {own[:, i].mean():.2f} ± {own[:, i].std():.2f}, simulated {intercepts[i]:.2f}")


if __name__ == "__main__":
    main()
