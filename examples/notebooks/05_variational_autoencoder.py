# %% [markdown]
# # A variational autoencoder
#
# So far each posterior was fitted by itself. A variational autoencoder has a posterior for each image, thousands of
# them, and two networks: a *decoder* that makes an image from a latent vector $z$, the model, and an *encoder* that
# looks at an image and answers with the parameters of an approximate posterior $q(z \mid x)$. Kingma and Welling
# (2014) and Rezende et al. (2014) train both at once, by the same bound that `bbvi.fit` maximises.
#
# In the words of `bbvi.from_groups`, an image is a *group* with parameters of its own, $z$; the weights of the decoder
# are shared by all groups; and `amortise=` gives the encoder. In the end the encoder is held against the exact
# posterior of single images.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from jax.scipy.special import logsumexp
from jax.scipy.stats import binom, norm
from matplotlib.patches import Ellipse
from sklearn.datasets import load_digits

import bbvi

jax.config.update("jax_enable_x64", True)
BLUE, ORANGE = "#0072B2", "#D55E00"
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True})

# %% [markdown]
# ## The model
#
# Each of the 1797 digits of scikit-learn has 8 x 8 pixels that count from 0 to 16, each the number of dark points in
# a 4 x 4 square of the scan. So the likelihood of a pixel is binomial, and its chance comes from the decoder:
#
# $$
# z \sim \mathrm N(0, I_2), \qquad
# x_i \mid z \sim \mathrm{Binomial}(16,\, \sigma(f_\theta(z)_i)), \quad i = 1, \dots, 64 .
# $$
#
# Two latent coordinates are few, but they can be drawn as a map. The decoder $f_\theta$ is a perceptron with two
# hidden layers, whose weights have a standard normal prior.

# %%
LATENT, STEPS = 2, 1500
digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.target))
pixels, labels = digits.data[order] / 16, digits.target[order]
train, test, test_labels = pixels[:1400], pixels[1400:], labels[1400:]
SHAPES = {"w1": (LATENT, 64), "b1": (64,), "w2": (64, 128), "b2": (128,), "w3": (128, 64), "b3": (64,)}


def decode(decoder, z):
    """Chance of each pixel, (64,), from z (2,)."""
    x = jax.nn.relu(z @ decoder["w1"] + decoder["b1"])
    x = jax.nn.relu(x @ decoder["w2"] + decoder["b2"])
    return jnp.clip(jax.nn.sigmoid(x @ decoder["w3"] + decoder["b3"]), 1e-4, 1 - 1e-4)


def model_of(images):
    """Images (n, 64), each a group of one row."""
    return bbvi.from_groups(
        log_prior=lambda decoder: sum(norm.logpdf(weights).sum() for weights in decoder.values()),
        log_local=lambda decoder, own: norm.logpdf(own["z"]).sum(),
        log_likelihood=lambda decoder, own, rows: binom.logpmf(16 * rows, 16, decode(decoder, own["z"])).sum(axis=1),
        dim=SHAPES,
        local={"z": (LATENT,)},
        data=images,
        group=np.arange(len(images)),
        amortise=bbvi.MLP(hidden=(64, 64), shared=()),  # which sees the image, and not the decoder
        maximise=list(SHAPES),  # the decoder has no posterior
    )


# %% [markdown]
# ## Training
#
# For one image and $q = q_\phi(\cdot \mid x)$
#
# $$
# \mathrm{ELBO}(\theta, \phi; x) = \mathrm E_q[\log p_\theta(z, x) - \log q(z)] \le \log p_\theta(x) .
# $$
#
# `bbvi.train` maximises its sum over images, plus the log prior of $\theta$, by Adam on batches of 100 images with one
# draw each: 1500 steps, 107 times through the data. The gradient for the encoder has little noise where $q$ is close to
# the posterior, since it follows the path of the draw and leaves out the score of $q$ (Roeder et al. 2017).

# %%
rng = np.random.default_rng(1)
init = {
    name: rng.standard_normal(shape) * (shape[0] ** -0.5 if len(shape) > 1 else 0.5) for name, shape in SHAPES.items()
}
trained = bbvi.train(model_of(train), batch_size=100, num_steps=STEPS, init=init)
decoder = trained.point
print(*trained.notes)

# %% [markdown]
# ## Pictures of it

# %%
on_test = model_of(test).with_weights(trained.weights, decoder)
means, sds = (each[0] for each in on_test.encode(1))  # of 397 images, (397, 2)
chances = jax.jit(jax.vmap(lambda z: decode(decoder, z).reshape(8, 8)))


def sheet(axis, images, columns, title):
    """Images (n, 8, 8) side by side."""
    rows = len(images) // columns
    padded = np.pad(np.asarray(images), [(0, 0), (1, 0), (1, 0)], constant_values=0)
    page = padded.reshape(rows, columns, 9, 9).swapaxes(1, 2).reshape(9 * rows, 9 * columns)
    axis.imshow(page, cmap="gray_r", vmin=0, vmax=1)
    axis.set(title=title, xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


pairs = np.stack([test[:20].reshape(-1, 8, 8), chances(means[:20])], axis=1).reshape(4, 5, 2, 8, 8)
pairs = pairs.swapaxes(1, 2).reshape(40, 8, 8)  # a row of images above the row of their reconstructions
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.6), width_ratios=(5, 8))
sheet(left, pairs, 5, "Test images, and below each\nits reconstruction")
prior_draws = np.random.default_rng(3).standard_normal((40, LATENT))
sheet(right, chances(prior_draws), 8, "Decoded draws from the prior:\nmost are digits, some lie between two")
plt.show()

# %% [markdown]
# The map of the latent plane shows where the encoder puts the test images, and what the decoder makes of each place.
# The labels were not used in training.

# %%
edge = 2.6
ticks = np.linspace(-edge, edge, 14)
plane = np.stack(np.meshgrid(ticks, ticks[::-1]), axis=-1).reshape(-1, 2)
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.8))
for digit in range(10):
    here, colour = test_labels == digit, plt.cm.tab10(digit)
    left.scatter(*means[here].T, s=9, color=colour)
    box = {"facecolor": "white", "edgecolor": colour, "boxstyle": "circle,pad=0.15"}
    middle = np.median(means[here], axis=0)
    left.text(*middle, str(digit), fontsize=13, weight="bold", ha="center", va="center", bbox=box)
left.set(xlabel="$z_1$", ylabel="$z_2$", title="Means of q(z | x) of test images, by digit", aspect="equal")
sheet(right, chances(plane), 14, f"What the decoder makes of z from -{edge} to {edge}")
plt.show()

# %% [markdown]
# ## How good is the encoder?
#
# Two things keep the ELBO below the log likelihood: the family, independent Gaussians, and that one network must
# answer for all images. Cremer et al. (2018) call the second the amortisation gap; `amortisation_gap` measures it, by
# steps that improve the $q$ of each image by itself. As $z$ has two coordinates, $\log p_\theta(x)$ is known from a
# grid, and both can be held against it. So can what `log_likelihood` says of an image: the sum of the joint density at
# 81 nodes around the encoder's Gaussian, with weights, which corrects for what lies within their reach.

# %%
on_some = model_of(test[:60]).with_weights(trained.weights, decoder)
ticks = np.linspace(-6, 6, 401)
points = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, LATENT)
prior = np.asarray(norm.logpdf(points).sum(axis=1))
chance = np.asarray(jax.lax.map(lambda z: decode(decoder, z), points, batch_size=4096), float)
counts = 16 * test[:60]
choices = np.asarray(binom.logpmf(counts, 16, 0.5)).sum(axis=1) + 16 * 64 * np.log(2)  # of binomial coefficients
log_p = counts @ np.log(chance).T + (16 - counts) @ np.log1p(-chance).T + prior + choices[:, None]
exact = np.asarray(logsumexp(log_p, axis=1)) + 2 * np.log(ticks[1] - ticks[0])

gap = on_some.amortisation_gap(1, num=60)
print(f"log likelihood of 60 test images: {exact.mean():.2f} nats an image")
print(
    f"ELBO of the encoder: {exact.mean() - gap.before:.2f} below; of a q for each image: {exact.mean() - gap.after:.2f}"
)
print(gap)
missed = exact - on_some.log_likelihood(1)["of_group"][0]
print(
    f"nodes around the encoder: mean {missed.mean():.2f} below, median {np.median(missed):.3f}, most {missed.max():.2f}"
)

# %% [markdown]
# On images of the training the gap was a quarter of this: the encoder has learned some of them by heart, and most of
# what is missing here is the price of one network for images that it has not seen. Independent Gaussians of their own
# would do for most. The nodes are right to 0.1 nats for most images, too, and cannot help where the encoder points
# elsewhere. With `refine=True` Newton's steps lead from its answer to a mode, and the draws are made around that.

# %%
draws = on_some.local(300, refine=True)["z"]
means, sds = (each[0] for each in on_some.encode(1))
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3))
for axis, i in zip(axes, np.argsort(missed)[[10, 45, 59]], strict=True):
    p = np.exp(log_p[i] - log_p[i].max()).reshape(401, 401)
    axis.contourf(ticks, ticks, p.T, [0.01, 0.1, 0.5, 1.01], colors=["0.88", "0.76", "0.62"])
    axis.scatter(*draws[:, i].T, s=4, color=BLUE)
    axis.add_patch(Ellipse(means[i], *(2 * 3.03 * sds[i]), edgecolor=ORANGE, facecolor="none", linewidth=1.5))
    ends = np.concatenate([means[i] + 4 * sds[i] * [[-1], [1]], draws[:, i], points[p.ravel() > 0.01]])
    low, high = ends.min(axis=0), ends.max(axis=0)
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="$z_1$")
    axis.set(title=f"a {test_labels[i]}: nodes miss {missed[i]:.2f} nats")
axes[0].set_ylabel("$z_2$")
handles = [plt.Rectangle((0, 0), 1, 1, color="0.76"), plt.Line2D([], [], color=ORANGE)]
handles.append(plt.Line2D([], [], color=BLUE, marker=".", linestyle=""))
names = ["posterior, above 1, 10, 50 % of its peak", "q of the encoder, 1 %", "refined draws"]
figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
plt.show()

# %% [markdown]
# The last picture is a warning: the mode that is nearest to the encoder's answer need not be the highest. Where a
# single image matters, fit it by itself.
