# %% [markdown]
# # Random effects: four ways to integrate them out
#
# Crowder (1978, *Applied Statistics* 27:34) counted how many seeds of two kinds of broomrape germinated on 21 plates,
# with one of two root extracts. Plates differ by more than binomial chance, so each has an effect of its own:
#
# $$r_i \sim \mathrm{Binomial}(n_i, p_i), \qquad \mathrm{logit}\, p_i = x_i^\top \alpha + b_i, \qquad
#   b_i \sim \mathrm N(0, \sigma^2).$$
#
# The question is what to do with the effects $b_i$. lme4 integrates them out by Laplace's method and maximises what is
# left. INLA does so for $b$ and $\alpha$ together, and integrates over $\sigma$ by a sum. NUTS draws everything. bbvi
# is given the log density, and nothing else.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.scipy.stats import norm
from numpyro.distributions import constraints
from scipy.optimize import minimize

import bbvi

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"  # told apart by colour-blind readers too
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True})

germinated = np.array([10, 23, 23, 26, 17, 5, 53, 55, 32, 46, 10, 8, 10, 8, 23, 0, 3, 22, 15, 32, 3])
seeds = np.array([39, 62, 81, 51, 39, 6, 74, 72, 51, 79, 13, 16, 30, 28, 45, 4, 12, 41, 30, 51, 7])
kind = np.repeat([0, 1], [11, 10])  # O. aegyptiaca 75 and 73
extract = np.repeat([0, 1, 0, 1], [5, 6, 5, 5])  # bean and cucumber
X = np.stack([np.ones(21), kind, extract, kind * extract], axis=1)
data = {"r": germinated.astype(float), "n": seeds.astype(float), "X": X}
NAMES = ["intercept", "kind", "extract", "kind x extract", "sigma"]

# %% [markdown]
# ## bbvi
#
# The priors are those of the example *Seeds* of BUGS: $\alpha \sim \mathrm N(0, 1000^2)$, nearly flat, and $\sigma$
# uniform on $(0, 10)$.


# %%
def logprob(p, data):
    """The log density of `alpha`, `sigma` and the effects `b`."""
    eta = data["X"] @ p["alpha"] + p["b"]
    prior = norm.logpdf(p["alpha"], 0, 1000).sum() + norm.logpdf(p["b"], 0, p["sigma"]).sum()
    return prior + jnp.sum(data["r"] * eta - data["n"] * jnp.logaddexp(0, eta))


shapes, bounds = {"alpha": (4,), "sigma": (), "b": (21,)}, {"sigma": constraints.interval(0, 10)}
posterior = bbvi.fit(logprob, shapes, data=data, constraints=bounds)
for stage in posterior.ladder:
    print(stage)
print(posterior.diagnosis)

# %% [markdown]
# Of only 26 coordinates, bbvi tries a Gaussian of them all first. `fit(..., latents=["b"])` would integrate the effects
# out at once, and say so; among more than 40 coordinates it does by itself, as at the end of this notebook.
#
# ## lme4: the maximum of the integrated likelihood
#
# Given $\alpha$ and $\sigma$, each plate has an integral of one dimension. Laplace's method replaces its integrand by
# the Gaussian with the same peak and curvature; Gauss-Hermite quadrature around the peak (`nAGQ` in lme4) makes it
# exact.


# %%
def log_likelihood(theta, nodes):
    """The log likelihood of alpha and log sigma, the effects integrated out by so many nodes; 1 is Laplace's method."""
    fixed, sd = X @ theta[:4], np.exp(theta[4])
    height = lambda b: germinated * (fixed + b) - seeds * np.logaddexp(0, fixed + b) - 0.5 * (b / sd) ** 2
    b = np.zeros(21)
    for _ in range(30):
        p = 1 / (1 + np.exp(-(fixed + b)))
        curvature = seeds * p * (1 - p) + 1 / sd**2
        b += (germinated - seeds * p - b / sd**2) / curvature
    t, weights = np.polynomial.hermite_e.hermegauss(nodes)
    values = np.stack([height(b + u / np.sqrt(curvature)) + 0.5 * u**2 for u in t])
    integrals = np.log(weights / np.sqrt(2 * np.pi) @ np.exp(values - values.max(axis=0))) + values.max(axis=0)
    return np.sum(integrals - 0.5 * np.log(curvature)) - 21 * theta[4]


def information(height, theta, step=1e-3):
    """Minus the matrix of second differences of a function at its maximum."""
    moves = step * np.eye(5)
    at = lambda i, j, a, b: height(theta + a * moves[i] + b * moves[j])
    second = lambda i, j: at(i, j, 1, 1) - at(i, j, 1, -1) - at(i, j, -1, 1) + at(i, j, -1, -1)
    return -np.array([[second(i, j) for j in range(5)] for i in range(5)]) / (4 * step**2)


table = {}
for name, nodes in (("maximum, Laplace", 1), ("maximum, 25 nodes", 25)):
    height = lambda theta, nodes=nodes: log_likelihood(theta, nodes)
    best = minimize(lambda theta, height=height: -height(theta), np.array([-0.5, 0, 1, 0, -1.0]), tol=1e-8).x
    sd = np.sqrt(np.diag(np.linalg.inv(information(height, best))))
    table[name] = [*best[:4], np.exp(best[4])], [*sd[:4], sd[4] * np.exp(best[4])]

# %% [markdown]
# ## INLA: a sum over the hyper-parameter
#
# Given $\sigma$, effects and coefficients together have a mode and a curvature there. Laplace's method gives the
# density of $\sigma$ on a grid, and $\alpha$ is a mixture of Gaussians over it. (This is the principle only. INLA
# corrects each marginal distribution further.)


# %%
@jax.jit
def given_sigma(log_sigma):
    """Mode and covariance of alpha given sigma, and the log density of log sigma, by Laplace's method."""

    def height(z):
        p = {"alpha": z[:4], "b": z[4:], "sigma": jnp.exp(log_sigma)}
        return logprob(p, data)

    z = jax.lax.fori_loop(0, 30, lambda _, z: z - jnp.linalg.solve(jax.hessian(height)(z), jax.grad(height)(z)), Z)
    covariance = jnp.linalg.inv(-jax.hessian(height)(z))
    log_density = height(z) + 0.5 * jnp.linalg.slogdet(covariance)[1] + log_sigma
    return z[:4], covariance[:4, :4], log_density


with jax.enable_x64(True):
    Z = jnp.zeros(25)
    grid = np.linspace(-7, 1, 201)
    modes, covariances, logs = map(np.asarray, jax.lax.map(given_sigma, jnp.asarray(grid)))
weights = np.exp(logs - logs.max())
weights /= weights.sum()
mean = weights @ modes
second = weights @ (np.diagonal(covariances, axis1=1, axis2=2) + modes**2)
sigma_mean = weights @ np.exp(grid)
sigma_sd = np.sqrt(weights @ (np.exp(grid) - sigma_mean) ** 2)
table["nested Laplace"] = [*mean, sigma_mean], [*np.sqrt(second - mean**2), sigma_sd]

# %% [markdown]
# ## NUTS
#
# Long chains of NumPyro's NUTS, which begin at draws of the fit.

# %%
nuts = posterior.to_nuts(5000, seed=1)
by_nuts = np.column_stack([nuts.samples["alpha"], nuts.samples["sigma"]])
table["NUTS"] = by_nuts.mean(axis=0), by_nuts.std(axis=0)
draws = posterior.sample(20_000, seed=1)
by_bbvi = np.column_stack([draws["alpha"], draws["sigma"]])
table["bbvi"] = by_bbvi.mean(axis=0), by_bbvi.std(axis=0)
print(f"NUTS: R-hat {nuts.r_hat:.3f}, {nuts.effective_sample_size:.0f} effective draws, {nuts.divergences} divergences")
print(f"gradients: {nuts.gradients} of NUTS after its warm-up; bbvi: {posterior.cost}\n")
print(f"{'':<18}" + "".join(f"{name:>17}" for name in NAMES))
for name, (mean, sd) in table.items():
    print(f"{name:<18}" + "".join(f"{m:9.3f} ({s:.3f})" for m, s in zip(mean, sd, strict=True)))

# %% [markdown]
# Breslow and Clayton (1993, *JASA* 88:9) report for the maximum, by quadrature, -0.546 (0.167), 0.097 (0.278), 1.337
# (0.237) and -0.811 (0.385), with $\sigma$ = 0.236 (0.110): as above.
#
# Laplace's method in $b$ loses little here, with dozens of seeds on most plates. What does differ is to maximise rather
# than to integrate over $\sigma$: the maximum says 0.24, and that coefficients are known to a quarter better than they
# are. The sum over $\sigma$ and both samplers agree.
#
# ## The standard deviation of the plates

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.3))
bins = np.linspace(0, 1.2, 61)
left.hist(by_nuts[:, 4], bins, density=True, color="0.8", label="NUTS")
left.hist(by_bbvi[:, 4], bins, density=True, histtype="step", color=BLUE, label="bbvi")
density = weights / (grid[1] - grid[0]) / np.exp(grid)
left.plot(np.exp(grid), density, color=ORANGE, lw=1.2, label="nested Laplace")
left.axvline(table["maximum, Laplace"][0][4], color=GREEN, ls="--", label="maximum")
left.set(xlim=(0, 1.2), xlabel=r"$\sigma$", ylabel="density", title="between plates")
left.legend(frameon=False)
effects, by_chains = draws["b"], nuts.samples["b"]
order = np.argsort(effects.mean(axis=0))
place = np.arange(21)
for shift, each, colour, name in ((-0.15, by_chains, "0.6", "NUTS"), (0.15, effects, BLUE, "bbvi")):
    low, middle, high = np.quantile(each[:, order], [0.05, 0.5, 0.95], axis=0)
    right.vlines(place + shift, low, high, color=colour)
    right.plot(place + shift, middle, "o", ms=3, color=colour, label=name)
right.axhline(0, color="k", lw=0.6)
right.set(xlabel="plates, in order", ylabel="effect", title="effects, with 5 and 95 %", xticks=[])
right.legend(frameon=False, loc="upper left")
plt.show()

# %% [markdown]
# ## Fewer trials, more groups
#
# Where each group has one or two trials with two outcomes, Laplace's method is biased. bbvi integrates each effect
# exactly, along a line through its mode, and weighs the draws of the hyper-parameters by that. Simulated, with 300
# groups of two trials each, $\sigma = 1.5$ and an intercept of 0.5:

# %%
rng = np.random.default_rng(0)
group = np.repeat(np.arange(300), 2)
p = 1 / (1 + np.exp(-(0.5 + 1.5 * rng.standard_normal(300))))
few = {"group": group, "y": (rng.random(600) < p[group]).astype(float)}


def trials(p, data):
    """Trials with two outcomes."""
    eta = p["mean"] + p["b"][data["group"]]
    prior = norm.logpdf(p["mean"], 0, 5) + norm.logpdf(p["sigma"], 0, 2) + norm.logpdf(p["b"], 0, p["sigma"]).sum()
    return prior + jnp.sum(data["y"] * eta - jnp.logaddexp(0, eta))


shapes, bounds = {"mean": (), "sigma": (), "b": (300,)}, {"sigma": constraints.positive}
fit = bbvi.fit(trials, shapes, data=few, constraints=bounds)
print(fit.diagnosis)

# %% [markdown]
# The exact answer is a sum over a grid: there are but three kinds of groups, with 0, 1 or 2 successes.

# %%
successes = np.bincount(group, few["y"])
z, dz = np.linspace(-8, 8, 401, retstep=True)
means, sigmas = np.linspace(-0.5, 1.5, 121), np.linspace(0.02, 4, 200)
logs = np.empty((121, 200))
for i, mean in enumerate(means):
    eta = mean + sigmas[:, None, None] * z
    parts = np.arange(3)[:, None] * eta - 2 * np.logaddexp(0, eta) - 0.5 * z**2
    logs[i] = np.log(np.exp(parts).sum(axis=-1) * dz) @ np.bincount(successes.astype(int), minlength=3)
    logs[i] += -0.5 * (mean / 5) ** 2 - 0.5 * (sigmas / 2) ** 2
weights = np.exp(logs - logs.max())
weights /= weights.sum()
for name, values, marginal in (("mean", means, weights.sum(axis=1)), ("sigma", sigmas, weights.sum(axis=0))):
    exact = marginal @ values
    spread = np.sqrt(marginal @ (values - exact) ** 2)
    print(f"{name:<6} exact {exact:.3f} ({spread:.3f})   bbvi {fit.mean()[name]:.3f} ({fit.sd()[name]:.3f})")
