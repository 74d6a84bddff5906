"""Many small posteriors: a logistic regression for each of 200 shops.

    python examples/many_fits.py

Each shop has tried 100 offers, with 3 properties each, and seen which were taken. Each gets a posterior of its own,
with its own verdict, from one call.
"""

import jax.numpy as jnp
import numpy as np

import bbvi

SHOPS, OFFERS = 200, 100


def simulate(rng):
    """Properties of the offers and whether they were taken, for each shop."""
    x = rng.normal(size=(SHOPS, OFFERS, 3))
    beta = rng.normal([1.0, -0.5, 0.0], 0.3, (SHOPS, 3))
    chance = 1 / (1 + np.exp(-np.einsum("sop,sp->so", x, beta)))
    return {"x": x, "taken": (rng.random((SHOPS, OFFERS)) < chance).astype(float)}


def logprob(beta, data):
    """Log joint density of one shop: beta ~ N(0, 1), each offer taken with probability logistic(x beta)."""
    logits = data["x"] @ beta
    return jnp.sum(data["taken"] * logits - jnp.logaddexp(0.0, logits)) - 0.5 * jnp.sum(beta**2)


def main():
    data = simulate(np.random.default_rng(0))
    posteriors = bbvi.fit_many(logprob, 3, data, labels=[f"shop {i}" for i in range(SHOPS)], coord="shop")
    print(posteriors)
    print(posteriors.table().head())
    print(posteriors.at("shop 7"))
    print(posteriors.to_arviz())


if __name__ == "__main__":
    main()
