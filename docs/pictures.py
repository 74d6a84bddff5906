"""Draws the picture of the front page: `python docs/pictures.py` writes `docs/_static/verdicts.svg`.

Two posteriors in two dimensions, with the Gaussian that fits each best and what the verdict says of it.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bbvi
from bbvi.reporting.plots.drawing import BLUE, GREY, ORANGE
from bbvi.reporting.svg import style

PICTURE = Path(__file__).parent / "_static" / "verdicts.svg"
LEVELS = (0.1, 0.5, 0.9)  # shares of the mass that contours enclose
GRID = 201  # points along each axis
SHADES = ["#dddddd", "#bbbbbb", GREY]  # of the posterior
DOSES = np.array([-0.86, -0.3, -0.05, 0.73])  # log g / ml, five animals each (Racine et al. 1986)
DEATHS = np.array([0, 1, 3, 5])


def bioassay(x: Any) -> Any:
    """The logistic regression of deaths on doses, with priors of Gelman et al. 2013, section 3.7, made proper."""
    logits = x[0] + x[1] * DOSES
    prior = -0.5 * (x[0] / 2) ** 2 - 0.5 * ((x[1] - 10) / 10) ** 2
    return prior + jnp.sum(DEATHS * logits - 5 * jax.nn.softplus(logits))


def ring(x: Any) -> Any:
    """A ring, of which no Gaussian knows that it is empty."""
    return -0.5 * ((jnp.sqrt(jnp.sum(x**2)) - 2) / 0.2) ** 2


SHOWN = (
    ("Effect of a dose", bioassay, ((-3, 5), (-6, 34)), ("intercept", "slope")),
    ("A ring", ring, ((-4.5, 4.5), (-4.5, 4.5)), ("x[0]", "x[1]")),
)


def heights(values: np.ndarray) -> list[float]:
    """Densities, in order, whose contours enclose the shares of the mass on a grid."""
    ordered = np.sort(np.ravel(values))[::-1]
    mass = np.cumsum(ordered) / ordered.sum()
    return [float(ordered[np.searchsorted(mass, share)]) for share in reversed(LEVELS)]


def on_grid(log_density: Any, points: np.ndarray) -> np.ndarray:
    """The density on a grid, up to a constant."""
    values = np.asarray(jax.vmap(jax.vmap(log_density))(points), float)
    return np.exp(values - values.max())


def draw() -> Any:
    """The Figure."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 3.4), layout="constrained")
    for axes, (title, logprob, limits, labels) in zip(figure.subplots(1, 2), SHOWN, strict=True):
        posterior = bbvi.fit(logprob, 2, method="newton")
        points = np.stack(np.meshgrid(*(np.linspace(*each, GRID) for each in limits)), axis=-1)
        p, q = (on_grid(each, points) for each in (logprob, posterior.distribution.log_prob_one))
        axes.contourf(*np.moveaxis(points, -1, 0), p, [*heights(p), 1.01 * p.max()], colors=SHADES)
        status, trusted = posterior.diagnosis.status.name.lower(), posterior.diagnosis.trusted
        axes.contour(*np.moveaxis(points, -1, 0), q, heights(q), colors=BLUE if trusted else ORANGE, linewidths=1.5)
        axes.set(xlabel=labels[0], ylabel=labels[1])
        axes.set_title(f"{title}: {status}\nk-hat {posterior.diagnosis.resampling_k_hat:.2f}", fontsize=10)
    return figure


def main() -> None:
    """Write the picture."""
    with style(), jax.enable_x64(True):
        draw().savefig(PICTURE, facecolor="white", metadata={"Date": None})


if __name__ == "__main__":
    main()
