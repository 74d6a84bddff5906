"""A million parameters, and several devices.

    python -m benchmarks.scale memory [--dim 1e6] [--steps 20] [--summary]
    python -m benchmarks.scale devices [--rows 2e5] [--columns 50] [--steps 200]

`memory` fits a diagonal Gaussian and prints, for each method, the peak of resident memory above that before the fit,
over the size of q in double precision: as the fit ends, after its means and its repr, and after a summary by arviz.
Steps per second are set against those of a bare loop of as many gradients on noise that is there already.

`devices` fits a logistic regression on 1, 2, 4 and 8 virtual devices of the processor, each in a process of its own,
and prints the largest difference of means and standard deviations from one device, in standard deviations, and what one
step sends: the results of collective operations in the compiled program. The devices share the same cores, so seconds
would say nothing of real ones.
"""

import argparse
import json
import multiprocessing
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

DRAWS = 8
BYTES = {"f64": 8, "f32": 4, "s64": 8, "s32": 4, "u32": 4, "pred": 1}
COLLECTIVE = r"= (.*?) (all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all)\("


def resident() -> int:
    """Bytes of memory that this process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Peak:
    """Watches resident memory, a hundred times a second."""

    def __init__(self) -> None:
        self.most = resident()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, resident())
            time.sleep(0.01)


def fit_large(name: str, dim: int, steps: int, summary: bool) -> None:
    """One row of the table of memory."""
    import jax
    import jax.numpy as jnp

    import bbvi

    options: Any = {
        "mean field": {"method": "advi", "family": "mean_field", "num_draws": DRAWS},
        "low rank": {"method": "advi", "family": "low_rank", "num_draws": DRAWS},
        "ivon": {"method": bbvi.IVON(num_draws=DRAWS)},
    }[name]
    rng = np.random.default_rng(0)
    sd = np.exp(0.5 * rng.standard_normal(dim))
    data = {"mean": sd * rng.standard_normal(dim), "precision": sd**-2}

    def logprob(x: Any, data: Any) -> Any:
        return -0.5 * jnp.sum((x - data["mean"]) ** 2 * data["precision"])

    bbvi.fit(logprob, 10, data={name: each[:10] for name, each in data.items()}, num_steps=5, progress=False, **options)
    before, peak, blocks = resident(), Peak(), []
    posterior = bbvi.fit(
        logprob, dim, data=data, num_steps=steps, progress=False, precision="double", **options,
        callbacks=[lambda progress: blocks.append((time.perf_counter(), progress.step)) and None],
    )  # fmt: skip
    peaks = [peak.most]
    (begun, first), (ended, last) = blocks[0], blocks[-1]
    error = np.abs((posterior.distribution.mean() - data["mean"]) / sd).max()
    posterior.mean(), repr(posterior)
    peaks.append(peak.most)
    if summary:
        posterior.summary()
        peaks.append(peak.most)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(posterior.distribution))
    with jax.enable_x64(True):
        held, points = jax.device_put(data), jnp.asarray(rng.standard_normal((DRAWS, dim)))

        @jax.jit
        def gradients(points: Any, data: Any) -> Any:
            step = lambda _, x: x + 1e-9 * jax.vmap(jax.grad(logprob), (0, None))(x, data)
            return jax.lax.fori_loop(0, steps, step, points)

        jax.block_until_ready(gradients(points, held))
        tick = time.perf_counter()
        jax.block_until_ready(gradients(points, held))
        bare = steps / (time.perf_counter() - tick)
    copies = "".join(f"{(each - before) / size:12.1f}" for each in peaks)
    speed = (last - first) / (ended - begun)
    print(f"{name:12}{size / 1e6:8.0f}{copies}{error:10.4f}{speed:12.2f}{bare:12.2f}", flush=True)


def fit_split(rows: int, columns: int, steps: int) -> None:
    """A fit on all devices of this process, as a line of JSON."""
    import jax
    import jax.numpy as jnp

    import bbvi
    from bbvi import optimise

    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, columns))
    y = (rng.random(rows) < 1 / (1 + np.exp(-x @ rng.normal(0, 0.3, columns)))).astype(float)
    density = bbvi.Factorized(
        lambda w: -0.5 * jnp.sum(w**2),
        lambda w, rows: rows["y"] * (rows["x"] @ w) - jax.nn.softplus(rows["x"] @ w),
    )
    sent, advance = [], optimise._advance

    def spy(*arguments: Any) -> Any:
        if not sent:
            sent.append(bytes_sent(advance.jitted.lower(*arguments).compile().as_text()))
        return advance(*arguments)

    optimise._advance = spy
    where = bbvi.MeanField(np.zeros(columns), np.full(columns, -3.0))
    many = jax.devices() if len(jax.devices()) > 1 else None
    posterior = bbvi.fit(
        density, columns, data={"x": x, "y": y}, method=bbvi.ADVI(num_draws=DRAWS, tolerance=0), init=where,
        num_steps=steps, devices=many, progress=False,
    )  # fmt: skip
    q = posterior.distribution
    print(json.dumps({"mean": q.mean().tolist(), "sd": q.sd().tolist(), "sent": sent[0]}))


def bytes_sent(program: str) -> tuple[int, int]:
    """Collective operations in a compiled program, and the bytes of their results."""
    found = [match[0] for match in re.findall(COLLECTIVE, program)]
    total = 0
    for kind, sizes in re.findall(r"(\w+)\[([\d,]*)\]", " ".join(found)):
        total += BYTES[kind] * int(np.prod([int(size) for size in sizes.split(",") if size]))
    return len(found), total


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=["memory", "devices", "split"])
    parser.add_argument("--dim", type=float, default=1e6)
    parser.add_argument("--rows", type=float, default=2e5)
    parser.add_argument("--columns", type=int, default=50)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--summary", action="store_true", help="a table of all parameters by arviz, too: minutes")
    args = parser.parse_args()
    if args.table == "split":
        fit_split(int(args.rows), args.columns, args.steps or 200)
    elif args.table == "memory":
        print(f"dim {int(args.dim)}, {DRAWS} draws; memory in sizes of q")
        summary = f"{'+ summary':>12}" if args.summary else ""
        print(f"{'':12}{'q in MB':>8}{'fit':>12}{'+ mean':>12}{summary}{'error/sd':>10}{'steps/s':>12}{'bare':>12}")
        for name in ("mean field", "low rank", "ivon"):
            process = multiprocessing.get_context("spawn").Process(
                target=fit_large, args=(name, int(args.dim), args.steps or 20, args.summary)
            )
            process.start()
            process.join()
    else:
        print(f"{int(args.rows)} rows, {args.columns} columns, {DRAWS} draws")
        print(f"{'devices':>8}{'difference/sd':>15}{'collectives':>13}{'bytes':>10}")
        one: Any = None
        for number in (1, 2, 4, 8):
            flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={number}"
            command = [sys.executable, "-m", "benchmarks.scale", "split", "--rows", str(args.rows)]
            command += ["--columns", str(args.columns), "--steps", str(args.steps or 200)]
            done = subprocess.run(command, env=os.environ | {"XLA_FLAGS": flags}, stdout=subprocess.PIPE, check=True)
            found = json.loads(done.stdout)
            one = one or found
            off = max(np.abs(np.subtract(found[key], one[key]) / one["sd"]).max() for key in ("mean", "sd"))
            print(f"{number:8}{off:15.1e}{found['sent'][0]:13}{found['sent'][1]:10}", flush=True)


if __name__ == "__main__":
    main()
