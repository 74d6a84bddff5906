"""Accuracy of `bbvi.fit` with no options on the reference posteriors of posteriordb.

    python benchmarks/accuracy.py FOLDER [NAME ...] [--options 'family="mean_field"']

FOLDER holds `posterior_database/`. For each posterior with reference draws, the table gives the largest error of a mean
in reference standard deviations, the largest relative error of a standard deviation, both over all quantities and on
the constrained scale, with what the verdict says. The reference draws themselves are uncertain by about 0.01 in both.
"""

import argparse
import time
from typing import Any

import jax
import numpy as np

import bbvi
from benchmarks import posteriordb


def errors(case: posteriordb.Case, reference: dict[str, np.ndarray], posterior: bbvi.Posterior) -> tuple[float, float]:
    """Largest error of a mean in reference sds, and largest relative error of an sd, of importance-resampled draws."""
    draws = posterior.sample(10_000)
    with jax.enable_x64(True):
        quantities: dict[str, Any] = jax.device_get(jax.vmap(lambda p: posteriordb.quantities(case, p))(draws))
    mean_error, sd_error = 0.0, 0.0
    for name, exact in reference.items():
        sd = exact.std(axis=0)
        mean_error = max(mean_error, float(np.max(np.abs(quantities[name].mean(axis=0) - exact.mean(axis=0)) / sd)))
        sd_error = max(sd_error, float(np.max(np.abs(quantities[name].std(axis=0) / sd - 1))))
    return mean_error, sd_error


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("names", nargs="*")
    parser.add_argument("--options", default="", help="arguments of fit, as Python")
    arguments = parser.parse_args()
    options: dict[str, Any] = eval(f"dict({arguments.options})")
    print(
        f"{'posterior':42} {'dim':>3} {'mean':>6} {'sd':>6} {'k-hat':>6} {'status':>10} {'steps':>6} {'gradients':>9} "
        f"{'cold s':>6} {'warm s':>6}"
    )
    for name in arguments.names or posteriordb.names(arguments.folder):
        case, reference = posteriordb.load(arguments.folder, name), posteriordb.reference_draws(arguments.folder, name)
        if reference is None:
            continue
        seconds = []
        for seed in (0, 1):
            tick = time.perf_counter()
            posterior = bbvi.fit(
                case.logprob, case.shapes, data=case.data, constraints=case.constraints, seed=seed, **options
            )
            seconds.append(time.perf_counter() - tick)
        mean_error, sd_error = errors(case, reference, posterior)
        diagnosis = posterior.diagnosis
        print(
            f"{name[:42]:42} {posterior.parameters.dim:3d} {mean_error:6.3f} {sd_error:6.3f} {diagnosis.k_hat:6.2f} "
            f"{diagnosis.status.name.lower():>10} {len(posterior.history.elbo):6d} {posterior.cost.gradients:9d} "
            f"{seconds[0]:6.2f} {seconds[1]:6.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
