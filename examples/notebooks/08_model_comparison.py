# %% [markdown]
# # Comparing models: deaths by horse kicks
#
# Bortkiewicz (1898) counted, for 14 corps of the Prussian army in the 20 years from 1875 to 1894, the soldiers who
# were killed by the kick of a horse. His table became the textbook example of Poisson's distribution. Is it one?
# Three models of the 280 counts are asked:
#
# 1. *Poisson*: one rate for all corps and years, $y_{ct} \sim \mathrm{Poisson}(\lambda)$;
# 2. *negative binomial*: a rate of its own for each corps and year, of mean $\lambda$ and variance
#    $\lambda^2 / \kappa$, $y_{ct} \sim \mathrm{NegBin}(\lambda, \kappa)$, with Poisson as its limit for
#    $\kappa \to \infty$;
# 3. *corps*: a rate for each corps, $\log \lambda_c \sim \mathrm N(\mu, \tau^2)$.
#
# They are compared by what they predict, with leave-one-out cross-validation (LOO), and by how probable they make
# the data, the evidence. Both come with the fits.

# %%
import arviz_stats as azs
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.scipy.special import gammaln
from jax.scipy.stats import norm, poisson
from numpyro.distributions import constraints

import bbvi

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True})

# %% [markdown]
# ## The data

# %%
CORPS = ["G", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XIV", "XV"]
TABLE = """
0 0 0 0 0 0 0 1 1 0 0 0 1 0   2 0 0 0 1 0 0 0 0 0 0 0 1 1   2 0 0 0 0 0 1 1 0 0 1 0 2 0   1 2 2 1 1 0 0 0 0 0 1 0 1 0
0 0 0 1 1 2 2 0 1 0 0 2 1 0   0 3 2 1 1 1 0 0 0 2 1 4 3 0   1 0 0 2 1 0 0 1 0 1 0 0 0 0   1 2 0 0 0 0 1 0 1 1 2 1 4 1
0 0 1 2 0 1 2 1 0 1 0 3 0 0   3 0 1 0 0 0 0 1 0 0 2 0 1 1   0 0 0 0 0 0 1 0 0 2 0 1 0 1   2 1 0 0 1 1 1 0 0 1 0 1 3 0
1 1 2 1 0 0 3 2 1 1 0 1 2 0   0 1 1 0 0 1 1 0 0 0 0 1 1 0   0 0 1 1 0 1 1 0 0 1 2 2 0 2   1 2 0 2 0 1 1 2 0 2 1 1 2 2
0 0 0 1 1 1 0 1 1 0 3 3 1 0   1 3 2 0 1 1 3 0 1 1 0 1 1 0   0 1 0 0 0 1 0 2 0 0 1 3 0 0   1 0 0 0 0 0 0 0 1 0 1 1 0 0
"""
table = np.array(TABLE.split(), int).reshape(20, 14)  # years 1875 to 1894, corps
kicks = {"deaths": table.ravel().astype(float), "corps": np.tile(np.arange(14), 20)}
print("corps and years with 0, 1, 2, ... deaths:", np.bincount(table.ravel()), "deaths:", table.sum())
print("deaths by corps:", dict(zip(CORPS, table.sum(axis=0).tolist(), strict=True)))

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.3))
ks, mean = np.arange(6), table.mean()
left.bar(ks, np.bincount(table.ravel(), minlength=6), color=BLUE, alpha=0.6, label="observed")
left.plot(ks, table.size * np.asarray(poisson.pmf(ks, mean)), "o", color=ORANGE, label=f"Poisson, mean {mean:.2f}")
left.set(xlabel="deaths in a corps and year", ylabel="number of corps and years", title="A textbook example")
left.legend(frameon=False)
right.bar(CORPS, table.sum(axis=0), color=BLUE, alpha=0.6)
right.axhline(table.sum() / 14, color=ORANGE)
right.set(xlabel="corps", ylabel="deaths in 20 years", title="But are the corps alike? (line: mean)")
right.tick_params("x", labelsize=8)
figure.align_labels()

# %% [markdown]
# ## Three models
#
# Each is a `bbvi.Factorized`: a log prior, and a log likelihood of each row, which is what cross-validation needs.
# The negative binomial is written with the relative standard deviation of its rates, $r = \kappa^{-1/2}$,
#
# $$
# \log p(y) = y \log \lambda + \sum_{j < y} \log(1 + j r^2) - (r^{-2} + y) \log(1 + \lambda r^2) - \log y!
# $$
#
# so that it is Poisson at $r = 0$, and the prior of $r$ is the same as that of $\tau$, which plays the same part
# between corps.


# %%
def half_normal(x, scale):
    return jnp.log(2) + norm.logpdf(x, 0, scale)


def prior_of_rate(rate):
    return -rate  # exponential of mean 1


def negative_binomial(y, rate, r):
    pairs = sum(jnp.where(j < y, jnp.log1p(j * r**2), 0.0) for j in range(1, table.max()))
    return y * jnp.log(rate) + pairs - (r**-2 + y) * jnp.log1p(rate * r**2) - gammaln(y + 1)


def rates_of_corps(values):
    return values["rate"] * jnp.exp(values["tau"] * values["z"])


models = {
    "Poisson": bbvi.Factorized(
        lambda values: prior_of_rate(values["rate"]),
        lambda values, rows: poisson.logpmf(rows["deaths"], values["rate"]),
    ),
    "negative binomial": bbvi.Factorized(
        lambda values: prior_of_rate(values["rate"]) + half_normal(values["r"], 0.5),
        lambda values, rows: negative_binomial(rows["deaths"], values["rate"], values["r"]),
    ),
    "corps": bbvi.Factorized(
        lambda v: prior_of_rate(v["rate"]) + half_normal(v["tau"], 0.5) + norm.logpdf(v["z"]).sum(),
        lambda values, rows: poisson.logpmf(rows["deaths"], rates_of_corps(values)[rows["corps"]]),
    ),
}
shapes = {
    "Poisson": {"rate": ()},
    "negative binomial": {"rate": (), "r": ()},
    "corps": {"rate": (), "tau": (), "z": (14,)},
}
positive = {"rate": constraints.positive, "tau": constraints.positive, "r": constraints.positive}

fits = {}
for name, model in models.items():
    bounds = {parameter: positive[parameter] for parameter in shapes[name] if parameter in positive}
    fits[name] = bbvi.fit(model, shapes[name], data=kicks, constraints=bounds, progress=False)
    print(f"{name}\n{fits[name].diagnosis}\n")

# %% [markdown]
# One of these evidences is known exactly: the prior of the Poisson model is conjugate, and with $n = 280$ counts of
# sum $s = 196$
#
# $$
# \log p(y) = \log \Gamma(s + 1) - (s + 1) \log(n + 1) - \sum_{ct} \log y_{ct}! .
# $$

# %%
s, n = table.sum(), table.size
exact = gammaln(s + 1.0) - (s + 1) * np.log(n + 1) - gammaln(table + 1.0).sum()
print(f"exact {exact:.3f}, from the fit {fits['Poisson'].diagnosis.log_evidence}")

# %% [markdown]
# ## Leave-one-out cross-validation
#
# The expected log predictive density of a count from all others, $\mathrm{elpd} = \sum_i \log p(y_i \mid y_{-i})$,
# is estimated from draws of one posterior by importance sampling with smoothed weights $1 / p(y_i \mid \theta)$
# (Vehtari, Gelman and Gabry 2017). The k-hat of each count says whether that is sound: below 0.7 it is.
# `posterior.to_arviz()` brings the `log_likelihood` group that `arviz_stats.loo` reads.

# %%
trees = {name: fit.to_arviz(4000) for name, fit in fits.items()}
loos = {name: azs.loo(tree, pointwise=True) for name, tree in trees.items()}
for name, loo in loos.items():
    print(f"{name:<18} elpd {loo.elpd:8.2f} ± {loo.se:.2f}, p_loo {loo.p:5.2f}, largest k {loo.pareto_k.max():.2f}")
comparison = azs.compare(loos)
comparison

# %%
evidences = {name: fit.diagnosis.log_evidence for name, fit in fits.items()}
names = list(models)
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9.5, 3.0), sharey=True)
best = max(loos.values(), key=lambda loo: loo.elpd)
for i, name in enumerate(names):
    gaps = np.asarray(loos[name].elpd_i) - np.asarray(best.elpd_i)
    error = np.sqrt(n * gaps.var())
    left.errorbar(gaps.sum(), i, xerr=error, fmt="o", color=BLUE, capsize=3)
    against = evidences[name].value - evidences["Poisson"].value
    middle.errorbar(against, i, xerr=evidences[name].standard_error, fmt="o", color=ORANGE, capsize=3)
    right.plot(loos[name].pareto_k.values.ravel(), np.full(n, i) + np.linspace(-0.3, 0.3, n), ".", color=GREEN, ms=2)
left.axvline(0, color="grey", linewidth=1)
left.set(yticks=range(3), yticklabels=names, ylim=(2.5, -0.5), xlabel="elpd against the best, nats", title="Prediction")
middle.axvline(0, color="grey", linewidth=1)
middle.set(xlabel="log evidence against Poisson, nats", title="Evidence")
right.axvline(0.7, color="grey", linewidth=1, linestyle="--")
right.set(xlabel="k-hat of each count", title="Is LOO sound? (below 0.7)")
figure.align_labels()

# %% [markdown]
# ## What the parameters say

# %%
figure, axis = plt.subplots(figsize=(9.5, 3.0))
grid = np.linspace(0, 1.2, 61)
for name, parameter, color in (("negative binomial", "r", BLUE), ("corps", "tau", ORANGE)):
    axis.hist(
        fits[name].sample(8000)[parameter],
        grid,
        density=True,
        histtype="step",
        color=color,
        linewidth=1.5,
        label=f"{parameter} of the model “{name}”",
    )
axis.plot(grid, np.exp(half_normal(grid, 0.5)), color="grey", linestyle=":", label="prior of both")
axis.set(
    xlabel="relative standard deviation of the rates",
    ylabel="density",
    xlim=(0, 1.2),
    title="How unequal are the rates?",
)
axis.legend(frameon=False)
figure.align_labels()
