"""A mixture of members of one family."""

from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp, ndtr

from bbvi.distributions.affine import Affine
from bbvi.distributions.base import Distribution, Moments, fixed_draws, float_type
from bbvi.distributions.families import FullRank
from bbvi.distributions.scales import Array, Diagonal
from bbvi.runtime.compiling import program
from bbvi.runtime.pytree import pytree

COMPONENTS = 3  # of a mixture that is given no number of them
MOST_UNROLLED = 4  # components that a program goes through without a loop


@pytree
class Mixture(Distribution):
    """sum_i w_i q_i, where the components q_i belong to one family.

    Arguments:
        components: one member of the family whose leaves have a leading axis of length n.
        log_weights: log w, `(n,)`; normalised where they are used.

    The last number of the noise of a draw chooses its component, so that draws have no gradient in the weights.
    Estimators take draws from each component in turn instead and weight them (`weighted_draws`), which has the right
    gradient. The entropy is an average over fixed draws.

    Example:
        >>> halves = [bbvi.MeanField(jnp.array([centre]), jnp.zeros(1)) for centre in (-2.0, 2.0)]
        >>> bbvi.Mixture.of(halves).mean()
        Array([0.], dtype=float32)

    Reference: Morningstar et al. 2021 (arXiv:2003.01687) for stratified draws.
    """

    name = "mixture"
    components: Distribution
    log_weights: Array
    default_method = "adam"

    @classmethod
    def of(cls, members: Sequence[Distribution], log_weights: Array | None = None) -> Self:
        """The mixture of some members, with equal weights unless others are given."""
        components = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
        return cls(components, jnp.zeros(len(members), float_type(components)) if log_weights is None else log_weights)

    @classmethod
    def standard(cls, dim: int, dtype: Any = float, num: int = COMPONENTS) -> Self:
        """`num` Gaussians that lie a little apart, with mean 0 and unit variances together: were they equal, they would
        stay so."""
        offsets = np.random.default_rng(0).standard_normal((num, dim)) if num > 1 else np.zeros((1, dim))
        offsets = offsets - offsets.mean(axis=0)
        offsets = 0.5 * offsets / np.maximum(offsets.std(axis=0), 1e-12)
        scale = Diagonal.of(jnp.asarray(np.sqrt(1 - offsets.var(axis=0)), dtype))
        standard = FullRank.standard(dim, dtype)
        return cls.of([standard.after(Affine(jnp.asarray(each, dtype), scale)) for each in offsets])

    @classmethod
    def from_leaves(cls, leaves: dict[str, Array]) -> Self:
        raise TypeError(
            "the leaves of a mixture say of which family its components are: read them by read_distribution."
        )

    def leaves(self) -> dict[str, Array]:
        inner = {f"{self.components.name}.{name}": leaf for name, leaf in self.components.leaves().items()}
        return {**inner, "log_weights": self.log_weights}

    @property
    def dim(self) -> int:
        return self.components.dim

    @property
    def noise_dim(self) -> int:
        return self.components.noise_dim + 1

    @property
    def members(self) -> list[Distribution]:
        """The components one by one."""
        return [jax.tree.map(lambda leaf, i=i: leaf[i], self.components) for i in range(len(self.log_weights))]

    def _each(self, function: Callable[[Distribution], Any]) -> Any:
        """What a function gives of each component, an array or a pytree of these, stacked.

        One by one, as batched triangular solves can block one another in a small pool of threads; many of them in a
        loop, which is compiled once.
        """
        if len(self.log_weights) > MOST_UNROLLED:
            return jax.lax.map(function, self.components)
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(function, self.members))

    def push_one(self, noise: Array) -> Array:
        return self._choose(self._each(lambda q: q.push_one(noise[:-1])), noise[-1])

    def weighted_draws(self, noise: Array) -> tuple[Array, Array]:
        num, n = len(self.log_weights), len(noise)
        if n < num:
            raise ValueError(f"num_draws={n} is too few for a mixture of {num} components: give at least {num}.")
        turn = np.arange(n) % num
        x = self._each(lambda q: q.push(noise[:, :-1]))[turn, np.arange(n)]
        return x, jax.nn.softmax(self.log_weights)[turn] / np.bincount(turn)[turn].astype(noise.dtype)

    def _choose(self, xs: Array, noise: Array) -> Array:
        """One of the rows of `xs` `(n, dim)`, by one standard normal number."""
        return xs[jnp.sum(ndtr(noise) > jnp.cumsum(jax.nn.softmax(self.log_weights))[:-1])]

    def log_prob_one(self, x: Array) -> Array:
        return self._mix(self._each(lambda q: q.log_prob_one(x)))

    def _mix(self, log_probs: Array) -> Array:
        """Log densities of the components, along the leading axis, to that of the mixture."""
        log_weights = jax.nn.log_softmax(self.log_weights).reshape(-1, *[1] * (log_probs.ndim - 1))
        return logsumexp(log_probs + log_weights, axis=0)

    def nearest(self, x: Array) -> Array:
        return _nearest(self, x)

    def moments(self) -> Moments:
        weights, (means, sds, _) = jax.nn.softmax(self.log_weights), self._each(lambda q: q.moments())
        mean = weights @ means
        x, shares = self.weighted_draws(jnp.asarray(fixed_draws(self.noise_dim), float_type(self)))
        return Moments(mean, jnp.sqrt(weights @ (sds**2 + (means - mean) ** 2)), -(shares @ self.log_prob(x)))

    def mean(self) -> Array:
        return jax.nn.softmax(self.log_weights) @ self._each(lambda q: q.mean())

    def after(self, affine: Affine) -> Self:
        return type(self)(jax.vmap(lambda q: q.after(affine))(self.components), self.log_weights)

    def around(self, affine: Affine) -> Self:
        return self.standard(self.dim, jnp.result_type(affine.loc), len(self.log_weights)).after(affine)

    def standardise(self) -> tuple[Affine, Self]:
        means, sds = self._each(lambda q: q.mean()), self._each(lambda q: q.sd())
        weights, mean = jax.nn.softmax(self.log_weights), self.mean()
        affine = Affine(mean, Diagonal.of(jnp.sqrt(weights @ (sds**2 + (means - mean) ** 2))))
        return affine, self.after(affine.inverse())

    def widened(self) -> "Mixture":
        return Mixture(jax.vmap(lambda q: q.widened())(self.components), self.log_weights)

    @property
    def is_reparameterised(self) -> bool:
        return False

    def to_numpyro(self) -> Any:
        import numpyro.distributions as dist

        return dist.MixtureGeneral(
            dist.Categorical(logits=self.log_weights),
            [q.to_numpyro() for q in self.members],
        )


@program
def _nearest(q: Mixture, x: Array) -> Array:
    """For each of the points `(n, dim)` the number of the component that has most density there."""
    log_probs = jax.lax.map(lambda component: component.log_prob(x), q.components)
    return jnp.argmax(log_probs + jax.nn.log_softmax(q.log_weights)[:, None], axis=0)
