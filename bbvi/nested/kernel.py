"""Moves of chains through a hierarchy, each of which leaves the posterior as it is.

With q(phi) = N(m, C C^T), z*(phi) the mode of the latent coordinates given phi and K(phi) the factor of their
precision, let phi = m + C u and z = z*(phi) + K(phi)^-T e. Were the posterior what nested Laplace takes it for, u and e
would be standard normal. Moves are right for any z* and K that depend on phi alone, so z* is where one Newton step from
the modes of q leads to, and K is of the precision at the beginning of this step.

    phi     u -> u + b c (u' - u''), by the difference of two places where chains have been before, or a draw with wide
            tails; e is kept, so that neither the centred nor the other form of a model slows it
    all     e -> sqrt(1 - b^2) e + b noise
    blocks  clusters of latent coordinates are drawn from their Gaussian given the others. Each is accepted or rejected
            for itself, by its own part of the log density: the line integral of its own part of the gradient

Jumps by differences are as long as the posterior is wide, whatever q is; c is 2.38 / sqrt(2 k). The past that they are
taken from grows, so that it changes less and less, as an adaptation has to. Moves of e by shares b are reversible for
standard normal e, so that they are accepted by how the posterior differs from that; draws with wide tails, by how it
differs from these. The acceptance of the last kind does not fall with the number of coordinates.

References: ter Braak and Vrugt 2008 (differences of the past); Neal 1999 and Cotter, Roberts, Stuart and White 2013
(moves of all); Knorr-Held and Rue 2002 (blocks).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from scipy.special import gammaln

from bbvi.distributions.arrow import ArrowFactor
from bbvi.distributions.base import LOG_2PI
from bbvi.distributions.hierarchical import Hierarchical
from bbvi.nested.clusters import Clusters
from bbvi.nested.conditional import curvature, latent_gradient
from bbvi.runtime.types import Array
from bbvi.target.problem import Problem

LINE_POINTS = 4  # gradients for a line integral, by Gauss and Legendre
SHORTEST, LONGEST_SHARE = 0.1, 0.5  # b is between this and 1, evenly on a log scale, or so often 1, or a wide draw
JUMP = 2.38  # c times sqrt(2 k), best for a Gaussian
FREEDOM, WIDER = 5.0, 1.1  # of a wide draw: degrees of freedom, and the scale
JOINT_MOVES, WITH_CLUSTERS = 4, 2  # of all latent coordinates, for each of the hyper-parameters


class Place(NamedTuple):
    """Where a chain is."""

    phi: Array  # (k,)
    z: Array  # (places,)
    near: Array  # (places,) the mode that q expects
    white: Array  # (places,) the Newton step from there to z*(phi), times K^T
    factor: ArrowFactor  # K(phi)
    products: Array  # (colours, places) of the precision, by which its entries are found
    log_p: Array  # () log density


class RandomNumbers(NamedTuple):
    """What a step needs of chance."""

    u: Array  # (k,) a jump, or a draw with wide tails
    is_wide: Array  # () bool
    e: Array  # (joint moves, places)
    shares: Array  # (1 + joint moves,) b of the moves
    choices: Array  # (1 + joint moves,) logarithms of uniform numbers
    clusters: Array  # (classes, clusters, size) standard normal
    of_clusters: Array  # (classes, clusters) logarithms of uniform numbers


class Step(NamedTuple):
    """What a step has shown."""

    x: Array  # (dim,)
    log_p: Array  # ()
    log_q: Array  # () what log_p would be if u and e were standard normal
    accepted: Array  # (3,) shares of the moves of each kind
    missed: Array  # () nats by which line integrals, summed over clusters, miss the log density


def arrive(problem: Problem, q: Hierarchical, phi: Array, e: Array) -> tuple[Place, Array]:
    """The place with these hyper-parameters `(k,)` and noise `(places,)`, and whether there is one."""
    before = q.mode(phi)
    gradient, products = curvature(problem, q.split, phi, before)
    factor = q.split.factor(products)
    white = factor.solve(gradient)
    z = before + factor.solve_transposed(white + e)
    log_p = problem.log_density(q.split.join(phi, z))
    return Place(phi, z, before, white, factor, products, log_p), jnp.isfinite(log_p)


def noise_of(q: Hierarchical, place: Place) -> tuple[Array, Array]:
    """u `(k,)` and e `(places,)`."""
    root = q.hyper.scale.matrix()
    u = solve_triangular(root, place.phi - q.hyper.loc, lower=True)
    return u, place.factor.multiply_transposed(place.z - place.near) - place.white


def log_nested(q: Hierarchical, place: Place) -> Array:
    """The log density at a place if u had wide tails as at the beginning of chains, and e were standard normal."""
    u, e = noise_of(q, place)
    return _log_wide(u) + _log_given(q, place.factor, e)


def log_of_latents(q: Hierarchical, factor: ArrowFactor, e: Array) -> Array:
    """The log density of latent coordinates that come of noise e `(places,)` by the factor of their precision."""
    return factor.log_det() - 0.5 * (jnp.sum(e**2) + q.split.num_latent * LOG_2PI)


def _log_given(q: Hierarchical, factor: ArrowFactor, e: Array) -> Array:
    """The same with the volume of the map from u."""
    return log_of_latents(q, factor, e) - q.hyper.scale.log_det()


def wide_noise(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Student-t numbers, of which those of the last axis share a denominator."""
    share = np.sqrt(FREEDOM / rng.chisquare(FREEDOM, (*shape[:-1], 1)))
    return (WIDER * share * rng.standard_normal(shape)).astype(dtype)


def _log_wide(u: Array) -> Array:
    """The log density of such numbers `(k,)`."""
    k = len(u)
    constant = gammaln((FREEDOM + k) / 2) - gammaln(FREEDOM / 2) - 0.5 * k * np.log(FREEDOM * np.pi * WIDER**2)
    return constant - 0.5 * (FREEDOM + k) * jnp.log1p(jnp.sum(u**2) / (FREEDOM * WIDER**2))


def random_numbers(
    rng: np.random.Generator, q: Hierarchical, clusters: Clusters | None, shape: tuple[int, ...], past: np.ndarray
) -> RandomNumbers:
    """Those of as many steps as `shape` says, made on the host: to compile a generator would take seconds.

    Arguments:
        past: u at places where chains have been, `(n, k)`.
    """
    dtype, split = q.centre.dtype, q.split
    normal = lambda *of: rng.standard_normal((*shape, *of), dtype)
    log_uniform = lambda *of: np.log1p(-rng.random((*shape, *of), dtype))
    classes, count, size = (0, 0, 0) if clusters is None else clusters.members.shape[1:]
    moves = joint_moves(clusters)
    longer = rng.random((*shape, 1 + moves)) < LONGEST_SHARE
    shares = np.where(longer, 1, SHORTEST ** rng.random(longer.shape)).astype(dtype)
    wide = longer[..., :1]
    pair = rng.integers(len(past), size=(2, *shape))
    jump = JUMP / (2 * split.num_hyper) ** 0.5 * shares[..., :1] * (past[pair[0]] - past[pair[1]])
    return RandomNumbers(
        u=np.where(wide, wide_noise(rng, (*shape, split.num_hyper), dtype), jump).astype(dtype),
        is_wide=wide[..., 0],
        e=normal(moves, split.num_places) * np.asarray(split.used, dtype),
        shares=shares,
        choices=log_uniform(1 + moves),
        clusters=normal(classes, count, size),
        of_clusters=log_uniform(classes, count),
    )


def joint_moves(clusters: Clusters | None) -> int:
    """Moves of all latent coordinates in a step."""
    return JOINT_MOVES if clusters is None else WITH_CLUSTERS


def step(
    problem: Problem, q: Hierarchical, clusters: Clusters | None, place: Place, given: RandomNumbers
) -> tuple[Place, Step]:
    """One move of each kind."""
    place, of_hyper = _move_hyper(problem, q, place, given)

    def body(place: Place, given: tuple[Array, Array, Array]) -> tuple[Place, Array]:
        return _move_all(problem, q, place, *given)

    place, of_all = jax.lax.scan(body, place, (given.e, given.shares[1:], given.choices[1:]))
    of_clusters, missed = jnp.ones((), of_all.dtype), jnp.zeros((), of_all.dtype)
    if clusters is not None:
        place, of_clusters, missed = _move_clusters(problem, q, clusters, place, given.clusters, given.of_clusters)
    accepted = jnp.stack([of_hyper, of_all.mean(), of_clusters])
    return place, Step(q.split.join(place.phi, place.z), place.log_p, log_nested(q, place), accepted, missed)


def _shifted(before: Array, noise: Array, share: Array) -> Array:
    """Standard normal numbers, moved towards others."""
    return jnp.sqrt(1 - share**2) * before + share * noise


def _move_hyper(problem: Problem, q: Hierarchical, place: Place, given: RandomNumbers) -> tuple[Place, Array]:
    u, e = noise_of(q, place)
    there = jnp.where(given.is_wide, given.u, u + given.u)
    new, found = arrive(problem, q, q.hyper(there), e)
    proposal = lambda u: jnp.where(given.is_wide, _log_wide(u), 0)
    height = lambda place, u: place.log_p - place.factor.log_det() - proposal(u)
    accept = found & (given.choices[0] < height(new, there) - height(place, u))
    chosen = jax.tree.map(lambda a, b: jnp.where(accept, a, b), new, place)
    return chosen, accept.astype(u.dtype)


def _move_all(
    problem: Problem, q: Hierarchical, place: Place, noise: Array, share: Array, choice: Array
) -> tuple[Place, Array]:
    _, e = noise_of(q, place)
    there = _shifted(e, noise, share)
    z = place.near + place.factor.solve_transposed(place.white + there)
    log_p = problem.log_density(q.split.join(place.phi, z))
    accept = choice < log_p - place.log_p + 0.5 * (jnp.sum(there**2) - jnp.sum(e**2))  # not where it is not a number
    moved = place._replace(z=jnp.where(accept, z, place.z), log_p=jnp.where(accept, log_p, place.log_p))
    return moved, accept.astype(e.dtype)


def _move_clusters(
    problem: Problem, q: Hierarchical, clusters: Clusters, place: Place, noises: Array, choices: Array
) -> tuple[Place, Array, Array]:
    """All classes of clusters, one after the other; the share of clusters that were moved, and what lines missed."""
    split, dtype = q.split, place.z.dtype
    products = jnp.pad(jnp.ravel(place.products), (0, 1))
    rows = products[clusters.entries]
    mode = place.near + place.factor.solve_transposed(place.white)
    gradient = latent_gradient(problem, split, place.phi)
    unit, weights = np.polynomial.legendre.leggauss(LINE_POINTS)
    nodes, weights = jnp.asarray((unit + 1) / 2, dtype), jnp.asarray(weights / 2, dtype)

    def of_class(z: Array, given: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        members, inner, position, noise, choice = given
        used = members < split.num_places
        gathered = lambda v: jnp.where(used, jnp.pad(v, (0, 1))[members], 0)
        force = jnp.sum(rows * jnp.pad(z - mode, (0, 1))[clusters.beside], axis=1)
        filled = jnp.where(used[:, :, None], 0, jnp.eye(used.shape[1], dtype=dtype))
        root = jnp.linalg.cholesky(products[inner] + filled)
        before = solve_triangular(root, gathered(force)[..., None], lower=True)[..., 0]  # noise that z would come of
        after = jnp.where(used, noise, 0)
        moved = solve_triangular(root, (after - before)[..., None], lower=True, trans=1)[..., 0]
        whole = jnp.pad(jnp.ravel(moved), (0, 1))[position]
        gains = jax.lax.map(lambda t: jnp.sum(gathered(gradient(z + t * whole) * whole), axis=1), nodes)
        rise = weights @ gains
        gain = rise + 0.5 * (jnp.sum(after**2, axis=1) - jnp.sum(before**2, axis=1))
        accept = choice < gain
        kept = jnp.broadcast_to(accept[:, None], members.shape)
        z += jnp.where(jnp.pad(jnp.ravel(kept), (0, 1))[position], whole, 0)
        counts = jnp.stack([jnp.sum(accept & used[:, 0]), jnp.sum(used[:, 0])])
        return z, (counts.astype(dtype), jnp.sum(jnp.where(accept, rise, 0)))

    given = clusters.members, clusters.inner, clusters.position, noises, choices
    z, (counts, rises) = jax.lax.scan(of_class, place.z, given)
    accepted, tried = jnp.sum(counts, axis=0)
    log_p = problem.log_density(split.join(place.phi, z))
    missed = jnp.abs(log_p - place.log_p - jnp.sum(rises))
    is_finite = jnp.isfinite(log_p)
    moved = place._replace(z=jnp.where(is_finite, z, place.z), log_p=jnp.where(is_finite, log_p, place.log_p))
    return moved, accepted / tried, jnp.where(is_finite, missed, jnp.inf)
