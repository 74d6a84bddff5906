# %% [markdown]
# # When variational inference fails, and how the verdict tells you
#
# A variational approximation can always be fitted. The optimiser converges, the ELBO has a value, draws look
# plausible, and the answer may be badly wrong. This notebook does that on purpose, three times: with a funnel, a
# banana and two separate modes. Each time we look at what the verdict says of the best Gaussian, at a picture of the
# truth, and at a way out. All three targets are normalised, so that their log evidence is 0 and nothing about them is
# unknown.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.scipy.stats import norm

import bbvi

BLUE, ORANGE = "#0072B2", "#D55E00"  # told apart by colour-blind readers too
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True})


def levels(density):
    """Densities above which 99, 90 and 50 % of the mass lie, on an even grid."""
    ordered = np.sort(density, axis=None)[::-1]
    mass = np.cumsum(ordered) / ordered.sum()
    return [ordered[np.searchsorted(mass, share)] for share in (0.99, 0.9, 0.5)]


def compare(target, fits, x_range, y_range, labels, title):
    """The regions that hold 50, 90 and 99 % of the target, shaded, and of each q, as lines."""
    grid = np.meshgrid(np.linspace(*x_range, 300), np.linspace(*y_range, 300), indexing="ij")
    points = np.stack(grid, axis=-1).reshape(-1, 2)
    p = np.exp(np.asarray(jax.jit(jax.vmap(target))(points), float)).reshape(300, 300)
    figure, row = plt.subplots(1, len(fits), figsize=(4.4 * len(fits), 3.7), sharey=True, squeeze=False)
    for axes, (name, fit) in zip(row[0], fits.items(), strict=True):
        q = np.exp(fit.log_prob(points)).reshape(300, 300)
        axes.contourf(*grid, p, [*levels(p), p.max()], colors=["0.88", "0.76", "0.62"])
        axes.contour(*grid, q, levels(q), colors=BLUE, linewidths=1.2)
        axes.set(title=f"{name}: {fit.diagnosis.status.name.lower()}", xlabel=labels[0])
    row[0, 0].set_ylabel(labels[1])
    figure.suptitle(title)
    figure.legend(
        [plt.Rectangle((0, 0), 1, 1, color="0.76"), plt.Line2D([], [], color=BLUE)],
        ["target: 50, 90 and 99 % of what is shown", "q: the same shares"],
        loc="outside lower center",
        ncols=2,
        frameon=False,
    )
    plt.show()


# %% [markdown]
# The targets are functions of two numbers, and one log density chooses among them by its data. What is given as
# `data=` may change without compiling anew; this is for the speed of the notebook only.


# %%
def funnel(x):
    return norm.logpdf(x[0], 0, 3) + norm.logpdf(x[1], 0, jnp.exp(x[0] / 2))


def non_centred(x):
    return norm.logpdf(x[0], 0, 3) + norm.logpdf(x[1])


def banana(x):
    return norm.logpdf(x[0], 0, 2) + norm.logpdf(x[1], 0.5 * x[0] ** 2 - 2, 0.5)


def two_modes(x):
    left = norm.logpdf(x, jnp.array([-3.0, 0.0]), jnp.array([0.6, 1.0])).sum()
    right = norm.logpdf(x, jnp.array([3.0, 1.0]), jnp.array([1.0, 0.6])).sum()
    return jnp.logaddexp(jnp.log(0.3) + left, jnp.log(0.7) + right)


TARGETS = [funnel, non_centred, banana, two_modes]


def log_density(x, number):
    return jax.lax.switch(number, TARGETS, x)


def fit(target, **options):
    return bbvi.fit(log_density, 2, data=np.array(TARGETS.index(target)), **options)


# %% [markdown]
# ## What the verdict sees
#
# The optimiser maximises $\mathrm{ELBO}(q) = \log Z - \mathrm{KL}(q \,\|\, p)$. This divergence is an average over
# $q$:
#
# $$
# \mathrm{KL}(q \,\|\, p) = \mathrm{E}_q\!\left[\log \frac{q(x)}{p(x)}\right].
# $$
#
# It punishes $q$ for being where $p$ is not, and hardly for not being where $p$ is. So the typical failure is a $q$
# that is too narrow, and the place to look for it are the weights $w = p / q$ of fresh draws, of which some must then
# be very large. The verdict reads three things off them: how far their logarithms spread, how many draws they amount
# to (the importance ESS), and how heavy their tail is (k-hat). A fifth of the draws comes from a wider, heavy-tailed
# version of $q$, and looks beyond its edges.
#
# ## The funnel
#
# Neal (2003) gave the shape that hierarchical models have when data are few: the scale of one variable is the
# exponential of another.
#
# $$
# v \sim \mathrm{N}(0, 3^2), \qquad x \mid v \sim \mathrm{N}(0, e^{v}).
# $$

# %%
gaussian = fit(funnel, method="newton")
print(gaussian.diagnosis)
print(f"sd of v under q: {gaussian.distribution.sd()[0]:.2f}, truly 3")

# %% [markdown]
# The best Gaussian that was found is half as wide in $v$ as it should be, and the optimiser was not content with it
# either. The verdict says so: the log weights spread over several nats, and of five thousand draws only some dozens
# count.
#
# **Way out 1: leave the method out.** `bbvi.fit` then goes on to draws of the posterior itself: 64 short Markov chains
# begin at draws of the Gaussian, move in its coordinates, and end when they agree.

# %%
chains = fit(funnel)
print(chains.diagnosis)
print("tried:", *chains.ladder, sep="\n  ")

# %% [markdown]
# This is *usable* and not *reliable*, for a reason that no method can remedy: $x$ has such heavy tails that its
# variance, $\mathrm{E}\,e^{v} = e^{4.5} \approx 90$, comes from the few largest draws of $v$. The verdict recommends
# quantiles.
#
# **Way out 2: a richer family.** The networks of a normalising flow can make the scale of $x$ depend on $v$. Its draws
# are independent, and its density has a formula.

# %%
flow = fit(funnel, family="flow")
print(flow.diagnosis)

# %% [markdown]
# **Way out 3: write the model differently.** With $x = e^{v/2} z$ and $z$ standard normal there is no funnel left.
# This is the non-centred form of notebook 01. It costs a line, and a plain Gaussian is then exact.

# %%
straight = fit(non_centred)
print(straight.diagnosis)

# %%
rng = np.random.default_rng(0)
v, z = straight.sample(4000).T
answers = {
    "Gaussian": gaussian.sample(4000)[:, 1],
    "chains": chains.sample(4000)[:, 1],
    "flow": flow.sample(4000)[:, 1],
    "non-centred": np.exp(v / 2) * z,
    "exact": np.exp(1.5 * rng.standard_normal(10**6)) * rng.standard_normal(10**6),
}
for name, x in answers.items():
    print(
        f"{name:11}  half of the draws have |x| < {np.quantile(abs(x), 0.5):.2f}, 90 % < {np.quantile(abs(x), 0.9):.1f}"
    )

compare(
    funnel,
    {"Gaussian": gaussian, "flow": flow},
    (-9, 9),
    (-12, 12),
    ("v", "x"),
    "The funnel: a Gaussian stays in the middle, a flow follows the shape",
)

# %% [markdown]
# ## The banana
#
# A ridge that bends, as where data fix a combination of two parameters that is not linear:
#
# $$
# a \sim \mathrm{N}(0, 2^2), \qquad b \mid a \sim \mathrm{N}\!\left(\tfrac{1}{2} a^2 - 2, \; 0.5^2\right).
# $$

# %%
gaussian = fit(banana, method="newton")
print(gaussian.diagnosis)
print(f"sd of a under q: {gaussian.distribution.sd()[0]:.2f}, truly 2")

# %% [markdown]
# The optimisation has converged, to a Gaussian that sits in the bend. Little *within* $q$ is amiss: its log weights
# spread by less than two nats. What gives it away is the tail, k-hat, by the draws that left the bend along the arms.
#
# **The ways out** are the same as before, and this time they lead to *reliable*.

# %%
chains, flow = fit(banana), fit(banana, family="flow")
print(chains.diagnosis)
print(flow.diagnosis)
compare(
    banana,
    {"Gaussian": gaussian, "flow": flow},
    (-7, 7),
    (-5, 20),
    ("a", "b"),
    "The banana: a Gaussian sits in the bend, a flow reaches along the arms",
)

# %%
answers = {"Gaussian": gaussian.sample(4000), "chains": chains.sample(4000), "flow": flow.sample(4000)}
moments = {name: (draws.mean(axis=0), draws.std(axis=0)) for name, draws in answers.items()}
moments["exact"] = ((0, 0), (2, np.sqrt(2**4 / 2 + 0.5**2)))
for name, (mean, sd) in moments.items():
    print(f"{name:8}  a = {mean[0]:5.2f} ± {sd[0]:.2f},  b = {mean[1]:5.2f} ± {sd[1]:.2f}")

# %% [markdown]
# ## Two modes
#
# The failure that the weights may not see. Each of these modes is exactly Gaussian:
#
# $$
# p(x) = 0.3 \; \mathrm{N}(x_1; -3, 0.6^2) \, \mathrm{N}(x_2; 0, 1^2)
# + 0.7 \; \mathrm{N}(x_1; 3, 1^2) \, \mathrm{N}(x_2; 1, 0.6^2).
# $$

# %%
gaussian = fit(two_modes, method="newton")
print(gaussian.diagnosis)

# %% [markdown]
# The ELBO is $\log 0.7 = -0.357$ rather than 0, but where the evidence is unknown that says nothing, and within the
# mode the log weights do not spread at all. The verdict is *unreliable* on other evidence: the fit began with several
# quasi-Newton paths, from different points, and one of them ended elsewhere, where there is too much mass to be
# ignored.
#
# **The way out** is a mixture, and the default takes it, beginning with one Gaussian at each end of a path:

# %%
mixture = fit(two_modes)
print(mixture.diagnosis)
print("weights of the components:", np.asarray(jax.nn.softmax(mixture.distribution.log_weights)).round(3))
compare(
    two_modes,
    {"Gaussian": gaussian, "mixture": mixture},
    (-6, 7),
    (-4, 4),
    ("first coordinate", "second coordinate"),
    "Two modes: the best Gaussian takes one of them, a mixture both",
)

# %% [markdown]
# **What no verdict can see.** If we say where to start, there is one path only, and it comes across one mode only:

# %%
told = fit(two_modes, init=np.array([-3.0, 0.0]))
print(told.diagnosis)
print(f"mass that it found: {np.exp(told.diagnosis.log_evidence.value):.2f}")

# %% [markdown]
# *Reliable*, with the smaller mode alone. (That k-hat is above 0.7 means nothing here: the weights of draws of $q$
# hardly differ, and the tail of such weights has no shape to speak of.) All that was evaluated is in
# agreement, and what was never evaluated leaves no trace. A verdict is about what $q$ and the paths have seen: where
# modes are to be expected, start from several places, and compare the evidences.
#
# ## In short
#
# | you see | it means | way out |
# |---|---|---|
# | spread log weights, few effective draws | $q$ and the posterior differ in shape | the default, or other variables |
# | k-hat above 0.7 | the tails of $q$ are too thin somewhere | the same |
# | chains do not agree | they need more steps, or there are several modes | a larger budget, other variables |
# | another start ended in a different region | several modes, or a funnel | a mixture, or an ordering |
# | a standard deviation rests on few far draws | the posterior itself has heavy tails | quantiles, logarithms |
# | reliable | what was seen is in order | several starts, if there may be more to see |
