"""The command line: `bbvi` or `python -m bbvi`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

import bbvi
from bbvi.models.provenance import package_versions
from bbvi.policy import table
from bbvi.runtime import cache as programs
from bbvi.runtime.precision import use_double

SCHOOLS = (28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0), (15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, or 2 with a message on what is wrong."""
    parser = argparse.ArgumentParser(prog="bbvi", description="Black-box variational inference on JAX.")
    parser.add_argument("--version", action="version", version=f"bbvi {bbvi.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="fit the eight schools of Rubin (1981), print the posterior, report it")
    demo.add_argument("-o", "--output", default="demo.html", help="the page to write (default: %(default)s)")
    report = commands.add_parser("report", help="turn a posterior, written by its save method, into a page of HTML")
    report.add_argument("posterior", help="the file")
    report.add_argument("-o", "--output", help="the page to write (default: the name of the file, with .html)")
    cache = commands.add_parser("cache", help="compiled programs that are kept from one process to the next")
    cache.add_argument("--clear", action="store_true", help="remove them")
    commands.add_parser("info", help="versions, devices and precision, for reports of faults")
    given = parser.parse_args(arguments)
    try:
        if given.command == "demo":
            _demo(given.output)
        elif given.command == "report":
            _report(given.posterior, given.output or Path(given.posterior).with_suffix(".html").name)
        elif given.command == "cache":
            _cache(given.clear)
        else:
            _info()
    except (OSError, ValueError) as error:
        print(f"bbvi {given.command}: {error}", file=sys.stderr)
        return 2
    return 0


def _demo(output: str) -> None:
    import jax.numpy as jnp
    import numpy as np
    from jax.scipy.stats import cauchy, norm
    from numpyro.distributions import constraints

    def logprob(p: dict[str, Any], data: dict[str, Any]) -> Any:
        prior = norm.logpdf(p["mu"], 0, 5) + jnp.log(2) + cauchy.logpdf(p["tau"], 0, 5) + norm.logpdf(p["z"]).sum()
        return prior + norm.logpdf(data["y"], p["mu"] + p["tau"] * p["z"], data["sigma"]).sum()

    y, sigma = map(np.array, SCHOOLS)
    print("Eight schools: y ~ N(mu + tau z, sigma), z ~ N(0, 1), mu ~ N(0, 5), tau ~ half-Cauchy(5)\n")
    posterior = bbvi.fit(
        logprob,
        {"mu": (), "tau": (), "z": (8,)},
        data={"y": y, "sigma": sigma},
        constraints={"tau": constraints.positive},
    )
    print(posterior)
    _write(posterior, output)


def _report(path: str, output: str) -> None:
    _write(bbvi.load(path), output)


def _write(posterior: bbvi.Posterior, output: str) -> None:
    posterior.report(output)
    print(f"Report in {Path(output).resolve()}")


def _cache(clear: bool) -> None:
    if clear:
        print(f"{programs.clear()} programs removed")
    print(_programs())


def _programs() -> str:
    """Where compiled programs are kept, and how much there is of them."""
    place = programs.folder()
    if place is None:
        return f"off, by the environment variable {programs.VARIABLE}"
    return f"{place.parent} ({programs.size(place.parent) / 2**20:.1f} MB); {programs.VARIABLE}=off turns it off"


def _info() -> None:
    for name, version in package_versions().items():
        print(f"{name:<10} {version}")
    print(f"{'platform':<10} {jax.default_backend()}")
    print(f"{'devices':<10} {', '.join(f'{each.device_kind} ({each.platform})' for each in jax.devices())}")
    print(f"{'precision':<10} {'double' if use_double('auto') else 'single'} unless fit is told otherwise")
    print(f"{'programs':<10} {_programs()}")
    print("up to so many coordinates:")
    for name, limit in table():
        print(f"  {name:<16} {limit:>7}")


if __name__ == "__main__":
    sys.exit(main())
