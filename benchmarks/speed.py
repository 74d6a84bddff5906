"""Speed of `bbvi.fit`, each figure a ratio or a pair taken in the same run.

    python benchmarks/speed.py [--steps 2000] [--repeats 3]

1. Overhead: seconds of a warm fit (start, all steps, verdict) over seconds of the same number of bare gradients, 10
   at a time, in one compiled loop.
2. NumPyro: the same log density, steps and draws by `SVI.run` with its automatic guides and Adam, cold (a fresh
   process, from the first line after the imports) and warm (again in the same process, on the same objects).
3. Fusion: a whole fit compiled against the same steps run operation by operation.

Medians over the repeats; the two sides of a ratio alternate.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import bbvi

DRAWS = 10


def dense_gaussian(x: Any, data: Any) -> Any:
    """N(0, P^-1) with a dense precision P."""
    return -0.5 * x @ data @ x


def logistic(w: Any, data: Any) -> Any:
    """Logistic regression with standard normal weights."""
    inputs, outputs = data
    logits = inputs @ w
    return jnp.sum(outputs * logits - jnp.logaddexp(0.0, logits)) - 0.5 * jnp.sum(w**2)


def make_gaussian(dim: int) -> Any:
    """A precision matrix with condition number about 40."""
    a = np.random.default_rng(0).standard_normal((dim, dim))
    return a @ a.T / dim + 0.1 * np.eye(dim)


def make_logistic(rows: int, dim: int) -> Any:
    """Inputs and outputs of a logistic regression."""
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((rows, dim))
    logits = inputs @ rng.standard_normal(dim) / dim**0.5
    return inputs, (rng.random(rows) < 1 / (1 + np.exp(-logits))).astype(float)


PROBLEMS: list[tuple[str, Callable[..., Any], int, Callable[[], Any]]] = [
    ("dense Gaussian, dim 10", dense_gaussian, 10, lambda: make_gaussian(10)),
    ("dense Gaussian, dim 100", dense_gaussian, 100, lambda: make_gaussian(100)),
    ("dense Gaussian, dim 1000", dense_gaussian, 1000, lambda: make_gaussian(1000)),
    ("logistic, 1 000 rows, dim 10", logistic, 10, lambda: make_logistic(1000, 10)),
    ("logistic, 1 000 rows, dim 100", logistic, 100, lambda: make_logistic(1000, 100)),
    ("logistic, 1 000 rows, dim 1000", logistic, 1000, lambda: make_logistic(1000, 1000)),
    ("logistic, 100 000 rows, dim 10", logistic, 10, lambda: make_logistic(100_000, 10)),
]


def seconds(action: Callable[[], Any]) -> float:
    """Wall time of one call, until its result is there."""
    tick = time.perf_counter()
    jax.block_until_ready(action())
    return time.perf_counter() - tick


def bare_gradients(logprob: Callable[..., Any], dim: int, data: Any) -> Callable[[int], Any]:
    """A compiled loop of batches of `DRAWS` gradients, at points that move so that none can be left out."""

    @jax.jit
    def loop(count: Any, data: Any) -> Any:
        def body(_: Any, xs: Any) -> Any:
            values, gradients = jax.vmap(jax.value_and_grad(logprob), (0, None))(xs, data)
            return xs + 1e-9 * gradients + 1e-9 * values[:, None]

        return jax.lax.fori_loop(0, count, body, jnp.full((DRAWS, dim), 0.1))

    return lambda count: loop(count, data)


def overhead(steps: int, repeats: int) -> None:
    """Table 1."""
    print("\n1. A warm fit over the same number of bare gradients\n")
    print("| problem | family | steps | fit s | bare s | ratio |\n|---|---|---|---|---|---|")
    for name, logprob, dim, make in PROBLEMS:
        heavy = "100 000" in name or "dim 1000" in name
        one_overhead(name, logprob, dim, make(), steps // 2 if heavy else steps, repeats)


def one_overhead(name: str, logprob: Callable[..., Any], dim: int, data: Any, steps: int, repeats: int) -> None:
    """A row of table 1."""
    algorithm = bbvi.ADVI(tolerance=0, num_draws=DRAWS)

    def fit(seed: int) -> bbvi.Posterior:
        return bbvi.fit(logprob, dim, data=data, method=algorithm, num_steps=steps, seed=seed)

    with jax.enable_x64(True):
        bare = bare_gradients(logprob, dim, jax.device_put(data))
        first = fit(0)
        count = first.cost.gradients // DRAWS
        jax.block_until_ready(bare(count))
        pairs = [(seconds(lambda i=i: fit(i).pool.log_p), seconds(lambda: bare(count))) for i in range(repeats)]
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    ratio = statistics.median(a / b for a, b in pairs)
    family = first.distribution.title
    print(f"| {name} | {family} | {steps} | {ours:.3f} | {theirs:.3f} | {ratio:.2f} |", flush=True)


def numpyro_model(dim: int) -> Any:
    """The logistic regression as a NumPyro model."""
    import numpyro
    import numpyro.distributions as dist

    def model(inputs: Any, outputs: Any) -> None:
        w = numpyro.sample("w", dist.Normal(jnp.zeros(dim), 1.0).to_event(1))
        numpyro.sample("y", dist.Bernoulli(logits=inputs @ w), obs=outputs)

    return model


def one_side(library: str, family: str, rows: int, dim: int, steps: int) -> list[float]:
    """Cold and warm seconds of one library, in this process."""
    data = make_logistic(rows, dim)
    if library == "bbvi":
        algorithm = bbvi.ADVI(tolerance=0, num_draws=DRAWS)
        run = lambda seed: bbvi.fit(
            logistic, dim, data=data, method=algorithm, family=family, num_steps=steps, seed=seed
        ).distribution.mean()
    else:
        from numpyro.infer import SVI, Trace_ELBO
        from numpyro.infer.autoguide import AutoMultivariateNormal, AutoNormal
        from numpyro.optim import Adam

        jax.config.update("jax_enable_x64", True)
        model = numpyro_model(dim)
        guide = {"mean_field": AutoNormal, "full_rank": AutoMultivariateNormal}[family](model)
        svi = SVI(model, guide, Adam(0.01), Trace_ELBO(num_particles=DRAWS))
        inputs, outputs = map(jnp.asarray, data)
        run = lambda seed: svi.run(jax.random.key(seed), steps, inputs, outputs, progress_bar=False).losses
    return [seconds(lambda i=i: run(i)) for i in range(4)]


def against_numpyro(steps: int, repeats: int) -> None:
    """Table 2."""
    print(f"\n2. bbvi and NumPyro's SVI: logistic regression, {DRAWS} draws, float64\n")
    print(
        "| rows | dim | family | steps | bbvi cold s | NumPyro cold s | ratio | bbvi warm s | NumPyro warm s | ratio |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    small = [(100, 10, steps), (1000, 10, steps), (1000, 100, steps)]
    cases = [*small, (1000, 1000, steps // 5), (100_000, 10, steps // 2)]
    for rows, dim, here in cases:
        for family in ("mean_field", "full_rank"):
            if (dim == 1000 or rows == 100_000) and family == "full_rank":
                continue  # half a million parameters, or the same gradients again
            one_pairing(rows, dim, family, here, repeats)


def one_pairing(rows: int, dim: int, family: str, steps: int, repeats: int) -> None:
    """A row of table 2; each run is a process of its own."""
    times: dict[str, list[list[float]]] = {"bbvi": [], "numpyro": []}
    for _ in range(repeats):
        for library, runs in times.items():
            command = [sys.executable, __file__, "--one", library, family, str(rows), str(dim), str(steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    cells = []
    for pick in (lambda run: run[0], lambda run: statistics.median(run[1:])):  # cold, warm
        ours, theirs = ([pick(run) for run in times[library]] for library in ("bbvi", "numpyro"))
        ratio = statistics.median(b / a for a, b in zip(ours, theirs, strict=True))
        cells += [f"{statistics.median(ours):.3f}", f"{statistics.median(theirs):.3f}", f"{ratio:.1f}"]
    print(f"| {rows} | {dim} | {family} | {steps} | " + " | ".join(cells) + " |", flush=True)


def fusion(repeats: int) -> None:
    """Table 3."""
    data, steps = make_logistic(1000, 10), 30
    x = jnp.linspace(0, 1, 5000 * 5000).reshape(5000, 5000)
    expression = lambda x: x * x + 2 * x
    fused = jax.jit(expression)
    fit = lambda: bbvi.fit(logistic, 10, data=data, method=bbvi.ADVI(tolerance=0), num_steps=2000).distribution.mean()

    def loss(q: bbvi.MeanField, eps: Any) -> Any:
        return -(q.entropy() + jax.vmap(lambda w: logistic(w, data))(q.push(eps)).mean())

    def by_hand() -> Any:
        q, key = bbvi.MeanField.standard(10), jax.random.key(0)
        optimizer = optax.adam(0.05)
        state = optimizer.init(q)
        for i in range(steps):
            eps = jax.random.normal(jax.random.fold_in(key, i), (DRAWS, 10))
            updates, state = optimizer.update(jax.grad(loss)(q, eps), state, q)
            q = optax.apply_updates(q, updates)
        return q.loc

    rows = []
    with jax.enable_x64(True):
        fused(x), expression(x), fit(), by_hand()
        pairs = [(seconds(lambda: expression(x)), seconds(lambda: fused(x))) for _ in range(repeats)]
        rows.append(("x*x + 2x on 5000 x 5000", pairs))
        pairs = [(seconds(by_hand) / steps, seconds(fit) / 2000) for _ in range(repeats)]
        rows.append(("a step of ADVI, logistic with 1 000 rows, dim 10", pairs))
    print("\n3. Fused loops over op-by-op execution\n\n| work | op by op s | fused s | ratio |\n|---|---|---|---|")
    for name, pairs in rows:
        slow, fast = (statistics.median(side) for side in zip(*pairs, strict=True))
        print(f"| {name} | {slow:.5f} | {fast:.6f} | {statistics.median(a / b for a, b in pairs):.1f} |", flush=True)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tables", default="123", help="which tables to print")
    parser.add_argument("--one", nargs=5, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        library, family, *numbers = arguments.one
        print(json.dumps(one_side(library, family, *map(int, numbers))))
        return
    print(f"JAX {jax.__version__}, Python {sys.version.split()[0]}, {jax.devices()[0].device_kind}")
    if "1" in arguments.tables:
        overhead(arguments.steps, arguments.repeats)
    if "2" in arguments.tables:
        against_numpyro(arguments.steps, arguments.repeats)
    if "3" in arguments.tables:
        fusion(arguments.repeats)


if __name__ == "__main__":
    main()
