"""Models of many groups: against exact answers, against a fit of all groups, and against other libraries.

    python -m benchmarks.groups [--groups 10000] [--rows 20] [--batch 500] [--some 100] [--amortise]
    python -m benchmarks.groups --kind items --batch 40 --yardsticks FOLDER
    python -m benchmarks.groups --kind peers --groups 10000 --batch 500

The hierarchy has normal observations, so that its exact answer is known: groups have intercepts from N(mean, sd), and
rows with a standard deviation of 1. That answer is summed up on a grid of mean and log sd. Errors of the shared
parameters are those of means in posterior standard deviations, and of standard deviations as a share; those of the
intercepts are of some groups. With `--amortise` a network stands in place of the search for modes. Seconds are those of
a whole fit with its compiling and its verdict; passes are over the rows, by the steps of the best method; memory is the
peak of the process so far.

Items are those of the inference gym's item response: 400 students, 100 questions, a batch of students in a step against
all of them at once. Peers are NumPyro's AutoNormal, with plates of batches, and AutoSemiDAIS on the hierarchy: seconds
after which mean and log sd stay within 0.1 posterior standard deviations of the exact ones.
"""

import argparse
import resource
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import bernoulli, norm

import bbvi

NODES = 161  # of the grid, along each axis
WIDE = 6.0  # standard deviations that it reaches to each side
STEPS_BETWEEN, MOST_LOOKS_AT = 250, 120  # of a peer, between looks at its error; and such looks
NEAR = 0.1  # posterior standard deviations


def simulate(groups: int, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Observations and their groups."""
    rng = np.random.default_rng(0)
    intercepts = rng.normal(0.5, 0.8, groups)
    labels = np.repeat(np.arange(groups), rows)
    return intercepts[labels] + rng.standard_normal(groups * rows), labels


def model_of(y: np.ndarray, labels: np.ndarray, amortise: Any = None) -> Any:
    """The hierarchy, one group at a time."""
    return bbvi.from_groups(
        lambda p: norm.logpdf(p["mean"], 0, 5) + norm.logpdf(p["log_sd"], 0, 2),
        lambda p, own: norm.logpdf(own["a"], p["mean"], jnp.exp(p["log_sd"])),
        lambda p, own, rows: norm.logpdf(rows["y"], own["a"], 1.0),
        dim={"mean": (), "log_sd": ()},
        local={"a": ()},
        data={"y": y},
        group=labels,
        amortise=amortise,
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


def hierarchy(given: argparse.Namespace) -> None:
    """Fit all groups at once, and by batches."""
    y, labels = simulate(given.groups, given.rows)
    some = np.arange(min(given.some, given.groups))
    exact = truth(y, given.rows)
    for options in ({}, {"batch_size": given.batch}):
        model = model_of(y, labels, bbvi.SetEncoder(hidden=(16,)) if given.amortise else None)
        tick = time.perf_counter()
        if given.amortise:
            model = bbvi.train(model, batch_size=given.batch, progress=False)
            print(f"training: {time.perf_counter() - tick:.1f} s; {model.notes[-1]}")
        posterior = bbvi.fit(model, progress=False, **options)
        print(options or "all groups", f"{time.perf_counter() - tick:.1f} s", posterior.cost, sep="; ")
        passes = len(posterior.history.elbo) * options.get("batch_size", given.groups) / given.groups
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"  passes over the data by steps: {passes:.1f}; peak memory {memory:.2f} GiB")
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


def items(given: argparse.Namespace) -> None:
    """Item response by batches of students, against all students at once."""
    raw = np.load(Path(given.yardsticks) / "gym" / "data" / "synthetic_item_response_theory.npz")
    model = bbvi.from_groups(
        lambda p: norm.logpdf(p["mean"], 0.75, 1.0) + norm.logpdf(p["difficulty"]).sum(),
        lambda p, own: norm.logpdf(own["ability"]),
        lambda p, own, rows: bernoulli.logpmf(
            rows["correct"], jax.nn.sigmoid(p["mean"] + own["ability"] - p["difficulty"][rows["question"]])
        ),
        dim={"mean": (), "difficulty": (int(raw["question"].max()) + 1,)},
        local={"ability": ()},
        data={"correct": raw["correct"].astype(float), "question": raw["question"].astype(int)},
        group=raw["student"],
    )
    found = {}
    for name, options in (("all students", {}), ("batches", {"batch_size": given.batch})):
        tick = time.perf_counter()
        found[name] = bbvi.fit(model, progress=False, **options)
        status = found[name].diagnosis.status.name
        print(f"{name}: {time.perf_counter() - tick:.1f} s, {found[name].method}, {status}; {found[name].cost}")
    whole, parts = found.values()
    for name in model.dim:
        off = (parts.mean()[name] - whole.mean()[name]) / whole.sd()[name]
        wide = parts.sd()[name] / whole.sd()[name] - 1
        print(f"  {name}: {np.abs(off).max():.3f} sd, {100 * np.abs(wide).max():.1f} % at most")


def peers(given: argparse.Namespace) -> None:
    """Seconds until the shared parameters are near the exact ones, by bbvi and by guides of NumPyro."""
    y, labels = simulate(given.groups, given.rows)
    exact = truth(y, given.rows)
    tick = time.perf_counter()
    posterior = bbvi.fit(model_of(y, labels), batch_size=given.batch, progress=False)
    print(f"bbvi by batches: {time.perf_counter() - tick:.1f} s, error {_error(posterior.mean(), exact):.3f} sd")
    for name in ("AutoNormal", "AutoSemiDAIS"):
        seconds, error = _peer(name, jnp.asarray(y.reshape(given.groups, given.rows)), given.batch, exact)
        print(f"NumPyro's {name}: {'never' if seconds is None else f'{seconds:.1f} s'}, last error {error:.3f} sd")


def _error(means: Any, exact: dict[str, Any]) -> float:
    return max(abs(float(means[name]) - exact[name][0]) / exact[name][1] for name in ("mean", "log_sd"))


def _peer(guide_name: str, y: jax.Array, batch: int, exact: dict[str, Any]) -> tuple[float | None, float]:
    """Seconds after which a guide of NumPyro stays near, None for never, and its last error."""
    import numpyro
    import numpyro.distributions as dist
    import optax
    from numpyro.infer import SVI, Trace_ELBO, autoguide
    from numpyro.optim import optax_to_numpyro

    def groups() -> Any:
        return numpyro.plate("groups", len(y), subsample_size=batch)

    def local_model(theta: Any) -> None:
        with groups() as i:
            a = numpyro.sample("a", dist.Normal(theta["mean"], jnp.exp(theta["log_sd"])))
            numpyro.sample("y", dist.Normal(a[:, None], 1).to_event(1), obs=y[i])

    def global_model() -> Any:
        return {
            "mean": numpyro.sample("mean", dist.Normal(0, 5)),
            "log_sd": numpyro.sample("log_sd", dist.Normal(0, 2)),
        }

    def model() -> None:
        local_model(global_model())

    if guide_name == "AutoNormal":
        guide = autoguide.AutoNormal(model, create_plates=lambda: groups())
    else:
        guide = autoguide.AutoSemiDAIS(model, local_model, autoguide.AutoNormal(global_model))
    schedule = optax.exponential_decay(1e-2, STEPS_BETWEEN * MOST_LOOKS_AT, 1e-2)
    svi = SVI(model, guide, optax_to_numpyro(optax.adam(schedule)), Trace_ELBO())
    tick, reached, error = time.perf_counter(), None, np.inf
    state = svi.init(jax.random.key(0))
    run = jax.jit(lambda state: jax.lax.scan(lambda s, _: svi.update(s), state, None, length=STEPS_BETWEEN)[0])
    for _ in range(MOST_LOOKS_AT):
        state = jax.block_until_ready(run(state))
        params = svi.get_params(state)
        error = _error({name: params[f"{name}_auto_loc"] for name in ("mean", "log_sd")}, exact)
        reached = None if error > NEAR else reached or time.perf_counter() - tick
    return reached, error


KINDS = {"hierarchy": hierarchy, "items": items, "peers": peers}


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("groups", 10_000), ("rows", 20), ("batch", 500), ("some", 100)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--kind", choices=KINDS, default="hierarchy")
    parser.add_argument("--yardsticks", help="the folder that holds gym/, for items")
    parser.add_argument("--amortise", action="store_true", help="by a network, in the hierarchy")
    given = parser.parse_args()
    if given.kind == "items" and given.yardsticks is None:
        parser.error("--kind items needs --yardsticks")
    KINDS[given.kind](given)


if __name__ == "__main__":
    main()
