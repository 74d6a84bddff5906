# %% [markdown]
# # From a fit to NUTS
#
# Some posteriors have a shape that a Gaussian matches only roughly. A fit then says so, and what it knows is still
# worth something: where the posterior lies, how wide it is in each direction, and which directions belong together.
# This is what the warm-up of Markov chain Monte Carlo has to find out. There are two ways to hand it over. By default
# a fit whose approximation does not pass ends with many short chains from there. And `posterior.to_nuts()` runs
# numpyro's NUTS, with few long chains that begin at draws of the fit, and its covariance as their first inverse mass
# matrix.
#
# The example is a classic of pharmacology. Kwan et al. (1976) gave indometacin to six people and followed its
# concentration in their blood; the eleven measurements of the first one are the data (`Indometh` in R). The drug
# spreads through the body and is eliminated, and the concentration is a sum of two exponentials:
#
# $$
# \mu(t) = A\, e^{-(\lambda + \delta) t} + B\, e^{-\lambda t}, \qquad
# \log y_i \sim \mathrm N(\log \mu(t_i), \sigma^2) .
# $$
#
# Rates are positive, and the fast one is written as the slow one plus $\delta > 0$, so that the two terms cannot be
# exchanged.

# %%
import arviz_base as azb
import arviz_plots as azp
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC, NUTS

import bbvi

BLUE, ORANGE = "#0072B2", "#D55E00"  # told apart by colour-blind readers too
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True})

hours = np.array([0.25, 0.5, 0.75, 1.0, 1.25, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0])
concentration = np.array([1.50, 0.94, 0.78, 0.48, 0.37, 0.19, 0.12, 0.11, 0.08, 0.07, 0.05])  # mg / l


def decline(hours, concentration=None):
    A = numpyro.sample("A", dist.LogNormal(0.0, 1.0))
    B = numpyro.sample("B", dist.LogNormal(-1.0, 1.0))
    slow = numpyro.sample("slow", dist.LogNormal(-1.0, 1.0))
    delta = numpyro.sample("delta", dist.LogNormal(0.0, 1.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(0.5))
    mean = A * jnp.exp(-(slow + delta) * hours) + B * jnp.exp(-slow * hours)
    numpyro.sample("concentration", dist.LogNormal(jnp.log(mean), sigma), obs=concentration)


# %% [markdown]
# ## The fit and its verdict
#
# One full-rank Gaussian of the logarithms, by variational Newton. Without a method named, `fit` would go on; here it is
# to stop, as the question is what a Gaussian is good for.

# %%
model = bbvi.from_numpyro(decline, hours, concentration=concentration)
posterior = bbvi.fit(model, method="newton")
print(posterior.summary().round(3))
print(posterior.diagnosis)

# %% [markdown]
# Importance sampling can correct this Gaussian, at a price: its draws are worth half of their number at most, and
# what depends on the tail of $\sigma$ is uncertain. Chains do not depend on the tails of $q$.
#
# ## Warm and cold
#
# The warm chains get a warm-up of 50 iterations only. Two cold runs of NUTS on the same model begin where numpyro lets
# them begin, at random: one with the same warm-up, one with ten times as much. All adapt a dense mass matrix, and have
# four chains of 500 draws. Gradients, unlike seconds, do not depend on the machine. So each run is judged by how many
# gradients it takes, after the warm-up, for one effective draw of the coordinate that mixes worst.

# %%
NAMES = posterior.parameters.coordinate_names()
warm = posterior.to_nuts(500, num_warmup=50, seed=1)


def run_cold(num_warmup):
    """Unconstrained draws `(chains, draws, 5)`, gradients and divergences."""
    kernel = NUTS(decline, dense_mass=True)
    options = {"num_chains": 4, "chain_method": "vectorized", "progress_bar": False}
    cold = MCMC(kernel, num_warmup=num_warmup, num_samples=500, **options)
    with jax.enable_x64(True):
        cold.run(jax.random.key(0), hours, concentration, extra_fields=("num_steps",))
        samples, extra = jax.device_get((cold.get_samples(group_by_chain=True), cold.get_extra_fields()))
    x = np.log(np.stack([samples[name] for name in NAMES], axis=-1))  # all parameters are positive
    return x, int(np.sum(extra["num_steps"])), int(np.sum(extra["diverging"]))


runs = {"warm, 50": (warm.x, warm.gradients, warm.divergences)}
runs |= {f"cold, {length}": run_cold(length) for length in (50, 500)}
print(f"{'start, warm-up':<16}{'R-hat':>7}{'ESS':>7}{'divergences':>13}{'gradients':>11}{'per effective draw':>20}")
for name, (draws, gradients, divergences) in runs.items():
    r_hat, ess = split_gelman_rubin(draws).max(), effective_sample_size(draws).min()
    print(f"{name:<16}{r_hat:7.3f}{ess:7.0f}{divergences:13}{gradients:11}{gradients / ess:20.0f}")
print(f"\nThe fit took {posterior.cost.gradients} gradients.")

# %% [markdown]
# After 50 iterations the warm chains are in order, and the cold ones are not: these have diverging trajectories, and
# take four times as many gradients for an effective draw. After 500 iterations the cold start is forgotten, and those
# chains are even cheaper, as their step size and mass matrix have adapted for longer. So a warm start shortens the
# warm-up; it does not make chains mix better in the end.
#
# Whether the chains agree is seen from ranks. If all chains draw from the same distribution, the ranks of the draws
# of each among those of all are uniform, and the differences of their distribution functions from the uniform one stay
# within the grey band.

# %%
chains = azb.from_dict({"posterior": {name: np.exp(warm.x[..., i]) for i, name in enumerate(NAMES)}})
azp.plot_rank(chains, var_names=["B", "slow", "delta", "sigma"], figure_kwargs={"figsize": (9, 2.4)})
plt.show()

# %% [markdown]
# ## Many short chains
#
# Where no approximation passes, the default ends with chains of its own. Here the Gaussian passes, so they are asked
# for: 64 of them begin at 16 draws of the Gaussian and of its wider version, move in the coordinates in which it is
# round, and stop when they agree. Nested R-hat compares the groups of four that share a beginning (Margossian et al.
# 2024), so that chains may be short. All take the same number of leapfrog steps at a time, and none waits for another.

# %%
short = bbvi.fit(model, method="chains", init=posterior)
print(short.diagnosis)
draws = short.diagnosis.effective_sample_size
print(f"{short.cost.gradients} gradients for {draws:.0f} effective draws of the coordinate that mixes worst")

# %% [markdown]
# The verdict also says how far the Gaussian was off, in standard deviations, which is what one learns about variational
# inference on this model.
#
# ## What the Gaussian missed
#
# Plain draws of the Gaussian, not corrected, beside those of NUTS:

# %%
logs = {"NUTS": warm.x.reshape(-1, 5), "Gaussian": posterior.draw(2000, resample=False)[0].x}
figure, axes = plt.subplots(1, 3, figsize=(9, 3.2))
for axis, (first, second) in zip(axes, [("B", "slow"), ("delta", "A"), ("sigma", "slow")], strict=True):
    for (name, x), colour in zip(logs.items(), (BLUE, ORANGE), strict=True):
        pair = x[:, NAMES.index(first)], x[:, NAMES.index(second)]
        axis.plot(*pair, ".", color=colour, markersize=2, alpha=0.6, label=name)
    axis.set(xlabel=f"log {first}", ylabel=f"log {second}")
axes[0].legend(markerscale=5, frameon=False)
figure.suptitle("The core is the same, the tails are not")
plt.show()

levels = [0.05, 0.5, 0.95]
plain = np.exp(np.quantile(logs["Gaussian"][:, NAMES.index("sigma")], levels))
print("quantiles of sigma:  5 %   50 %   95 %")
for name, values in {
    "Gaussian, plain": plain,
    "Gaussian, corrected": posterior.quantile(levels)["sigma"],
    "short chains": short.quantile(levels)["sigma"],
    "NUTS": np.quantile(warm.samples["sigma"], levels),
}.items():
    print(f"{name:<19}", " ".join(f"{value:.3f}" for value in values))

# %% [markdown]
# ## The evidence
#
# Chains alone give no evidence. Importance sampling from $q$ alone does, with an error that rests on the tails of $q$.
# Bridge sampling (Meng and Wong 1996) uses the draws of both and needs only that they overlap: with $\ell = \log p -
# \log q$ and the shares $s_p + s_q = 1$ of the draws, the evidence $r$ solves
#
# $$
# r = \frac{\mathrm E_q\!\left[ e^{\ell} / (s_p e^{\ell} + s_q r) \right]}
#          {\mathrm E_p\!\left[ 1 / (s_p e^{\ell} + s_q r) \right]} .
# $$

# %%
print("log evidence by importance sampling:", posterior.diagnosis.log_evidence)
print("             by bridge sampling:    ", posterior.bridge(warm))
print("             with the short chains: ", short.diagnosis.log_evidence)

# %% [markdown]
# They agree, and bridges have the smaller standard errors.
