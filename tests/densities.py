"""Log densities made with what people use, and one with each distribution of numpyro."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import lax
from jax.experimental import sparse
from jax.experimental.ode import odeint
from jax.scipy import ndimage, signal, special, stats
from numpyro.distributions import transforms

RNG = np.random.default_rng(0)
Y = np.array([0.3, 1.2, 0.8, -0.4, 1.9, 0.1])
POSITIVE = np.array([0.5, 1.3, 0.7, 2.2, 0.9])
SHARE = np.array([0.2, 0.6, 0.45, 0.8])
COUNTS = np.array([1.0, 0, 3, 2])
ANGLES = np.array([0.4, -1.0, 0.9, 0.1])
A = np.array([[2.0, 0.3, 0.1], [0.3, 1.5, 0.2], [0.1, 0.2, 1.0]])


class Density(NamedTuple):
    """A log density of a vector `(dim,)`.

    Fields:
        term: the log density, up to a standard normal prior where `prior` is true.
        derivatives: how often JAX differentiates it.
    """

    term: Callable[[Any], Any]
    dim: int = 1
    derivatives: int = 2
    prior: bool = True

    def __call__(self, x: Any) -> Any:
        return self.term(x) - 0.5 * jnp.sum(x**2) if self.prior else self.term(x)


def near(value: Any, target: Any, scale: float = 0.5) -> Any:
    """Log likelihood of measurements `target` around `value`."""
    return -0.5 * jnp.sum(((jnp.asarray(target) - value) / scale) ** 2)


exp = jnp.exp

# jax.scipy.stats: each distribution as a likelihood, and one as a prior
STATS = {
    "bernoulli": Density(lambda x: stats.bernoulli.logpmf(np.array([1.0, 0, 1]), special.expit(x[0])).sum()),
    "beta": Density(lambda x: stats.beta.logpdf(SHARE, exp(x[0]), exp(x[1])).sum(), 2),
    "betabinom": Density(lambda x: stats.betabinom.logpmf(COUNTS, 5.0, exp(x[0]), exp(x[1])).sum(), 2),
    "binom": Density(lambda x: stats.binom.logpmf(COUNTS, 5.0, special.expit(x[0])).sum()),
    "cauchy": Density(lambda x: stats.cauchy.logpdf(Y, x[0], exp(x[1])).sum(), 2),
    "chi2": Density(lambda x: stats.chi2.logpdf(POSITIVE, exp(x[0]), scale=exp(x[1])).sum(), 2),
    "dirichlet": Density(lambda x: stats.dirichlet.logpdf(np.array([0.2, 0.3, 0.5]), exp(x)), 3),
    "expon": Density(lambda x: stats.expon.logpdf(POSITIVE, scale=exp(x[0])).sum()),
    "gamma": Density(lambda x: stats.gamma.logpdf(POSITIVE, exp(x[0]), scale=exp(x[1])).sum(), 2),
    "gaussian_kde": Density(lambda x: stats.gaussian_kde(jnp.asarray(Y)).logpdf(x[:1])[0]),
    "gennorm": Density(lambda x: stats.gennorm.logpdf(Y - x[0], 1.5 + exp(x[1])).sum(), 2),
    "geom": Density(lambda x: stats.geom.logpmf(COUNTS + 1, special.expit(x[0])).sum()),
    "gumbel_l": Density(lambda x: stats.gumbel_l.logpdf(Y, x[0], exp(x[1])).sum(), 2, 0),
    "gumbel_r": Density(lambda x: stats.gumbel_r.logpdf(Y, x[0], exp(x[1])).sum(), 2, 0),
    "laplace": Density(lambda x: stats.laplace.logpdf(Y, x[0], exp(x[1])).sum(), 2),
    "logistic": Density(lambda x: stats.logistic.logpdf(Y, x[0], exp(x[1])).sum(), 2),
    "multinomial": Density(
        lambda x: stats.multinomial.logpmf(jnp.array([2, 1, 3]), 6, special.softmax(jnp.append(x, 0.0))), 2
    ),
    "multivariate_normal": Density(
        lambda x: stats.multivariate_normal.logpdf(Y[:3], x, jnp.asarray(A) + exp(x[0]) * jnp.eye(3)), 3
    ),
    "nbinom": Density(lambda x: stats.nbinom.logpmf(COUNTS, exp(x[0]), special.expit(x[1])).sum(), 2),
    "norm": Density(lambda x: stats.norm.logpdf(Y, x[0], exp(x[1])).sum(), 2),
    "norm, logcdf and logsf": Density(lambda x: stats.norm.logcdf(x[0]) + stats.norm.logsf(Y, x[0]).sum()),
    "pareto": Density(lambda x: stats.pareto.logpdf(POSITIVE, exp(x[0]), scale=0.4).sum()),
    "poisson": Density(lambda x: stats.poisson.logpmf(COUNTS, exp(x[0])).sum()),
    "t": Density(lambda x: stats.t.logpdf(Y, exp(x[0]), x[1], exp(x[2])).sum(), 3),
    "truncnorm": Density(
        lambda x: stats.truncnorm.logpdf(SHARE, 0.0, 1.0 + exp(x[1]), loc=0.0, scale=exp(x[0])).sum(), 2
    ),
    "uniform": Density(lambda x: stats.uniform.logpdf(Y, -1.0, 3.0 + exp(x[0])).sum()),
    "vonmises": Density(lambda x: stats.vonmises.logpdf(ANGLES - x[0], exp(x[1])).sum(), 2),
    "wrapcauchy": Density(lambda x: stats.wrapcauchy.logpdf(ANGLES % (2 * np.pi), special.expit(x[0])).sum()),
    "expon as a prior": Density(lambda x: stats.expon.logpdf(exp(x[0])) + x[0] + near(exp(x[0]), 1.0), prior=False),
    "poisson, cdf": Density(lambda x: jnp.log(stats.poisson.cdf(2.0, exp(x[0])))),
    "gamma, cdf in its scale": Density(lambda x: jnp.log(stats.gamma.cdf(POSITIVE, 2.0, scale=exp(x[0]))).sum()),
    "gamma, censored above": Density(lambda x: stats.gamma.logsf(POSITIVE, 2.0, scale=exp(x[0])).sum()),
    "beta, cdf": Density(lambda x: jnp.log(stats.beta.cdf(special.expit(x[0]), 2.0, 3.0))),
    "t, interval by cdf of norm": Density(lambda x: jnp.log(stats.norm.cdf(1.0, x[0]) - stats.norm.cdf(0.0, x[0]))),
}

# exp1 and expn of JAX never return from very large arguments, neither alone nor in a batch.
SPECIAL = {
    "bessel_jn": Density(lambda x: near(special.bessel_jn(x[:1], v=2)[1, 0], 0.4)),
    "beta": Density(lambda x: near(special.beta(exp(x[0]), 2.0), 0.4)),
    "betainc in x": Density(lambda x: near(special.betainc(2.0, 3.0, special.expit(x[0])), 0.4)),
    "betainc in a and b": Density(lambda x: near(special.betainc(exp(x[0]), exp(x[1]), 0.4), 0.4, 0.2), 2, 0),
    "betaln": Density(lambda x: special.betaln(exp(x[0]), 2.0)),
    "boxcox": Density(lambda x: near(special.boxcox(jnp.asarray(POSITIVE), x[0]), 0.3)),
    "boxcox1p": Density(lambda x: near(special.boxcox1p(jnp.asarray(POSITIVE), x[0]), 0.3)),
    "comb": Density(lambda x: near(special.expit(x[0]), 0.3) + jnp.log(special.comb(6, 2))),
    "dawsn": Density(lambda x: near(special.dawsn(x[0]), 0.4)),
    "digamma": Density(lambda x: near(special.digamma(exp(x[0])), 0.4)),
    "entr": Density(lambda x: 5 * special.entr(special.expit(x[0]))),
    "erf": Density(lambda x: near(special.erf(x[0]), 0.4)),
    "erfc": Density(lambda x: jnp.log(special.erfc(x[0]))),
    "erfcx": Density(lambda x: -jnp.log(special.erfcx(x[0]))),
    "erfinv": Density(lambda x: near(special.erfinv(jnp.tanh(x[0])), 0.4)),
    "exp1": Density(lambda x: near(special.exp1(exp(3 * jnp.tanh(x[0]))), 0.4)),
    "expi": Density(lambda x: near(special.expi(exp(x[0])), 0.4)),
    "expn": Density(lambda x: near(special.expn(2, exp(3 * jnp.tanh(x[0]))), 0.4)),
    "expit": Density(lambda x: jnp.log(special.expit(x)).sum(), 2),
    "factorial": Density(lambda x: -jnp.log(special.factorial(exp(x[0])))),
    "fresnel": Density(lambda x: near(special.fresnel(x[0])[0], 0.4)),
    "gamma": Density(lambda x: -special.gamma(exp(x[0]))),
    "gammainc in x": Density(lambda x: jnp.log(special.gammainc(2.0, exp(x[0])))),
    "gammainc in a": Density(lambda x: jnp.log(special.gammainc(exp(x[0]), 1.5)), 1, 1),
    "gammaincc in x": Density(lambda x: jnp.log(special.gammaincc(2.0, exp(x[0])))),
    "gammaincc in a": Density(lambda x: jnp.log(special.gammaincc(exp(x[0]), 1.5)), 1, 1),
    "gammaln": Density(lambda x: -special.gammaln(exp(x)).sum(), 2),
    "gammasgn": Density(lambda x: special.gammasgn(exp(x[0])) * near(x[0], 0.4)),
    "hyp1f1": Density(lambda x: near(special.hyp1f1(1.0, 2.0, x[0]), 0.4)),
    "hyp2f1": Density(lambda x: near(special.hyp2f1(1.0, 2.0, 3.0, 0.8 * special.expit(x[0])), 1.4)),
    "i0": Density(lambda x: -jnp.log(special.i0(x[0]))),
    "i0e": Density(lambda x: -jnp.log(special.i0e(x[0]))),
    "i1": Density(lambda x: near(special.i1(x[0]), 0.4)),
    "i1e": Density(lambda x: near(special.i1e(x[0]), 0.2)),
    "kl_div": Density(lambda x: -special.kl_div(special.expit(x[0]), 0.3)),
    "log_ndtr": Density(lambda x: special.log_ndtr(3 * x).sum(), 2),
    "log_softmax": Density(lambda x: special.log_softmax(x)[0], 3),
    "loggamma": Density(lambda x: -special.loggamma(exp(x[0]))),
    "logit": Density(lambda x: near(special.logit(0.1 + 0.8 * special.expit(x[0])), 0.4)),
    "logsumexp": Density(lambda x: special.logsumexp(stats.norm.logpdf(Y[:, None], x, 1.0), axis=1).sum(), 1),
    "multigammaln": Density(lambda x: -special.multigammaln(1.0 + exp(x[0]), 2)),
    "ndtr": Density(lambda x: jnp.log(special.ndtr(x)).sum(), 2),
    "ndtri": Density(lambda x: near(special.ndtri(special.expit(x[0])), 0.4)),
    "owens_t": Density(lambda x: near(special.owens_t(x[0], 0.5), 0.05, 0.05)),
    "poch": Density(lambda x: -jnp.log(special.poch(exp(x[0]), 2.0))),
    "polygamma": Density(lambda x: near(special.polygamma(1, exp(x[0])), 0.8)),
    "rel_entr": Density(lambda x: -special.rel_entr(special.expit(x[0]), 0.3)),
    "sici": Density(lambda x: near(special.sici(x[0])[0], 0.4)),
    "softmax": Density(lambda x: near(special.softmax(x), np.array([0.2, 0.3, 0.5]), 0.1), 3),
    "spence": Density(lambda x: near(special.spence(exp(x[0])), 0.4)),
    "sph_harm_y": Density(
        lambda x: near(
            jnp.real(special.sph_harm_y(jnp.array([2]), jnp.array([1]), x[:1], x[1:], n_max=2))[0], 0.2, 0.2
        ),
        2,
    ),
    "wofz": Density(lambda x: near(jnp.real(special.wofz(x[0] + 0.5j)), 0.5)),
    "xlog1py": Density(lambda x: special.xlog1py(2.0, special.expit(x[0]))),
    "xlogy": Density(lambda x: special.xlogy(np.array([0.0, 2.0]), special.expit(x[0])).sum()),
    "zeta": Density(lambda x: -jnp.log(special.zeta(1.0 + exp(x[0]), 1.0))),
    "zeta in q": Density(lambda x: -jnp.log(special.zeta(2.0, exp(x[0])))),
}
if hasattr(special, "erfcinv"):  # since JAX 0.12.0.1
    SPECIAL["erfcinv"] = Density(lambda x: near(special.erfcinv(2 * special.expit(x[0])), 0.4))


def _scan(x):
    def step(state, y):
        state = 0.8 * state + 0.2 * x[0]
        return state, stats.norm.logpdf(y, state, exp(x[1]))

    return lax.scan(step, x[0], jnp.asarray(Y))[1].sum()


def _while(x):
    def body(pair):
        i, value = pair
        return i + 1, 0.5 * (value + exp(x[0]) / value)  # Heron's square root

    return near(lax.while_loop(lambda pair: pair[0] < 8, body, (0, jnp.ones_like(x[0])))[1], 1.2)


def _rounds(x):
    size = lax.stop_gradient(jnp.abs(x[0]))
    return near(x[0], 0.4) + 0 * lax.while_loop(lambda n: n < size, lambda n: n + 1, jnp.zeros_like(size))


def _fori(times):
    def density(x):
        return near(lax.fori_loop(0, times, lambda i, v: jnp.cos(v), x[0]), 0.7, 0.1)

    return density


def _dynamic_fori(x):
    return near(lax.fori_loop(0, jnp.asarray(3), lambda i, v: jnp.cos(v), x[0]), 0.7, 0.1)


@jax.custom_jvp
def soft(x):
    return jnp.logaddexp(x, 0.0)


soft.defjvp(lambda primals, tangents: (soft(*primals), special.expit(primals[0]) * tangents[0]))


@jax.custom_vjp
def hard(x):
    return jnp.sum(x**4)


hard.defvjp(lambda x: (hard(x), x), lambda x, g: (4 * x**3 * g,))


def _root(x):
    value = lax.custom_root(
        lambda z: z**3 + z - x[0],
        jnp.zeros_like(x[0]),
        lambda f, z: lax.fori_loop(0, 30, lambda _, z: z - f(z) / (3 * z**2 + 1), z),
        lambda g, y: y / g(jnp.ones_like(y)),
    )
    return near(value, 0.4)


def _linear_solve(x):
    matrix = jnp.asarray(A)
    solve = lambda matvec, b: jnp.linalg.solve(matrix, b)
    return near(lax.custom_linear_solve(lambda v: matrix @ v, x, solve, solve, symmetric=True), Y[:3])


def _bisect(x):
    def body(_, ends):
        middle = (ends[0] + ends[1]) / 2
        below = middle**3 + middle < x[0]
        return jnp.where(below, middle, ends[0]), jnp.where(below, ends[1], middle)

    low = lax.stop_gradient(lax.fori_loop(0, 50, body, (-10 + 0 * x[0], 10 + 0 * x[0]))[0])
    return near(low - (low**3 + low - x[0]) / (3 * low**2 + 1), 0.4)


def _sparse(x):
    rows, columns = np.nonzero(A > 0.15)
    matrix = sparse.BCOO((A[rows, columns], np.stack([rows, columns], axis=1)), shape=A.shape)
    return near(matrix @ x, Y[:3])


def _cg(x):
    return near(jax.scipy.sparse.linalg.cg(lambda v: jnp.asarray(A) @ v, x)[0], Y[:3])


def _ode(x):
    path = odeint(lambda y, t: -exp(x[0]) * y, jnp.ones_like(x[0]), jnp.linspace(0.0, 2.0, 5))
    return near(path, np.exp(-0.8 * np.linspace(0, 2, 5)), 0.1)


def _callback(x):
    return jax.pure_callback(lambda v: np.asarray(near(v[0], 0.4)), jax.ShapeDtypeStruct((), x.dtype), x)


def _unequal_spaces(x):
    return near(jnp.interp(x[0], jnp.linspace(-5, 5, 11), jnp.sin(jnp.linspace(-5, 5, 11))), 0.4)


LAX = {
    "scan": Density(_scan, 2),
    "while_loop": Density(_while, 1, 0),
    "loop of as many rounds as a parameter is large": Density(_rounds),
    "fori_loop of a fixed number": Density(_fori(3)),
    "fori_loop of a traced number": Density(_dynamic_fori, 1, 0),
    "cond": Density(lambda x: lax.cond(x[0] > 0, lambda: -x[0], lambda: x[0])),
    "switch": Density(
        lambda x: lax.switch(
            (x[0] > 0).astype(int), [lambda v: -(v[0] ** 2), lambda v: -0.5 * v[0] ** 2, lambda v: v[0]], x
        )
    ),
    "map": Density(lambda x: lax.map(lambda y: stats.norm.logpdf(y, x[0], exp(x[1])), jnp.asarray(Y)).sum(), 2),
    "map in batches": Density(lambda x: lax.map(lambda y: near(y, x[0]), jnp.asarray(Y), batch_size=4).sum()),
    "associative_scan": Density(lambda x: near(lax.associative_scan(jnp.multiply, special.expit(x)), 0.3), 3),
    "cumsum": Density(lambda x: near(jnp.cumsum(x), Y[:4]), 4),
    "cumlogsumexp": Density(lambda x: near(lax.cumlogsumexp(x), Y[:4]), 4),
    "cumprod": Density(lambda x: near(jnp.cumprod(special.expit(x)), 0.3), 3),
    "cummax": Density(lambda x: near(lax.cummax(x), np.array([0.1, 0.2, 0.5])), 3),
    "custom_jvp": Density(lambda x: -soft(3 * x[0])),
    "custom_vjp": Density(lambda x: -hard(x), 2),
    "custom_root": Density(_root),
    "custom_linear_solve": Density(_linear_solve, 3),
    "bisection and an implicit step": Density(_bisect),
    "sort": Density(lambda x: near(jnp.sort(x), np.array([-0.5, 0.2, 1.0])), 3),
    "argsort and take": Density(lambda x: near(x[jnp.argsort(x)], np.array([-0.5, 0.2, 1.0])), 3),
    "top_k": Density(lambda x: near(lax.top_k(x, 2)[0], np.array([1.0, 0.2])), 3),
    "gather": Density(lambda x: near(x[np.array([0, 1, 0, 2, 2, 1])], Y), 3),
    "scatter": Density(lambda x: near(jnp.zeros(5).at[np.array([0, 1, 1])].add(x), Y[:5]), 3),
    "scatter_mul": Density(lambda x: near(jnp.ones(2).at[np.array([0, 1, 1])].multiply(x), 0.4), 3, 0),
    "segment_sum": Density(lambda x: near(jax.ops.segment_sum(x, np.array([0, 1, 1]), 2), Y[:2]), 3),
    "segment_max": Density(lambda x: near(jax.ops.segment_max(x, np.array([0, 1, 1]), 2), Y[:2]), 3),
    "argmax": Density(lambda x: near(x[jnp.argmax(x)], 0.8), 3),
    "max and min": Density(lambda x: near(jnp.max(x), 1.0) + near(jnp.min(x), -1.0), 3),
    "stop_gradient": Density(lambda x: near(x[0], 0.5) + 0 * lax.stop_gradient(x[1]), 2),
    "reduce_window": Density(lambda x: near(lax.reduce_window(x, 0.0, lax.add, (2,), (1,), "VALID"), Y[:3]), 4),
    "convolve": Density(lambda x: near(jnp.convolve(x, jnp.array([0.5, 0.3]), "valid"), Y[:3]), 4),
    "fftconvolve": Density(lambda x: near(signal.fftconvolve(x, jnp.array([0.5, 0.3]), "valid"), Y[:3]), 4),
    "dynamic_slice": Density(lambda x: near(lax.dynamic_slice(x, (1,), (2,)), Y[:2]), 3),
    "dynamic_update_slice": Density(lambda x: near(lax.dynamic_update_slice(jnp.zeros(4), x, (1,)), Y[:4]), 2),
    "clip": Density(lambda x: near(jnp.clip(x[0], -1, 1), 0.4)),
    "floor and rounding": Density(lambda x: near(x[0] - jnp.floor(x[0] / 50), 0.4) + 0 * jnp.round(x[0])),
    "prod": Density(lambda x: near(jnp.prod(x), 0.4), 3),
    "integer casts": Density(lambda x: near(x[jnp.array(1.0).astype(int)], 0.4), 2),
    "where with a guard": Density(
        lambda x: near(jnp.sqrt(jnp.where(x[0] > 0, x[0], 1.0)) * (x[0] > 0).astype(x.dtype), 0.8)
    ),
    "where with infinity": Density(lambda x: jnp.where(x[0] > -1, near(x[0], 0.4), -jnp.inf)),
    "abs": Density(lambda x: -jnp.abs(x).sum(), 2),
    "norm at zero": Density(lambda x: -jnp.linalg.norm(x), 2),
    "checkpoint": Density(lambda x: jax.checkpoint(lambda v: near(jnp.sin(v), 0.4))(x), 2),
    "jit inside": Density(lambda x: jax.jit(lambda v: near(jnp.sin(v), 0.4))(x), 2),
    "grad inside": Density(lambda x: near(jax.grad(lambda v: jnp.sin(v[0]))(x)[0], 0.4)),
    "hessian inside": Density(lambda x: near(jax.hessian(lambda v: jnp.sum(v**3))(x).sum(), 0.4), 2),
    "jacfwd inside": Density(lambda x: jnp.linalg.slogdet(jax.jacfwd(lambda v: v + 0.1 * jnp.sin(v))(x))[1], 2),
    "vmap inside": Density(
        lambda x: jax.vmap(lambda y: stats.norm.logpdf(y, x[0], exp(x[1])))(jnp.asarray(Y)).sum(), 2
    ),
    "pure_callback": Density(_callback, 1, 0),
    "random numbers inside": Density(
        lambda x: near(x[0] + 0.1 * jax.random.normal(jax.random.key(0), (5,), x.dtype), 0.4)
    ),
    # The gradient of jax.random.gamma takes seconds from arguments of 1e15 on, and for ever further out.
    "random gamma inside": Density(
        lambda x: near(jax.random.gamma(jax.random.key(0), exp(3 * jnp.tanh(x[0])), (5,), x.dtype), 0.8)
    ),
    "random permutation inside": Density(lambda x: near(jax.random.permutation(jax.random.key(0), x), Y[:3]), 3),
    "complex values": Density(lambda x: near(jnp.abs(jnp.exp(1j * x[0]) - (0.5 + 0.5j)), 0.4)),
    "roots of a complex exponential": Density(lambda x: near(jnp.angle(jnp.exp(1j * 0.3 * x[0])), 0.2)),
    "complex determinant": Density(lambda x: jnp.linalg.slogdet(jnp.asarray(A) + 1j * x[0] * jnp.eye(3))[1]),
    "polynomial": Density(lambda x: near(jnp.polyval(x, jnp.linspace(-1, 1, 6)), Y), 3),
    "einsum": Density(lambda x: -jnp.einsum("i,ij,j", x, A, x), 3),
    "odeint": Density(_ode, 1, 1),
    "interp": Density(_unequal_spaces),
    "interp in the ordinates": Density(lambda x: near(jnp.interp(SHARE, jnp.linspace(0, 1, 3), x), SHARE), 3),
    "map_coordinates": Density(
        lambda x: near(ndimage.map_coordinates(jnp.asarray(A), [x[:1], x[1:]], 1, mode="nearest"), 1.0), 2
    ),
    "searchsorted": Density(lambda x: near(jnp.asarray(Y)[jnp.searchsorted(jnp.arange(5.0), x[0])], 0.4)),
    "fft": Density(lambda x: near(jnp.abs(jnp.fft.fft(x)), 1.0), 4),
    "rfft and irfft": Density(lambda x: near(jnp.fft.irfft(jnp.fft.rfft(x) * 0.5), Y[:4]), 4),
    "fft2": Density(lambda x: near(jnp.real(jnp.fft.fft2(x.reshape(2, 2))), 1.0), 4),
    "dct": Density(lambda x: near(jax.scipy.fft.dct(x), 1.0), 4),
    "median": Density(lambda x: near(jnp.median(x), 0.5), 3),
    "quantile": Density(lambda x: near(jnp.quantile(x, 0.3), 0.5), 3),
    "var and std": Density(lambda x: near(jnp.std(x), 0.5) + near(jnp.var(x), 0.4), 3),
    "cov and corrcoef": Density(lambda x: near(jnp.corrcoef(x.reshape(2, 3))[0, 1], 0.5), 6),
    "sparse matvec": Density(_sparse, 3),
    "conjugate gradients": Density(_cg, 3),
    "bcoo of parameters": Density(
        lambda x: near(sparse.BCOO((x, np.array([[0, 0], [1, 1], [1, 0]])), shape=(2, 2)) @ jnp.ones(2), 0.4), 3
    ),
    "trapezoid": Density(
        lambda x: near(jax.scipy.integrate.trapezoid(jnp.exp(-exp(x[0]) * jnp.linspace(0, 1, 20)), dx=1 / 19), 0.5, 0.1)
    ),
    "nextafter and logaddexp": Density(lambda x: -jnp.logaddexp(x[0], -x[0])),
    "sinc": Density(lambda x: near(jnp.sinc(x[0]), 0.5)),
    "power with a negative base": Density(lambda x: near(x[0] ** 3, 0.5)),
    "nan_to_num": Density(lambda x: near(jnp.nan_to_num(x[0]), 0.5)),
    "select": Density(lambda x: jnp.select([x[0] < 0, x[0] < 1], [x[0], 2 * x[0]], 3 * x[0])),
    "piecewise": Density(lambda x: jnp.piecewise(x[0], [x[0] < 0], [lambda v: v, lambda v: -v])),
    "bitwise and integer data": Density(lambda x: near(x[np.arange(6) & 1], Y), 2),
    "prng key array in the closure": Density(
        lambda x: near(x[0] + jax.random.uniform(jax.random.PRNGKey(1), (3,), x.dtype), 0.4)
    ),
}


def _spd(x):
    root = jnp.array([[1.0, 0.0], [0.3, 0.8]])
    return root @ root.T * exp(x[0]) + jnp.eye(2) * exp(x[1])


LINALG = {
    "cholesky": Density(lambda x: -jnp.log(jnp.diagonal(jnp.linalg.cholesky(_spd(x)))).sum(), 2),
    "cho_solve": Density(
        lambda x: -Y[:2] @ jax.scipy.linalg.cho_solve((jnp.linalg.cholesky(_spd(x)), True), jnp.asarray(Y[:2])), 2
    ),
    "solve_triangular": Density(
        lambda x: near(
            jax.scipy.linalg.solve_triangular(jnp.linalg.cholesky(_spd(x)), jnp.asarray(Y[:2]), lower=True), 0.0
        ),
        2,
    ),
    "solve": Density(lambda x: -Y[:2] @ jnp.linalg.solve(_spd(x), jnp.asarray(Y[:2])), 2),
    "slogdet": Density(lambda x: -0.5 * jnp.linalg.slogdet(_spd(x))[1], 2),
    "det": Density(lambda x: -0.5 * jnp.log(jnp.linalg.det(_spd(x))), 2),
    "eigh": Density(lambda x: near(jnp.linalg.eigh(_spd(x))[0], np.array([1.0, 2.0])), 2),
    "eigvals": Density(lambda x: near(jnp.sort(jnp.real(jnp.linalg.eigvals(_spd(x)))), np.array([1.0, 2.0])), 2, 1),
    "svd": Density(lambda x: near(jnp.linalg.svd(_spd(x), compute_uv=False), np.array([2.0, 1.0])), 2),
    "qr": Density(lambda x: near(jnp.abs(jnp.diagonal(jnp.linalg.qr(_spd(x))[1])), 1.5), 2),
    "inv": Density(lambda x: -Y[:2] @ jnp.linalg.inv(_spd(x)) @ Y[:2], 2),
    "pinv": Density(lambda x: -Y[:2] @ jnp.linalg.pinv(_spd(x)) @ Y[:2], 2),
    "expm": Density(lambda x: near(jax.scipy.linalg.expm(-_spd(x)), 0.2), 2),
    "matrix_power": Density(lambda x: near(jnp.linalg.matrix_power(_spd(x), 2), 1.0), 2),
    "lstsq": Density(lambda x: near(jnp.linalg.lstsq(_spd(x), jnp.asarray(Y[:2]))[0], 0.2), 2),
    "nuclear norm": Density(lambda x: -jnp.linalg.norm(_spd(x), "nuc"), 2),
    "block_diag and kron": Density(
        lambda x: -0.1 * jnp.trace(jnp.kron(_spd(x), jax.scipy.linalg.block_diag(_spd(x), _spd(x)))), 2
    ),
    "toeplitz": Density(
        lambda x: -jnp.linalg.slogdet(jax.scipy.linalg.toeplitz(jnp.array([2.0, 0.5, 0.2])) * exp(x[0]))[1]
    ),
    "lu": Density(lambda x: -jnp.log(jnp.abs(jnp.diagonal(jax.scipy.linalg.lu(_spd(x))[2]))).sum(), 2),
    "sqrtm": Density(lambda x: near(jnp.real(jax.scipy.linalg.sqrtm(_spd(x))), 1.0), 2, 0),
    "schur": Density(lambda x: near(jnp.diagonal(jax.scipy.linalg.schur(_spd(x))[0]), 1.0), 2, 0),
    "polar": Density(lambda x: near(jax.scipy.linalg.polar(_spd(x))[0], 1.0), 2, 0),
}

DENSITIES = {
    f"{kind}: {name}": density
    for kind, table in {"stats": STATS, "special": SPECIAL, "lax": LAX, "linalg": LINALG}.items()
    for name, density in table.items()
}


class Family(NamedTuple):
    """A distribution of numpyro.

    Fields:
        prior: makes one to sample a site from, or None.
        likelihood: one whose parameter is the argument, which has a standard normal prior, or None.
        observed: what is observed of `likelihood`; draws at 0.3 where None.
    """

    prior: Callable[[], Any] | None = None
    likelihood: Callable[[Any], Any] | None = None
    observed: Any = None


HALF = np.array([0.5, 0.3, 0.2])
TWO = np.array([[1.0, 0.4], [0.4, 1.5]])
ROOT = np.linalg.cholesky(TWO)
ADJACENT = np.array([[0.0, 1, 0], [1, 0, 1], [0, 1, 0]])
sigmoid = special.expit


def _softmax(t):
    return special.softmax(jnp.stack([t, 0 * t, -t]))


def _shares(t):
    return dist.Categorical(jnp.stack([sigmoid(t), 1 - sigmoid(t)]))


FAMILIES = {
    "AsymmetricLaplace": Family(
        lambda: dist.AsymmetricLaplace(0.5, 1.0, 1.5), lambda t: dist.AsymmetricLaplace(t, 1.0, exp(t))
    ),
    "AsymmetricLaplaceQuantile": Family(
        lambda: dist.AsymmetricLaplaceQuantile(0.5, 1.0, 0.3),
        lambda t: dist.AsymmetricLaplaceQuantile(t, 1.0, sigmoid(t)),
    ),
    "Bernoulli": Family(None, lambda t: dist.Bernoulli(logits=t)),
    "BernoulliLogits": Family(None, lambda t: dist.BernoulliLogits(t)),
    "BernoulliProbs": Family(None, lambda t: dist.BernoulliProbs(sigmoid(t))),
    "Beta": Family(lambda: dist.Beta(2.0, 3.0), lambda t: dist.Beta(exp(t), 2.0)),
    "BetaBinomial": Family(None, lambda t: dist.BetaBinomial(exp(t), 2.0, 5)),
    "BetaNegativeBinomial": Family(None, lambda t: dist.BetaNegativeBinomial(3.0 + exp(t), 2.0, 5.0)),
    "BetaProportion": Family(lambda: dist.BetaProportion(0.4, 5.0), lambda t: dist.BetaProportion(sigmoid(t), 5.0)),
    "Binomial": Family(None, lambda t: dist.Binomial(5, sigmoid(t))),
    "BinomialLogits": Family(None, lambda t: dist.BinomialLogits(t, 5)),
    "BinomialProbs": Family(None, lambda t: dist.BinomialProbs(sigmoid(t), 5)),
    "CAR": Family(
        lambda: dist.CAR(np.zeros(3), 0.5, 2.0, ADJACENT),
        lambda t: dist.CAR(t * jnp.ones(3), sigmoid(t), 2.0, ADJACENT),
    ),
    "Categorical": Family(None, lambda t: dist.Categorical(_softmax(t))),
    "CategoricalLogits": Family(None, lambda t: dist.CategoricalLogits(jnp.stack([t, 0 * t]))),
    "CategoricalProbs": Family(None, lambda t: dist.CategoricalProbs(_softmax(t))),
    "Cauchy": Family(lambda: dist.Cauchy(0.5, 1.0), lambda t: dist.Cauchy(t, exp(t))),
    "Chi2": Family(lambda: dist.Chi2(4.0), lambda t: dist.Chi2(exp(t))),
    "CirculantNormal": Family(
        lambda: dist.CirculantNormal(np.zeros(4), covariance_row=np.array([1.0, 0.4, 0.2, 0.4])),
        lambda t: dist.CirculantNormal(t * jnp.ones(4), covariance_row=exp(t) * np.array([1.0, 0.4, 0.2, 0.4])),
    ),
    "Dagum": Family(lambda: dist.Dagum(2.0, 4.0, 1.0), lambda t: dist.Dagum(exp(t), 4.0, 1.0)),
    "Dirichlet": Family(
        lambda: dist.Dirichlet(np.array([2.0, 3.0, 4.0])), lambda t: dist.Dirichlet(exp(t) * jnp.ones(3))
    ),
    "DirichletMultinomial": Family(None, lambda t: dist.DirichletMultinomial(exp(t) * jnp.ones(3), 6)),
    "DiscreteUniform": Family(None, lambda t: dist.DiscreteUniform(0, 4)),
    "DoublyTruncatedPowerLaw": Family(
        lambda: dist.DoublyTruncatedPowerLaw(-2.0, 1.0, 5.0), lambda t: dist.DoublyTruncatedPowerLaw(t, 1.0, 5.0)
    ),
    "EulerMaruyama": Family(
        lambda: dist.EulerMaruyama(np.linspace(0, 1, 4), lambda y, t: (-y, jnp.ones_like(y)), dist.Normal(0.0, 1.0)),
        lambda t: dist.EulerMaruyama(
            np.linspace(0, 1, 4), lambda y, s: (-exp(t) * y, jnp.ones_like(y)), dist.Normal(0.0, 1.0)
        ),
    ),
    "ExpandedDistribution": Family(
        lambda: dist.Normal(0.5, 1.0).expand([3]), lambda t: dist.Normal(t, 1.0).expand([3])
    ),
    "Exponential": Family(lambda: dist.Exponential(2.0), lambda t: dist.Exponential(exp(t))),
    "FoldedDistribution": Family(
        lambda: dist.FoldedDistribution(dist.Normal(1.0, 1.0)), lambda t: dist.FoldedDistribution(dist.Normal(t, 1.0))
    ),
    "Gamma": Family(lambda: dist.Gamma(3.0, 2.0), lambda t: dist.Gamma(exp(t), 2.0)),
    "GammaPoisson": Family(None, lambda t: dist.GammaPoisson(exp(t), 2.0)),
    "GaussianCopula": Family(
        lambda: dist.GaussianCopula(
            dist.Gamma(np.array([2.0, 3.0])), correlation_matrix=np.array([[1.0, 0.5], [0.5, 1.0]])
        ),
        lambda t: dist.GaussianCopula(
            dist.Normal(t * jnp.ones(2), 1.0), correlation_matrix=jnp.array([[1.0, 0.5], [0.5, 1.0]])
        ),
    ),
    "GaussianCopulaBeta": Family(
        lambda: dist.GaussianCopulaBeta(
            np.array([2.0, 3.0]), np.array([3.0, 2.0]), correlation_matrix=np.array([[1.0, 0.5], [0.5, 1.0]])
        ),
        lambda t: dist.GaussianCopulaBeta(
            np.array([2.0, 3.0]),
            np.array([3.0, 2.0]),
            correlation_cholesky=jnp.linalg.cholesky(jnp.eye(2) + jnp.tanh(t) * (1 - jnp.eye(2))),
        ),
        np.array([0.4, 0.7]),
    ),
    "GaussianRandomWalk": Family(lambda: dist.GaussianRandomWalk(0.7, 4), lambda t: dist.GaussianRandomWalk(exp(t), 4)),
    "GaussianStateSpace": Family(
        lambda: dist.GaussianStateSpace(3, np.array([[0.8]]), covariance_matrix=jnp.eye(1)),
        lambda t: dist.GaussianStateSpace(3, jnp.array([[0.8]]), covariance_matrix=exp(t) * jnp.eye(1)),
    ),
    "Geometric": Family(None, lambda t: dist.Geometric(sigmoid(t))),
    "GeometricLogits": Family(None, lambda t: dist.GeometricLogits(t)),
    "GeometricProbs": Family(None, lambda t: dist.GeometricProbs(sigmoid(t))),
    "Gompertz": Family(lambda: dist.Gompertz(1.0, 2.0), lambda t: dist.Gompertz(exp(t), 2.0)),
    "Gumbel": Family(lambda: dist.Gumbel(0.5, 1.0), lambda t: dist.Gumbel(t, exp(t))),
    "HalfCauchy": Family(lambda: dist.HalfCauchy(1.0), lambda t: dist.HalfCauchy(exp(t))),
    "HalfNormal": Family(lambda: dist.HalfNormal(1.0), lambda t: dist.HalfNormal(exp(t))),
    "HurdleDistribution": Family(None, lambda t: dist.HurdleDistribution(dist.Poisson(exp(t)), gate=sigmoid(t))),
    "HurdleGamma": Family(None, lambda t: dist.HurdleGamma(sigmoid(t), exp(t), 1.0)),
    "HurdleLogits": Family(None, lambda t: dist.HurdleLogits(dist.Poisson(exp(t)), t)),
    "HurdleLogNormal": Family(None, lambda t: dist.HurdleLogNormal(sigmoid(t), t, 1.0)),
    "HurdleNegativeBinomial2": Family(None, lambda t: dist.HurdleNegativeBinomial2(sigmoid(t), exp(t), 2.0)),
    "HurdlePoisson": Family(None, lambda t: dist.HurdlePoisson(sigmoid(t), exp(t))),
    "HurdleProbs": Family(None, lambda t: dist.HurdleProbs(dist.Poisson(exp(t)), sigmoid(t))),
    "Independent": Family(
        lambda: dist.Normal(np.zeros(3), 1.0).to_event(1), lambda t: dist.Normal(t * jnp.ones(3), 1.0).to_event(1)
    ),
    "InverseGamma": Family(lambda: dist.InverseGamma(4.0, 2.0), lambda t: dist.InverseGamma(exp(t), 2.0)),
    "InverseWishart": Family(
        lambda: dist.InverseWishart(6.0, scale_matrix=TWO),
        lambda t: dist.InverseWishart(3.0 + exp(t), scale_matrix=jnp.asarray(TWO)),
        TWO,
    ),
    "InverseWishartCholesky": Family(
        lambda: dist.InverseWishartCholesky(6.0, scale_matrix=TWO),
        lambda t: dist.InverseWishartCholesky(3.0 + exp(t), scale_matrix=jnp.asarray(TWO)),
        ROOT,
    ),
    "Kumaraswamy": Family(lambda: dist.Kumaraswamy(2.0, 3.0), lambda t: dist.Kumaraswamy(exp(t), 3.0)),
    "LKJ": Family(lambda: dist.LKJ(3, 2.0), lambda t: dist.LKJ(2, exp(t)), np.array([[1.0, 0.3], [0.3, 1.0]])),
    "LKJCholesky": Family(
        lambda: dist.LKJCholesky(3, 2.0),
        lambda t: dist.LKJCholesky(2, exp(t)),
        np.linalg.cholesky(np.array([[1.0, 0.3], [0.3, 1.0]])),
    ),
    "Laplace": Family(lambda: dist.Laplace(0.5, 1.0), lambda t: dist.Laplace(t, exp(t))),
    "LeftCensoredDistribution": Family(
        None,
        lambda t: dist.LeftCensoredDistribution(dist.Normal(t, 1.0), np.array([True, False, False])),
        np.array([0.2, 0.8, 1.4]),
    ),
    "RightCensoredDistribution": Family(
        None,
        lambda t: dist.RightCensoredDistribution(dist.Weibull(exp(t), 1.5), np.array([True, False, False])),
        np.array([0.2, 0.8, 1.4]),
    ),
    "IntervalCensoredDistribution": Family(
        None,
        lambda t: dist.IntervalCensoredDistribution(
            dist.Normal(t, 1.0), np.array([False, True, False]), np.array([False, False, True])
        ),
        np.array([[0.2, 0.8], [0.8, 0.9], [1.4, 1.5]]),
    ),
    "LeftTruncatedDistribution": Family(
        lambda: dist.LeftTruncatedDistribution(dist.Normal(0.0, 1.0), 0.5),
        lambda t: dist.LeftTruncatedDistribution(dist.Normal(t, 1.0), 0.5),
    ),
    "LeftTruncatedGamma": Family(
        lambda: dist.LeftTruncatedGamma(dist.Gamma(3.0, 2.0), 0.5),
        lambda t: dist.LeftTruncatedGamma(dist.Gamma(3.0, exp(t)), 0.5),
    ),
    "Levy": Family(lambda: dist.Levy(0.0, 1.0), lambda t: dist.Levy(0.0, exp(t))),
    "LogNormal": Family(lambda: dist.LogNormal(0.5, 0.6), lambda t: dist.LogNormal(t, exp(t))),
    "LogUniform": Family(lambda: dist.LogUniform(1.0, 5.0), lambda t: dist.LogUniform(0.1, 5.0 + exp(t))),
    "Logistic": Family(lambda: dist.Logistic(0.5, 1.0), lambda t: dist.Logistic(t, exp(t))),
    "LowRankMultivariateNormal": Family(
        lambda: dist.LowRankMultivariateNormal(np.zeros(3), np.ones((3, 1)), np.ones(3)),
        lambda t: dist.LowRankMultivariateNormal(t * jnp.ones(3), jnp.ones((3, 1)), exp(t) * jnp.ones(3)),
    ),
    "LowerTruncatedPowerLaw": Family(
        lambda: dist.LowerTruncatedPowerLaw(-4.0, 1.0), lambda t: dist.LowerTruncatedPowerLaw(-1.0 - exp(t), 1.0)
    ),
    "MaskedDistribution": Family(
        None,
        lambda t: dist.Normal(t * jnp.ones(3), 1.0).mask(np.array([True, True, False])),
        np.array([0.2, 0.8, 14.0]),
    ),
    "MatrixNormal": Family(
        lambda: dist.MatrixNormal(np.zeros((2, 2)), ROOT, np.eye(2)),
        lambda t: dist.MatrixNormal(t * jnp.ones((2, 2)), jnp.asarray(ROOT), exp(t) * jnp.eye(2)),
    ),
    "Mixture": Family(
        lambda: dist.Mixture(dist.Categorical(np.array([0.4, 0.6])), dist.Normal(np.array([-0.5, 0.7]), 1.0)),
        lambda t: dist.Mixture(_shares(t), dist.Normal(np.array([-1.0, 1.0]), 1.0)),
    ),
    "MixtureGeneral": Family(
        lambda: dist.MixtureGeneral(
            dist.Categorical(np.array([0.4, 0.6])), [dist.Normal(0.0, 1.0), dist.StudentT(5.0, 1.0)]
        ),
        lambda t: dist.MixtureGeneral(_shares(t), [dist.Normal(t, 1.0), dist.Laplace(0.0, 1.0)]),
    ),
    "MixtureSameFamily": Family(
        lambda: dist.MixtureSameFamily(dist.Categorical(np.array([0.4, 0.6])), dist.Gamma(np.array([2.0, 3.0]), 2.0)),
        lambda t: dist.MixtureSameFamily(_shares(t), dist.Gamma(np.array([2.0, 5.0]), exp(t))),
    ),
    "Multinomial": Family(None, lambda t: dist.Multinomial(6, _softmax(t))),
    "MultinomialLogits": Family(None, lambda t: dist.MultinomialLogits(jnp.stack([t, 0 * t, -t]), 6)),
    "MultinomialProbs": Family(None, lambda t: dist.MultinomialProbs(_softmax(t), 6)),
    "MultivariateNormal": Family(
        lambda: dist.MultivariateNormal(np.zeros(2), TWO),
        lambda t: dist.MultivariateNormal(t * jnp.ones(2), exp(t) * TWO),
    ),
    "MultivariateStudentT": Family(
        lambda: dist.MultivariateStudentT(5.0, np.zeros(2), ROOT),
        lambda t: dist.MultivariateStudentT(exp(t), t * jnp.ones(2), jnp.asarray(ROOT)),
    ),
    "NegativeBinomial": Family(None, lambda t: dist.NegativeBinomial(3.0, sigmoid(t))),
    "NegativeBinomial2": Family(None, lambda t: dist.NegativeBinomial2(exp(t), 2.0)),
    "NegativeBinomialLogits": Family(None, lambda t: dist.NegativeBinomialLogits(3.0, t)),
    "NegativeBinomialProbs": Family(None, lambda t: dist.NegativeBinomialProbs(exp(t), 0.4)),
    "Normal": Family(lambda: dist.Normal(0.5, 2.0), lambda t: dist.Normal(t, exp(t))),
    "OrderedLogistic": Family(None, lambda t: dist.OrderedLogistic(t, np.array([-1.0, 0.5]))),
    "Pareto": Family(lambda: dist.Pareto(1.0, 4.0), lambda t: dist.Pareto(1.0, exp(t))),
    "Poisson": Family(None, lambda t: dist.Poisson(exp(t))),
    "ProjectedNormal": Family(
        None,  # numpyro maps no vector to a sphere
        lambda t: dist.ProjectedNormal(jnp.stack([t, 1.0 + 0 * t, 0 * t])),
    ),
    "RelaxedBernoulli": Family(
        lambda: dist.RelaxedBernoulli(np.array(1.5), probs=np.array(0.4)),
        lambda t: dist.RelaxedBernoulli(jnp.array(1.5), logits=t),
    ),
    "RelaxedBernoulliLogits": Family(
        lambda: dist.RelaxedBernoulliLogits(1.5, 0.4), lambda t: dist.RelaxedBernoulliLogits(1.0 + exp(t), 0.4)
    ),
    "RightTruncatedDistribution": Family(
        lambda: dist.RightTruncatedDistribution(dist.Normal(0.0, 1.0), 0.5),
        lambda t: dist.RightTruncatedDistribution(dist.Normal(t, 1.0), 0.5),
    ),
    "RightTruncatedGamma": Family(
        lambda: dist.RightTruncatedGamma(dist.Gamma(3.0, 2.0), 2.0),
        lambda t: dist.RightTruncatedGamma(dist.Gamma(3.0, exp(t)), 2.0),
    ),
    "SineBivariateVonMises": Family(
        lambda: dist.SineBivariateVonMises(0.3, 0.5, 4.0, 5.0, correlation=1.0),
        lambda t: dist.SineBivariateVonMises(t, 0.5, 4.0, 5.0, correlation=1.0),
        np.array([[0.3, 0.6], [0.1, 0.4]]),
    ),
    "SineSkewed": Family(
        lambda: dist.SineSkewed(dist.Independent(dist.VonMises(np.array([0.3]), 4.0), 1), np.array([0.4])),
        lambda t: dist.SineSkewed(dist.Independent(dist.VonMises(jnp.stack([t]), 4.0), 1), jnp.array([0.4])),
        np.array([[0.5], [0.1]]),
    ),
    "SoftLaplace": Family(lambda: dist.SoftLaplace(0.5, 1.0), lambda t: dist.SoftLaplace(t, exp(t))),
    "StudentT": Family(lambda: dist.StudentT(5.0, 0.5, 1.0), lambda t: dist.StudentT(exp(t), t, 1.0)),
    "TransformedDistribution": Family(
        lambda: dist.TransformedDistribution(
            dist.Normal(0.0, 0.5), [transforms.AffineTransform(1.0, 2.0), transforms.ExpTransform()]
        ),
        lambda t: dist.TransformedDistribution(
            dist.Normal(t, 1.0), [transforms.AffineTransform(1.0, 2.0), transforms.ExpTransform()]
        ),
    ),
    "TruncatedCauchy": Family(
        lambda: dist.TruncatedCauchy(0.0, 1.0, low=-1.0, high=3.0),
        lambda t: dist.TruncatedCauchy(t, 1.0, low=-1.0, high=3.0),
    ),
    "TruncatedDistribution": Family(
        lambda: dist.TruncatedDistribution(dist.StudentT(3.0), low=0.0),
        lambda t: dist.TruncatedDistribution(dist.Laplace(t), low=0.0),
    ),
    "TruncatedGamma": Family(
        lambda: dist.TruncatedGamma(3.0, 2.0, low=0.5, high=3.0),
        lambda t: dist.TruncatedGamma(exp(t), 2.0, low=0.5, high=3.0),
    ),
    "TruncatedNormal": Family(
        lambda: dist.TruncatedNormal(0.5, 1.0, low=0.0),
        lambda t: dist.TruncatedNormal(t, exp(t), low=0.0, high=2.0 + exp(t)),
    ),
    "TruncatedPolyaGamma": Family(lambda: dist.TruncatedPolyaGamma()),
    "TwoSidedTruncatedDistribution": Family(
        lambda: dist.TwoSidedTruncatedDistribution(dist.Logistic(0.0, 1.0), -1.0, 2.0),
        lambda t: dist.TwoSidedTruncatedDistribution(dist.Logistic(t, 1.0), -1.0, 2.0),
    ),
    "TwoSidedTruncatedGamma": Family(
        lambda: dist.TwoSidedTruncatedGamma(dist.Gamma(3.0, 2.0), 0.5, 2.0),
        lambda t: dist.TwoSidedTruncatedGamma(dist.Gamma(3.0, exp(t)), 0.5, 2.0),
    ),
    "Uniform": Family(lambda: dist.Uniform(-1.0, 3.0), lambda t: dist.Uniform(0.0, 1.0 + exp(t)), POSITIVE[:1]),
    "VonMises": Family(lambda: dist.VonMises(0.5, 3.0), lambda t: dist.VonMises(t, 2.0)),
    "Weibull": Family(lambda: dist.Weibull(1.0, 2.0), lambda t: dist.Weibull(exp(t), 2.0)),
    "Wishart": Family(
        lambda: dist.Wishart(5.0, scale_matrix=TWO),
        lambda t: dist.Wishart(3.0 + exp(t), scale_matrix=jnp.asarray(TWO)),
        3 * TWO,
    ),
    "WishartCholesky": Family(
        lambda: dist.WishartCholesky(5.0, scale_matrix=TWO),
        lambda t: dist.WishartCholesky(3.0 + exp(t), scale_matrix=jnp.asarray(TWO)),
        1.7 * ROOT,
    ),
    "ZeroInflatedDistribution": Family(
        None, lambda t: dist.ZeroInflatedDistribution(dist.Poisson(exp(t)), gate=sigmoid(t))
    ),
    "ZeroInflatedLogits": Family(None, lambda t: dist.ZeroInflatedLogits(dist.Poisson(3.0), t)),
    "ZeroInflatedNegativeBinomial2": Family(None, lambda t: dist.ZeroInflatedNegativeBinomial2(exp(t), 2.0, gate=0.3)),
    "ZeroInflatedPoisson": Family(None, lambda t: dist.ZeroInflatedPoisson(sigmoid(t), 3.0)),
    "ZeroInflatedProbs": Family(None, lambda t: dist.ZeroInflatedProbs(dist.Geometric(0.4), sigmoid(t))),
    "ZeroSumNormal": Family(
        lambda: dist.ZeroSumNormal(1.0, (3,)), lambda t: dist.ZeroSumNormal(exp(t), (3,)), np.array([0.5, -0.2, -0.3])
    ),
}

NOT_IN_THE_TABLE = {
    "biject_to": "a function",
    "constraints": "a module",
    "kl_divergence": "a function",
    "transforms": "a module",
    "Distribution": "abstract",
    "Delta": "a fixed value, refused as a latent site; in the tests of bad models",
    "ImproperUniform": "no distribution by itself; in the tests of models, as ordered_vector",
    "Unit": "what numpyro.factor is made of; used by the tests of densities",
}

# Kind and name: why the Gaussian by Newton, and sometimes the default method too, says that it is not to be trusted.
UNTRUSTED = {
    "density: stats: gennorm": "skewed or with steep walls",
    "density: stats: truncnorm": "draws without density",
    "density: stats: expon as a prior": "heavy or uneven tails",
    "density: special: dawsn": "heavy or uneven tails",
    "density: special: gamma": "skewed or with steep walls",
    "density: special: polygamma": "heavy or uneven tails",
    "density: special: spence": "skewed or with steep walls",
    "density: lax: interp": "heavy or uneven tails",
    "density: linalg: eigh": "heavy or uneven tails",
    "density: linalg: eigvals": "heavy or uneven tails",
    "density: linalg: svd": "heavy or uneven tails",
    "density: linalg: qr": "heavy or uneven tails",
    "density: linalg: matrix_power": "heavy or uneven tails",
    "prior: AsymmetricLaplace": "heavy or uneven tails",
    "prior: AsymmetricLaplaceQuantile": "heavy or uneven tails",
    "prior: Cauchy": "heavy or uneven tails",
    "prior: Exponential": "heavy or uneven tails",
    "prior: FoldedDistribution": "heavy or uneven tails",
    "prior: Gompertz": "skewed or with steep walls",
    "prior: HalfNormal": "heavy or uneven tails",
    "prior: LeftTruncatedDistribution": "heavy or uneven tails",
    "prior: LeftTruncatedGamma": "heavy or uneven tails",
    "prior: Levy": "heavy or uneven tails",
    "prior: TruncatedNormal": "heavy or uneven tails",
    "prior: Weibull": "heavy or uneven tails",
    "prior: Wishart": "heavy or uneven tails",
    "prior: WishartCholesky": "heavy or uneven tails",
    "likelihood: TwoSidedTruncatedGamma": "skewed or with steep walls",
}
