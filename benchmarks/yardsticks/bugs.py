"""Sixteen of the classic BUGS examples, as JAX log densities.

They are written on the natural (constrained) scale, without log-Jacobian, up to a constant. In docstrings N(m, p) has
precision p, as in BUGS, Gamma and exponential parameters are rates, and parameters without a prior are flat.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.nn import log_sigmoid, sigmoid, softplus
from jax.scipy.special import gammaln, logit
from scipy.linalg import helmert

from benchmarks.posteriordb.parts import (
    Data,
    Model,
    Parameter,
    Params,
    between,
    codes,
    column,
    design,
    fields,
    gamma,
    normal,
    positive,
    real,
    times,
)
from benchmarks.yardsticks.parts import Effects, binomial, both_forms, indexed, poisson, sd, unit, vague

# Hierarchical models.


def seeds(p: Params, d: Data) -> jax.Array:
    """alpha ~ N(0, 1e-6), sigma uniform, b ~ N(0, sigma^-2); r ~ Bin(n, logistic(X alpha + b))."""
    return normal(p["alpha"], 0.0, 1e3) + binomial(d["r"], d["n"], d["X"] @ p["alpha"] + p["b"])


def seeds_quantities(p: Params, d: Data) -> Params:
    """The coefficients by their names, and sigma."""
    return dict(zip(("alpha0", "alpha1", "alpha2", "alpha12"), p["alpha"], strict=True)) | {"sigma": p["sigma"]}


def pumps(p: Params, d: Data) -> jax.Array:
    """alpha ~ Exp(1), beta ~ Gamma(0.1, 1), theta ~ Gamma(alpha, beta); x ~ Poisson(theta t)."""
    alpha, beta, theta = p["alpha"], p["beta"], p["theta"]
    prior = -alpha + gamma(beta, 0.1, 1.0) + gamma(theta, alpha, beta)
    prior += theta.size * (alpha * jnp.log(beta) - gammaln(alpha))
    return prior + poisson(d["x"], jnp.log(theta * d["t"]))


def blocker(p: Params, d: Data) -> jax.Array:
    """mu ~ N(0, 1e-5), d ~ N(0, 1e-6), tau vague, delta ~ N(d, tau), the last for a new trial.

    rc ~ Bin(nc, logistic(mu)), rt ~ Bin(nt, logistic(mu + delta)).
    """
    prior = normal(p["mu"], 0.0, 1e5**0.5) + normal(p["d"], 0.0, 1e3) + vague(p["tau"])
    treated = binomial(d["rt"], d["nt"], p["mu"] + p["delta"][:-1])
    return prior + binomial(d["rc"], d["nc"], p["mu"]) + treated


def rats(p: Params, d: Data) -> jax.Array:
    """alpha_c, beta_c ~ N(0, 1e-6), taus vague, alpha ~ N(alpha_c, tau_alpha), beta ~ N(beta_c, tau_beta).

    Y ~ N(alpha + beta (x - 22), tau).
    """
    prior = normal(p["alpha_c"], 0.0, 1e3) + normal(p["beta_c"], 0.0, 1e3)
    prior += vague(p["tau"], p["tau_alpha"], p["tau_beta"])
    return prior + normal(d["Y"], p["alpha"][:, None] + p["beta"][:, None] * d["x"], sd(p["tau"]))


def rats_quantities(p: Params, d: Data) -> Params:
    """Intercept at birth, slope and standard deviation."""
    return {"alpha0": p["alpha_c"] - 22 * p["beta_c"], "beta.c": p["beta_c"], "sigma": sd(p["tau"])}


def dyes(p: Params, d: Data) -> jax.Array:
    """theta ~ N(0, 1e-10), taus vague, mu ~ N(theta, tau_btw); y ~ N(mu, tau_with)."""
    prior = normal(p["theta"], 0.0, 1e5) + vague(p["tau_with"], p["tau_btw"])
    return prior + normal(d["y"], p["mu"][:, None], sd(p["tau_with"]))


def equiv(p: Params, d: Data) -> jax.Array:
    """mu, phi, pi ~ N(0, 1e-6), taus vague, delta ~ N(0, tau2); Y ~ N(mu +- phi / 2 +- pi / 2 + delta, tau1)."""
    prior = sum(normal(p[k], 0.0, 1e3) for k in ("mu", "phi", "pi")) + vague(p["tau1"], p["tau2"])
    mean = p["mu"] + d["group"][:, None] * d["sign"] * p["phi"] / 2 + d["sign"] * p["pi"] / 2 + p["delta"][:, None]
    return prior + normal(d["Y"], mean, sd(p["tau1"]))


def equiv_quantities(p: Params, d: Data) -> Params:
    """The effects and both standard deviations."""
    return {k: p[k] for k in ("mu", "phi", "pi")} | {"sigma1": sd(p["tau1"]), "sigma2": sd(p["tau2"])}


def orange(p: Params, d: Data) -> jax.Array:
    """mu_k ~ N(0, 1e-4), taus vague, theta_ik ~ N(mu_k, tau_k); Y ~ N(phi1 / (1 + phi2 exp(phi3 x)), tau_c)."""
    prior = normal(p["mu"], 0.0, 100.0) + vague(p["tau"], p["tau_c"])
    phi1, phi2, phi3 = jnp.exp(p["theta"].T)[..., None] * jnp.array([1.0, 1.0, -1.0])[:, None, None]
    return prior + normal(d["Y"], phi1 / (1 + (phi2 - 1) * jnp.exp(phi3 * d["x"])), sd(p["tau_c"]))


def orange_quantities(p: Params, d: Data) -> Params:
    """Means and standard deviations."""
    return indexed("mu", p["mu"]) | indexed("sigma", sd(p["tau"])) | {"sigma.C": sd(p["tau_c"])}


def lsat(p: Params, d: Data) -> jax.Array:
    """alpha ~ N(0, 1e-4), theta ~ N(0, 1); y_jk ~ Bernoulli(logistic(beta theta_j - alpha_k))."""
    logits = p["beta"] * p["theta"][:, None] - p["alpha"]
    return normal(p["alpha"], 0.0, 100.0) + normal(p["theta"]) + binomial(d["y"], 1.0, logits)


def lsat_data(raw: Data) -> Data:
    """Answers of each student, from those of each pattern."""
    return {"y": np.repeat(column(raw, "response"), raw["count"], axis=0)}


def lsat_quantities(p: Params, d: Data) -> Params:
    """Difficulties, also as deviations from their mean, and discrimination."""
    alpha = p["alpha"]
    return indexed("alpha", alpha) | indexed("a", alpha - alpha.mean()) | {"beta": p["beta"]}


def schools(p: Params, d: Data) -> jax.Array:
    """beta, theta, phi, gamma ~ N(0, 1e-4), T ~ Wishart(R, 3), alpha_s ~ N(gamma, T); T = L L^T.

    Y ~ N(alpha_s1 + alpha_s2 LRT + alpha_s3 VR_1 + X beta, exp(theta + phi LRT)).
    """
    factor, alpha, diagonal = p["L"], p["alpha"], jnp.log(jnp.diag(p["L"]))
    prior = sum(normal(p[k], 0.0, 100.0) for k in ("beta", "theta", "phi", "gamma"))
    # |T|^(-1/2), and the Jacobian of L: L_11^3 L_22^2 L_33.
    prior += jnp.array([2.0, 1.0, 0.0]) @ diagonal - 0.5 * jnp.sum(d["R"] @ factor * factor)
    prior += len(alpha) * jnp.sum(diagonal) + normal((alpha - p["gamma"]) @ factor)
    mean = jnp.sum(alpha[d["school"]] * d["Z"], axis=-1) + d["X"] @ p["beta"]
    return prior + normal(d["Y"], mean, jnp.exp(-0.5 * (p["theta"] + p["phi"] * d["LRT"])))


def schools_data(raw: Data) -> Data:
    """Columns that schools multiply (Z), and the others (X)."""
    vr, gender, denomination = (column(raw, k) for k in ("VR", "school_gender", "school_denom"))
    first = design(times("LRT", "LRT"), lambda raw: vr[:, 1], "gender")(raw)
    return fields("Y", "LRT", "R", school=codes("school"))(raw) | {
        "Z": design(lambda raw: np.ones(len(vr)), "LRT", lambda raw: vr[:, 0])(raw),
        "X": np.concatenate([first, gender, denomination], axis=1),
    }


def schools_quantities(p: Params, d: Data) -> Params:
    """Coefficients, population means, and those of the log precision."""
    return indexed("beta", p["beta"]) | indexed("gamma", p["gamma"]) | {k: p[k] for k in ("phi", "theta")}


# Fields over areas and cohorts.


def lha(p: Params, d: Data) -> jax.Array:
    """beta ~ N(0, 1e-5), taus ~ Gamma(0.5, 0.0005), h ~ N(0, tau_h), b ~ CAR(tau_b) with sum 0.

    O ~ Poisson(E exp(alpha + beta depriv + b + h)); p["b"] are orthonormal coordinates of the field.
    """
    prior = normal(p["beta"], 0.0, 1e5**0.5) + gamma(p["tau_b"], 0.5, 0.0005) + gamma(p["tau_h"], 0.5, 0.0005)
    log_rate = jnp.log(d["E"]) + p["alpha"] + p["beta"] * d["depriv"] + d["basis"] @ p["b"] + p["h"]
    return prior + poisson(d["O"], log_rate)


def lha_field(z: jax.Array, d: Data) -> jax.Array:
    """Intrinsic CAR field of precision 1: differences of neighbours."""
    field = d["basis"] @ z
    return normal(field[d["left"]] - field[d["right"]])


def lha_data(raw: Data) -> Data:
    """Pairs of neighbours, each once, and an orthonormal basis of the fields whose sum is 0."""
    pairs = np.stack([np.repeat(np.arange(len(raw["num"])), raw["num"]), raw["adj"] - 1])
    left, right = pairs[:, pairs[0] < pairs[1]]
    return fields("O", "E", "depriv")(raw) | {"left": left, "right": right, "basis": helmert(len(raw["num"])).T}


def lha_quantities(p: Params, d: Data) -> Params:
    """Intercept, slope and both standard deviations."""
    return {"alpha": p["alpha"], "beta": p["beta"], "sigma.b": sd(p["tau_b"]), "sigma.h": sd(p["tau_h"])}


def ice(p: Params, d: Data) -> jax.Array:
    """alpha_j ~ N(0, 1e-6), alpha_1 = 0, sigma uniform; cases ~ Poisson(pyr exp(alpha_age + beta_year)).

    beta_1, beta_2 ~ N(0, 1e-6 / sigma^2), beta_k ~ N(2 beta_{k-1} - beta_{k-2}, sigma^-2).
    """
    alpha, beta = jnp.concatenate([jnp.zeros(1), p["alpha"]]), p["beta"]
    prior = normal(p["alpha"], 0.0, 1e3) + normal(beta[:2], 0.0, 1e3 * p["sigma"])
    prior += normal(beta[2:], 2 * beta[1:-1] - beta[:-2], p["sigma"])
    return prior + poisson(d["cases"], jnp.log(d["pyr"]) + alpha[d["age"]] + beta[d["year"]])


def ice_quantities(p: Params, d: Data) -> Params:
    """sigma, and log relative risks of the cohorts against the fifth."""
    risks = indexed("logRR", p["beta"] - p["beta"][4])
    return {"sigma": p["sigma"]} | {k: each for k, each in risks.items() if k != "logRR[5]"}


# Growth, survival, measurement error, overdispersion.


def dugongs(p: Params, d: Data) -> jax.Array:
    """alpha, beta flat above 0, gamma uniform on (0.5, 1), tau vague; Y ~ N(alpha - beta gamma^x, tau)."""
    return vague(p["tau"]) + normal(d["Y"], p["alpha"] - p["beta"] * p["gamma"] ** d["x"], sd(p["tau"]))


def dugongs_quantities(p: Params, d: Data) -> Params:
    """Parameters, sigma and logit gamma."""
    return {k: p[k] for k in ("alpha", "beta", "gamma")} | {"sigma": sd(p["tau"]), "U3": logit(p["gamma"])}


def mice(p: Params, d: Data) -> jax.Array:
    """beta ~ N(0, 1e-4), r ~ Exp(1e-4); t ~ Weibull: hazard r m t^(r-1), m = exp(beta_group), right-censored."""
    prior = normal(p["beta"], 0.0, 100.0) - 1e-4 * p["r"]
    beta, log_time = p["beta"][d["group"]], jnp.log(d["time"])
    log_hazard = jnp.log(p["r"]) + beta + (p["r"] - 1) * log_time
    return prior + jnp.sum(d["died"] * log_hazard - jnp.exp(beta + p["r"] * log_time))


def mice_data(raw: Data) -> Data:
    """Times of death or of the last look, and which."""
    t = column(raw, "t")
    died = ~np.isnan(t)
    return {"time": np.where(died, t, column(raw, "last_t")), "died": died.astype(float), "group": codes("group")(raw)}


def mice_quantities(p: Params, d: Data) -> Params:
    """Contrasts to the first group, shape, and medians of survival."""
    contrasts = dict(zip(("veh.control", "test.sub", "pos.control"), p["beta"][1:] - p["beta"][0], strict=True))
    median = (jnp.log(2.0) * jnp.exp(-p["beta"])) ** (1 / p["r"])
    return contrasts | {"r": p["r"]} | indexed("median", median)


def air(p: Params, d: Data) -> jax.Array:
    """theta ~ N(0, 1e-3), X ~ N(alpha + beta Z, tau), both known; y ~ Bin(n, logistic(theta_1 + theta_2 X))."""
    prior = normal(p["theta"], 0.0, 1e3**0.5) + normal(p["X"], d["alpha"] + d["beta"] * d["Z"], sd(d["tau"]))
    return prior + binomial(d["y"], d["n"], p["theta"][0] + p["theta"][1] * p["X"])


def cervix(p: Params, d: Data) -> jax.Array:
    """q, phi uniform, beta0C, beta ~ N(0, 1e-5); x ~ Bernoulli(q), d ~ Bernoulli(logistic(beta0C + beta x)).

    w ~ Bernoulli(phi[x, d]); x is summed out where it is not seen.
    """
    prior = normal(p["beta0C"], 0.0, 1e5**0.5) + normal(p["beta"], 0.0, 1e5**0.5)
    log_x = jnp.log(jnp.stack([1 - p["q"], p["q"]]))[:, None, None]
    log_d = log_sigmoid(jnp.stack([-cervix_logits(p), cervix_logits(p)], axis=-1))[..., None]
    cells = log_x + log_d + jnp.log(jnp.stack([1 - p["phi"], p["phi"]], axis=-1))  # by x, d and w
    return prior + jnp.sum(d["seen"] * cells) + jnp.sum(d["unseen"] * jnp.logaddexp(cells[0], cells[1]))


def cervix_logits(p: Params) -> jax.Array:
    """Logit of P(d = 1 | x) for x = 0, 1."""
    return jnp.stack([p["beta0C"], p["beta0C"] + p["beta"]])


def cervix_data(raw: Data) -> Data:
    """Counts by x, d and w where x is seen, and by d and w where it is not."""
    seen, unseen = np.zeros((2, 2, 2)), np.zeros((2, 2))
    for d, x, w, count in zip(*(raw[k] for k in ("d", "x", "w", "count")), strict=True):
        table, cell = (unseen, (d, w)) if x is None else (seen, (x, d, w))
        table[cell] += count
    return {"seen": seen, "unseen": unseen}


def cervix_quantities(p: Params, d: Data) -> Params:
    """Parameters, and P(x = 1 | d) for d = 0, 1."""
    logits = cervix_logits(p)
    odds = logit(p["q"]) + jnp.stack([softplus(logits[0]) - softplus(logits[1])] * 2) + jnp.stack([0.0, p["beta"]])
    gammas = dict(zip(("gamma1", "gamma2"), sigmoid(odds), strict=True))
    return {k: p[k] for k in ("beta", "beta0C", "q")} | indexed("phi", p["phi"]) | gammas


def litters_scale(p: Params, d: Data) -> jax.Array:
    """1 / (a + b) for each group, a = mu / it and b = (1 - mu) / it: (1 - theta) / (theta nbar^2)."""
    return ((1 - p["theta"]) / p["theta"] / jnp.mean(d["n"], axis=1) ** 2)[:, None]


def litters(p: Params, d: Data) -> jax.Array:
    """mu, theta uniform, p ~ Beta(a, b), cut at 0.9999; r ~ Bin(n, p)."""
    scale, mu = litters_scale(p, d), p["mu"][:, None]
    a, b = mu / scale, (1 - mu) / scale
    powers = (a + d["r"] - 1) * jnp.log(p["p"]) + (b + d["n"] - d["r"] - 1) * jnp.log1p(-p["p"])
    return jnp.sum(powers - gammaln(a) - gammaln(b) + gammaln(a + b))


def litters_marginal(p: Params, d: Data) -> jax.Array:
    """The same without the cut, p integrated out: a beta-binomial, by the factors of its rising factorials."""
    scale, mu, i = litters_scale(p, d)[..., None], p["mu"][:, None, None], jnp.arange(13.0)
    r, n = d["r"][..., None], d["n"][..., None]
    factors = jnp.where(i < r, jnp.log(mu + i * scale), 0.0) + jnp.where(i < n - r, jnp.log(1 - mu + i * scale), 0.0)
    return jnp.sum(factors - jnp.where(i < n, jnp.log1p(i * scale), 0.0))


def litters_quantities(p: Params, d: Data) -> Params:
    """Means and theta of both groups."""
    return indexed("mu", p["mu"]) | indexed("theta", p["theta"])


LITTERS_DATA = fields("n", "r")

MODELS: dict[str, Model] = {
    **both_forms(
        "seeds",
        seeds,
        {"alpha": real(4), "sigma": between(0.0, 10.0), "b": real(21)},
        {"b": Effects(lambda p: (0.0, p["sigma"]))},
        fields("r", "n", X=design(lambda raw: np.ones(21), "x1", "x2", times("x1", "x2"))),
        seeds_quantities,
    ),
    "pumps": Model(
        pumps,
        {"alpha": positive(), "beta": positive(), "theta": positive(10)},
        fields("x", "t"),
        lambda p, d: {"alpha": p["alpha"], "beta": p["beta"]} | indexed("theta", p["theta"]),
    ),
    **both_forms(
        "blocker",
        blocker,
        {"mu": real(22), "d": real(), "tau": positive(), "delta": real(23)},
        {"delta": Effects(lambda p: (p["d"], sd(p["tau"])))},
        fields("rt", "nt", "rc", "nc"),
        lambda p, d: {"d": p["d"], "delta.new": p["delta"][-1], "sigma": sd(p["tau"])},
    ),
    **both_forms(
        "rats",
        rats,
        {
            **{k: real() for k in ("alpha_c", "beta_c")},
            **{k: positive() for k in ("tau", "tau_alpha", "tau_beta")},
            **{k: real(30) for k in ("alpha", "beta")},
        },
        {k: Effects(lambda p, k=k: (p[f"{k}_c"], sd(p[f"tau_{k}"]))) for k in ("alpha", "beta")},
        fields("Y", x=lambda raw: column(raw, "x") - 22.0),
        rats_quantities,
    ),
    **both_forms(
        "dyes",
        dyes,
        {"theta": real(), "tau_with": positive(), "tau_btw": positive(), "mu": real(6)},
        {"mu": Effects(lambda p: (p["theta"], sd(p["tau_btw"])))},
        fields("y"),
        lambda p, d: {"theta": p["theta"], "sigma2.with": 1 / p["tau_with"], "sigma.btw": sd(p["tau_btw"])},
    ),
    **both_forms(
        "equiv",
        equiv,
        {**{k: real() for k in ("mu", "phi", "pi")}, "tau1": positive(), "tau2": positive(), "delta": real(10)},
        {"delta": Effects(lambda p: (0.0, sd(p["tau2"])))},
        fields("Y", "group", "sign"),
        equiv_quantities,
    ),
    "dugongs": Model(
        dugongs,
        {"alpha": positive(), "beta": positive(), "gamma": between(0.5, 1.0), "tau": positive()},
        fields("x", "Y"),
        dugongs_quantities,
    ),
    "mice": Model(mice, {"beta": real(4), "r": positive()}, mice_data, mice_quantities),
    "lsat": Model(lsat, {"alpha": real(5), "beta": positive(), "theta": real(1000)}, lsat_data, lsat_quantities),
    "schools": Model(
        schools,
        {
            "beta": real(8),
            "gamma": real(3),
            "phi": real(),
            "theta": real(),
            "L": Parameter((3, 3), ("lower_cholesky",)),
            "alpha": real(38, 3),
        },
        schools_data,
        schools_quantities,
    ),
    **both_forms(
        "lha",
        lha,
        {"alpha": real(), "beta": real(), "tau_b": positive(), "tau_h": positive(), "b": real(43), "h": real(44)},
        {
            "b": Effects(lambda p: (0.0, sd(p["tau_b"])), lha_field),
            "h": Effects(lambda p: (0.0, sd(p["tau_h"]))),
        },
        lha_data,
        lha_quantities,
    ),
    "ice": Model(
        ice,
        {"alpha": real(12), "beta": real(11), "sigma": unit()},
        fields("cases", "pyr", age=codes("age"), year=codes("year")),
        ice_quantities,
    ),
    "air": Model(
        air,
        {"theta": real(2), "X": real(3)},
        fields("y", "n", "Z", "tau", "alpha", "beta"),
        lambda p, d: indexed("theta", p["theta"]) | indexed("X", p["X"]),
    ),
    "cervix": Model(
        cervix,
        {"beta": real(), "beta0C": real(), "q": unit(), "phi": unit(2, 2)},
        cervix_data,
        cervix_quantities,
    ),
    **both_forms(
        "orange",
        orange,
        {"mu": real(3), "tau": positive(3), "tau_c": positive(), "theta": real(5, 3)},
        {"theta": Effects(lambda p: (p["mu"], sd(p["tau"])))},
        fields("x", "Y"),
        orange_quantities,
    ),
    "litters": Model(
        litters,
        {"mu": unit(2), "theta": unit(2), "p": Parameter((2, 16), ("interval", 0.0, 0.9999))},
        LITTERS_DATA,
        litters_quantities,
    ),
    "litters-marginal": Model(litters_marginal, {"mu": unit(2), "theta": unit(2)}, LITTERS_DATA, litters_quantities),
}
