# %% [markdown]
# # Black-box inference in a tweet
#
# Variational inference used to mean pages of algebra for each model. With automatic differentiation the whole of it
# fits into ten lines that know nothing of the model but its log density. This notebook writes these lines, watches
# them work, breaks them, and then lets `bbvi` do the same with what was missing.
#
# The idea was told in this brevity by Duvenaud and Adams (2015, *Black-box stochastic variational inference in five
# lines of Python*); it goes back to Kingma and Welling (2014), Rezende et al. (2014) and Ranganath et al. (2014).

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.scipy.stats import norm

import bbvi

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"  # told apart by colour-blind readers too
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True})

# %% [markdown]
# ## A posterior
#
# Five weighings of the same object, in grams, on a scale whose precision is not known either. The unknowns are the
# mass $\mu$ and the logarithm of the scale's standard deviation, $x = (\mu, \log s)$:
#
# $$
# \mu \sim \mathrm{N}(0, 10^2), \qquad \log s \sim \mathrm{N}(0, 1), \qquad y_i \sim \mathrm{N}(\mu, s^2).
# $$

# %%
y = np.array([2.1, 3.4, 1.2, 2.9, 1.6])


def log_density(x):
    """log p(x, y) for x = (mu, log s)."""
    prior = norm.logpdf(x[0], 0, 10) + norm.logpdf(x[1])
    return prior + norm.logpdf(y, x[0], jnp.exp(x[1])).sum()


# %% [markdown]
# ## The ten lines
#
# Let $q$ be a Gaussian with a mean $m$ and a standard deviation $\sigma$ for each coordinate. It is judged by the
# evidence lower bound
#
# $$
# \mathrm{ELBO}(q) = \mathrm{E}_q[\log p(x, y)] + \mathrm{H}[q] \;=\; \log p(y) - \mathrm{KL}(q \,\|\, p(\cdot \mid y)),
# \qquad \mathrm{H}[q] = \sum_i \log \sigma_i + \tfrac{d}{2} \log 2 \pi e .
# $$
#
# The expectation is an average over draws. What makes it a function to differentiate is to write a draw as $x = m +
# \sigma \varepsilon$ with $\varepsilon \sim \mathrm{N}(0, I)$: the randomness comes from outside, and each draw
# depends smoothly on $m$ and $\log \sigma$. So $\nabla \mathrm{ELBO}$ is estimated, without bias, by the gradient of
# an average. `vmap` evaluates the log density at all draws, `grad` differentiates through everything, and the rest is
# walking uphill.


# %%
def elbo(q, key):
    mean, log_sd = q
    draws = mean + jnp.exp(log_sd) * jax.random.normal(key, (100, 2))
    return jnp.mean(jax.vmap(log_density)(draws)) + jnp.sum(log_sd) + jnp.log(2 * jnp.pi * jnp.e)


@jax.jit
def ascend(q, key, step=0.05):
    value, gradient = jax.value_and_grad(elbo)(q, key)
    return jax.tree.map(lambda old, slope: old + step * slope, q, gradient), value


# %%
path, values = [(jnp.zeros(2), -jnp.ones(2))], []
for key in jax.random.split(jax.random.key(0), 1000):
    q, value = ascend(path[-1], key)
    path.append(q)
    values.append(float(value))

mean, sd = path[-1][0], jnp.exp(path[-1][1])
print(f"mu    = {mean[0]:.2f} ± {sd[0]:.2f} g")
print(f"log s = {mean[1]:.2f} ± {sd[1]:.2f}")

# %% [markdown]
# Two unknowns fit on a grid, so that we can see both $p$ and $q$. The shaded regions below hold 50, 90 and 99 % of the
# posterior, the lines the same shares of $q$, at the start and after some steps.

# %%
mu, log_s = np.meshgrid(np.linspace(-10, 14, 481), np.linspace(-2.2, 3.6, 233), indexing="ij")
points = np.stack([mu, log_s], axis=-1)
log_p = np.asarray(jax.jit(jax.vmap(jax.vmap(log_density)))(points), float)
cell = (mu[1, 0] - mu[0, 0]) * (log_s[0, 1] - log_s[0, 0])
log_evidence = np.log(np.exp(log_p).sum() * cell)


def levels(density):
    """Densities above which 99, 90 and 50 % of the mass lie, on the grid."""
    ordered = np.sort(density, axis=None)[::-1]
    mass = np.cumsum(ordered) / ordered.sum()
    return [ordered[np.searchsorted(mass, share)] for share in (0.99, 0.9, 0.5)]


def gaussian(q):
    """Density of a mean-field Gaussian on the grid."""
    mean, sd = np.asarray(q[0], float), np.exp(np.asarray(q[1], float))
    return np.prod(np.exp(-0.5 * ((points - mean) / sd) ** 2) / sd, axis=-1)


def draw_posterior(axes):
    p = np.exp(log_p)
    axes.contourf(mu, log_s, p, [*levels(p), p.max()], colors=["0.88", "0.76", "0.62"])
    axes.set(xlim=(-1.2, 4.8), ylim=(-2.1, 1.7), xlabel=r"mass $\mu$ (g)", ylabel=r"$\log s$")


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.8))
left.plot(values, color=BLUE, linewidth=0.7, label="estimates from 100 draws each")
left.axhline(log_evidence, color="black", linestyle="--", linewidth=1, label="log evidence, the upper limit")
left.set(xscale="log", xlabel="step", ylabel="ELBO (nats)", ylim=(-18, -9))
left.set(title="The ELBO rises towards the evidence ...")
left.legend(frameon=False, loc="lower right")
draw_posterior(right)
for step, colour in zip((0, 6, 1000), (GREEN, ORANGE, BLUE), strict=True):
    density = gaussian(path[step])
    right.contour(mu, log_s, density, levels(density), colors=colour, linewidths=1.2)
    right.plot([], color=colour, label=f"q at step {step}")
right.plot([], color="0.62", linewidth=8, label="posterior")
right.set(title="... while q settles on the posterior")
right.legend(frameon=False, loc="lower right")
plt.show()

# %% [markdown]
# ## What the ten lines leave open
#
# **How long should the steps be?** 0.05 was a lucky guess for masses in grams. Let the same mass be measured in
# kilograms, or in milligrams. Nothing about the posterior changes but the units of $\mu$; with a plain gradient that
# changes everything.


# %%
def in_unit(x, unit):
    """The same log density for mu in another unit, of which one gram has `unit`."""
    return log_density(jnp.stack([x[0] / unit, x[1]])) - jnp.log(unit)


@jax.jit
def by_hand(unit):
    """Mean and sd of q after 1000 steps of 0.05, starting from N(0, I)."""

    def step(q, key):
        def elbo(q):
            draws = q[0] + jnp.exp(q[1]) * jax.random.normal(key, (100, 2))
            return jnp.mean(jax.vmap(in_unit, (0, None))(draws, unit)) + jnp.sum(q[1])

        return jax.tree.map(lambda old, slope: old + 0.05 * slope, q, jax.grad(elbo)(q)), None

    keys = jax.random.split(jax.random.key(0), 1000)
    (mean, log_sd), _ = jax.lax.scan(step, (jnp.zeros(2), jnp.zeros(2)), keys)
    return mean, jnp.exp(log_sd)


for name, unit in {"kg": 1e-3, "g": 1.0, "mg": 1e3}.items():
    mean, sd = by_hand(unit)
    posterior = bbvi.fit(in_unit, 2, data=np.array(unit), family="mean_field")
    q = posterior.distribution
    print(
        f"{name:>2}: by hand {mean[0] / unit:7.2g} ± {sd[0] / unit:<6.2g} g   "
        f"bbvi {q.mean()[0] / unit:.3f} ± {q.sd()[0] / unit:.3f} g"
    )

# %% [markdown]
# In kilograms the gradient is a thousand times steeper and the steps throw $q$ out of the numbers; in milligrams it is
# a thousand times flatter and $q$ has hardly left where it began. `bbvi` finds a Gaussian by a quasi-Newton method
# first, and optimises in coordinates in which that Gaussian is $\mathrm{N}(0, I)$. In them every unit is the same
# unit, and one step size serves all.
#
# **When to stop?** A thousand steps were a guess, too. `bbvi` compares averages of the iterates and stops when they no
# longer move.
#
# **How close is q in the end?** The ELBO alone cannot say, since the evidence is not known. Fresh draws of $q$ can, by
# the spread and the tail of their weights $p / q$:

# %%
posterior = bbvi.fit(in_unit, 2, data=np.array(1.0), family="mean_field")
print(posterior.diagnosis)

# %% [markdown]
# The optimisation is in order, and the answer is not: the posterior is pear-shaped, for the wider the spread $s$, the
# less is known of the mass, and a Gaussian is no pear. Its tails are too thin for the weights to make up for. Nothing
# in the ten lines would have told. Left to choose, `bbvi` goes on to a richer family when the cheap one does not pass:

# %%
full = bbvi.fit(in_unit, 2, data=np.array(1.0))
print(full.diagnosis)
print("tried:", *full.ladder, sep="\n  ")

# %%
weights = np.exp(log_p - log_p.max()) / np.exp(log_p - log_p.max()).sum()
exact = np.tensordot(weights, points, 2)
exact_sd = np.sqrt(np.tensordot(weights, (points - exact) ** 2, 2))
q = posterior.distribution

answers = {
    "by hand, 1000 steps": (path[-1][0], jnp.exp(path[-1][1])),
    "bbvi, mean-field q": (q.mean(), q.sd()),
    "bbvi, default": (full.mean(), full.sd()),
    "exact, on the grid": (exact, exact_sd),
}
for name, (mean, sd) in answers.items():
    print(f"{name:20} mu = {mean[0]:.2f} ± {sd[0]:.2f} g, log s = {mean[1]:.2f} ± {sd[1]:.2f}")
print(f"log evidence: bbvi {full.diagnosis.log_evidence}, exact {log_evidence:.4f}")

# %% [markdown]
# The hand-made $q$ and the mean-field one of `bbvi` are the same optimum, up to the noise of the steps. Both are
# narrower than the posterior: this is what maximising the ELBO over too small a family does. The richer family has the
# right spread.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.8), sharey=True)
shown = {"A mean-field Gaussian misses the pear's shape ...": posterior, "... and what the default fits does not": full}
for each, (title, fitted) in zip(axes, shown.items(), strict=True):
    draw_posterior(each)
    density = np.exp(fitted.log_prob(points.reshape(-1, 2)).reshape(mu.shape))
    each.contour(mu, log_s, density, levels(density), colors=BLUE, linewidths=1.2)
    each.plot([], color="0.62", linewidth=8, label="posterior")
    each.plot([], color=BLUE, label=f"q: {fitted.distribution.title}")
    each.set(title=title)
    each.legend(frameon=False, loc="lower right")
axes[1].set_ylabel("")
plt.show()
