"""The models, as JAX log densities.

They are written on the natural (constrained) scale, without log-Jacobian, up to a constant. Normal scales are standard
deviations, Gamma and exponential parameters are rates, and indices count from 0.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jax.scipy.special import logsumexp

from benchmarks.posteriordb.parts import (
    Column,
    Data,
    Model,
    Params,
    bernoulli,
    between,
    codes,
    column,
    design,
    fields,
    gamma,
    half_t,
    indicators,
    inverse_gamma,
    log,
    log10,
    lognormal,
    logratio,
    normal,
    one,
    positive,
    real,
    scaled,
    times,
    vector,
)

# Regressions.


def flat(p: Params) -> float:
    """No prior."""
    return 0.0


def linear(response: Column, *columns: Column, prior: Callable[[Params], Any] = flat) -> Model:
    """Linear regression with an intercept: y ~ N(X beta, sigma)."""
    params = {"beta": real(1 + len(columns)), "sigma": positive()}
    return Model(partial(linear_logprob, prior), params, fields(y=response, X=design(one, *columns)))


def linear_logprob(prior: Callable[[Params], Any], p: Params, d: Data) -> jax.Array:
    """prior; y ~ N(X beta, sigma)."""
    return prior(p) + normal(d["y"], d["X"] @ p["beta"], p["sigma"])


def cauchy_sigma(p: Params) -> jax.Array:
    """sigma ~ HalfCauchy(2.5), beta flat."""
    return half_t(p["sigma"], 2.5)


def blr_prior(p: Params) -> jax.Array:
    """beta ~ N(0, 10), sigma ~ HalfN(10)."""
    return normal(p["beta"], 0.0, 10.0) + normal(p["sigma"], 0.0, 10.0)


def kilpisjarvi(p: Params, d: Data) -> jax.Array:
    """alpha, beta ~ N with means and sds from the data; y ~ N(alpha + beta x, sigma)."""
    prior = normal(p["alpha"], d["pmualpha"], d["psalpha"]) + normal(p["beta"], d["pmubeta"], d["psbeta"])
    return prior + normal(d["y"], p["alpha"] + p["beta"] * d["x"], p["sigma"])


def ark(p: Params, d: Data) -> jax.Array:
    """alpha, beta ~ N(0, 10), sigma ~ HalfCauchy(2.5); y_t ~ N(alpha + sum_k beta_k y_{t-k}, sigma)."""
    prior = normal(p["alpha"], 0.0, 10.0) + normal(p["beta"], 0.0, 10.0) + cauchy_sigma(p)
    return prior + normal(d["y"], p["alpha"] + d["lags"] @ p["beta"], p["sigma"])


def ark_data(raw: Data) -> Data:
    """Responses y_t for t > K and their lags 1..K, the most recent first."""
    y, order = column(raw, "y"), raw["K"]
    lags = [y[order - k : len(y) - k] for k in range(1, order + 1)]
    return {"y": y[order:], "lags": np.stack(lags, axis=-1)}


def logistic(*columns: Column) -> Model:
    """Logistic regression of the wells data, all flat: logit P(switched = 1) = alpha + X beta."""
    params = {"alpha": real(), "beta": real(len(columns))}
    return Model(logistic_logprob, params, fields(y="switched", X=design(*columns)))


def logistic_logprob(p: Params, d: Data) -> jax.Array:
    """y ~ Bernoulli(logistic(alpha + X beta))."""
    return bernoulli(d["y"], p["alpha"] + d["X"] @ p["beta"])


def horseshoe_beta(p: Params, d: Data) -> jax.Array:
    """beta = tau l z with l^2 = c^2 lambda^2 / (c^2 + tau^2 lambda^2) and c^2 = slab_scale^2 caux."""
    slab, local = d["slab_scale"] * jnp.sqrt(p["caux"]), p["tau"] * p["lambda"]
    return p["z"] * local * (slab / jnp.hypot(slab, local))  # this order does not overflow


def horseshoe(p: Params, d: Data) -> jax.Array:
    """Regularised horseshoe prior on beta; y ~ Bernoulli(logistic(beta0 + x beta))."""
    prior = (
        normal(p["z"])
        + half_t(p["lambda"], 1.0, d["nu_local"])
        + half_t(p["tau"], 2 * d["scale_global"], d["nu_global"])
        + inverse_gamma(p["caux"], d["slab_df"] / 2, d["slab_df"] / 2)
        + normal(p["beta0"], 0.0, d["scale_icept"])
    )
    return prior + bernoulli(d["y"], p["beta0"] + d["x"] @ horseshoe_beta(p, d))


# Hierarchical models.


def schools_quantities(p: Params, d: Data) -> Params:
    """theta = mu + tau theta_trans."""
    return {"theta": p["mu"] + p["tau"] * p["theta_trans"], "mu": p["mu"], "tau": p["tau"]}


def schools(p: Params, d: Data) -> jax.Array:
    """theta_trans ~ N(0, 1), mu ~ N(0, 5), tau ~ HalfCauchy(5); y ~ N(mu + tau theta_trans, sigma)."""
    prior = normal(p["theta_trans"]) + normal(p["mu"], 0.0, 5.0) + half_t(p["tau"], 5.0)
    return prior + normal(d["y"], schools_quantities(p, d)["theta"], d["sigma"])


def radon_quantities(p: Params, d: Data) -> Params:
    """alpha = mu_alpha + sigma_alpha alpha_raw."""
    alpha = p["mu_alpha"] + p["sigma_alpha"] * p["alpha_raw"]
    return {"alpha": alpha} | {k: p[k] for k in ("beta", "mu_alpha", "sigma_alpha", "sigma_y")}


def radon(p: Params, d: Data) -> jax.Array:
    """alpha_raw ~ N(0, 1), beta, mu_alpha ~ N(0, 10), both sigmas ~ HalfN(1).

    y ~ N(alpha[county] + X beta, sigma_y), alpha = mu_alpha + sigma_alpha alpha_raw.
    """
    prior = normal(p["alpha_raw"]) + normal(p["beta"], 0.0, 10.0) + normal(p["mu_alpha"], 0.0, 10.0)
    prior += normal(p["sigma_alpha"]) + normal(p["sigma_y"])
    alpha = radon_quantities(p, d)["alpha"]
    return prior + normal(d["y"], alpha[d["county"]] + d["X"] @ p["beta"], p["sigma_y"])


ELECTION_GROUPS = {"a": "age", "b": "edu", "c": "age_edu", "d": "state", "e": "region_full"}


def election(p: Params, d: Data) -> jax.Array:
    """beta ~ N(0, 100); a..e ~ N(0, sigma_a..e), sigmas uniform; logit P(y = 1) = X beta + a[age] + ... ."""
    prior = normal(p["beta"], 0.0, 100.0) + sum(normal(p[k], 0.0, p[f"sigma_{k}"]) for k in ELECTION_GROUPS)
    return prior + bernoulli(d["y"], d["X"] @ p["beta"] + sum(p[k][d[g]] for k, g in ELECTION_GROUPS.items()))


def irt(p: Params, d: Data) -> jax.Array:
    """sigmas ~ HalfCauchy(2), theta ~ N(0, sigma_theta), a ~ LogNormal(0, sigma_a), b ~ N(mu_b, sigma_b).

    mu_b ~ N(0, 5); logit P(y_ij = 1) = a_i (theta_j - b_i).
    """
    prior = sum(half_t(p[s], 2.0) for s in ("sigma_theta", "sigma_a", "sigma_b"))
    prior += normal(p["mu_b"], 0.0, 5.0) + normal(p["theta"], 0.0, p["sigma_theta"])
    prior += lognormal(p["a"], 0.0, p["sigma_a"]) + normal(p["b"], p["mu_b"], p["sigma_b"])
    return prior + bernoulli(d["y"], p["a"][:, None] * (p["theta"] - p["b"][:, None]))


# Mixture, hidden Markov models, Gaussian process, differential equation.


def mixture(p: Params, d: Data) -> jax.Array:
    """mu, sigma ~ N(0, 2) cut to their ranges, theta ~ Beta(5, 5); y ~ theta N_1 + (1 - theta) N_2."""
    weights = jnp.log(jnp.stack([p["theta"], 1 - p["theta"]]))
    prior = normal(p["mu"], 0.0, 2.0) + normal(p["sigma"], 0.0, 2.0) + 4 * weights.sum()
    terms = weights - 0.5 * ((d["y"][:, None] - p["mu"]) / p["sigma"]) ** 2 - jnp.log(p["sigma"])
    return prior + jnp.sum(logsumexp(terms, axis=-1))


def hmm(log_transition: jax.Array, log_emission: jax.Array) -> jax.Array:
    """Log likelihood by the forward recursion, every initial state with weight 1.

    log_transition[j, k] goes from state j to state k; log_emission[t, k] is that of y_t in state k.
    """

    def step(forward: jax.Array, emission: jax.Array) -> tuple[jax.Array, None]:
        return logsumexp(forward[:, None] + log_transition, axis=0) + emission, None

    return logsumexp(jax.lax.scan(step, log_emission[0], log_emission[1:])[0])


def hmm_example(p: Params, d: Data) -> jax.Array:
    """mu ~ N((3, 10), 1), transition rows uniform; y_t ~ N(mu_state, 1)."""
    log_transition = jnp.log(jnp.stack([p["theta1"], p["theta2"]]))
    log_emission = -0.5 * (d["y"][:, None] - p["mu"]) ** 2
    return normal(p["mu"], jnp.array([3.0, 10.0])) + hmm(log_transition, log_emission)


def hmm_drive(p: Params, d: Data) -> jax.Array:
    """phi, lambda ~ N((0, 3), 1), row j ~ Dirichlet(alpha_j); u_t ~ Exp(phi_s), v_t ~ Exp(lambda_s)."""
    phi, lam, mean = p["phi"], p["lambda"], jnp.array([0.0, 3.0])
    log_transition = jnp.log(jnp.stack([p["theta1"], p["theta2"]]))
    prior = normal(phi, mean) + normal(lam, mean) + jnp.sum((d["alpha"] - 1) * log_transition)
    log_emission = jnp.log(phi) - d["u"][:, None] * phi + jnp.log(lam) - d["v"][:, None] * lam
    return prior + hmm(log_transition, log_emission)


def gp(p: Params, d: Data) -> jax.Array:
    """rho ~ Gamma(25, 4), alpha, sigma ~ HalfN(2), HalfN(1); cov y = alpha^2 exp(-(dx/rho)^2/2) + sigma I."""
    prior = gamma(p["rho"], 25.0, 4.0) + normal(p["alpha"], 0.0, 2.0) + normal(p["sigma"])
    distance = (d["x"][:, None] - d["x"]) / p["rho"]
    covariance = p["alpha"] ** 2 * jnp.exp(-0.5 * distance**2) + p["sigma"] * jnp.eye(len(d["x"]))
    root = jnp.linalg.cholesky(covariance)
    whitened = solve_triangular(root, d["y"], lower=True)
    return prior - 0.5 * whitened @ whitened - jnp.sum(jnp.log(jnp.diag(root)))


def predator_prey(theta: jax.Array, log_init: jax.Array, times: jax.Array, steps: int = 20) -> jax.Array:
    """Log populations at the times, from time 0: u' = (alpha - beta v) u, v' = (-gamma + delta u) v.

    RK4 on (log u, log v), which stays positive, with a fixed number of steps between successive times.
    """
    alpha, beta, gamma, delta = theta

    def field(x: jax.Array) -> jax.Array:
        return jnp.stack([alpha - beta * jnp.exp(x[1]), -gamma + delta * jnp.exp(x[0])])

    def rk4(x: jax.Array, h: jax.Array) -> tuple[jax.Array, None]:
        k1 = field(x)
        k2 = field(x + h / 2 * k1)
        k3 = field(x + h / 2 * k2)
        k4 = field(x + h * k3)
        return x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4), None

    def interval(x: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
        x, _ = jax.lax.scan(rk4, x, jnp.full(steps, length / steps))
        return x, x

    return jax.lax.scan(interval, log_init, jnp.diff(times, prepend=0.0))[1]


def lotka_volterra(p: Params, d: Data) -> jax.Array:
    """theta ~ N, cut; log sigma ~ N(-1, 1), log z_init ~ N(log 10, 1); log y ~ N(log z, sigma)."""
    prior = normal(p["theta"], jnp.array([1.0, 0.05, 1.0, 0.05]), jnp.array([0.5, 0.05, 0.5, 0.05]))
    prior += lognormal(p["sigma"], -1.0, 1.0) + lognormal(p["z_init"], jnp.log(10.0), 1.0)
    start = jnp.log(p["z_init"])
    path = jnp.concatenate([start[None], predator_prey(p["theta"], start, d["ts"])])
    return prior + lognormal(jnp.concatenate([d["y_init"][None], d["y"]]), path, p["sigma"])


# Columns that several regressions share.

Z_HEIGHT = scaled("height", sds=1)
HS_C, IQ_C = scaled("mom_hs"), scaled("mom_iq")
HS_C2, IQ_C2 = scaled("mom_hs", 0.5), scaled("mom_iq", 100.0)
HS_Z, IQ_Z = scaled("mom_hs", sds=2), scaled("mom_iq", sds=2)
VOLUME, AREA = log("diam1", "diam2", "canopy_height"), log("diam1", "diam2")
HMM_ROWS = {"theta1": vector(2, "simplex"), "theta2": vector(2, "simplex")}

MODELS: dict[str, Model] = {
    "earn_height": linear("earn", "height"),
    "log10earn_height": linear(log10("earn"), "height"),
    "logearn_height": linear(log("earn"), "height"),
    "logearn_height_male": linear(log("earn"), "height", "male"),
    "logearn_logheight_male": linear(log("earn"), log("height"), "male"),
    "logearn_interaction_z": linear(log("earn"), Z_HEIGHT, "male", times(Z_HEIGHT, "male")),
    "kidscore_momhs": linear("kid_score", "mom_hs", prior=cauchy_sigma),
    "kidscore_momiq": linear("kid_score", "mom_iq", prior=cauchy_sigma),
    "kidscore_momhsiq": linear("kid_score", "mom_hs", "mom_iq", prior=cauchy_sigma),
    "kidscore_interaction_c": linear("kid_score", HS_C, IQ_C, times(HS_C, IQ_C)),
    "kidscore_interaction_c2": linear("kid_score", HS_C2, IQ_C2, times(HS_C2, IQ_C2)),
    "kidscore_interaction_z": linear("kid_score", HS_Z, IQ_Z, times(HS_Z, IQ_Z)),
    "kidscore_mom_work": linear("kid_score", *indicators("mom_work", 2, 3, 4)),
    "mesquite": linear("weight", "diam1", "diam2", "canopy_height", "total_height", "density", "group"),
    "logmesquite": linear(
        log("weight"),
        *map(log, ("diam1", "diam2", "canopy_height", "total_height", "density")),
        "group",
    ),
    "logmesquite_logvolume": linear(log("weight"), VOLUME),
    "logmesquite_logva": linear(log("weight"), VOLUME, AREA, "group"),
    "logmesquite_logvas": linear(
        log("weight"), VOLUME, AREA, logratio("diam1", "diam2"), log("total_height"), log("density"), "group"
    ),
    "nes": linear(
        "partyid7",
        "real_ideo",
        "race_adj",
        *indicators("age_discrete", 2, 3, 4),
        "educ1",
        "gender",
        "income",
    ),
    "blr": Model(partial(linear_logprob, blr_prior), {"beta": real("D"), "sigma": positive()}, fields("X", "y")),
    "kilpisjarvi": Model(
        kilpisjarvi,
        {"alpha": real(), "beta": real(), "sigma": positive()},
        fields("x", "y", "pmualpha", "psalpha", "pmubeta", "psbeta"),
    ),
    "arK": Model(ark, {"alpha": real(), "beta": real("K"), "sigma": positive()}, ark_data),
    "wells_dist100_model": logistic(lambda raw: raw["dist"] / 100),
    "wells_dist100ars_model": logistic(lambda raw: raw["dist"] / 100, "arsenic"),
    "logistic_regression_rhs": Model(
        horseshoe,
        {"beta0": real(), "z": real("d"), "tau": positive(), "lambda": positive("d"), "caux": positive()},
        fields("x", "y", "scale_icept", "scale_global", "nu_global", "nu_local", "slab_scale", "slab_df"),
        lambda p, d: p | {"beta": horseshoe_beta(p, d)},
    ),
    "eight_schools_noncentered": Model(
        schools,
        {"theta_trans": real("J"), "mu": real(), "tau": positive()},
        fields("y", "sigma"),
        schools_quantities,
    ),
    "radon_hierarchical_intercept_noncentered": Model(
        radon,
        {
            "alpha_raw": real("J"),
            "beta": real(2),
            "mu_alpha": real(),
            "sigma_alpha": positive(),
            "sigma_y": positive(),
        },
        fields(y="log_radon", X=design("log_uppm", "floor_measure"), county=codes("county_idx")),
        radon_quantities,
    ),
    "election88_full": Model(
        election,
        {
            **{k: real(f"n_{group}") for k, group in ELECTION_GROUPS.items()},
            "beta": real(5),
            **{f"sigma_{k}": between(0.0, 100.0) for k in ELECTION_GROUPS},
        },
        fields(
            "y",
            X=design(one, "black", "female", "v_prev_full", times("female", "black")),
            **{group: codes(group) for group in ELECTION_GROUPS.values()},
        ),
    ),
    "irt_2pl": Model(
        irt,
        {
            "sigma_theta": positive(),
            "theta": real("J"),
            "sigma_a": positive(),
            "a": positive("I"),
            "mu_b": real(),
            "sigma_b": positive(),
            "b": real("I"),
        },
        fields("y"),
    ),
    "low_dim_gauss_mix": Model(
        mixture,
        {"mu": vector(2, "ordered_vector"), "sigma": positive(2), "theta": between(0.0, 1.0)},
        fields("y"),
    ),
    "hmm_example": Model(hmm_example, {**HMM_ROWS, "mu": vector(2, "positive_ordered_vector")}, fields("y")),
    "hmm_drive_0": Model(
        hmm_drive,
        {**HMM_ROWS, **{k: vector(2, "positive_ordered_vector") for k in ("phi", "lambda")}},
        fields("u", "v", "alpha"),
    ),
    "gp_regr": Model(gp, {"rho": positive(), "alpha": positive(), "sigma": positive()}, fields("x", "y")),
    "lotka_volterra": Model(
        lotka_volterra,
        {"theta": positive(4), "z_init": positive(2), "sigma": positive(2)},
        fields("y_init", "y", "ts"),
    ),
}
