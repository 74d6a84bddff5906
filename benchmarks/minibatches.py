"""Logistic regression with very many rows: time until the means are within 0.1 posterior standard deviations.

python -m benchmarks.minibatches [--rows 1e6] [--columns 100] [--batch 1000] [--repeats 3]

The truth is the mode by Newton's method on all rows in NumPy, which at these sizes is the mean to far below 0.1. What
is timed is a second fit, after one that compiles. The error is the largest of the columns, of the mean of q.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoDiagonalNormal
from scipy.optimize import minimize

import bbvi

CLOSE = 0.1  # standard deviations
LONGEST = 120.0  # seconds of SVI
LOOK = 500  # steps of SVI between looks at the error
MODEL = bbvi.Factorized(
    lambda w: -0.5 * jnp.sum(w**2),
    lambda w, rows: rows["y"] * (rows["x"] @ w) - jax.nn.softplus(rows["x"] @ w),
)
Error = Callable[[Any], float]


def simulate(rows: int, columns: int) -> dict[str, np.ndarray]:
    """Standard normal columns, and labels from weights of about 0.3."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, columns))
    return {"x": x, "y": (rng.random(rows) < 1 / (1 + np.exp(-x @ rng.normal(0, 0.3, columns)))).astype(float)}


def truth(data: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mode and standard deviations there, by Newton's method."""
    x, y = data["x"], data["y"]
    w, precision = np.zeros(x.shape[1]), np.eye(x.shape[1])
    for _ in range(8):
        p = 1 / (1 + np.exp(-x @ w))
        precision = (x * (p * (1 - p))[:, None]).T @ x + np.eye(len(w))
        w = w + np.linalg.solve(precision, x.T @ (y - p) - w)
    return w, np.sqrt(np.diag(np.linalg.inv(precision)))


def by_bbvi(data: Any, error: Error, seed: int, **options: Any) -> tuple[float, float, str]:
    """A whole fit with its verdict."""
    tick = time.perf_counter()
    posterior = bbvi.fit(MODEL, data["x"].shape[1], data=data, seed=seed, progress=False, **options)
    seconds = time.perf_counter() - tick
    diagnosis = posterior.diagnosis
    words = f"{diagnosis.status.name.lower()}, k-hat {diagnosis.resampling_k_hat:.2f}, {diagnosis.num_draws} draws"
    return seconds, error(posterior.distribution.mean()), f"{len(posterior.history.elbo)} steps; {words}"


def by_scipy(data: Any, error: Error, seed: int) -> tuple[float, float, str]:
    """L-BFGS on all rows, and the Hessian at the mode."""

    @jax.jit
    def both(w: Any, data: Any) -> Any:
        return jax.value_and_grad(lambda w: -MODEL(w, data))(w)

    with jax.enable_x64(True):
        held = jax.device_put(data)
        dim = data["x"].shape[1]
        jax.block_until_ready(both(jnp.zeros(dim), held))  # compiles
        tick = time.perf_counter()
        found = minimize(
            lambda w: jax.device_get(both(jnp.asarray(w), held)), np.zeros(dim), jac=True, method="L-BFGS-B"
        )
        p = jax.nn.sigmoid(held["x"] @ found.x)
        jax.block_until_ready(jnp.linalg.inv((held["x"] * (p * (1 - p))[:, None]).T @ held["x"] + jnp.eye(dim)))
        return time.perf_counter() - tick, error(found.x), f"{found.nfev} evaluations; no check"


def by_svi(data: Any, error: Error, seed: int, batch: int, rate: Any) -> tuple[float, float, str]:
    """NumPyro's SVI with a subsampled plate, until it is close, seen every 500 steps."""
    num_rows, dim = data["x"].shape

    def model(x: Any, y: Any) -> None:
        w = numpyro.sample("w", dist.Normal(0, 1).expand([dim]).to_event(1))
        with numpyro.plate("rows", num_rows, subsample_size=batch):
            rows, labels = numpyro.subsample(x, event_dim=1), numpyro.subsample(y, event_dim=0)
            numpyro.sample("y", dist.Bernoulli(logits=rows @ w), obs=labels)

    guide = AutoDiagonalNormal(model)
    svi = SVI(model, guide, optax.adam(rate), Trace_ELBO())
    with jax.enable_x64(True):
        held = jax.device_put(data)
        state = svi.init(jax.random.key(seed), held["x"], held["y"])

        @jax.jit
        def advance(state: Any, x: Any, y: Any) -> Any:
            return jax.lax.fori_loop(0, LOOK, lambda _, state: svi.update(state, x, y)[0], state)

        jax.block_until_ready(advance(state, held["x"], held["y"]))  # compiles
        tick, steps, off = time.perf_counter(), 0, np.inf
        while off > CLOSE and time.perf_counter() - tick < LONGEST:
            state = jax.block_until_ready(advance(state, held["x"], held["y"]))
            off, steps = error(svi.get_params(state)["auto_loc"]), steps + LOOK
        return time.perf_counter() - tick, off, f"{steps} steps; no check"


def main() -> None:
    """Run all and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=float, default=1e6)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--batch", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    data = simulate(int(args.rows), args.columns)
    mean, sd = truth(data)

    def error(w: Any) -> float:
        return float(np.abs((np.asarray(w) - mean) / sd).max())

    falling = optax.exponential_decay(1e-2, 1000, 0.5, end_value=1e-5)
    contestants = {
        f"bbvi, batch_size={args.batch}": lambda seed: by_bbvi(data, error, seed, batch_size=args.batch),
        'bbvi, method="laplace"': lambda seed: by_bbvi(data, error, seed, method="laplace"),
        "scipy L-BFGS and the Hessian": lambda seed: by_scipy(data, error, seed),
        "NumPyro SVI, Adam 1e-3": lambda seed: by_svi(data, error, seed, args.batch, 1e-3),
        "NumPyro SVI, Adam 1e-2 falling": lambda seed: by_svi(data, error, seed, args.batch, falling),
    }
    print(f"{int(args.rows)} rows, {args.columns} columns; medians of {args.repeats}")
    print(f"{'':32}{'seconds':>9}{'error':>9}")
    for name, run in contestants.items():
        if name.startswith("bbvi"):
            run(0)  # compiles
        found = [run(seed) for seed in range(1, args.repeats + 1)]
        seconds, off = np.median([each[0] for each in found]), np.median([each[1] for each in found])
        print(f"{name:32}{seconds:9.1f}{off:9.3f}  {found[-1][2]}", flush=True)


if __name__ == "__main__":
    main()
