# %% [markdown]
# # A variational autoencoder
#
# So far each posterior was fitted by itself. A variational autoencoder has a posterior for each image, thousands of
# them, and two networks: a *decoder* that makes an image from a latent vector $z$, the model, and an *encoder* that
# looks at an image and answers with the parameters of an approximate posterior $q(z \mid x)$. Kingma and Welling
# (2014) and Rezende et al. (2014) train both at once, by the same bound that `bbvi.fit` maximises.
#
# This notebook builds one from the pieces that `fit` is made of: a `bbvi.MeanField` that comes out of the encoder, a
# `Problem` for each image, and an estimator of the ELBO, which is a pure function of (q, problem, noise) and can be
# mapped over a batch by `vmap`. In the end the encoder is held against the exact posterior of single images.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.scipy.special import gammaln, logsumexp
from jax.scipy.stats import binom, norm
from matplotlib.patches import Ellipse
from sklearn.datasets import load_digits

import bbvi
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters

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
# Two latent coordinates are few, but they can be drawn as a map. The decoder $f_\theta$ makes 4 x 4 pixels with 8
# channels of $z$, doubles them by a transposed convolution, and ends with a second one that leaves one channel.

# %%
LATENT = 2
digits = load_digits()
order = np.random.default_rng(0).permutation(len(digits.target))
pixels, labels = digits.images[order, :, :, None].astype(np.float32), digits.target[order]
train, test, test_labels = pixels[:1400], pixels[1400:], labels[1400:]


def make_weights(rng, *shapes):
    """A pair (weights, biases) for each layer, of size 1 / sqrt(fan-in)."""
    scale = lambda shape: np.prod(shape[:-1]) ** -0.5
    draws = [(scale(shape) * rng.standard_normal(shape), np.zeros(shape[-1])) for shape in shapes]
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), draws)


def upsample(layer, x, stride):
    weights, bias = layer
    return jax.lax.conv_transpose(x[None], weights, (stride, stride), "SAME")[0] + bias  # height, width, channels


def decode(decoder, z):
    """Log odds of each pixel, (8, 8, 1), from z (2,)."""
    first, second, third, last = decoder
    x = jax.nn.relu(z @ first[0] + first[1])
    x = jax.nn.relu(x @ second[0] + second[1]).reshape(4, 4, 8)
    return upsample(last, jax.nn.relu(upsample(third, x, 2)), 1)


def log_joint(z, data):
    """log p(z, x) for one image."""
    chance = jax.nn.sigmoid(decode(data["decoder"], z))
    likelihood = binom.logpmf(data["pixels"], 16, jnp.clip(chance, 1e-4, 1 - 1e-4))
    return norm.logpdf(z).sum() + likelihood.sum()


# %% [markdown]
# ## The encoder returns a distribution
#
# `bbvi.MeanField` is a pytree whose leaves are the means and the logarithms of the standard deviations. The encoder
# returns one; under `vmap` it returns a batch of them.


# %%
def encode(encoder, image):
    """q(z | x), a Gaussian with independent coordinates, from an image (8, 8, 1)."""
    first, second, third = encoder
    x = jax.lax.conv_general_dilated((image / 8 - 1)[None], first[0], (2, 2), "SAME", dimension_numbers=LAYOUT)
    x = jax.nn.relu(x + first[1]).ravel()
    x = jax.nn.relu(x @ second[0] + second[1]) @ third[0] + third[1]
    return bbvi.MeanField(x[:LATENT], x[LATENT:] - 2)


LAYOUT = ("NHWC", "HWIO", "NHWC")
rng = np.random.default_rng(1)
weights = {
    "encoder": make_weights(rng, (3, 3, 1, 8), (128, 64), (64, 2 * LATENT)),
    "decoder": make_weights(rng, (LATENT, 64), (64, 128), (3, 3, 8, 8), (3, 3, 8, 1)),
}
print({name: sum(leaf.size for leaf in jax.tree.leaves(each)) for name, each in weights.items()}, "weights")

# %% [markdown]
# ## The bound and its two gradients
#
# For one image and $q = q_\phi(\cdot \mid x)$
#
# $$
# \mathrm{ELBO}(\theta, \phi; x) = \mathrm E_q[\log p_\theta(z, x) - \log q(z)] \le \log p_\theta(x) .
# $$
#
# Its gradient has two parts, those of the two steps of the EM algorithm, taken together here.
#
# - *For the encoder*, the gradient with respect to $q$, by `bbvi.StickingTheLanding()`, which has little noise where
#   $q$ is close to the posterior. An estimator returns a loss to be differentiated with respect to $q$, and sees the
#   model as given; the chain rule through `encode` is JAX's.
# - *For the decoder*, $\mathrm E_q[\nabla_\theta \log p_\theta(z, x)]$: the draws of $q$ are imputed values of $z$ and
#   are held fixed.

# %%
PARAMETERS = make_parameters(LATENT)
ESTIMATOR = bbvi.StickingTheLanding()


def local_problem(decoder, image):
    return Problem(PARAMETERS, {"decoder": decoder, "pixels": image}, log_joint)


def local_loss(weights, image, noise):
    """A loss whose gradient is that of -ELBO for one image, and the ELBO; noise (draws, 2)."""
    q, problem = encode(weights["encoder"], image), local_problem(weights["decoder"], image)
    for_encoder, estimate = ESTIMATOR(q, jax.lax.stop_gradient(problem), noise)
    for_decoder = -problem.log_densities(jax.lax.stop_gradient(q.push(noise))).mean()
    return for_encoder + for_decoder, estimate.value


def loss(weights, images, noise):
    losses, elbos = jax.vmap(local_loss, in_axes=(None, 0, 0))(weights, images, noise)
    return losses.mean(), elbos.mean()


# %% [markdown]
# Training is Adam on batches of 100 images with one draw each: 500 steps, 36 times through the data.

# %%
STEPS, BATCH, DRAWS = 500, 100, 1
optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, STEPS))


@jax.jit
def train_all(weights, key):
    images = jnp.asarray(train)

    def step(carry, key):
        weights, memory = carry
        of_rows, of_noise = jax.random.split(key)
        rows = jax.random.choice(of_rows, len(images), (BATCH,), replace=False)
        noise = jax.random.normal(of_noise, (BATCH, DRAWS, LATENT))
        (_, elbo), gradient = jax.value_and_grad(loss, has_aux=True)(weights, images[rows], noise)
        updates, memory = optimizer.update(gradient, memory)
        return (optax.apply_updates(weights, updates), memory), elbo

    (weights, _), elbos = jax.lax.scan(step, (weights, optimizer.init(weights)), jax.random.split(key, STEPS))
    return weights, elbos


trained, elbos = train_all(weights, jax.random.key(0))
print(
    f"ELBO of an image: {elbos[:10].mean():.0f} nats in the first ten steps, {elbos[-100:].mean():.1f} in the last 100"
)

# %% [markdown]
# ## Pictures of it

# %%
chances = jax.jit(jax.vmap(lambda z: jax.nn.sigmoid(decode(trained["decoder"], z))[:, :, 0]))
codes = jax.jit(jax.vmap(lambda image: encode(trained["encoder"], image)))(test)  # 397 distributions in one
prior_draws = np.random.default_rng(3).standard_normal((40, LATENT)).astype(np.float32)


def sheet(axis, images, columns, title):
    """Images (n, 8, 8) side by side."""
    rows = len(images) // columns
    padded = np.pad(np.asarray(images), [(0, 0), (1, 0), (1, 0)], constant_values=0)
    page = padded.reshape(rows, columns, 9, 9).swapaxes(1, 2).reshape(9 * rows, 9 * columns)
    axis.imshow(page, cmap="gray_r", vmin=0, vmax=1)
    axis.set(title=title, xticks=[], yticks=[])
    axis.spines[:].set_visible(False)


pairs = np.stack([test[:20, :, :, 0] / 16, chances(codes.loc[:20])], axis=1).reshape(4, 5, 2, 8, 8)
pairs = pairs.swapaxes(1, 2).reshape(40, 8, 8)  # a row of images above the row of their reconstructions
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.6), width_ratios=(5, 8))
sheet(left, pairs, 5, "Test images, and below each\nits reconstruction")
sheet(right, chances(prior_draws), 8, "Decoded draws from the prior:\nmost are digits, some lie between two")
plt.show()

# %% [markdown]
# The map of the latent plane shows where the encoder puts the test images, and what the decoder makes of each place.
# The labels were not used in training.

# %%
edge = 2.6
ticks = np.linspace(-edge, edge, 14)
plane = np.stack(np.meshgrid(ticks, ticks[::-1]), axis=-1).reshape(-1, 2).astype(np.float32)
figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4.8))
for digit in range(10):
    here = test_labels == digit
    left.scatter(*codes.loc[here].T, s=9, color=plt.cm.tab10(digit))
    left.text(
        *np.median(codes.loc[here], axis=0),
        str(digit),
        fontsize=13,
        weight="bold",
        ha="center",
        va="center",
        bbox={"facecolor": "white", "edgecolor": plt.cm.tab10(digit), "boxstyle": "circle,pad=0.15"},
    )
left.set(xlabel="$z_1$", ylabel="$z_2$", title="Means of q(z | x) of test images, by digit", aspect="equal")
sheet(right, chances(plane), 14, f"What the decoder makes of z from -{edge} to {edge}")
plt.show()

# %% [markdown]
# ## An honest number
#
# The ELBO is a lower bound of the log likelihood, and too low by the divergence of $q(z \mid x)$ from the posterior.
# With $K$ draws the importance-weighted bound (Burda et al. 2016),
#
# $$
# \mathcal L_K = \mathrm E\left[\log \frac1K \sum_{k=1}^K \frac{p_\theta(z_k, x)}{q(z_k \mid x)}\right],
# \qquad \mathrm{ELBO} = \mathcal L_1 \le \mathcal L_K \le \log p_\theta(x),
# $$
#
# is closer, and it is what should be reported for test images. `bbvi.ImportanceWeighted` has it as `bound`.

# %%
MOST = 256


@jax.jit
def log_weights(images, noise):
    """log p(z, x) - log q(z | x) of draws for each image, (images, draws)."""

    def one(image, noise):
        q = encode(trained["encoder"], image)
        z = q.push(noise)
        return local_problem(trained["decoder"], image).log_densities(z) - q.log_prob(z)

    return jax.vmap(one)(images, noise)


noise = np.random.default_rng(4).standard_normal((len(test), MOST, LATENT)).astype(np.float32)
weights_of_test = log_weights(test, noise)
bound = bbvi.ImportanceWeighted().bound
bounds = {}
for k in (1, 4, 16, 64, 256):
    per_image = jax.vmap(jax.vmap(bound))(weights_of_test.reshape(len(test), MOST // k, k)).mean(axis=1)
    bounds[k] = float(per_image.mean())
    error = float(per_image.std() / len(test) ** 0.5)
    print(f"K = {k:3}: {bounds[k]:8.2f} ± {error:.2f} nats an image, {-bounds[k] / 64 / np.log(2):.3f} bits a pixel")

# %% [markdown]
# The standard error is that of the choice of test images, which all rows share; what is compared between the rows is
# far more certain. The ELBO of the test images is 5 nats below that of the last batches of training: the networks know
# some of the 1400 images better than others like them. And the bound still rises at $K = 256$: for some images $q$ is
# far from the posterior.
#
# ## How good is the encoder?
#
# Two things keep the ELBO below the log likelihood: the family, independent Gaussians, and that one network must
# answer for all images (Cremer et al. 2018 call the second the amortisation gap). To tell them apart, the same
# estimator improves the $q$ of each image by itself, beginning with the encoder's. And as $z$ has two coordinates,
# $\log p_\theta(x)$ is known from a grid.

# %%
some, noise_of_some = test[:60], noise[:60]


@jax.jit
def improve(image, key):
    """The encoder's q after 200 steps of Adam on the ELBO of one image."""
    problem, adam = local_problem(trained["decoder"], image), optax.adam(optax.cosine_decay_schedule(0.03, 200))

    def step(carry, key):
        q, memory = carry
        gradient = jax.grad(lambda q: ESTIMATOR(q, problem, jax.random.normal(key, (8, LATENT)))[0])(q)
        updates, memory = adam.update(gradient, memory)
        return (optax.apply_updates(q, updates), memory), None

    q = encode(trained["encoder"], image)
    return jax.lax.scan(step, (q, adam.init(q)), jax.random.split(key, 200))[0][0]


@jax.jit
def elbo(q, image, noise):
    z = q.push(noise)
    return jnp.mean(local_problem(trained["decoder"], image).log_densities(z) - q.log_prob(z))


ticks = np.linspace(-5, 5, 251, dtype=np.float32)
points = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, LATENT)
on_grid = np.asarray(jax.lax.map(lambda z: decode(trained["decoder"], z).ravel(), points, batch_size=4096), float)
chance = np.clip(1 / (1 + np.exp(-on_grid)), 1e-4, 1 - 1e-4)
counts = some.reshape(60, 64).astype(float)
log_p = counts @ np.log(chance).T + (16 - counts) @ np.log1p(-chance).T + np.asarray(norm.logpdf(points).sum(axis=1))
log_p += np.asarray(gammaln(17.0) - gammaln(counts + 1) - gammaln(17 - counts)).sum(axis=1)[:, None]
exact = np.asarray(logsumexp(log_p, axis=1)) + 2 * np.log(ticks[1] - ticks[0])

improved = jax.vmap(improve)(some, jax.random.split(jax.random.key(1), 60))
gaps = {
    "encoder": exact - np.asarray(weights_of_test[:60].mean(axis=1)),
    "encoder, K = 256": exact - np.asarray(jax.vmap(bound)(weights_of_test[:60])),
    "q of its own": exact - np.asarray(jax.vmap(elbo)(improved, some, noise_of_some)),
}
print(f"log likelihood of 60 test images: {exact.mean():.2f} nats an image. Below it by")
for name, gap in gaps.items():
    print(f"{name:<18} mean {gap.mean():5.2f}, median {np.median(gap):5.2f}, largest {gap.max():6.2f}")

# %%
order = np.argsort(gaps["encoder"])
shown = order[[10, 30, 50]]
encoded = jax.vmap(lambda image: encode(trained["encoder"], image))(some)
figure, axes = plt.subplots(1, 3, figsize=(9, 3.3))
for axis, i in zip(axes, shown, strict=True):
    p = np.exp(log_p[i] - log_p[i].max()).reshape(251, 251)
    axis.contourf(ticks, ticks, p.T, [0.01, 0.1, 0.5, 1.01], colors=["0.88", "0.76", "0.62"])
    ends = []
    for q, colour in ((encoded, ORANGE), (improved, BLUE)):
        loc, sd = np.asarray(q.loc[i]), np.exp(np.asarray(q.scale.log_scale[i]))
        axis.add_patch(Ellipse(loc, *(2 * 3.03 * sd), edgecolor=colour, facecolor="none", linewidth=1.5))
        ends += [loc - 4 * sd, loc + 4 * sd]
    low, high = np.min(ends, axis=0), np.max(ends, axis=0)
    axis.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xlabel="$z_1$")
    axis.set(title=f"a {test_labels[i]}: gap {gaps['encoder'][i]:.1f}, then {gaps['q of its own'][i]:.1f} nats")
axes[0].set_ylabel("$z_2$")
handles = [plt.Rectangle((0, 0), 1, 1, color="0.76"), *(plt.Line2D([], [], color=each) for each in (ORANGE, BLUE))]
names = ["posterior, above 1, 10, 50 % of its peak", "q of the encoder, 1 %", "q of its own, 1 %"]
figure.legend(handles, names, loc="outside lower center", ncols=3, frameon=False)
plt.show()

# %% [markdown]
# Independent Gaussians are good enough here: with a $q$ of its own, half of the images are within 0.1 nats of their
# log likelihood. The mean gap falls from 7.0 nats to 1.3, of which a single image, whose $q$ began too far away, makes
# up half. So most of the encoder's gap is the price of one network for all images, here images that were not in the
# training. Importance weights do not make up for a $q$ that lies elsewhere. Where it matters, the encoder's answer can
# be the start of a fit to the image.
