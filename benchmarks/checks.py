"""Bounds of the errors of q against its true errors, on posteriors with reference draws.

    python -m benchmarks.checks FOLDER [--num 10]

FOLDER is a checkout of posteriordb (https://github.com/stan-dev/posteriordb). Fits full-rank Gaussians, takes the
bounds of `diagnose(level="full")`, and compares the means and standard deviations of q with those of the reference
draws, on the unconstrained scale, in standard deviations of q. Where q's weights have no variance there is no bound.
Prints, for each, the largest true error and the bound, the p-value of the Stein test and the bounds of the evidence.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np

import bbvi
from benchmarks import posteriordb
from benchmarks.posteriordb.database import reference_draws


def true_errors(case: posteriordb.Case, posterior: bbvi.Posterior, reference: dict[str, np.ndarray]) -> tuple:
    """Largest errors of means and sds of q, in its sds; None where the reference is not of the parameters."""
    if set(reference) != set(case.shapes):
        return None
    names = posterior.parameters.names
    with jax.enable_x64(True):
        leaves = [jnp.asarray(reference[name], float) for name in names]
        x = np.asarray(jax.vmap(lambda *each: posterior.parameters.unconstrain(each)[0])(*leaves))
    mean, sd = np.asarray(posterior.distribution.mean()), np.asarray(posterior.distribution.sd())
    return np.abs((x.mean(axis=0) - mean) / sd).max(), np.abs(x.std(axis=0) / sd - 1).max()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--num", type=int, default=10)
    args = parser.parse_args()
    print(f"{'':<42}{'mean':>7}{'bound':>8}{'sd':>7}{'bound':>8}{'Stein p':>9}{'ELBO':>12}{'CUBO':>12}")
    shown = 0
    for name in posteriordb.names(args.folder):
        reference = reference_draws(args.folder, name)
        case = posteriordb.load(args.folder, name)
        if reference is None or set(reference) != set(case.shapes) or shown == args.num:
            continue
        shown += 1
        posterior = bbvi.fit(case.logprob, case.shapes, data=case.data, constraints=case.constraints, method="newton")
        mean, sd = true_errors(case, posterior, reference)
        full = posterior.diagnose(level="full")
        bounds = [np.max(each / full.sds) for each in (full.bounds.mean, full.bounds.sd)]
        print(
            f"{name:<42}{mean:>7.3f}{bounds[0]:>8.2f}{sd:>7.3f}{bounds[1]:>8.2f}{full.stein.p_value:>9.3f}"
            f"{full.bounds.elbo.value:>12.2f}{full.bounds.cubo.value:>12.2f}"
        )


if __name__ == "__main__":
    main()
