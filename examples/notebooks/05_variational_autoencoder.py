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
# mapped over a batch by `vmap`. In the end the encoder is held against fits of single images.

# %%
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from jax.scipy.stats import binom, norm
from sklearn.datasets import load_digits

import bbvi
from bbvi.parameters import make_parameters
from bbvi.problem import Problem

BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
plt.rcParams.update({"axes.spines.top": False, "axes.spines.right": False, "figure.constrained_layout.use": True})

# %% [markdown]
# ## The model
#
# Each of the 1797 digits of scikit-learn has 8 x 8 pixels that count from 0 to 16, each the number of dark points in
# a 4 x 4 square of the scan. So the likelihood of a pixel is binomial, and its chance comes from the decoder:
#
# $$
# z \sim \mathrm N(0, I_2), \qquad x_i \mid z \sim \mathrm{Binomial}(16,\, \sigma(f_\theta(z)_i)), \quad i = 1, \dots, 64 .
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
# - *For the encoder*, the gradient with respect to $q$, by `bbvi.StickingTheLanding()`, which has little noise where $q$
#   is close to the posterior. An estimator returns a loss to be differentiated with respect to $q$, and sees the model
#   as given; the chain rule through `encode` is JAX's.
# - *For the decoder*, $\mathrm E_q[\nabla_\theta \log p_\theta(z, x)]$: the draws of $q$ are imputed values of $z$ and are
#   held fixed.

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
# Training is Adam on batches of 100 images with one draw each: 1000 steps, about seventy times through the data.

# %%
STEPS, BATCH, DRAWS = 1000, 100, 1
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
    f"ELBO of an image: {elbos[:10].mean():.0f} nats in the first ten steps, {elbos[-200:].mean():.1f} in the last 200"
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
MOST = 1024


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
for k in (1, 4, 16, 64, 256, 1024):
    per_image = jax.vmap(jax.vmap(bound))(weights_of_test.reshape(len(test), MOST // k, k)).mean(axis=1)
    bounds[k] = float(per_image.mean())
    error = float(per_image.std() / len(test) ** 0.5)
    print(f"K = {k:4}: {bounds[k]:8.2f} ± {error:.2f} nats an image, {-bounds[k] / 64 / np.log(2):.3f} bits a pixel")

# %% [markdown]
# The standard error is that of the choice of test images, which all rows share. What is compared between the rows is
# far more certain.
#
# ## How good is the encoder?
#
# Two things keep the ELBO below the log likelihood: the family, independent Gaussians, and that one network must
# answer for all images (Cremer et al. 2018 call it the amortisation gap). `bbvi.fit_many` finds the best full-rank
# Gaussian of each image by itself, and judges each one. The decoder is now a constant of the log density.


# %%
def log_joint_given_decoder(z, data):
    return log_joint(z, {"pixels": data["pixels"], "decoder": trained["decoder"]})


some = test[:60]
fits = bbvi.fit_many(log_joint_given_decoder, LATENT, {"pixels": some}, coord="image")
print(fits)
