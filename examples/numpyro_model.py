"""A NumPyro model: radon in houses, by county, checked by leave-one-out and used to predict new houses.

    python examples/numpyro_model.py

Measurements of log radon in 8 counties are simulated, with levels that vary between the counties and a lower level on
the first floor than in the basement, as in the Minnesota data of Gelman and Hill (2007, "Data analysis using regression
and multilevel/hierarchical models", chapter 12). The model is the usual one with varying intercepts.
"""

import arviz_stats
import numpy as np
import numpyro
import numpyro.distributions as dist

import bbvi

COUNTIES = 8


def model(county, floor, log_radon=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.LogNormal(-1, 0.5))
    slope = numpyro.sample("slope", dist.Normal(0, 2))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2))
    with numpyro.plate("county", COUNTIES):
        level = numpyro.sample("level", dist.Normal(mu, tau))
    with numpyro.plate("house", len(county)):
        mean = numpyro.deterministic("mean", level[county] + slope * floor)
        numpyro.sample("log_radon", dist.Normal(mean, sigma), obs=log_radon)


def simulate(rng):
    """Counties, floors and log radon of 120 houses."""
    county = rng.integers(COUNTIES, size=120)
    floor = (rng.random(120) < 0.3).astype(float)
    level = rng.normal(1.3, 0.4, COUNTIES)
    return county, floor, rng.normal(level[county] - 0.7 * floor, 0.7)


def main():
    county, floor, log_radon = simulate(np.random.default_rng(0))
    posterior = bbvi.fit(bbvi.from_numpyro(model, county, floor, log_radon))
    print(posterior)

    tree = posterior.predict()  # everything that arviz works with
    print(tree)
    print(arviz_stats.loo(tree))

    new = posterior.predict(np.array([0, 0]), np.array([0.0, 1.0]))
    low, high = np.quantile(new.predictions["log_radon"][0], [0.05, 0.95], axis=0)
    for floor, a, b in zip(("basement", "first floor"), low, high, strict=True):
        print(f"Log radon of a new house in county 0, {floor}: {a:.1f} to {b:.1f}")


if __name__ == "__main__":
    main()
