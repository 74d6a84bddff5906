"""Eight schools: how much coaching raises test scores, in eight schools at once.

    python examples/eight_schools.py [FOLDER]

Eight schools each ran a coaching programme and reported an estimated effect y with a standard error sigma (Rubin 1981,
"Estimation in parallel randomized experiments"). The model lets the schools learn from each other: the true effects
theta come from a common normal distribution, whose mean mu and standard deviation tau are unknown too.

    mu ~ N(0, 5),   tau ~ half-Cauchy(5),   theta_trans ~ N(0, 1),   theta = mu + tau theta_trans,   y ~ N(theta, sigma)

This is the non-centred form. In the centred one, theta ~ N(mu, tau), the effects and tau form a funnel, which no
Gaussian resembles.

Writes eight_schools.npz (the posterior) and eight_schools.png (a picture) to FOLDER, by default the current one.
"""

import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from arviz_stats import summary
from jax.scipy.stats import cauchy, norm
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpyro.distributions import constraints

import bbvi

SCHOOLS = list("ABCDEFGH")
DATA = {
    "y": np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0]),
    "sigma": np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0]),
}
SHAPES = {"mu": (), "tau": (), "theta_trans": (8,)}


def logprob(p, data):
    """Log joint density of parameters and data. The log-Jacobian of the constraint on tau is added by fit."""
    half_cauchy = jnp.log(2) + cauchy.logpdf(p["tau"], 0, 5)  # the constant matters to the log evidence only
    prior = norm.logpdf(p["mu"], 0, 5) + half_cauchy + norm.logpdf(p["theta_trans"]).sum()
    theta = p["mu"] + p["tau"] * p["theta_trans"]
    return prior + jnp.sum(norm.logpdf(data["y"], theta, data["sigma"]))


def effects(draws):
    """The effects theta of the schools, `(n, 8)`."""
    return draws["mu"][:, None] + draws["tau"][:, None] * draws["theta_trans"]


def draw_picture(theta, path):
    """Posterior intervals of the effects beside the raw estimates."""
    blue, orange = "#0072B2", "#D55E00"  # told apart by colour-blind readers too
    rows = np.arange(len(SCHOOLS))
    low90, low50, median, high50, high90 = np.quantile(theta, [0.05, 0.25, 0.5, 0.75, 0.95], axis=0)

    figure = Figure(figsize=(7, 5), layout="constrained")
    FigureCanvasAgg(figure)  # draws into memory: no display is needed
    axes = figure.subplots()
    axes.axvline(0, color="0.8", linewidth=1, zorder=0)
    axes.hlines(rows - 0.15, low90, high90, color=blue, linewidth=1.5, label="posterior, 90 % interval")
    axes.hlines(rows - 0.15, low50, high50, color=blue, linewidth=5, label="posterior, 50 % interval")
    axes.plot(median, rows - 0.15, "o", color="white", markeredgecolor=blue, markersize=7, label="posterior median")
    axes.errorbar(
        DATA["y"], rows + 0.15, xerr=DATA["sigma"], fmt="s", color=orange, markersize=5, label="raw estimate y ± sigma"
    )
    axes.set(xlabel="effect of coaching (points)", ylabel="school", title="Eight schools: partial pooling of effects")
    axes.set_yticks(rows, SCHOOLS)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(path, dpi=150)


def main(folder="."):
    """Fit, print, save, load and draw."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    posterior = bbvi.fit(logprob, SHAPES, data=DATA, constraints={"tau": constraints.positive}, progress=True)
    print(posterior)

    by_school = {name: ["school"] for name in ("theta_trans", "y", "sigma")}
    tree = posterior.to_arviz(4000, coords={"school": SCHOOLS}, dims=by_school)
    print("\nThe same through arviz:")
    print(summary(tree, kind="stats"))

    theta = effects(posterior.sample(4000))
    print("\nEffects of the schools:")
    for school, y, draws in zip(SCHOOLS, DATA["y"], theta.T, strict=True):
        print(f"  {school}: raw estimate {y:5.1f}, posterior {draws.mean():5.1f} ± {draws.std():.1f}")

    saved = folder / "eight_schools.npz"
    posterior.save(saved)
    again = bbvi.load(saved)
    print(f"\nSaved to {saved}; loaded back, it is {again.diagnosis.status.name.lower()}.")

    picture = folder / "eight_schools.png"
    draw_picture(theta, picture)
    print(f"Picture in {picture}.")


if __name__ == "__main__":
    main(*sys.argv[1:2])
