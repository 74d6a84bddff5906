"""Further importance draws: near those that carry weight, and far along an axis where mass was seen.

A Gaussian q(phi) and its wider version may miss a plateau of the density, as a log scale has that the data do not bound
from below, or a bent tail. Further draws come from kernels, Student-t distributions around draws that were resampled by
their weights, and so on from all draws so far, until weights are even. All of them count by

    w(phi) = p(phi) / sum_j (n_j / n) r_j(phi),

where n_j of the n draws came from the density r_j, so that an early kernel that missed something does no harm.

References: West 1993 (kernels around weighted draws); Veach and Guibas 1995; Cornuet, Marin, Mira and Robert 2012
(adaptive multiple importance sampling); Rue, Martino and Chopin 2009 (looking along axes).
"""

from collections.abc import Callable
from typing import NamedTuple, Self

import numpy as np
from scipy.special import gammaln

from bbvi.distributions.affine import Affine
from bbvi.distributions.base import LOG_2PI
from bbvi.draws.pareto import effective_sample_size, resample, smooth

MOST_ADAPTED = 5  # coordinates: in more dimensions kernels around draws may miss the neck of a funnel unseen
ROUNDS_OF_KERNELS = 6  # at most
DRAWS_OF_KERNELS = 640  # in a round
ENOUGH_PLACES = 1500  # effective ones
ROUNDS_OF_OUTPOSTS, ENOUGH_OUTPOSTS = 4, 100  # of kernels that do not follow the weights; effective draws of theirs
KERNELS = 128  # in a proposal
NARROWEST = 0.01  # standard deviation of all kernels together, in those of q(phi), at least
KERNEL_TAILS = 5.0  # degrees of freedom
FAR_AWAY = 2.0 ** np.arange(2, 6)  # standard deviations at which mass is looked for along each axis
FAINT = 0.1  # of a variance: mass far away that adds less to it does not matter
EVEN_K = 0.5  # k-hat below which weights are even

LogDensity = Callable[[np.ndarray], np.ndarray]  # (n,) at places (n, k)
LogDensities = Callable[[np.ndarray], np.ndarray]  # of one or more densities (densities, n) at places (n, k)


class Kernels(NamedTuple):
    """A mixture of m Student-t distributions, all of equal weight."""

    centres: np.ndarray  # (m, k)
    roots: np.ndarray  # (m, k, k) of their scales

    def draw(self, rng: np.random.Generator, n: int) -> np.ndarray:
        """Draws `(n, k)`."""
        k = self.centres.shape[1]
        e = rng.standard_normal((n, k)) / np.sqrt(rng.chisquare(KERNEL_TAILS, (n, 1)) / KERNEL_TAILS)
        chosen = rng.permutation(np.arange(n) % len(self.centres))
        return self.centres[chosen] + np.einsum("nij,nj->ni", self.roots[chosen], e)

    def log_densities(self, phi: np.ndarray) -> np.ndarray:
        """The log density `(1, n)` at `(n, k)`."""
        k, nu = phi.shape[1], KERNEL_TAILS
        constant = gammaln((nu + k) / 2) - gammaln(nu / 2) - k / 2 * np.log(nu * np.pi) - np.log(len(self.centres))
        each = np.empty((len(self.centres), len(phi)))
        for i, (centre, root) in enumerate(zip(self.centres, self.roots, strict=True)):
            distance = np.sum(np.linalg.solve(root, (phi - centre).T) ** 2, axis=0)
            each[i] = -(nu + k) / 2 * np.log1p(distance / nu) - np.linalg.slogdet(root)[1]
        return constant + np.logaddexp.reduce(each, axis=0, keepdims=True)


class Places(NamedTuple):
    """Places that were drawn, and the densities that they were drawn from."""

    phi: np.ndarray  # (n, k)
    log_p: np.ndarray  # (n,) of the target, -inf where it is not finite
    proposals: tuple[LogDensities, ...]
    log_f: np.ndarray  # (densities, n) those of the proposals at phi
    counts: np.ndarray  # (densities,) draws of each

    @classmethod
    def of(cls, phi: np.ndarray, log_p: np.ndarray, q_and_r: LogDensities) -> Self:
        """Those drawn from r, which is made of q and a wider version."""
        return cls(phi, log_p, (q_and_r,), q_and_r(phi), np.array([0, len(phi)]))

    def beside(self, phi: np.ndarray, log_p: np.ndarray, kernels: Kernels) -> Self:
        """These, and others drawn from kernels; each density is known at all of them."""
        both = np.concatenate([self.phi, phi])
        earlier = np.concatenate([each(phi) for each in self.proposals])
        return type(self)(
            both,
            np.concatenate([self.log_p, log_p]),
            (*self.proposals, kernels.log_densities),
            np.concatenate([np.concatenate([self.log_f, earlier], axis=1), kernels.log_densities(both)]),
            np.append(self.counts, len(phi)),
        )

    @property
    def log_q(self) -> np.ndarray:
        """Log density `(n,)` of q."""
        return self.log_f[0]

    @property
    def log_r(self) -> np.ndarray:
        """Log density `(n,)` of the mixture that they come from as a whole."""
        with np.errstate(divide="ignore", invalid="ignore"):  # none is from q by itself, which may have run off
            log_shares = np.log(self.counts / self.counts.sum())
            return np.logaddexp.reduce(self.log_f + log_shares[:, None], axis=0)

    @property
    def have_weights(self) -> bool:
        """Whether there are some, and finite ones."""
        return bool(np.isfinite(self.log_r).all() and np.isfinite(self.log_p).any())

    def are_even(self, effective: float = 0) -> bool:
        """Whether weights are even, and the places worth so many independent ones."""
        found = smooth(self.log_p - self.log_r)
        return found.k_hat < EVEN_K and effective_sample_size(found.log_weights) > effective

    def effective(self, first: int) -> float:
        """How many independent ones those from that number on are worth."""
        return effective_sample_size(smooth(self.log_p - self.log_r).log_weights[first:])

    def kernels(self, rng: np.random.Generator, q: Affine) -> Kernels:
        """Around some of them, drawn by their weights."""
        log_weights, k = smooth(self.log_p - self.log_r).log_weights, self.phi.shape[1]
        weights, root = np.exp(log_weights), np.asarray(q.scale.matrix(), float)
        u = np.linalg.solve(root, (self.phi - weights @ self.phi).T)  # in standard deviations of q(phi)
        width = (4 / (k + 2) / max(2.0, effective_sample_size(log_weights))) ** (1 / (k + 4))
        spread = width * np.linalg.cholesky((weights * u) @ u.T + NARROWEST**2 * np.eye(k))
        centres = self.phi[resample(rng, log_weights, KERNELS)]
        return Kernels(centres, np.broadcast_to(root @ spread, (KERNELS, k, k)))


def follow(
    places: Places, q: Affine, values: LogDensity, visit: LogDensity, rng: np.random.Generator, *, adapted: bool
) -> Places:
    """These places, and further ones where mass lies far along an axis of q or weights are uneven.

    Arguments:
        values: log p at places that are only looked at.
        visit: log p at places that are drawn.
        adapted: whether kernels are to follow the weights, too. Where they are not, there are none if mass is seen at
            the farthest places: it may go on, and kernels would show a part of it.
    """
    far = far_along_axes(q).astype(places.phi.dtype)
    heights = values(np.concatenate([np.asarray(q.loc)[None], far]))
    kernels, enough = outposts(q, heights[1:], heights[0]), 0 if places.are_even() else ENOUGH_PLACES
    if kernels is None and not (adapted and enough):
        return places
    if not adapted and _have_mass(heights[1:], heights[0])[len(FAR_AWAY) - 1 :: len(FAR_AWAY)].any():
        return places
    first = len(places.phi)
    for _ in range(ROUNDS_OF_KERNELS if adapted else ROUNDS_OF_OUTPOSTS):
        kernels = kernels or places.kernels(rng, q)
        phi = kernels.draw(rng, DRAWS_OF_KERNELS).astype(places.phi.dtype)
        places = places.beside(phi, visit(phi), kernels)
        if places.are_even(enough) if adapted else places.effective(first) > ENOUGH_OUTPOSTS:
            break
        kernels = None if adapted else kernels
    return places


def far_along_axes(q: Affine) -> np.ndarray:
    """Places `(axes * sides * distances, k)` far from the mean of q(phi).

    One coordinate is so many standard deviations away, and the others are where they are on average given that one.
    """
    axes, root = _axes(q), np.asarray(q.scale.matrix(), float)
    steps = np.stack([FAR_AWAY, -FAR_AWAY])
    return np.asarray(q.loc) + (axes[:, None, None] * steps[:, :, None]).reshape(-1, len(root)) @ root.T


def outposts(q: Affine, log_p: np.ndarray, log_p_of_mean: float) -> Kernels | None:
    """Kernels that cover what lies far away along the axes, where there is mass; None where there is none.

    The mass near d, where it is spread over about d, adds d^3 p(d) / (p(0) sqrt(2 pi)) to a variance of 1.

    Arguments:
        log_p: at `far_along_axes(q)`.
        log_p_of_mean: at the mean of q(phi).
    """
    found = np.flatnonzero(_have_mass(log_p, log_p_of_mean))
    if not len(found):
        return None
    distances = np.tile(FAR_AWAY, 2 * len(q.loc))
    axes, root = _axes(q)[found // (2 * len(FAR_AWAY))], np.asarray(q.scale.matrix(), float)
    longer = (distances[found] / 2 - 1)[:, None, None] * axes[:, :, None] * axes[:, None, :]
    return Kernels(far_along_axes(q)[found], root @ (np.eye(len(root)) + longer))


def _have_mass(log_p: np.ndarray, log_p_of_mean: float) -> np.ndarray:
    """Which places along the axes stand for mass that matters, `(axes * sides * distances,)` bool."""
    if not np.isfinite(log_p_of_mean):
        return np.zeros(len(log_p), bool)
    distances = np.resize(FAR_AWAY, len(log_p))
    return log_p - log_p_of_mean + 3 * np.log(distances) - 0.5 * LOG_2PI > np.log(FAINT)


def _axes(q: Affine) -> np.ndarray:
    """Unit vectors `(k, k)`, in standard deviations of q(phi), along which each coordinate of phi moves on average."""
    root = np.asarray(q.scale.matrix(), float)
    return root / np.linalg.norm(root, axis=1, keepdims=True)
