"""Fits that are killed again and again, against the same fits left alone.

A fit with a checkpoint runs in a process of its own, which gets SIGKILL at a random moment, and the same call is made
again, until one ends. What it ends with is compared bit by bit with what an undisturbed fit ended with: draws, history,
stages and verdict. The state is written between all blocks of steps, where a fit by itself writes every ten seconds.

    python -m benchmarks.kills --kills 100 --seed 0
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import bbvi
import bbvi.callbacks.checkpoint


def banana(x):
    """x_0 ~ N(0, 2^2), x_1 ~ N(x_0^2, 1)."""
    return -0.5 * (x[0] / 2) ** 2 - 0.5 * (x[1] - x[0] ** 2) ** 2


def skewed(x):
    """Smooth and not Gaussian."""
    return jnp.sum(jnp.sin(x) - 0.5 * x**2 - 0.02 * x**4) - 0.1 * jnp.sum(x[:-1] * x[1:])


def two_modes(x):
    """0.75 N(3, I) + 0.25 N(-3, I)."""
    return jnp.logaddexp(jnp.log(0.75) - 0.5 * jnp.sum((x - 3) ** 2), jnp.log(0.25) - 0.5 * jnp.sum((x + 3) ** 2))


FITS = {
    "stages to a flow": (banana, 2, {"num_steps": 600}),
    "stages to a mixture": (two_modes, 4, {"num_steps": 600}),
    "advi": (skewed, 4, {"method": bbvi.ADVI(tolerance=0), "num_steps": 1500}),
    "adam": (skewed, 4, {"method": "adam", "family": "sinh_arcsinh", "num_steps": 1500}),
    "natural gradients": (skewed, 4, {"method": "natural_gradient", "num_steps": 1500}),
    "ivon": (skewed, 4, {"method": "ivon", "num_steps": 1500}),
}


def numbers(posterior):
    """All of a posterior that must not depend on interruptions."""
    return {
        "draws": posterior.sample(500),
        "q": posterior.distribution.leaves(),
        "history": posterior.history._asdict(),
        "pool": posterior.pool._asdict(),
        "cost": posterior.cost[:3],
        "verdict": repr(posterior.diagnosis),
        "stages": repr(posterior.ladder),
    }


def same(a, b):
    """Names of the parts that differ in any bit."""
    return [
        name
        for name in a
        if not all(
            np.asarray(x).tobytes() == np.asarray(y).tobytes()
            for x, y in zip(jax.tree.leaves(a[name]), jax.tree.leaves(b[name]), strict=True)
        )
    ]


def child(name, path, programs, answer):
    """Run one fit, and answer with its numbers when it ends."""
    jax.config.update("jax_compilation_cache_dir", str(programs))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    bbvi.callbacks.checkpoint.INTERVAL = 0.0
    target, dim, options = FITS[name]
    answer.send(numbers(bbvi.fit(target, dim, checkpoint=path, **options)))


def run(name, path, programs, patience=None):
    """Numbers of one fit in a process of its own, or None when it was killed after `patience` seconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["bbvi", "numpyro"])
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=child, args=(name, path, programs, theirs))
    process.start()
    theirs.close()
    try:
        if not ours.poll(patience):
            return None
        return ours.recv()
    except EOFError:
        raise RuntimeError(f"{name}: the fit failed, see above") from None
    finally:
        process.kill()
        process.join()


def campaign(name, kills, rng, folder):
    """Kill a fit until it ends, and over again, `kills` times in all.

    Returns:
        How often it was killed, how often it then ended, the parts that differed, and the files left over.
    """
    programs, path = folder / "programs", folder / "undisturbed"
    run(name, path, programs)  # compiles
    path.unlink()
    tick = time.perf_counter()
    undisturbed = run(name, path, programs)
    whole = time.perf_counter() - tick
    killed, ended, differ, lived = 0, 0, [], 0
    while killed < kills or lived:
        path = folder / f"state{ended}"
        # Each call gets a random share of what a fit takes, and a little more with each kill so that all of them end.
        patience = rng.uniform(0, whole) * (1 + lived / 20) if killed < kills else None
        found = run(name, path, programs, patience)
        if found is None:
            killed, lived = killed + 1, lived + 1
        else:
            ended, lived = ended + 1, 0
            differ += same(undisturbed, found)
    return killed, ended, differ, [file.name for file in folder.glob("*.partial")]


def main():
    parser = argparse.ArgumentParser(description="Fits that are killed again and again.")
    parser.add_argument("--kills", type=int, default=100, help="of all fits together")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")
    rng, total = np.random.default_rng(arguments.seed), 0
    for name in FITS:
        with tempfile.TemporaryDirectory() as folder:
            killed, ended, differ, left = campaign(name, arguments.kills // len(FITS), rng, Path(folder))
        total += killed
        print(f"{name}: {killed} kills, {ended} fits ended, differences {differ}, left over {left}", flush=True)
        if differ:
            raise SystemExit(f"{name} differs after it was killed: {differ}")
    print(f"{total} kills survived")


if __name__ == "__main__":
    main()
