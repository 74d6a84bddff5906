# %% [markdown]
# # Quickstart: eight schools
#
# From a log density to a posterior that has been checked, drawn from, plotted, used for prediction and saved. The
# example is the one every Bayesian course meets: eight schools each ran a coaching programme for an admission test,
# and reported by how many points it raised the scores, $y_j$, with a standard error $\sigma_j$ (Rubin 1981,
# *Estimation in parallel randomized experiments*). Taken one by one the estimates range from $-3$ to $28$ points, with
# errors so large that they hardly differ. A hierarchical model lets the schools learn from each other:
#
# $$
# \mu \sim \mathrm{N}(0, 5^2), \qquad
# \tau \sim \text{half-Cauchy}(5), \qquad
# z_j \sim \mathrm{N}(0, 1), \qquad
# \theta_j = \mu + \tau z_j, \qquad
# y_j \sim \mathrm{N}(\theta_j, \sigma_j^2).
# $$
#
# The effects $\theta_j$ are written through standard normal $z_j$, the *non-centred* form. Why that matters is told in
# notebook 06.

# %%
import arviz_plots as azp
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.scipy.stats import cauchy, norm
from numpyro.distributions import constraints

import bbvi

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "0.6"  # told apart by colour-blind readers too
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True})

SCHOOLS = list("ABCDEFGH")
DATA = {
    "y": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
    "sigma": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
}

# %% [markdown]
# ## The model is a function
#
# `bbvi` asks for the log of the joint density, as one number, in code that JAX can trace: `jax.numpy` in place of
# `numpy`. The first argument arrives in whatever structure we choose, here a dict, and on the constrained scale, so
# `tau` is positive. The second one holds the data. There is no log-Jacobian to add: `fit` does that.


# %%
def logprob(p, data):
    prior = norm.logpdf(p["mu"], 0, 5) + jnp.log(2) + cauchy.logpdf(p["tau"], 0, 5) + norm.logpdf(p["z"]).sum()
    theta = p["mu"] + p["tau"] * p["z"]
    return prior + norm.logpdf(data["y"], theta, data["sigma"]).sum()


posterior = bbvi.fit(
    logprob,
    {"mu": (), "tau": (), "z": (8,)},  # the shape of each parameter
    data=DATA,
    constraints={"tau": constraints.positive},
    seed=5,
    budget=600,  # seconds at most, for a slow machine; left out, nothing new is begun after a minute
)
posterior

# %% [markdown]
# That is all: no step size, no number of iterations, no starting point. Behind the call, quasi-Newton paths found
# where the mass is, and then approximations $q$ of the ten free coordinates $x = (\mu, \log \tau, z)$ were fitted,
# each by maximising the evidence lower bound
#
# $$
# \mathrm{ELBO}(q) = \mathrm{E}_q[\log p(x, y) - \log q(x)] = \log p(y) - \mathrm{KL}(q \,\|\, p(\cdot \mid y)),
# $$
#
# and each was judged by fresh draws. The cheapest comes first, and a richer one only where the verdict asks for it:

# %%
for stage in posterior.ladder:
    print(stage)

# %% [markdown]
# A full-rank Gaussian does not pass here, as $\log \tau$ is skewed: the data can tell that $\tau$ is not large, but
# hardly that it is not zero. So 64 short Markov chains began at its draws, and moved until they agreed.
#
# ## Reading the verdict

# %%
print(posterior.diagnosis)

# %% [markdown]
# - **Status.** *Reliable* means here that the chains agree: those that began at different points have forgotten where
#   (nested R-hat near 1), and their means are known well enough (the Monte Carlo error, in standard deviations). All
#   that follows then rests on their draws. Where an approximation $q$ passes by itself, its draws are weighted instead.
# - **k-hat** is the shape of the tail of the importance weights $w = p(x, y) / q(x)$ of the Gaussian: above 0.7
#   averages over them are not to be trusted, which is why it did not pass.
# - **ESS** says how many independent posterior draws those of the chains are worth.
# - **ELBO and log evidence**, in nats. Their difference estimates $\mathrm{KL}(q \,\|\, p)$: here a third of a nat.
#
# The weights themselves come with plain draws of the Gaussian, so that we can look at them. If $q$ were the posterior,
# all of them would be equal:

# %%
plain = posterior.to_arviz(4000, resample=False).sample_stats
log_weights = (plain["log_p"] - plain["log_q"]).values.ravel() - posterior.diagnosis.log_evidence.value

figure, axes = plt.subplots(figsize=(6.5, 2.8))
axes.hist(log_weights, bins=np.linspace(-3, 3, 81), color=BLUE)
axes.axvline(0, color=ORANGE, label="if q were the posterior")
axes.set(
    xlabel="log weight minus log evidence (nats)",
    ylabel="draws",
    title="The log weights spread: q is not the posterior",
)
axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(0, 1.0))
plt.show()

# %% [markdown]
# ## Draws
#
# `sample` returns NumPy arrays in the structure of the parameters. Anything that can be computed from a parameter can
# be computed from its draws, such as the effects $\theta_j = \mu + \tau z_j$, or the probability that school A's
# programme works better than school C's:

# %%
draws = posterior.sample(4000)
theta = draws["mu"][:, None] + draws["tau"][:, None] * draws["z"]

print({name: values.shape for name, values in draws.items()})
for school, y, sigma, effect in zip(SCHOOLS, DATA["y"], DATA["sigma"], theta.T, strict=True):
    print(f"{school}: raw estimate {y:3.0f} ± {sigma:2.0f} points, posterior {effect.mean():4.1f} ± {effect.std():.1f}")
print(f"P(A > C) = {np.mean(theta[:, 0] > theta[:, 2]):.2f}")

# %% [markdown]
# ## Is it right?
#
# With ten parameters one can rarely tell. Here one can, as the effects can be integrated out by hand, $y_j \mid \mu,
# \tau \sim \mathrm{N}(\mu, \sigma_j^2 + \tau^2)$, and two parameters fit on a grid:

# %%
mu, tau = np.meshgrid(np.linspace(-25, 25, 401), np.geomspace(1e-3, 1e3, 1500), indexing="ij")
log_joint = norm.logpdf(mu, 0, 5) + np.log(2) + cauchy.logpdf(tau, 0, 5)
for y, sigma in zip(DATA["y"], DATA["sigma"], strict=True):
    log_joint = log_joint + norm.logpdf(y, mu, np.sqrt(sigma**2 + tau**2))
joint = np.exp(np.asarray(log_joint, float)) * tau  # the grid is even in log tau
mass = joint.sum() * (mu[1, 0] - mu[0, 0]) * np.log(tau[0, 1] / tau[0, 0])
of_log_tau = joint.sum(axis=0) / joint.sum() / np.log(tau[0, 1] / tau[0, 0])

print(f"log evidence: fit {posterior.diagnosis.log_evidence}, grid {np.log(mass):.4f}")
print(f"median of tau: fit {posterior.quantile(0.5)['tau']:.2f}, ", end="")
print(f"grid {np.interp(0.5, np.cumsum(joint.sum(axis=0)) / joint.sum(), tau[0]):.2f} points")

figure, axes = plt.subplots(figsize=(6.5, 3))
axes.hist(np.log10(draws["tau"]), bins=60, density=True, color=BLUE, alpha=0.5, label="4000 draws of the fit")
axes.plot(np.log10(tau[0]), of_log_tau * np.log(10), color=ORANGE, label="exact, on a grid")
axes.set(
    xlim=(-2, 2),
    xlabel=r"$\log_{10} \tau$ ($\tau$ in points)",
    ylabel="density",
    title="How much the schools differ: the draws follow the exact posterior",
)
axes.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Pictures by arviz
#
# `to_arviz` gives the tree of labelled arrays that arviz works with: tables, plots, comparisons of models. Names of
# dimensions are ours to give. Derived quantities are one line of xarray.

# %%
by_school = {name: ["school"] for name in ("z", "y", "sigma")}
tree = posterior.to_arviz(4000, coords={"school": SCHOOLS}, dims=by_school)
tree.posterior["theta"] = tree.posterior["mu"] + tree.posterior["tau"] * tree.posterior["z"]

azp.plot_forest(
    tree, var_names=["mu", "theta"], combined=True, ci_probs=(0.5, 0.9), figure_kwargs={"figsize": (6.5, 4)}
)
figure = plt.gcf()
figure.suptitle("Partial pooling: the effects are drawn together")
figure.supxlabel("effect of coaching (points): median, 50 % and 90 % intervals", fontsize="medium")
plt.show()

# %% [markdown]
# ## Prediction
#
# What would a *ninth* school find, if its standard error were 10 points? Draw its effect from the population, and then
# its estimate: for a log density it takes two lines. (A model of NumPyro or PyMC knows how to make data, and
# `posterior.predict()` does it.) The same for the eight schools is a check of the model: are the data like what it
# predicts?

# %%
rng = np.random.default_rng(0)
ninth_effect = rng.normal(draws["mu"], draws["tau"])
ninth_estimate = rng.normal(ninth_effect, 10)
replicated = rng.normal(theta, DATA["sigma"])  # (4000, 8)
print(f"P(the programme of a ninth school helps) = {np.mean(ninth_effect > 0):.2f}")

figure, axes = plt.subplots(figsize=(6.5, 3.6))
rows = np.arange(9)
low, inner_low, inner_high, high = np.quantile(
    np.column_stack([replicated, ninth_estimate]), [0.05, 0.25, 0.75, 0.95], axis=0
)
axes.hlines(rows, low, high, color=BLUE, linewidth=1.5, label="predicted estimate, 90 %")
axes.hlines(rows, inner_low, inner_high, color=BLUE, linewidth=5, label="50 %")
axes.plot(DATA["y"], rows[:8], "s", color=ORANGE, label="observed estimate")
axes.set_yticks(rows, [*SCHOOLS, "a ninth"])
axes.invert_yaxis()
axes.set(xlabel="estimated effect (points)", ylabel="school", title="The data look like what the model predicts")
figure.legend(loc="outside lower center", ncols=3, frameon=False)
plt.show()

print(
    "observed estimates within their 90 % interval:",
    int(((low[:8] < DATA["y"]) & (DATA["y"] < high[:8])).sum()),
    "of 8",
)

# %% [markdown]
# ## Saving
#
# A file holds numbers and text, no code. Loaded back, the posterior samples, summarises and says its verdict; with the
# log density given again it does everything else too.

# %%
posterior.save("eight_schools.npz")
loaded = bbvi.load("eight_schools.npz", logprob=logprob, data=DATA)
print(loaded.diagnosis.status.name, np.array_equal(loaded.sample(10)["tau"], posterior.sample(10)["tau"]))

# %% [markdown]
# And for a colleague, one page of HTML with the verdict, tables and pictures, and with what was run:

# %%
posterior.report("report.html")

# %% [markdown]
# ## Where to go from here
#
# - `bbvi.fit` takes models of NumPyro, PyMC and Stan too, and densities that JAX cannot trace.
# - Notebook 02 builds the heart of it by hand, in ten lines; 03 explains the derivatives that it runs on.
# - Notebook 06 is about posteriors that no Gaussian resembles, and what the verdict says then.
