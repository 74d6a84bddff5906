"""Black-box variational inference in a tweet, and the same through `bbvi.fit`.

    python examples/tweet.py

The idea fits in ten lines. Draw x = mean + sd * noise, so that x depends differentiably on the parameters of the
approximation q; average the log density over the draws; add the entropy of q; follow the gradient upwards:

    ELBO(q) = E_q[log p(x)] + H[q],    H[N(mean, diag(sd)^2)] = sum log sd + constant

`elbo` and `step` below are all there is to it. What they leave open is what `fit` adds: how long the steps should be,
when to stop, and how close q is to the posterior in the end. It starts from a Gaussian found by a quasi-Newton
method, chooses its own steps, stops when they no longer move q, and judges q by fresh draws.
"""

import jax
import jax.numpy as jnp
import optax
from jax.scipy.stats import norm

import bbvi


def log_density(x):
    """A funnel-like target in two dimensions: the scale of x[0] depends on x[1]. x: `(2,)`."""
    return norm.logpdf(x[0], 0, jnp.exp(x[1] / 4)) + norm.logpdf(x[1], 1, 0.5)


def elbo(q, key):
    """ELBO of q = (mean, log sd), up to a constant, from 100 draws."""
    mean, log_sd = q
    draws = mean + jnp.exp(log_sd) * jax.random.normal(key, (100, 2))
    return jnp.mean(jax.vmap(log_density)(draws)) + jnp.sum(log_sd)


def by_hand(num_steps=2000):
    """Mean and standard deviation of q after plain Adam."""
    optimizer = optax.adam(0.01)

    def step(carry, key):
        q, memory = carry
        updates, memory = optimizer.update(jax.grad(lambda q: -elbo(q, key))(q), memory, q)
        return (optax.apply_updates(q, updates), memory), None

    q = (jnp.zeros(2), jnp.zeros(2))
    keys = jax.random.split(jax.random.key(0), num_steps)
    ((mean, log_sd), _), _ = jax.jit(lambda start: jax.lax.scan(step, start, keys))((q, optimizer.init(q)))
    return mean, jnp.exp(log_sd)


def main():
    """Print both answers side by side."""
    mean, sd = by_hand()
    posterior = bbvi.fit(log_density, 2, family="mean_field")
    q = posterior.distribution
    corrected = posterior.sample(4000)

    columns = {
        "by hand": (mean, sd),
        "bbvi.fit": (q.mean(), q.sd()),
        "bbvi.fit, corrected": (corrected.mean(axis=0), corrected.std(axis=0)),
        "exact": ((0.0, 1.0), (jnp.exp(0.25 + 1 / 64), 0.5)),  # E[x_0^2] = E[exp(x_1 / 2)] is that of a log-normal
    }
    print("    " + "".join(f"{title:>20}" for title in columns))
    for i in range(2):
        print(f"x[{i}]" + "".join(f"{f'{m[i]:.3f} ± {s[i]:.3f}':>20}" for m, s in columns.values()))
    print()
    print(posterior.diagnosis)


if __name__ == "__main__":
    main()
