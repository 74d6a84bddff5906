"""Models in NumPyro form, each with the same log density written by hand, up to a constant."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from jax.scipy.stats import cauchy, dirichlet, expon, norm
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints
from numpyro.handlers import reparam
from numpyro.infer.reparam import LocScaleReparam

RNG = np.random.default_rng(0)
GROUP = np.repeat(np.arange(4), 5)
X = RNG.normal(size=(20, 3))
Y = RNG.normal(size=20)
BINARY = (RNG.random(20) < 0.5).astype(int)
MASK = np.arange(20) < 15
COUNTS = np.array([3, 1, 6])
PAIRS = RNG.normal(size=(15, 2)) @ np.array([[1.0, 0.5], [0.0, 0.8]])


class Case(NamedTuple):
    """A model, what it is called with, and its log density by hand, of `values` by site."""

    model: Callable[..., Any]
    args: tuple[Any, ...]
    logprob: Callable[[dict[str, jax.Array]], jax.Array]


def varying_intercepts(group, x, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfNormal(2))
    slopes = numpyro.sample("slopes", dist.Normal(0, 1).expand([3]).to_event(1))
    sigma = numpyro.sample("sigma", dist.Exponential(1))
    with numpyro.plate("group", 4):
        intercept = numpyro.sample("intercept", dist.Normal(mu, tau))
    with numpyro.plate("row", len(group)):
        mean = numpyro.deterministic("mean", intercept[group] + x @ slopes)
        numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


def varying_intercepts_by_hand(v):
    prior = norm.logpdf(v["mu"], 0, 5) + norm.logpdf(v["tau"], 0, 2) + norm.logpdf(v["slopes"]).sum()
    prior += expon.logpdf(v["sigma"]) + norm.logpdf(v["intercept"], v["mu"], v["tau"]).sum()
    return prior + norm.logpdf(Y, v["intercept"][GROUP] + X @ v["slopes"], v["sigma"]).sum()


def horseshoe(x, y):
    tau = numpyro.sample("tau", dist.HalfCauchy(1))
    with numpyro.plate("column", 3):
        scale = numpyro.sample("scale", dist.HalfCauchy(1))
        beta = numpyro.sample("beta", dist.Normal(0, tau * scale))
    numpyro.sample("y", dist.Bernoulli(logits=x @ beta), obs=y)


def horseshoe_by_hand(v):
    prior = cauchy.logpdf(v["tau"]) + cauchy.logpdf(v["scale"]).sum()
    prior += norm.logpdf(v["beta"], 0, v["tau"] * v["scale"]).sum()
    return prior + jnp.sum(BINARY.astype(float) * (X @ v["beta"]) - jnp.logaddexp(0.0, X @ v["beta"]))


def gaussian_process(x, y):
    length = numpyro.sample("length", dist.LogNormal(0, 1))
    noise = numpyro.sample("noise", dist.HalfNormal(1))
    kernel = jnp.exp(-0.5 * ((x[:, None] - x) / length) ** 2) + noise * jnp.eye(len(x))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(len(x)), kernel), obs=y)


def gaussian_process_by_hand(v):
    kernel = jnp.exp(-0.5 * ((X[:, :1] - X[:, 0]) / v["length"]) ** 2) + v["noise"] * jnp.eye(20)
    prior = norm.logpdf(jnp.log(v["length"])) - jnp.log(v["length"]) + norm.logpdf(v["noise"])
    return prior - 0.5 * Y @ jnp.linalg.solve(kernel, Y) - 0.5 * jnp.linalg.slogdet(kernel)[1]


def hidden_markov(y):
    rows = numpyro.sample("rows", dist.Dirichlet(jnp.array([[2.0, 1.0], [1.0, 2.0]])).to_event(1))
    mu = numpyro.sample("mu", dist.Normal(jnp.array([-1.0, 1.0]), 0.5).to_event(1))

    def step(state, row):
        state = numpyro.sample("state", dist.Categorical(rows[state]))
        numpyro.sample("y", dist.Normal(mu[state], 1), obs=row)
        return state, None

    scan(step, 0, y)


def hidden_markov_by_hand(v):
    prior = sum(dirichlet.logpdf(row, jnp.array(a)) for row, a in zip(v["rows"], ([2.0, 1.0], [1.0, 2.0]), strict=True))
    prior += norm.logpdf(v["mu"], jnp.array([-1.0, 1.0]), 0.5).sum()
    forward = jnp.array([0.0, -jnp.inf])
    for row in Y:
        forward = logsumexp(forward[:, None] + jnp.log(v["rows"]), axis=0) + norm.logpdf(row, v["mu"])
    return prior + logsumexp(forward)


def mixture(y):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    mu = numpyro.sample("mu", dist.ImproperUniform(constraints.ordered_vector, (), (2,)))
    numpyro.factor("prior", dist.Normal(0, 5).log_prob(mu).sum())
    with numpyro.plate("row", len(y)):
        member = numpyro.sample("member", dist.Categorical(weights))
        numpyro.deterministic("centre", mu[member])
        numpyro.sample("y", dist.Normal(mu[member], 1), obs=y)


def mixture_by_hand(v):
    terms = jnp.log(v["weights"]) + norm.logpdf(Y[:, None], v["mu"])
    return norm.logpdf(v["mu"], 0, 5).sum() + logsumexp(terms, axis=1).sum()


def simplex(counts):
    p = numpyro.sample("p", dist.Dirichlet(jnp.full(3, 2.0)))
    numpyro.sample("counts", dist.Multinomial(10, p), obs=counts)


def simplex_by_hand(v):
    return jnp.sum((1.0 + COUNTS) * jnp.log(v["p"]))


def correlation(y):
    root = numpyro.sample("root", dist.LKJCholesky(2, 2.0))
    scale = numpyro.sample("scale", dist.HalfNormal(1).expand([2]).to_event(1))
    numpyro.sample("y", dist.MultivariateNormal(jnp.zeros(2), scale_tril=scale[:, None] * root).expand([15]), obs=y)


def correlation_by_hand(v):
    root = v["scale"][:, None] * v["root"]
    white = jnp.linalg.solve(root, PAIRS.T)
    prior = 2 * jnp.log(v["root"][1, 1]) + norm.logpdf(v["scale"]).sum()  # LKJ: exponents n - k + 2 (eta - 1)
    return prior - 0.5 * jnp.sum(white**2) - 15 * jnp.log(jnp.diagonal(root)).sum()


def imputed(y, mask):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    with numpyro.plate("row", len(y)):
        numpyro.sample("y", dist.Normal(mu, 1), obs=y, obs_mask=mask)


def imputed_by_hand(v):  # what is missing has its prior, and so have the entries without use
    rows = jnp.where(MASK, norm.logpdf(Y, v["mu"]), 0).sum()
    return norm.logpdf(v["mu"], 0, 5) + rows + norm.logpdf(v["y_unobserved"], v["mu"]).sum()


def masked(y, mask):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    with numpyro.plate("row", len(y)), numpyro.handlers.mask(mask=mask):
        numpyro.sample("y", dist.Normal(mu, 1), obs=y)


def masked_by_hand(v):
    return norm.logpdf(v["mu"], 0, 5) + norm.logpdf(Y[MASK], v["mu"]).sum()


def looks_into_its_data(y, mask):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    numpyro.sample("y", dist.Normal(mu, 1), obs=y[mask])


def within_another(y):
    top = numpyro.sample("top", dist.Exponential(0.1))
    level = numpyro.sample("level", dist.Uniform(0, top))
    numpyro.sample("y", dist.Normal(level, 1), obs=y)


def within_another_by_hand(v):
    level = v["top"] * jax.nn.sigmoid(v["level_base"])
    jacobian = jnp.log(v["top"]) + jax.nn.log_sigmoid(v["level_base"]) + jax.nn.log_sigmoid(-v["level_base"])
    return -0.1 * v["top"] - jnp.log(v["top"]) + jacobian + norm.logpdf(Y, level).sum()


def random_walk(y):
    noise = numpyro.sample("noise", dist.HalfNormal(1))

    def step(level, row):
        level = numpyro.sample("level", dist.Normal(level, 0.5))
        numpyro.sample("y", dist.Normal(level, noise), obs=row)
        return level, None

    scan(step, 0.0, y)


def random_walk_by_hand(v):
    steps = jnp.diff(v["level"], prepend=0)
    return norm.logpdf(v["noise"]) + norm.logpdf(steps, 0, 0.5).sum() + norm.logpdf(Y, v["level"], v["noise"]).sum()


@reparam(config={"theta": LocScaleReparam(0)})
def reparameterised(y):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfNormal(5))
    with numpyro.plate("row", len(y)):
        theta = numpyro.sample("theta", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(theta, 1), obs=y)


def reparameterised_by_hand(v):
    theta = v["mu"] + v["tau"] * v["theta_decentered"]
    prior = norm.logpdf(v["mu"], 0, 5) + norm.logpdf(v["tau"], 0, 5) + norm.logpdf(v["theta_decentered"]).sum()
    return prior + norm.logpdf(Y, theta).sum()


CASES = {
    "varying intercepts": Case(varying_intercepts, (GROUP, X, Y), varying_intercepts_by_hand),
    "horseshoe": Case(horseshoe, (X, BINARY), horseshoe_by_hand),
    "Gaussian process": Case(gaussian_process, (X[:, 0], Y), gaussian_process_by_hand),
    "hidden Markov by scan": Case(hidden_markov, (Y,), hidden_markov_by_hand),
    "mixture, improper and ordered": Case(mixture, (Y,), mixture_by_hand),
    "simplex": Case(simplex, (COUNTS,), simplex_by_hand),
    "correlation": Case(correlation, (PAIRS,), correlation_by_hand),
    "missing observations": Case(imputed, (Y, MASK), imputed_by_hand),
    "masked": Case(masked, (Y, MASK), masked_by_hand),
    "looks into its data": Case(looks_into_its_data, (Y, MASK), masked_by_hand),
    "support within another": Case(within_another, (Y,), within_another_by_hand),
    "random walk by scan": Case(random_walk, (Y,), random_walk_by_hand),
    "reparameterised": Case(reparameterised, (Y,), reparameterised_by_hand),
}


# Models of posteriordb, in NumPyro form.


def eight_schools(data):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("school", len(data["y"])):
        theta = mu + tau * numpyro.sample("theta_trans", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(theta, data["sigma"]), obs=data["y"])


def radon(data):
    mu = numpyro.sample("mu_alpha", dist.Normal(0, 10))
    scale = numpyro.sample("sigma_alpha", dist.HalfNormal(1))
    beta = numpyro.sample("beta", dist.Normal(0, 10).expand([2]).to_event(1))
    noise = numpyro.sample("sigma_y", dist.HalfNormal(1))
    with numpyro.plate("county", int(data["county"].max()) + 1):
        alpha = mu + scale * numpyro.sample("alpha_raw", dist.Normal(0, 1))
    with numpyro.plate("house", len(data["y"])):
        numpyro.sample("y", dist.Normal(alpha[data["county"]] + data["X"] @ beta, noise), obs=data["y"])


def item_response(data):
    items, people = data["y"].shape
    scales = {name: numpyro.sample(name, dist.HalfCauchy(2)) for name in ("sigma_theta", "sigma_a", "sigma_b")}
    mu_b = numpyro.sample("mu_b", dist.Normal(0, 5))
    with numpyro.plate("person", people, dim=-1):
        theta = numpyro.sample("theta", dist.Normal(0, scales["sigma_theta"]))
    with numpyro.plate("item", items):
        a = numpyro.sample("a", dist.LogNormal(0, scales["sigma_a"]))
        b = numpyro.sample("b", dist.Normal(mu_b, scales["sigma_b"]))
    numpyro.sample("y", dist.Bernoulli(logits=a[:, None] * (theta - b[:, None])), obs=data["y"])


POSTERIORDB = {
    "eight_schools-eight_schools_noncentered": eight_schools,
    "radon_mn-radon_hierarchical_intercept_noncentered": radon,
    "irt_2pl-irt_2pl": item_response,
}
