"""Fits on one and on several virtual devices, for tests/test_sharding.py; prints a line of JSON for each.

python tests/sharded_fits.py table
python tests/sharded_fits.py process ADDRESS RANK PROCESSES CHECKPOINT
"""

import json
import sys

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import bbvi
import bbvi.data.sampling as sampling

rng = np.random.default_rng(0)
DIM, ROWS = 3, 48
INPUTS = rng.standard_normal((ROWS, DIM))
DATA = {"x": INPUTS, "y": (INPUTS.sum(axis=1) + rng.standard_normal(ROWS) > 0).astype(float), "sd": np.ones(DIM)}
WHERE = bbvi.MeanField(np.full(DIM, 0.5), np.full(DIM, -1.0))


def log_likelihood(w, rows):
    """Logistic regression."""
    eta = rows["x"] @ w
    return rows["y"] * eta - jnp.logaddexp(0.0, eta)


def logprob(w, data):
    """With a normal prior; the rows of `sd` do not divide by the number of devices."""
    return -0.5 * jnp.sum((w / data["sd"]) ** 2) + jnp.sum(log_likelihood(w, data))


FACTORIZED = bbvi.Factorized(lambda w: -0.5 * jnp.sum(w**2), log_likelihood)
ROWS_ONLY = {"x": DATA["x"], "y": DATA["y"]}
CASES = {
    "default": (logprob, DATA, {}, [("devices",)]),
    "advi": (logprob, DATA, {"method": "advi", "num_steps": 120, "init": WHERE}, [(8, 1), (1, 8)]),
    "dadvi": (logprob, DATA, {"method": "dadvi", "init": WHERE}, [(2, 4)]),
    "minibatch": (
        FACTORIZED,
        ROWS_ONLY,
        {"method": "advi", "family": "mean_field", "batch_size": 20, "num_steps": 120, "init": WHERE},
        [(2, 4)],
    ),
    "tall": (FACTORIZED, ROWS_ONLY, {}, [(2, 4)]),  # starts from a sample of the rows
}


def fit(case, devices, **options):
    """What a case ends with on some devices."""
    function, data, more, _ = CASES[case]
    sizes = (48, 1, 16) if case == "tall" else (2**20, 10_000, 256)
    sampling.SAMPLE_NUMBERS, sampling.MANY_ROWS, sampling.FEWEST_ROWS = sizes
    return bbvi.fit(function, DIM, data=data, devices=devices, seed=1, **more, **options)


def report(posterior, **labels):
    """Print where a fit ended."""
    q = posterior.distribution
    found = {
        "q": [*np.asarray(q.mean()).tolist(), *np.asarray(q.sd()).tolist()],
        "mean": posterior.mean().tolist(),
        "sample": posterior.sample(4).ravel().tolist(),
        "elbo": posterior.diagnosis.elbo.value,
        "split": {
            name: not leaf.sharding.is_fully_replicated
            for name, leaf in posterior.problem.data.items()
            if hasattr(leaf, "sharding")
        },
    }
    print(json.dumps(labels | found), flush=True)


def table():
    """Each case on one device and on its meshes."""
    everywhere = np.array(jax.devices())
    for case, (*_, shapes) in CASES.items():
        report(fit(case, None), case=case, mesh="one")
        for shape in shapes:
            mesh = jax.devices() if shape == ("devices",) else Mesh(everywhere.reshape(shape), ("draw", "data"))
            report(fit(case, mesh), case=case, mesh=str(shape))


def process(address, rank, processes, path):
    """One process of several: the default method, with rows split between processes and draws within them."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(address, int(processes), int(rank))
    mesh = Mesh(np.array(jax.devices()).reshape(int(processes), -1), ("data", "draw"))
    for case in ("default", "tall"):
        report(fit(case, mesh), case=case, mesh="processes")
    fit("advi", mesh, checkpoint=path, callbacks=[lambda progress: progress.step >= 40])
    report(fit("advi", mesh, checkpoint=path), case="advi", mesh="processes")


if __name__ == "__main__":
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    {"table": table, "process": process}[sys.argv[1]](*sys.argv[2:])
