# %% [markdown]
# # From a fit to NUTS
#
# Some posteriors have a shape that no Gaussian matches. A fit then says so, and what it knows is still worth
# something: where the posterior lies, how wide it is in each direction, and which directions belong together. This
# is what the warm-up of Markov chain Monte Carlo has to find out. `posterior.to_nuts()` hands it over: the chains of
# numpyro's NUTS begin at draws of the fit, with its covariance as their first inverse mass matrix.
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

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
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
# One full-rank Gaussian, by Newton's steps. Left to itself (`method="auto"`) `fit` would go on to a normalising
# flow; here it is to stop, because the question is what to do with a fit that is not good enough.

# %%
posterior = bbvi.fit(bbvi.from_numpyro(decline, hours, concentration=concentration), method="newton", progress=False)
print(posterior)

# %% [markdown]
# ## Warm and cold
#
# The warm chains get a short warm-up of 200 iterations. Two cold runs of NUTS on the same model begin where numpyro
# lets them begin, at random, one with the same warm-up and one with numpyro's habitual 1000. All have four chains of
# 500 draws. Seconds depend on the machine; gradients do not. So each is judged by the gradients that it spends,
# after the warm-up, on one effective draw of the coordinate that mixes worst.

# %%
COORDINATES = posterior.parameters.coordinate_names()
warm = posterior.to_nuts(500, num_warmup=200)


def run_cold(num_warmup):
    """Unconstrained draws `(chains, draws, 5)`, gradients and divergences."""
    cold = MCMC(
        NUTS(decline),
        num_warmup=num_warmup,
        num_samples=500,
        num_chains=4,
        chain_method="vectorized",
        progress_bar=False,
    )
    with jax.enable_x64(True):
        cold.run(jax.random.key(0), hours, concentration, extra_fields=("num_steps",))
        samples = cold.get_samples(group_by_chain=True)
        extra = {name: int(each.sum()) for name, each in cold.get_extra_fields().items()}
    x = np.log(np.stack([samples[name] for name in COORDINATES], axis=-1))  # all parameters are positive
    return x, extra["num_steps"], extra["diverging"]


runs = {"warm, 200": (warm.x, warm.gradients, warm.divergences)}
runs |= {f"cold, {length}": run_cold(length) for length in (200, 1000)}
fitted = posterior.cost.gradients
print(f"the fit itself took {fitted} gradients\n")
print(f"{'start, warm-up':<16}{'R-hat':>7}{'ESS':>7}{'divergences':>13}{'gradients':>11}{'per effective draw':>20}")
for name, (draws, gradients, divergences) in runs.items():
    r_hat, ess = split_gelman_rubin(draws).max(), effective_sample_size(draws).min()
    print(f"{name:<16}{r_hat:7.3f}{ess:7.0f}{divergences:13}{gradients:11}{gradients / ess:20.0f}")

# %% [markdown]
# Whether the chains agree is seen from ranks: if all chains draw from the same distribution, the ranks of the draws
# of each among those of all are uniform, and the differences of their distribution functions from that of uniform
# ranks stay within the band.

# %%
import arviz_base as az  # noqa: E402

chains = az.from_dict({"posterior": {name: np.exp(warm.x[..., i]) for i, name in enumerate(COORDINATES)}})
azp.plot_rank(chains, var_names=["A", "B", "slow", "delta", "sigma"], figure_kwargs={"figsize": (9.5, 4)})
# %% [markdown]
# ## What the Gaussian missed

# %%
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3.3))
of_q = posterior.sample(2000, resample=False)
views = [("B", "slow"), ("delta", "A"), ("sigma", "slow")]
for axis, (first, second) in zip(axes, views, strict=True):
    axis.plot(of_q[first], of_q[second], ".", color=ORANGE, markersize=2, alpha=0.5, label="Gaussian")
    axis.plot(warm.samples[first], warm.samples[second], ".", color=BLUE, markersize=2, alpha=0.5, label="NUTS")
    axis.set(xlabel=first, ylabel=second, xscale="log", yscale="log")
axes[0].legend(markerscale=6, frameon=False)
figure.suptitle("Draws on the logarithmic scale on which both were made")

# %% [markdown]
# ## The evidence
#
# Importance sampling from $q$ alone has an error that cannot be trusted where the verdict is unreliable. Bridge
# sampling (Meng and Wong 1996) uses the draws of both sides and needs only that they overlap: with $\ell = \log p -
# \log q$ and the shares $s_p + s_q = 1$ of the draws, the evidence $r$ solves
#
# $$
# r = \frac{\mathrm E_q\!\left[ e^{\ell} / (s_p e^{\ell} + s_q r) \right]}
#          {\mathrm E_p\!\left[ 1 / (s_p e^{\ell} + s_q r) \right]} .
# $$

# %%
bridge = posterior.bridge(warm)
print("importance sampling:", posterior.diagnosis.log_evidence)
print("bridge sampling:    ", bridge)
