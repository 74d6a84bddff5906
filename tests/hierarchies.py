"""Hierarchical log densities, in centred and non-centred forms, and exact answers for those with one effect a group."""

from functools import cache
from itertools import product

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from scipy.special import logsumexp

NOISE = 0.3  # of the values of a Gaussian process

SCHOOLS = {
    "y": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
    "sd": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
}


def effects(x, centred):
    """Mean, log sd, and effects of groups of x = (mean, log sd, one number a group); and the log prior."""
    mean, log_sd, z = x[0], x[1], x[2:]
    prior = -0.5 * (mean / 5) ** 2 - 0.5 * (log_sd / 1.5) ** 2
    if centred:
        return z, prior - 0.5 * jnp.sum(((z - mean) / jnp.exp(log_sd)) ** 2) - len(z) * log_sd
    return mean + jnp.exp(log_sd) * z, prior - 0.5 * jnp.sum(z**2)


@cache  # so that what is compiled for it is found again
def schools(centred):
    def logprob(x, data):
        effect, prior = effects(x, centred)
        return prior - 0.5 * jnp.sum(((data["y"] - effect) / data["sd"]) ** 2)

    return logprob


@cache
def counts(centred):
    """Poisson counts, some a group."""

    def logprob(x, data):
        effect, prior = effects(x, centred)
        eta = effect[data["group"]]
        return prior + jnp.sum(data["y"] * eta - jnp.exp(eta))

    return logprob


@cache
def trials(centred):
    """Trials with two outcomes, few a group."""

    def logprob(x, data):
        effect, prior = effects(x, centred)
        eta = effect[data["group"]]
        return prior + jnp.sum(data["y"] * eta - jnp.logaddexp(0, eta))

    return logprob


def simulate(kind, groups, per_group, sd=0.8, mean=0.3, seed=0):
    """Data of groups: `y` and `group`, each `(groups * per_group,)`."""
    rng = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), per_group)
    eta = mean + sd * rng.standard_normal(groups)[group]
    y = rng.poisson(np.exp(eta)) if kind is counts else rng.random(len(eta)) < 1 / (1 + np.exp(-eta))
    return {"y": y.astype(float), "group": group}


def exact(kind, data, ranges=((-2, 3), (-4.5, 2)), points=(81, 105)):
    """Means and sds of mean and log sd, and the log evidence of the non-centred form, by quadrature over a grid."""
    groups = data["group"].max() + 1
    total = np.bincount(data["group"], data["y"], groups)
    rows = np.bincount(data["group"], minlength=groups)
    z, dz = np.linspace(-8, 8, 401, retstep=True)
    means, dm = np.linspace(*ranges[0], points[0], retstep=True)
    log_sds, ds = np.linspace(*ranges[1], points[1], retstep=True)
    table = np.empty((len(means), len(log_sds)))
    patterns, number = np.unique(np.stack([total, rows]), axis=1, return_counts=True)
    for i, mean in enumerate(means):
        eta = mean + np.exp(log_sds)[:, None] * z
        rate = np.exp(eta) if kind is counts else np.logaddexp(0, eta)
        parts = patterns[0][:, None, None] * eta - patterns[1][:, None, None] * rate - 0.5 * z**2
        of_groups = number @ (logsumexp(parts, axis=2) + np.log(dz))
        table[i] = of_groups - 0.5 * (mean / 5) ** 2 - 0.5 * (log_sds / 1.5) ** 2
    log_evidence = logsumexp(table) + np.log(dm * ds)
    weights = np.exp(table - logsumexp(table))
    moments = []
    for values, marginal in ((means, weights.sum(axis=1)), (log_sds, weights.sum(axis=0))):
        centre = marginal @ values
        moments.append((centre, np.sqrt(marginal @ (values - centre) ** 2)))
    (m, m_sd), (s, s_sd) = moments
    return np.array([m, s]), np.array([m_sd, s_sd]), log_evidence


def slopes(x, data):
    """A Gaussian regression with an intercept and a slope a group."""
    mean, log_sd, log_noise = x[:2], x[2:4], x[4]
    z = x[5:].reshape(-1, 2)
    beta = mean + jnp.exp(log_sd) * z
    fit = beta[data["group"], 0] + beta[data["group"], 1] * data["t"]
    rest = (data["y"] - fit) / jnp.exp(log_noise)
    prior = -0.5 * jnp.sum((mean / 5) ** 2) - 0.5 * jnp.sum(log_sd**2) - 0.5 * log_noise**2
    return prior - 0.5 * jnp.sum(z**2) - 0.5 * jnp.sum(rest**2) - len(data["y"]) * log_noise


def simulate_slopes(groups=12, per_group=5, seed=0):
    rng = np.random.default_rng(seed)
    group, t = np.repeat(np.arange(groups), per_group), np.tile(np.linspace(-1, 1, per_group), groups)
    beta = np.array([1.0, 0.5]) + np.array([0.8, 0.5]) * rng.standard_normal((groups, 2))
    return {"group": group, "t": t, "y": beta[group, 0] + beta[group, 1] * t + 0.4 * rng.standard_normal(len(t))}


def items(x, data):
    """Answers of persons to items with a discrimination and a difficulty each: x = (log a, b, log sd, abilities)."""
    n_items = data["y"].shape[1]
    a, b, ability = jnp.exp(x[:n_items]), x[n_items : 2 * n_items], x[2 * n_items + 1 :]
    sd = jnp.exp(x[2 * n_items])
    eta = a * (sd * ability[:, None] - b)
    prior = -0.5 * jnp.sum(x[: 2 * n_items + 1] ** 2) - 0.5 * jnp.sum(ability**2)
    return prior + jnp.sum(data["y"] * eta - jnp.logaddexp(0, eta))


def abilities(x, data):
    """Right answers of pupils out of some: x = (log spread of abilities, abilities in units of it).

    The spread has a flat prior, so that the density of all coordinates has no mode.
    """
    logits = jnp.exp(x[0]) * x[1:]
    return x[0] - 0.5 * jnp.sum(x[1:] ** 2) + jnp.sum(data["right"] * logits - data["asked"] * jnp.logaddexp(0, logits))


def simulate_abilities(pupils, asked=5, spread=0.8, seed=0):
    """Right answers of each pupil."""
    rng = np.random.default_rng(seed)
    chance = 1 / (1 + np.exp(-spread * rng.standard_normal(pupils)))
    return {"right": rng.binomial(asked, chance).astype(float), "asked": float(asked)}


def exact_abilities(data):
    """Mean and standard deviation of the log spread."""
    z, weights = np.polynomial.hermite_e.hermegauss(81)
    grid = np.linspace(-7, 3, 801)
    logits = np.exp(grid)[:, None] * z
    kinds, numbers = np.unique(data["right"], return_counts=True)
    heights = np.exp(kinds[:, None, None] * logits - data["asked"] * np.logaddexp(0, logits))
    log_p = grid + numbers @ np.log(heights @ weights)
    p = np.exp(log_p - log_p.max())
    mean = grid @ p / p.sum()
    return mean, np.sqrt((grid - mean) ** 2 @ p / p.sum())


def regression(x, data):
    """Linear, with a log scale as its last coordinate."""
    rest = (data["y"] - data["X"] @ x[:-1]) * jnp.exp(-x[-1])
    return -0.5 * jnp.sum(rest**2) - len(data["y"]) * x[-1] - 0.5 * jnp.sum((x / 10) ** 2)


def walk(x, data):
    """Counts whose log rate is a random walk: x = (log sd of its steps, log rates)."""
    log_sd, f = x[0], x[1:]
    steps = -0.5 * jnp.sum(jnp.diff(f) ** 2) * jnp.exp(-2 * log_sd) - (len(data["y"]) - 1) * log_sd
    return -2 * (log_sd + 1) ** 2 - 0.5 * f[0] ** 2 + steps + jnp.sum(data["y"] * f - jnp.exp(f))


def simulate_walk(length=60, sd=0.4, seed=0):
    rng = np.random.default_rng(seed)
    return {"y": rng.poisson(np.exp(np.cumsum(sd * rng.standard_normal(length)))).astype(float)}


def volatility(x, data):
    """Returns whose log variance is autoregressive: x = (level, log sd of its steps, logit of persistence, states)."""
    level, log_sd, persistence, h = x[0], x[1], 1 / (1 + jnp.exp(-x[2])), x[3:]
    prior = -0.5 * (level / 3) ** 2 - 0.5 * (log_sd + 1.5) ** 2 - 0.5 * ((x[2] - 3) / 1.5) ** 2
    steps = (h[1:] - level - persistence * (h[:-1] - level)) * jnp.exp(-log_sd)
    first = (h[0] - level) * jnp.exp(-log_sd) * jnp.sqrt(1 - persistence**2)
    states = -0.5 * (first**2 + jnp.sum(steps**2)) - len(h) * log_sd + 0.5 * jnp.log1p(-(persistence**2))
    return prior + states - 0.5 * jnp.sum(h + data["y"] ** 2 * jnp.exp(-h))


def simulate_volatility(length=60, level=-1.0, sd=0.2, persistence=0.97, seed=0):
    rng = np.random.default_rng(seed)
    h = np.empty(length)
    h[0] = level + sd / np.sqrt(1 - persistence**2) * rng.standard_normal()
    for t in range(1, length):
        h[t] = level + persistence * (h[t - 1] - level) + sd * rng.standard_normal()
    return {"y": np.exp(h / 2) * rng.standard_normal(length)}


@cache
def process(centred):
    """Noisy values of a Gaussian process: p = logarithms of its amplitude and length, and its values or white ones."""

    def logprob(p, data):
        root = jnp.linalg.cholesky(covariance(p["log_amplitude"], p["log_length"], data["t"]))
        if centred:
            f = p["f"]
            white = solve_triangular(root, f, lower=True)
            prior = -0.5 * white @ white - jnp.log(jnp.diag(root)).sum()
        else:
            f = root @ p["f"]
            prior = -0.5 * p["f"] @ p["f"]
        hyper = -0.5 * (p["log_amplitude"] ** 2 + p["log_length"] ** 2)
        return hyper + prior - 0.5 * jnp.sum((data["y"] - f) ** 2) / NOISE**2

    return logprob


def covariance(log_amplitude, log_length, t, xp=jnp):
    square = ((t[:, None] - t) * xp.exp(-log_length)) ** 2
    return xp.exp(2 * log_amplitude - 0.5 * square) + 1e-4 * xp.eye(len(t))


def simulate_process(length=24, seed=0):
    rng, t = np.random.default_rng(seed), np.linspace(0, 6, length)
    f = np.linalg.cholesky(covariance(0.0, 0.0, t, np)) @ rng.standard_normal(length)
    return {"t": t, "y": f + NOISE * rng.standard_normal(length)}


def exact_process(data):
    """Means and sds of log amplitude and log length, and of the values, and the log evidence, by a sum over a grid."""
    grid = np.linspace(-2.5, 2.5, 61)
    n, heights, means, variances = len(data["t"]), [], [], []
    for hyper in product(grid, grid):
        prior = covariance(*hyper, data["t"], np)
        total = prior + NOISE**2 * np.eye(n)
        gain = np.linalg.solve(total, prior).T
        seen = data["y"] @ np.linalg.solve(total, data["y"]) + np.linalg.slogdet(total)[1]
        heights.append(-0.5 * seen - 0.5 * np.square(hyper).sum())
        means.append([*hyper, *(gain @ data["y"])])
        variances.append([0, 0, *np.diagonal(prior - gain @ prior)])
    means, weights = np.array(means), np.exp(heights - logsumexp(heights))
    mean = weights @ means
    sd = np.sqrt(weights @ (np.array(variances) + (means - mean) ** 2))
    return mean, sd, logsumexp(heights) + 2 * np.log(grid[1] - grid[0]) + n * np.log(NOISE)


@cache
def motion(centred):
    """A Brownian motion seen at both ends through noise: logarithms of two scales, and its places or white steps."""

    def logprob(p, data):
        step, noise = jnp.exp(p["log_step"]), jnp.exp(p["log_noise"])
        prior = -0.5 * (p["log_step"] ** 2 + p["log_noise"] ** 2) / 4
        if centred:
            x = p["x"]
            prior += -0.5 * jnp.sum(jnp.diff(x, prepend=0.0) ** 2) / step**2 - len(x) * p["log_step"]
        else:
            x = step * jnp.cumsum(p["x"])
            prior += -0.5 * jnp.sum(p["x"] ** 2)
        errors = data["y"] - x[data["seen"]]
        return prior - 0.5 * jnp.sum(errors**2) / noise**2 - len(errors) * p["log_noise"]

    return logprob


def simulate_motion(length=16, ends=5, seed=0):
    rng = np.random.default_rng(seed)
    x, seen = np.cumsum(0.3 * rng.standard_normal(length)), np.r_[:ends, length - ends : length]
    return {"y": x[seen] + 0.3 * rng.standard_normal(2 * ends), "seen": seen}


def exact_motion(data):
    """Means and sds of the logarithms of both scales, and the log evidence, by a sum over a grid."""
    grid, n = np.linspace(-9, 5, 141), len(data["y"])
    places = np.array(list(product(grid, grid)))
    steps, noises = np.exp(2 * places.T)
    shared = np.minimum(*np.ix_(data["seen"], data["seen"])) + 1
    total = steps[:, None, None] * shared + noises[:, None, None] * np.eye(n)
    inner = np.sum(
        data["y"] * np.linalg.solve(total, np.broadcast_to(data["y"][:, None], (len(places), n, 1)))[..., 0], 1
    )
    heights = -0.5 * (inner + np.linalg.slogdet(total)[1]) - np.sum(places**2, axis=1) / 8
    weights = np.exp(heights - logsumexp(heights))
    mean = weights @ places
    sd = np.sqrt(weights @ (places - mean) ** 2)
    return mean, sd, logsumexp(heights) + 2 * np.log(grid[1] - grid[0])


def exact_walk(data):
    """Means and sds of log sd and of all log rates, and the log evidence, by sums over grids in both directions."""
    grid, df = np.linspace(-8, 5, 521, retstep=True)
    log_sds, ds = np.linspace(-4, 1, 76, retstep=True)
    seen = data["y"][:, None] * grid - np.exp(grid)
    heights, means, squares = [], [], []
    for log_sd in log_sds:
        steps = -0.5 * (grid[:, None] - grid) ** 2 * np.exp(-2 * log_sd) - log_sd + np.log(df)
        move = np.exp(steps)
        ahead, behind = [-0.5 * grid**2 + seen[0]], [np.zeros_like(grid)]
        through = lambda logs, move=move: np.log(np.exp(logs - logs.max()) @ move) + logs.max()
        with np.errstate(divide="ignore"):
            for t in range(1, len(seen)):
                ahead.append(through(ahead[-1]) + seen[t])
                behind.append(through(behind[-1] + seen[-t]))
        marginals = np.stack(ahead) + np.stack(behind[::-1])
        weights = np.exp(marginals - logsumexp(marginals, axis=1, keepdims=True))
        heights.append(logsumexp(ahead[-1]) + np.log(df) - 2 * (log_sd + 1) ** 2)
        means.append(weights @ grid)
        squares.append(weights @ grid**2)
    weights = np.exp(heights - logsumexp(heights))
    of_all = np.concatenate([log_sds[:, None], means], axis=1)
    mean, square = weights @ of_all, weights @ np.concatenate([log_sds[:, None] ** 2, squares], axis=1)
    return mean, np.sqrt(square - mean**2), logsumexp(heights) + np.log(ds)


def lattice(x, data):
    """Counts on a lattice, with a Gaussian field: x = (log sd, log rates)."""
    log_sd, f = x[0], x[1:].reshape(data["y"].shape)
    rough = jnp.sum(jnp.diff(f, axis=0) ** 2) + jnp.sum(jnp.diff(f, axis=1) ** 2) + 0.1 * jnp.sum(f**2)
    prior = -0.5 * rough * jnp.exp(-2 * log_sd) - f.size * log_sd - 0.5 * log_sd**2
    return prior + jnp.sum(data["y"] * f - jnp.exp(f))


def held_lattice(x, data):
    """The same with an intrinsic field, whose sum is held near zero."""
    log_sd, f = x[0], x[1:].reshape(data["y"].shape)
    rough = jnp.sum(jnp.diff(f, axis=0) ** 2) + jnp.sum(jnp.diff(f, axis=1) ** 2)
    held = -0.5 * (jnp.sum(f) / (0.001 * f.size)) ** 2
    effect = jnp.exp(log_sd) * f
    return held - 0.5 * rough - 0.5 * log_sd**2 + jnp.sum(data["y"] * effect - jnp.exp(effect))


def held_effects(x, data):
    """Counts of two kinds of effects, the weighted sum of each of which is held near a value."""
    log_sd, y = x[0], data["y"].ravel()
    effects = jnp.exp(log_sd) * x[1:]
    total, weighted = jnp.sum(x[1:41]), jnp.linspace(1.0, 2.0, 41) @ x[41:]
    held = -0.5 * (total - 1) ** 2 / 0.3**2 - 8 * weighted * weighted
    return held - 0.5 * jnp.sum(x**2) + jnp.sum(y * effects - jnp.exp(effects))


def held_normal(x, data):
    """Normal observations of groups whose effects have a sum near zero: x = (log sd, effects)."""
    log_sd, u = x[0], x[1:]
    prior = -0.5 * jnp.sum(u**2) * jnp.exp(-2 * log_sd) - len(u) * log_sd - 0.5 * log_sd**2
    return prior - 0.5 * (jnp.sum(u) / 0.1) ** 2 - 0.5 * jnp.sum((data["y"] - u[data["group"]]) ** 2)


def simulate_held(groups=12, per_group=5, seed=0):
    rng, group = np.random.default_rng(seed), np.repeat(np.arange(groups), per_group)
    u = 2 * rng.standard_normal(groups)
    return {"group": group, "y": (u - u.mean())[group] + rng.standard_normal(len(group))}


def exact_held(data):
    """Means and sds of log sd and the effects, and the log evidence, by a sum over a grid."""
    grid, step = np.linspace(-5, 4, 901, retstep=True)
    rows, total = np.bincount(data["group"]), np.bincount(data["group"], data["y"])
    n, heights, means, squares = len(rows), [], [], []
    for log_sd in grid:
        covariance = np.linalg.inv(np.diag(np.exp(-2 * log_sd) + rows) + 100.0)
        mean = covariance @ total
        volume = 0.5 * np.linalg.slogdet(2 * np.pi * covariance)[1]
        heights.append(volume + 0.5 * total @ mean - n * log_sd - 0.5 * log_sd**2 - 0.5 * np.sum(data["y"] ** 2))
        means.append([log_sd, *mean])
        squares.append([log_sd**2, *(mean**2 + np.diagonal(covariance))])
    weights = np.exp(heights - logsumexp(heights))
    mean, square = weights @ np.array(means), weights @ np.array(squares)
    return mean, np.sqrt(square - mean**2), logsumexp(heights) + np.log(step)


def bym2(x, data):
    """Counts on a map, with an effect of each site and an intrinsic field over neighbours, whose sum is held near zero.

    x = (level, slope, log sd, logit of the field's share, effects, field). Riebler et al. 2016; Morris et al. 2019.
    """
    level, slope, log_sd, share = x[0], x[1], x[2], 1 / (1 + jnp.exp(-x[3]))
    effect, field = jnp.split(x[4:], 2)
    both = jnp.sqrt(1 - share) * effect + jnp.sqrt(share / data["scale"]) * field
    eta = data["log_expected"] + level + slope * data["covariate"] + jnp.exp(log_sd) * both
    rough = jnp.sum((field[data["site"]] - field[data["neighbour"]]) ** 2)
    held = (jnp.sum(field) / (0.001 * len(field))) ** 2
    of_share = 0.5 * jnp.log(share * (1 - share))  # Beta(1/2, 1/2)
    prior = -0.5 * (level**2 + slope**2 + log_sd**2 + jnp.sum(effect**2) + rough + held) + of_share
    return prior + jnp.sum(data["y"] * eta - jnp.exp(eta))


def simulate_bym2(sites=36, expected=10.0, seed=0):
    """Counts on a square lattice of about so many sites."""
    side = round(sites**0.5)
    number, rng = np.arange(side**2).reshape(side, side), np.random.default_rng(seed)
    right, below = (number[:, :-1], number[:, 1:]), (number[:-1], number[1:])
    site, neighbour = (np.concatenate([a.ravel(), b.ravel()]) for a, b in zip(right, below, strict=True))
    laplacian = np.zeros((side**2,) * 2)
    for i, j in ((site, neighbour), (neighbour, site)):
        np.add.at(laplacian, (i, j), -1)
        np.add.at(laplacian, (i, i), 1)
    values, vectors = np.linalg.eigh(laplacian)
    root = vectors[:, 1:] / np.sqrt(values[1:])
    scale = np.exp(np.mean(np.log(np.sum(root**2, axis=1))))
    field = root @ rng.standard_normal(side**2 - 1) / np.sqrt(scale)
    covariate, log_expected = rng.standard_normal(side**2), np.log(expected) + 0.3 * rng.standard_normal(side**2)
    both = np.sqrt(0.3) * rng.standard_normal(side**2) + np.sqrt(0.7) * field
    y = rng.poisson(np.exp(log_expected - 0.1 + 0.2 * covariate + 0.5 * both)).astype(float)
    return {
        "y": y,
        "covariate": covariate,
        "log_expected": log_expected,
        "site": site,
        "neighbour": neighbour,
        "scale": scale,
    }
