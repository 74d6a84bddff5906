"""Bayesian regression with a small neural network, whose parameters are a list of (W, b) pairs.

    python examples/regression_mlp.py

Any pytree can hold the parameters: `logprob` receives the structure that was given as `dim`, and so do those who call
`sample`. Here that is the list of layers which code for neural networks usually passes around.

The verdict is "unreliable", and that is right. Swapping two hidden units leaves the function of a network as it is, and
so does changing the signs of a tanh unit's input and output weights: 6 tanh units in a layer give each mode of the
posterior 6! * 2^6 copies, and there are modes that are no copies of each other. A Gaussian covers one mode, and ridges
between weights make even that one far from Gaussian. So `sample()` gives plain draws of the approximation, not
corrected by importance sampling. The predictions are often sensible all the same, because copies of a mode predict the
same; but check them on held-out data, and do not read the band as the posterior's. At -2 and 2, outside the
data, the band misses sin(3 x) by far.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm

import bbvi

SIZES = (1, 6, 6, 1)
SHAPES = [((n, m), (m,)) for n, m in pairwise(SIZES)]  # of W and b in each layer
NOISE = 0.1


def predict(params, inputs):
    """Outputs `(n,)` of the network at `inputs` `(n, 1)`."""
    *hidden, (weights, bias) = params
    for w, b in hidden:
        inputs = jnp.tanh(inputs @ w + b)
    return (inputs @ weights + bias)[:, 0]


def logprob(params, data):
    """Standard normal weights, scaled by the width of the layer below; Gaussian noise of known size."""
    prior = sum(norm.logpdf(w * len(w) ** 0.5).sum() + norm.logpdf(b).sum() for w, b in params)
    return prior + norm.logpdf(data["y"], predict(params, data["x"]), NOISE).sum()


def make_data(n=60):
    """Noisy values of sin(3 x) in two intervals with a gap between them."""
    rng = np.random.default_rng(1)
    x = np.concatenate([rng.uniform(-1.5, -0.4, n // 2), rng.uniform(0.4, 1.5, n // 2)])
    return {"x": x[:, None], "y": np.sin(3 * x) + NOISE * rng.standard_normal(n)}


def main():
    """Fit, print the verdict and the predictive band."""
    data = make_data()
    posterior = bbvi.fit(logprob, SHAPES, data=data, family="mean_field")
    print(posterior.diagnosis)

    inputs = np.linspace(-2, 2, 9)[:, None]
    functions = np.asarray(jax.vmap(predict, in_axes=(0, None))(posterior.sample(1000), inputs))  # (draws, inputs)
    low, median, high = np.quantile(functions, [0.05, 0.5, 0.95], axis=0)
    print("\n    x   sin(3x)   median of the network   90 % band")
    for row in zip(inputs[:, 0], np.sin(3 * inputs[:, 0]), median, low, high, strict=True):
        print("{:5.1f}{:10.2f}{:24.2f}   [{:5.2f}, {:5.2f}]".format(*row))


if __name__ == "__main__":
    main()
