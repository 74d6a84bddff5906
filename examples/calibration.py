"""Are three models, and their fits, right on average? Simulation-based calibration of each.

    python examples/calibration.py [SETS]

Parameters are drawn from the prior and data from the model, 500 times by default; each set of data gets a posterior,
all of them by one call. Where model and fits are right, the true value lies anywhere in its posterior with equal
chances. `found.plot()` has histograms of where they lay, and `posterior.report(path, calibration=found)` shows them.
"""

import sys
import time

import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from numpyro.distributions import constraints

import bbvi

SETS = 500
X = np.linspace(-1, 1, 20)
DOSES = np.repeat(np.linspace(-2, 2, 8), 5)
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])  # of the eight schools of Rubin (1981)


def line(p, y):
    """A line with noise: intercept, slope ~ N(0, 1), log noise ~ N(-1, 1/2)."""
    prior = norm.logpdf(p["intercept"]) + norm.logpdf(p["slope"]) + norm.logpdf(jnp.log(p["noise"]), -1, 0.5)
    mean = p["intercept"] + p["slope"] * X
    return prior - jnp.log(p["noise"]) + norm.logpdf(y, mean, p["noise"]).sum()


def draw_line(rng):
    return {"intercept": rng.normal(), "slope": rng.normal(), "noise": np.exp(rng.normal(-1, 0.5))}


def doses(p, y):
    """A logistic regression of outcomes on doses: level ~ N(0, 1), slope ~ N(1, 1/2)."""
    logits = p["level"] + p["slope"] * DOSES
    prior = norm.logpdf(p["level"]) + norm.logpdf(p["slope"], 1, 0.5)
    return prior + jnp.sum(y * logits - jnp.logaddexp(0.0, logits))


def draw_doses(rng):
    return {"level": rng.normal(), "slope": rng.normal(1, 0.5)}


def simulate_doses(rng, p):
    return (rng.random(len(DOSES)) < 1 / (1 + np.exp(-p["level"] - p["slope"] * DOSES))).astype(float)


def schools(p, y):
    """Effects of schools with known errors, non-centred: mean ~ N(0, 10), spread ~ LN(2, 1/2), raw ~ N(0, 1)."""
    prior = norm.logpdf(p["mean"], 0, 10) + norm.logpdf(p["log_spread"], 2, 0.5) + norm.logpdf(p["raw"]).sum()
    return prior + norm.logpdf(y, p["mean"] + jnp.exp(p["log_spread"]) * p["raw"], ERRORS).sum()


def draw_schools(rng):
    return {"mean": rng.normal(0, 10), "log_spread": rng.normal(2, 0.5), "raw": rng.normal(size=8)}


def simulate_schools(rng, p):
    return rng.normal(p["mean"] + np.exp(p["log_spread"]) * p["raw"], ERRORS)


MODELS = {
    "a line": (
        draw_line,
        lambda rng, p: rng.normal(p["intercept"] + p["slope"] * X, p["noise"]),
        line,
        {"intercept": (), "slope": (), "noise": ()},
        {"noise": constraints.positive},
    ),
    "doses": (draw_doses, simulate_doses, doses, {"level": (), "slope": ()}, None),
    "schools": (draw_schools, simulate_schools, schools, {"mean": (), "log_spread": (), "raw": (8,)}, None),
}


def main():
    sets = int(sys.argv[1]) if len(sys.argv) > 1 else SETS
    for name, (draw, simulate, logprob, shapes, constrained) in MODELS.items():
        tick = time.perf_counter()
        found = bbvi.calibrate(draw, simulate, logprob, shapes, constraints=constrained, num_fits=sets)
        print(f"{name}, {time.perf_counter() - tick:.1f} s: {found}\n")


if __name__ == "__main__":
    main()
