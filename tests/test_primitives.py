"""Fits of densities made with what people use: a right answer, or a refusal that says what is wrong."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from densities import DENSITIES, FAMILIES, NOT_IN_THE_TABLE, UNTRUSTED
from jax.scipy import special, stats

import bbvi
from bbvi.draws.importance import log_densities
from bbvi.runtime.precision import scope

LEVELS = np.array([0.1, 0.5, 0.9])
SHIFT = 0.04  # of a level, that a tenth of a standard deviation or of the width makes; sampling error takes a quarter
DRAWS = 4000
NO_SAMPLER = ("GaussianCopula", "GaussianCopulaBeta", "TruncatedDistribution")  # without a further package
LACKING = [name for name, density in DENSITIES.items() if not density.derivatives]
ONCE = [name for name, density in DENSITIES.items() if density.derivatives == 1]
FITTED = [name for name in DENSITIES if name not in LACKING]
PRIORS = [name for name, family in FAMILIES.items() if family.prior is not None]
LIKELIHOODS = [name for name, family in FAMILIES.items() if family.likelihood is not None]
CASES = [*(("density", n) for n in FITTED), *(("prior", n) for n in PRIORS), *(("likelihood", n) for n in LIKELIHOODS)]
QUICK = (
    "stats: t",
    "special: log_ndtr",
    "special: xlogy",
    "lax: scan",
    "lax: loop of as many rounds as a parameter is large",
    "lax: top_k",
    "lax: scatter",
    "lax: sparse matvec",
    "lax: custom_root",
    "lax: complex values",
    "lax: random numbers inside",
    "linalg: solve",
)
SOME = (
    "stats: gamma",
    "special: betainc in x",
    "lax: scan",
    "lax: cond",
    "lax: custom_jvp",
    "lax: sparse matvec",
    "lax: checkpoint",
    "linalg: solve",
)


@pytest.fixture(autouse=True)
def promotion():
    """As it is for users: JAX's own functions and numpyro's mix types."""
    with jax.numpy_dtype_promotion("standard"):
        yield


def sample(distribution, num):
    """Draws of a distribution of numpyro in double precision."""
    with scope(True):
        return np.asarray(distribution().sample(jax.random.key(7), (num,) if num else ()))


def fit(kind, name, **options):
    """The posterior of a case of the table."""
    if kind == "density":
        return bbvi.fit(DENSITIES[name], DENSITIES[name].dim, **options)
    family = FAMILIES[name]

    def from_prior():
        numpyro.sample("z", family.prior())

    def from_likelihood(y):
        numpyro.sample("y", family.likelihood(numpyro.sample("t", dist.Normal(0.0, 1.0))), obs=y)

    if kind == "prior":
        return bbvi.fit(bbvi.from_numpyro(from_prior), **options)
    observed = family.observed
    if observed is None:
        batch = family.likelihood(jnp.asarray(0.3)).batch_shape
        observed = sample(lambda: family.likelihood(jnp.asarray(0.3)), 0 if batch else 4)
    return bbvi.fit(bbvi.from_numpyro(from_likelihood, observed), **options)


def integrated(posterior):
    """Values of all scalars on a grid of one or two coordinates, and weights that sum to one."""
    problem = posterior.problem
    axis = np.linspace(-9, 9, 6001 if problem.dim == 1 else 241)
    x = np.stack(np.meshgrid(*[axis] * problem.dim, indexing="ij"), axis=-1).reshape(-1, problem.dim)
    with scope(True):
        heights = np.asarray(log_densities(problem, x))
        values = problem.parameters.structure(x)
    weights = np.exp(heights - heights.max())
    return columns(values), weights / weights.sum()


def columns(values):
    """A structure of draws as one array `(n, scalars)`."""
    return np.concatenate([np.reshape(leaf, (len(leaf), -1)) for leaf in jax.tree.leaves(values)], axis=1)


def assert_right(kind, name, posterior):
    """Everything is finite; quantiles are where the truth has them, if the posterior claims to be any good."""
    for leaf in jax.tree.leaves((posterior.mean(), posterior.sd())):
        assert np.isfinite(leaf).all()
    if not posterior.diagnosis.trusted:
        assert f"{kind}: {name}" in UNTRUSTED, posterior
        return
    draws = columns(posterior.sample(DRAWS))
    if kind == "prior" and name not in NO_SAMPLER:
        truth = columns(sample(FAMILIES[name].prior, 20_000))
        weights = np.full(len(truth), 1 / len(truth))
    elif posterior.problem.dim <= 2:
        truth, weights = integrated(posterior)
    else:
        return
    if any(posterior.problem.parameters.circular):
        middle = np.angle(np.exp(1j * truth).mean(axis=0))
        truth, draws = (np.angle(np.exp(1j * (angles - middle))) for angles in (truth, draws))
    for own, drawn in zip(truth.T, draws.T, strict=True):
        if np.ptp(own) > 1e-9:  # else a constant, such as the diagonal of a correlation matrix
            found = [weights[own <= quantile].sum() for quantile in np.quantile(drawn, LEVELS)]
            np.testing.assert_allclose(found, LEVELS, atol=SHIFT)


# The default run takes some of the table


@pytest.mark.parametrize("name", QUICK)
def test_a_density_is_fitted(name):
    assert_right("density", name, fit("density", name, method="newton"))


@pytest.mark.parametrize(
    ("kind", "name"), [("prior", "LKJ"), ("prior", "ZeroSumNormal"), ("likelihood", "HurdlePoisson")]
)
def test_a_distribution_is_fitted(kind, name):
    assert_right(kind, name, fit(kind, name, method="newton"))


def test_the_table_has_every_distribution_of_numpyro():
    assert set(dist.__all__) == set(FAMILIES) | set(NOT_IN_THE_TABLE)
    assert not set(FAMILIES) & set(NOT_IN_THE_TABLE)


OTHERS = {"stats": {"mode", "rankdata", "sem"}, "special": {"bernoulli"}}  # statistics of data; numbers


@pytest.mark.parametrize(("module", "kind"), [(stats, "stats"), (special, "special")])
def test_the_table_has_every_function_of_jax_scipy(module, kind):
    have = {name.removeprefix(f"{kind}: ").split(" ")[0].rstrip(",") for name in DENSITIES if name.startswith(kind)}
    names = {name for name in dir(module) if not name.startswith("_")}
    assert names - have <= OTHERS[kind]


@pytest.mark.parametrize("name", LACKING)
def test_a_density_without_gradient_is_refused_with_a_remedy(name):
    density = DENSITIES[name]
    with pytest.raises(TypeError, match=r'cannot differentiate logprob \(\w+: .*estimator="score_function" needs none'):
        bbvi.fit(density, density.dim, method="newton")


@pytest.mark.parametrize("name", ONCE)
def test_a_density_without_second_derivatives_is_refused_where_they_are_needed(name):
    with pytest.raises(TypeError, match=r"method='laplace' needs second derivatives .*: \w+: .* Use what"):
        bbvi.fit(DENSITIES[name], DENSITIES[name].dim, method="laplace")


@pytest.mark.parametrize("method", ["laplace", "dadvi"])
def test_without_a_gradient_second_derivatives_are_not_what_is_missed(method):
    with pytest.raises(TypeError, match=r'cannot differentiate logprob \(\w+: .*estimator="score_function" needs none'):
        bbvi.fit(DENSITIES["lax: while_loop"], 1, method=method)


def test_a_density_of_one_point_at_a_time_is_refused_with_a_remedy():
    with pytest.raises(TypeError, match=r'several points at once .*vmap_method="sequential"'):
        bbvi.fit(DENSITIES["lax: pure_callback"], 1, method="advi", estimator="score_function", num_steps=10)


def test_a_site_on_a_sphere_is_refused():
    with pytest.raises(ValueError, match=r"'z' has the support Sphere\(\), which numpyro cannot map"):
        bbvi.from_numpyro(lambda: numpyro.sample("z", dist.ProjectedNormal(np.array([1.0, 2.0, 0.5]))))


# All of it


@pytest.mark.slow
@pytest.mark.parametrize("method", ["newton", "auto"])
@pytest.mark.parametrize(("kind", "name"), CASES)
def test_the_table(kind, name, method):
    assert_right(kind, name, fit(kind, name, method=method))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["laplace", "dadvi", "advi"])
@pytest.mark.parametrize("name", SOME)
def test_other_methods(name, method):
    posterior = fit("density", name, method=method)
    if posterior.diagnosis.trusted:
        assert_right("density", name, posterior)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Estimated shape parameter")  # of arviz: a few rows
@pytest.mark.parametrize(("kind", "name"), [*(("prior", n) for n in PRIORS), *(("likelihood", n) for n in LIKELIHOODS)])
def test_exports(kind, name, tmp_path):
    posterior = fit(kind, name, method="newton")
    assert len(posterior.summary())
    tree = posterior.to_arviz(20)
    assert kind == "prior" or tree.log_likelihood["y"].sizes["draw"] == 20
    posterior.report(tmp_path / "report.html")
