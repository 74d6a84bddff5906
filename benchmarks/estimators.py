"""How noisy the gradients of the estimators are, against the plain ELBO's, at the start of a fit and at its optimum.

    python -m benchmarks.estimators [--dim 20] [--rows 200] [--draws 8] [--sets 2000]

A logistic regression with correlated predictors and a mean-field Gaussian. "optimum" is the q of largest ELBO, "start"
the same with its mean one standard deviation away in every coordinate and its scales doubled. For each estimator: the
variance of the gradient in the means and in the log scales, summed over coordinates, as a ratio to that of `ELBO` with
independent draws; and the cost of a gradient in gradients of the log density. Estimators of other objectives have
gradients of another size: theirs are scaled by the length of their mean, at the start only. Last, what each fits: the
largest and smallest ratio of the standard deviations of q to those of the posterior, and the effective number of draws
that importance sampling gets out of a thousand.
"""

import argparse
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import bbvi
from bbvi.draws.random import HostRandom
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters

ESTIMATORS = {
    "elbo": bbvi.ELBO(),
    "elbo, antithetic": bbvi.ELBO(bbvi.Antithetic()),
    "elbo, Sobol": bbvi.ELBO(bbvi.Sobol()),
    "hessian_control": bbvi.HessianControl(),
    "hessian_control, antithetic": bbvi.HessianControl(estimator=bbvi.ELBO(bbvi.Antithetic())),
    "monte_carlo_entropy": bbvi.MonteCarloEntropy(),
    "sticking_the_landing": bbvi.StickingTheLanding(),
    "sticking_the_landing, antithetic": bbvi.StickingTheLanding(bbvi.Antithetic()),
    "sticking_the_landing, Sobol": bbvi.StickingTheLanding(bbvi.Sobol()),
    "score_function": bbvi.ScoreFunction(),
}
OTHERS = {
    "elbo": bbvi.ELBO(),
    "sticking_the_landing": bbvi.StickingTheLanding(),
    "importance_weighted": bbvi.ImportanceWeighted(),
    "renyi, alpha 0.5": bbvi.Renyi(),
    "cubo": bbvi.CUBO(),
    "inclusive_kl": bbvi.InclusiveKL(),
    "fisher": bbvi.FisherDivergence(),
}


def make_problem(dim: int, rows: int) -> Problem:
    """A logistic regression, coefficients ~ N(0, 1)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, dim)) + rng.normal(size=(rows, 1))
    y = (rng.random(rows) < 1 / (1 + np.exp(-x @ rng.normal(size=dim)))).astype(float)

    def logprob(beta: Any, data: Any) -> Any:
        logits = data["x"] @ beta
        return jnp.sum(data["y"] * logits - jnp.logaddexp(0.0, logits)) - 0.5 * jnp.sum(beta**2)

    return Problem(make_parameters(dim), {"x": x, "y": y}, logprob)


def gradients(estimator: Any, q: Any, problem: Problem, draws: int, sets: int) -> Any:
    """Gradients of the loss, `(sets, dim)` in the means and in the log scales."""
    noise = estimator.noise(HostRandom((1,)), sets, draws, problem.dim)
    gradient = jax.grad(lambda q, e: estimator(q, problem, e)[0])
    return jax.jit(lambda noise: jax.lax.map(lambda e: gradient(q, e), noise))(noise)


def spread(gradient: Any) -> tuple[float, float]:
    """Variances in the means and in the log scales, summed over coordinates."""
    return float(gradient.loc.var(axis=0).sum()), float(gradient.scale.log_scale.var(axis=0).sum())


def fit_each(problem: Problem, dim: int) -> None:
    """Standard deviations, and importance sampling, of the mean-field Gaussians that the objectives end at."""
    sds = bbvi.fit(problem.logprob, dim, data=problem.data).sd()
    print(f"{'':<34}smallest and largest sd ratio, effective draws per thousand")
    for name, estimator in OTHERS.items():
        fit = bbvi.fit(problem.logprob, dim, data=problem.data, family="mean_field", estimator=estimator)
        ratio = np.asarray(fit.distribution.sd()) / sds
        effective = 1000 * fit.diagnosis.effective_sample_size / fit.diagnosis.num_draws
        print(f"{name:<34}{ratio.min():>10.2f}{ratio.max():>8.2f}{effective:>8.1f}  {fit.diagnosis.stop.value}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("dim", 20), ("rows", 200), ("draws", 8), ("sets", 2000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    with jax.enable_x64(True):
        problem = make_problem(args.dim, args.rows)
        options = {"method": "advi", "family": "mean_field"}
        optimum = bbvi.fit(problem.logprob, args.dim, data=problem.data, **options).distribution
        start = bbvi.MeanField(optimum.loc + optimum.sd(), optimum.scale.log_scale + jnp.log(2.0))
        print(f"{args.draws} draws; variance over that of elbo: means, log scales")
        print(f"{'':<34}{'start':>16}{'optimum':>18}{'cost':>8}")
        places = (start, optimum)
        plain = [spread(gradients(bbvi.ELBO(), q, problem, args.draws, args.sets)) for q in places]
        for name, estimator in ESTIMATORS.items():
            found = [spread(gradients(estimator, q, problem, args.draws, args.sets)) for q in places]
            ratios = [[a / b for a, b in zip(*pair, strict=True)] for pair in zip(found, plain, strict=True)]
            cost = args.draws * (estimator.derivatives > 0) + 2 * estimator.products(args.draws, args.dim)
            cells = "".join(f"{means:>10.3g}{logs:>8.3g}" for means, logs in ratios)
            print(f"{name:<32}{cells}{cost:>8}")
        print(f"{'':<34}noise over signal at the start: sd of the gradient over the length of its mean")
        for name, estimator in OTHERS.items():
            gradient = gradients(estimator, start, problem, args.draws, args.sets)
            both = np.concatenate([gradient.loc, gradient.scale.log_scale], axis=1)
            print(f"{name:<34}{np.sqrt(both.var(axis=0).sum()) / np.linalg.norm(both.mean(axis=0)):>10.3g}")
        fit_each(problem, args.dim)


if __name__ == "__main__":
    main()
