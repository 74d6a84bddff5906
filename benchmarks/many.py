"""Many small posteriors: `fit_many` against loops of single fits, on logistic regressions.

    python -m benchmarks.many [--fits 10000] [--rows 200] [--dim 5] [--loop 100] [--fresh 5]

Prints the seconds of `fit_many`, compiling included, the seconds for each fit of two loops of which only some fits are
run, and the agreement of means and standard deviations with those of the single fits. The first loop gives `fit` the
same function and other data, so that nothing is compiled after its first fit, which is not counted; the second has the
data in the function, as is written without thought, and compiles each time.
"""

import argparse
import time
from typing import Any

import jax.numpy as jnp
import numpy as np

import bbvi


def simulate(fits: int, rows: int, dim: int) -> dict[str, np.ndarray]:
    """Rows and labels of each regression, whose coefficients are standard normal."""
    rng = np.random.default_rng(0)
    x, beta = rng.normal(size=(fits, rows, dim)), rng.normal(size=(fits, dim))
    chance = 1 / (1 + np.exp(-np.einsum("frd,fd->fr", x, beta)))
    return {"x": x, "y": (rng.random((fits, rows)) < chance).astype(float)}


def logprob(beta: Any, data: Any) -> Any:
    """Log joint density of one regression, coefficients ~ N(0, 1)."""
    logits = data["x"] @ beta
    return jnp.sum(data["y"] * logits - jnp.logaddexp(0.0, logits)) - 0.5 * jnp.sum(beta**2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("fits", 10_000), ("rows", 200), ("dim", 5), ("loop", 100), ("fresh", 5)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    data = simulate(args.fits, args.rows, args.dim)
    row = lambda i: {name: array[i] for name, array in data.items()}

    began = time.perf_counter()
    posteriors = bbvi.fit_many(logprob, args.dim, data)
    seconds = time.perf_counter() - began
    print(posteriors)
    print(f"fit_many: {seconds:.1f} s for {args.fits} fits, {1e3 * seconds / args.fits:.2f} ms each")

    bbvi.fit(logprob, args.dim, data=row(0))
    began = time.perf_counter()
    singles = [bbvi.fit(logprob, args.dim, data=row(i)) for i in range(args.loop)]
    warm = (time.perf_counter() - began) / args.loop
    began = time.perf_counter()
    for i in range(args.fresh):
        bbvi.fit(lambda beta, i=i: logprob(beta, row(i)), args.dim)
    cold = (time.perf_counter() - began) / args.fresh
    for name, each in (("the same function, other data", warm), ("the data in the function", cold)):
        print(f"a loop, {name}: {1e3 * each:.0f} ms each, {each * args.fits / seconds:.0f} times as long")

    means, sds = posteriors.mean()[: args.loop], posteriors.sd()[: args.loop]
    others, widths = (np.stack([getattr(single, what)() for single in singles]) for what in ("mean", "sd"))
    errors = np.abs(means - others) / widths, np.abs(np.log(sds / widths))
    for name, error in zip(("means, in standard deviations", "log standard deviations"), errors, strict=True):
        print(f"{name}: differ by {np.median(error):.3f} (median), {error.max():.3f} (largest)")


if __name__ == "__main__":
    main()
