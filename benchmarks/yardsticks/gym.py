"""Six posteriors of TensorFlow Probability's inference gym, as JAX log densities.

They are written on the natural (constrained) scale, without log-Jacobian, up to a constant. In docstrings N(m, s) has
standard deviation s, and LN(m, s) is its exponential.
"""

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.posteriordb.parts import (
    Data,
    Model,
    Params,
    bernoulli,
    column,
    fields,
    gamma,
    lognormal,
    normal,
    positive,
    real,
)
from benchmarks.yardsticks.parts import Effects, both_forms, picked

SCALES = "innovation_noise_scale", "observation_noise_scale"


def walk(x: jax.Array, d: Data) -> jax.Array:
    """Random walk from 0 with N(0, 1) steps."""
    return normal(jnp.diff(x, prepend=0.0))


def brownian(p: Params, d: Data) -> jax.Array:
    """x_t ~ N(x_{t-1}, 0.1) from 0; observed_t ~ N(x_t, 0.15) where seen."""
    return walk(p["value"] / 0.1, d) + normal(d["observed"], p["value"][d["seen"]], 0.15)


def brownian_scales(p: Params, d: Data) -> jax.Array:
    """Both scales ~ LN(0, 2), locs_t ~ N(locs_{t-1}, the first) from 0; observed_t ~ N(locs_t, the second)."""
    prior = sum(lognormal(p[k], 0.0, 2.0) for k in SCALES)
    return prior + normal(d["observed"], p["locs"][d["seen"]], p["observation_noise_scale"])


def brownian_data(raw: Data) -> Data:
    """What was observed, and when."""
    seen = np.flatnonzero(~np.isnan(raw["observed"]))
    return {"observed": raw["observed"][seen], "seen": seen}


def eight_schools(p: Params, d: Data) -> jax.Array:
    """avg_effect ~ N(0, 10), log_stddev ~ N(5, 1), school_effects ~ N(avg_effect, exp(log_stddev)).

    effect ~ N(school_effects, stddev).
    """
    prior = normal(p["avg_effect"], 0.0, 10.0) + normal(p["log_stddev"], 5.0, 1.0)
    return prior + normal(d["effect"], p["school_effects"], d["stddev"])


def item_response(p: Params, d: Data) -> jax.Array:
    """mean m ~ N(0.75, 1), abilities a, difficulties b ~ N(0, 1); correct ~ Bernoulli(logistic(m + a - b))."""
    mean, ability, difficulty = (
        p[k] for k in ("mean_student_ability", "centered_student_ability", "question_difficulty")
    )
    prior = normal(mean, 0.75) + normal(ability) + normal(difficulty)
    return prior + bernoulli(d["correct"], mean + ability[d["student"]] - difficulty[d["question"]])


def german_credit(p: Params, d: Data) -> jax.Array:
    """value ~ N(0, 1); label ~ Bernoulli(logistic(X value))."""
    return normal(p["value"]) + bernoulli(d["label"], d["X"] @ p["value"])


def german_credit_sparse(p: Params, d: Data) -> jax.Array:
    """weights ~ N(0, 1), scales ~ Gamma(1/2, 1/2); label ~ Bernoulli(logistic(X (weights * local * global)))."""
    weights, local, whole = (p[k] for k in ("unscaled_weights", "local_scales", "global_scale"))
    prior = normal(weights) + gamma(local, 0.5, 0.5) + gamma(whole, 0.5, 0.5)
    return prior + bernoulli(d["label"], d["X"] @ (weights * local * whole))


def german_credit_data(raw: Data) -> Data:
    """Features with a column of ones after them, and labels."""
    features = column(raw, "features")
    return {"label": column(raw, "label"), "X": np.append(features, np.ones((len(features), 1)), axis=1)}


BROWNIAN = "brownian_motion{}_missing_middle_observations"
CREDIT = "german_credit_numeric{}_logistic_regression"

MODELS: dict[str, Model] = {
    BROWNIAN.format(""): Model(brownian, {"value": real(30)}, brownian_data),
    **both_forms(
        BROWNIAN.format("_unknown_scales"),
        brownian_scales,
        {**{k: positive() for k in SCALES}, "locs": real(30)},
        {"locs": Effects(lambda p: (0.0, p["innovation_noise_scale"]), walk)},
        brownian_data,
        picked(*SCALES, "locs"),
    ),
    **both_forms(
        "eight_schools",
        eight_schools,
        {"avg_effect": real(), "log_stddev": real(), "school_effects": real(8)},
        {"school_effects": Effects(lambda p: (p["avg_effect"], jnp.exp(p["log_stddev"])))},
        fields("effect", "stddev"),
        picked("avg_effect", "log_stddev", "school_effects"),
    ),
    "synthetic_item_response_theory": Model(
        item_response,
        {"mean_student_ability": real(), "centered_student_ability": real(400), "question_difficulty": real(100)},
        fields("correct", student=lambda raw: raw["student"], question=lambda raw: raw["question"]),
    ),
    CREDIT.format(""): Model(german_credit, {"value": real(25)}, german_credit_data),
    CREDIT.format("_sparse"): Model(
        german_credit_sparse,
        {"unscaled_weights": real(25), "local_scales": positive(25), "global_scale": positive()},
        german_credit_data,
    ),
}
