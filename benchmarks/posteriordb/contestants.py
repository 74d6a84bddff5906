"""The methods that are compared: bbvi with no options, Laplace, multi-path Pathfinder, and NumPyro's SVI and NUTS."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoGuide, AutoMultivariateNormal, AutoNormal
from numpyro.optim import Adam

import bbvi
from bbvi.diagnostics.estimates import Estimates, estimate
from bbvi.outcome import Value
from bbvi.target.problem import Problem
from bbvi.target.reading import make_parameters
from benchmarks.cases import log_density_model
from benchmarks.posteriordb.database import Case

SAMPLES = 10_000  # draws by which an approximation is judged
SVI_STEPS, SVI_RATE = 10_000, 0.01
ELBO_DRAWS = 1000  # of a guide of SVI, for its ELBO
QUANTILES = (0.05, 0.95)  # that are estimated
NUTS_CHAINS, NUTS_WARM_UP, NUTS_DRAWS = 4, 1000, 1000
MIXED_R_HAT, MIXED_ESS = 1.01, 400  # by which chains are commonly called converged (Vehtari et al. 2021)
UNKNOWN = Value(float("nan"), float("nan"))


class Claims(NamedTuple):
    """What a method says of its answer; what it has no word for is not a number."""

    status: str = ""
    k_hat: float = float("nan")  # of the approximation alone
    resampling_k_hat: float = float("nan")
    r_hat: float = float("nan")  # of chains, the largest
    ess: float = float("nan")  # of chains of NUTS, the smallest
    elbo: float = float("nan")  # nats
    log_evidence: Value = UNKNOWN  # nats


class Outcome(NamedTuple):
    """What a method found."""

    draws: Any  # of the parameters, in their structure
    dim: int  # unconstrained coordinates
    evaluations: float  # of the gradient of the log density; a Hessian-vector product is 2 and a value without one 1/3
    stages: str = ""
    claims: Claims = Claims()
    # Estimates with standard errors of quantities, from a function of the parameters' draws to (n, quantities).
    estimates: Callable[[Callable[[Any], np.ndarray]], Estimates] | None = None


Contestant = Callable[[int], Callable[[], Outcome]]  # a run with a seed; its outcome is looked at later


def make_problem(case: Case) -> Problem:
    """The unconstrained density that `fit` sees."""
    return Problem(make_parameters(case.shapes, case.constraints), case.data, case.logprob)


def fitted(method: str) -> Callable[[Case], Contestant]:
    """`bbvi.fit` by that method."""

    def contestant(case: Case) -> Contestant:
        def run(seed: int) -> Callable[[], Outcome]:
            posterior = bbvi.fit(
                case.logprob, case.shapes, data=case.data, constraints=case.constraints, method=method, seed=seed
            )
            str(posterior)
            return lambda: _outcome(posterior)

        return run

    return contestant


def _outcome(posterior: bbvi.Posterior) -> Outcome:
    cost, diagnosis = posterior.cost, posterior.diagnosis
    evaluations = cost.gradients + 2 * cost.hessian_vector_products + cost.log_densities / 3
    stages = [f"{stage.method} ({stage.family})" for stage in posterior.ladder]
    claims = Claims(
        status=diagnosis.status.name.lower(),
        k_hat=diagnosis.k_hat,
        resampling_k_hat=diagnosis.resampling_k_hat,
        r_hat=float("nan") if diagnosis.chains is None else diagnosis.chains.r_hat,
        elbo=diagnosis.elbo.value,
        log_evidence=diagnosis.log_evidence,
    )

    def estimates(values: Callable[[Any], np.ndarray]) -> Estimates:
        columns, weights = posterior.weighted(lambda x: values(posterior.on_branch.structure(x)))
        found = estimate(columns, weights, posterior.units[posterior.weights > 0], QUANTILES)
        return found if diagnosis.trusted else found.without_errors

    draws, stages = posterior.sample(SAMPLES), ", ".join(stages)
    return Outcome(draws, posterior.parameters.dim, evaluations, stages, claims, estimates)


def guided(guide_type: type[AutoGuide]) -> Callable[[Case], Contestant]:
    """NumPyro's SVI with that guide: Adam with rate 0.01, 10 000 steps of one draw."""

    def contestant(case: Case) -> Contestant:
        problem = make_problem(case)
        guide = guide_type(log_density_model)
        algorithm = SVI(log_density_model, guide, Adam(SVI_RATE), Trace_ELBO())
        step = lambda problem, state: algorithm.update(state, problem)[0]
        steps = jax.jit(
            lambda problem, state: jax.lax.fori_loop(0, SVI_STEPS, lambda _, state: step(problem, state), state)
        )
        draw = jax.jit(lambda params, key: guide.sample_posterior(key, params, sample_shape=(SAMPLES,))["x"])
        loss = Trace_ELBO(num_particles=ELBO_DRAWS).loss

        def run(seed: int) -> Callable[[], Outcome]:
            with jax.enable_x64(True):
                state = steps(problem, algorithm.init(jax.random.key(seed), problem))
                params = algorithm.get_params(state)
                x = np.asarray(draw(params, jax.random.key(1)))

            def look() -> Outcome:
                with jax.enable_x64(True):
                    elbo = -float(loss(jax.random.key(2), params, log_density_model, guide, problem))
                draws = problem.parameters.structure(x)
                return Outcome(draws, problem.dim, SVI_STEPS, claims=Claims(elbo=elbo))

            return look

        return run

    return contestant


class Chains(NamedTuple):
    """What NUTS found."""

    x: np.ndarray  # (chains, draws, dim) unconstrained
    evaluations: int  # gradients, without those of the warm-up
    divergences: int


class Sampler:
    """NumPyro's NUTS with its defaults, chain after chain."""

    def __init__(self, problem: Problem, warm_up: int, draws: int, chains: int) -> None:
        self._problem, self._chains = problem, chains
        self._mcmc = MCMC(
            NUTS(log_density_model),
            num_warmup=warm_up,
            num_samples=draws,
            num_chains=chains,
            chain_method="sequential",
            progress_bar=False,
        )

    def run(self, seed: int, start: np.ndarray | None = None) -> Chains:
        """Run all chains, from random points or from an unconstrained one."""
        first = None if start is None else {"x": np.tile(start, (self._chains, 1))}
        fields = "num_steps", "diverging"
        self._mcmc.run(jax.random.PRNGKey(seed), self._problem, extra_fields=fields, init_params=first)
        x, extra = self._mcmc.get_samples(group_by_chain=True)["x"], self._mcmc.get_extra_fields()
        return Chains(np.asarray(x), int(extra["num_steps"].sum()), int(extra["diverging"].sum()))


def nuts(case: Case) -> Contestant:
    """NumPyro's NUTS, 4 chains of 1000 + 1000."""
    problem = make_problem(case)
    sampler = Sampler(problem, NUTS_WARM_UP, NUTS_DRAWS, NUTS_CHAINS)

    def run(seed: int) -> Callable[[], Outcome]:
        with jax.enable_x64(True):
            chains = sampler.run(seed)
            ess, r_hat = np.min(effective_sample_size(chains.x)), np.max(split_gelman_rubin(chains.x))
        mixed = r_hat <= MIXED_R_HAT and ess >= MIXED_ESS
        claims = Claims("converged" if mixed else "not converged", r_hat=float(r_hat), ess=float(ess))
        draws = chains.x.reshape(-1, problem.dim)
        return lambda: Outcome(problem.parameters.structure(draws), problem.dim, chains.evaluations, claims=claims)

    return run


CONTESTANTS: dict[str, Callable[[Case], Contestant]] = {
    "auto": fitted("auto"),
    "svi": guided(AutoMultivariateNormal),
    "svi_mean_field": guided(AutoNormal),
    "laplace": fitted("laplace"),
    "pathfinder": fitted("pathfinder"),
    "nuts": nuts,
}
