# %% [markdown]
# # Comparing models: deaths by horse kicks
#
# Bortkiewicz (1898, *Das Gesetz der kleinen Zahlen*) counted, for 14 corps of the Prussian army in the 20 years from
# 1875 to 1894, the soldiers who were killed by the kick of a horse. His table became the textbook example of Poisson's
# distribution. Is it one? We ask three models of the 280 counts:
#
# 1. *Poisson*: one rate for all corps and years, $y_{ct} \sim \mathrm{Poisson}(\lambda)$;
# 2. *negative binomial*: a rate of its own for each corps and year, gamma distributed with mean $\lambda$ and relative
#    standard deviation $r$;
# 3. *corps*: a rate for each corps, $\lambda_c = \lambda e^{\tau z_c}$ with $z_c \sim \mathrm N(0, 1)$.
#
# The second and the third are the first one at $r = 0$ and $\tau = 0$. The models are compared by what they predict,
# with leave-one-out cross-validation (LOO), and by how probable they make the data, the evidence. A fit has both.

# %%
import arviz_stats as azs
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.scipy.special import gammaln
from jax.scipy.stats import expon, norm, poisson
from numpyro.distributions import constraints

import bbvi

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"  # told apart by colour-blind readers too
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True})

# %% [markdown]
# ## The data
#
# G is the guard. The textbooks' table has 200 counts only: Bortkiewicz set G, I, VI and XI apart, as their composition
# differs from that of the others.

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
print("corps and years with 0, 1, 2, ... deaths:", np.bincount(table.ravel()), "of", table.size)
print("the same for the textbooks' ten corps:   ", np.bincount(np.delete(table, [0, 1, 6, 11], axis=1).ravel()))
print(f"deaths: {table.sum()}, mean {table.mean():.2f}, variance {table.var(ddof=1):.2f}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
ks, expected = np.arange(6), table.size * np.asarray(poisson.pmf(np.arange(6), table.mean()))
left.bar(ks, np.bincount(table.ravel(), minlength=6), color=BLUE, alpha=0.6, label="observed")
left.plot(ks, expected, "o", color=ORANGE, label=f"Poisson, mean {table.mean():.2f}")
left.set(xlabel="deaths in a corps and year", ylabel="corps and years", title="All counts look like Poisson's ...")
left.legend(frameon=False)
right.bar(CORPS, table.sum(axis=0), color=BLUE, alpha=0.6)
right.axhline(table.sum() / 14, color=ORANGE, label="mean")
right.set(xlabel="corps", ylabel="deaths in 20 years", title="... but are the corps alike?")
right.tick_params("x", labelsize=8)
right.legend(frameon=False)
plt.show()

# %% [markdown]
# ## Three models
#
# Each is a `bbvi.Factorized`: a log prior, and a log likelihood of each row, which is what cross-validation needs.
# With $\kappa = r^{-2}$ the negative binomial has the log probability
#
# $$
# \log p(y) = y \log \lambda + \sum_{j < y} \log(1 + j r^2) - (r^{-2} + y) \log(1 + \lambda r^2) - \log y! .
# $$
#
# It depends on $r^2$ only, so that $r$ may have either sign. Then there is no boundary at $r = 0$, and a Gaussian can
# cover it. The prior $r \sim \mathrm N(0, 0.5^2)$ makes $|r|$ half-normal, as $\tau$ is a priori.


# %%
def log_prior_rate(v):
    return expon.logpdf(v["rate"])


def negative_binomial(y, rate, r):
    pairs = sum(jnp.where(j < y, jnp.log1p(j * r**2), 0.0) for j in range(1, table.max()))
    return y * jnp.log(rate) + pairs - (r**-2 + y) * jnp.log1p(rate * r**2) - gammaln(y + 1)


def rates_of_corps(v):
    return v["rate"] * jnp.exp(v["tau"] * v["z"])


models = {
    "Poisson": bbvi.Factorized(
        log_prior_rate,
        lambda v, rows: poisson.logpmf(rows["deaths"], v["rate"]),
    ),
    "negative binomial": bbvi.Factorized(
        lambda v: log_prior_rate(v) + norm.logpdf(v["r"], 0, 0.5),
        lambda v, rows: negative_binomial(rows["deaths"], v["rate"], v["r"]),
    ),
    "corps": bbvi.Factorized(
        lambda v: log_prior_rate(v) + jnp.log(2) + norm.logpdf(v["tau"], 0, 0.5) + norm.logpdf(v["z"]).sum(),
        lambda v, rows: poisson.logpmf(rows["deaths"], rates_of_corps(v)[rows["corps"]]),
    ),
}
shapes = {
    "Poisson": {"rate": ()},
    "negative binomial": {"rate": (), "r": ()},
    "corps": {"rate": (), "tau": (), "z": (14,)},
}
positive = {"rate": constraints.positive, "tau": constraints.positive}

fits = {}
for name, model in models.items():
    bounds = {parameter: positive[parameter] for parameter in shapes[name] if parameter in positive}
    limit = bbvi.Budget(gradients=500_000)
    fits[name] = bbvi.fit(model, shapes[name], data=kicks, constraints=bounds, budget=limit)
    print(f"{name}\n{fits[name].diagnosis}\n")

# %% [markdown]
# All three are reliable. Full-rank Gaussians are enough for the first two. For the third one it takes chains that begin
# at the Gaussian; the budget ended them before standard deviations were known as well as they wait for.
#
# One of these evidences is known exactly. The prior of the Poisson model is conjugate, and with $n = 280$ counts of
# sum $s = 196$
#
# $$
# \log p(y) = \log \Gamma(s + 1) - (s + 1) \log(n + 1) - \sum_{ct} \log y_{ct}! .
# $$

# %%
s, n = table.sum(), table.size
exact = gammaln(s + 1.0) - (s + 1) * np.log(n + 1) - gammaln(table + 1.0).sum()
print(f"log evidence of Poisson: exact {exact:.4f}, from the fit {fits['Poisson'].diagnosis.log_evidence}")

# %% [markdown]
# ## Leave-one-out cross-validation
#
# The expected log predictive density of a count from all others, $\mathrm{elpd} = \sum_i \log p(y_i \mid y_{-i})$,
# is estimated from draws of one posterior by importance sampling with smoothed weights $1 / p(y_i \mid \theta)$
# (Vehtari, Gelman and Gabry 2017). The k-hat of each count says whether that is sound: below 0.7 it is.
# `posterior.to_arviz()` brings the `log_likelihood` group that `arviz_stats.loo` reads.

# %%
loos = {name: azs.loo(fit.to_arviz(4000), pointwise=True) for name, fit in fits.items()}
for name, loo in loos.items():
    print(f"{name:<18} elpd {loo.elpd:8.2f} ± {loo.se:.2f}, p_loo {loo.p:5.2f}, largest k-hat {loo.pareto_k.max():.2f}")

# %% [markdown]
# Poisson's elpd is known exactly, too: without the count $y_i$ the rate has a gamma posterior with shape $a = s - y_i +
# 1$ and rate $n$, and the prediction is negative binomial.

# %%
a = s - table + 1.0
left_out = gammaln(table + a) - gammaln(a) - gammaln(table + 1.0) + a * np.log(n / (n + 1)) - table * np.log(n + 1)
print(f"elpd of Poisson: exact {left_out.sum():.2f}, from draws of one posterior {loos['Poisson'].elpd:.2f}")

# %% [markdown]
# The standard errors of the table above say how much the elpd would vary with other counts. Most of that is common to
# the models. What matters are the differences, `elpd_diff`, and their standard errors, `dse`:

# %%
azs.compare(loos)[["elpd", "p", "elpd_diff", "dse"]].round(2)

# %%
evidences = {name: fit.diagnosis.log_evidence for name, fit in fits.items()}
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(9, 2.8), sharey=True)
for row, name in enumerate(models):
    gaps = np.asarray(loos[name].elpd_i - loos["Poisson"].elpd_i)
    left.errorbar(gaps.sum(), row, xerr=gaps.std() * n**0.5, fmt="o", color=BLUE, capsize=3)
    middle.plot(evidences[name].value - evidences["Poisson"].value, row, "o", color=ORANGE)
    k_hats = loos[name].pareto_k.values.ravel()
    right.plot(k_hats, row + np.linspace(-0.3, 0.3, n), ".", color=GREEN, markersize=2)
left.axvline(0, color="0.6", linewidth=1)
left.set(yticks=range(3), yticklabels=models, ylim=(2.5, -0.5), xlabel="elpd against Poisson, ± 1 se (nats)")
left.set(title="Prediction")
middle.axvline(0, color="0.6", linewidth=1)
middle.set(xlabel="log evidence against Poisson (nats)", title="Evidence", xlim=(-0.25, 1.75))
right.axvline(0.7, color="0.6", linestyle="--", label="limit")
right.set(xlabel="k-hat of each count", title="LOO can be trusted")
right.legend(frameon=False, loc="upper center")
plt.show()

ratios = {name: np.exp(each.value - evidences["Poisson"].value) for name, each in evidences.items()}
print("evidence, times that of Poisson:", ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))

# %% [markdown]
# # ## What the parameters say

# %%
sizes = {"negative binomial": np.abs(fits["negative binomial"].sample(20_000)["r"])}
sizes["corps"] = fits["corps"].sample(20_000)["tau"]

figure, axes = plt.subplots(figsize=(6.5, 3))
grid = np.linspace(0, 1, 51)
for (name, draws), label, colour in zip(sizes.items(), ("|r|", "tau"), (BLUE, ORANGE), strict=True):
    axes.hist(draws, grid, density=True, histtype="step", color=colour, linewidth=1.5, label=f"{label}, {name}")
axes.plot(grid, 2 * norm.pdf(grid, 0, 0.5), color="0.6", linestyle=":", label="prior of both")
axes.set(xlabel="relative standard deviation of the rates", ylabel="density", xlim=(0, 1))
axes.set(title="How unequal are the rates?")
axes.legend(frameon=False)
plt.show()

for name, draws in sizes.items():
    low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95])
    print(f"{name:<18} {middle:.2f}, 90 % interval {low:.2f} to {high:.2f}")

# %% [markdown]
# The picture and the evidence say the same, in a precise sense. As Poisson is nested in the other two, at zero, the
# ratio of the evidences is that of prior to posterior density there (the Savage-Dickey ratio, Dickey 1971). With the
# mass below 0.04 in place of the density at 0:

# %%
before = 2 * norm.cdf(0.04, 0, 0.5) - 1
for name, draws in sizes.items():
    after = np.mean(draws < 0.04)
    error = np.sqrt((1 - after) / after / len(draws))
    print(f"{name:<18} from the draws {np.log(before / after):5.2f} ± {error:.2f}, ", end="")
    print(f"from the evidences {np.log(ratios[name]):5.2f}")

# %% [markdown]
# ## So, is it Poisson?
#
# Nearly. Every comparison leans towards corps that differ, and none of them strongly:
#
# - *Prediction.* The elpd of the third model is higher by 2.4 nats, about as much as the standard error. Differences
#   below 4 nats are small, and their standard errors tend to be too small (Sivula et al. 2020, arXiv:2008.10296).
# - *Evidence.* The third model makes the data 3.5 times as probable as Poisson. If both were equally credible before,
#   it has now a probability of 0.78 against it.
# - *Size.* If the corps differ, then by about a quarter of their rate; a tenth and a half are possible, too.
# - *Rates that change by corps and year*, the second model, gain nothing: the evidence is the same as Poisson's within
#   a tenth of a nat, and so is the elpd.
#
# LOO and evidence answer different questions. LOO asks about one more count of a corps whose other 19 years are known;
# priors matter little for it. The evidence asks how well the prior foresaw the whole table, and would change with the
# scale 0.5 of the two priors. Here they agree.
