"""A mixture of members of one family."""

from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp, ndtr

from bbvi.distributions.base import Array, Distribution
from bbvi.pytree import pytree


@pytree
class Mixture(Distribution):
    """sum_i w_i q_i, where the components q_i belong to one family.

    Arguments:
        components: one member of the family whose leaves have a leading axis of length n.
        log_weights: log w, `(n,)`; normalised where they are used.

    The last number of the noise of a draw chooses the component, so that draws have no gradient in the weights: this
    is what a method returns, not a family to optimise. The entropy has no closed form.
    """

    name = "mixture"
    optimizable = False
    components: Distribution
    log_weights: Array

    @classmethod
    def of(cls, members: list[Distribution]) -> Self:
        """The mixture of some members with equal weights."""
        components = jax.tree.map(lambda *leaves: jnp.stack(leaves), *members)
        return cls(components, jnp.zeros(len(members), components.mean().dtype))

    @classmethod
    def standard(cls, dim: int, dtype: Any = float) -> Self:
        raise NotImplementedError("A mixture is the result of a method; it is not optimised.")

    @classmethod
    def from_leaves(cls, leaves: dict[str, Array]) -> Self:
        families = {family.name: family for family in Distribution.__subclasses__()}
        ((name, fields),) = _group(leaves).items()
        return cls(families[name].from_leaves(fields), leaves["log_weights"])

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

    def _each(self, function: Callable[[Distribution], Array]) -> Array:
        # One by one: batched triangular solves can block one another in a small pool of threads.
        return jnp.stack([function(q) for q in self.members])

    def push_one(self, noise: Array) -> Array:
        return self._choose(self._each(lambda q: q.push_one(noise[:-1])), noise[-1])

    def push_wide(self, noise: Array, stretch: Array) -> Array:
        each = self._each(lambda q: q.push_wide(noise[:, :-1], stretch))
        return jax.vmap(self._choose, in_axes=(1, 0))(each, noise[:, -1])

    def _choose(self, xs: Array, noise: Array) -> Array:
        """One of the rows of `xs` `(n, dim)`, by one standard normal number."""
        return xs[jnp.sum(ndtr(noise) > jnp.cumsum(jax.nn.softmax(self.log_weights))[:-1])]

    def log_prob_one(self, x: Array) -> Array:
        return self._mix(self._each(lambda q: q.log_prob_one(x)))

    def log_prob_wide(self, x: Array, degrees_of_freedom: float) -> Array:
        return self._mix(self._each(lambda q: q.log_prob_wide(x, degrees_of_freedom)))

    def _mix(self, log_probs: Array) -> Array:
        """Log densities of the components, along the leading axis, to that of the mixture."""
        log_weights = jax.nn.log_softmax(self.log_weights).reshape(-1, *[1] * (log_probs.ndim - 1))
        return logsumexp(log_probs + log_weights, axis=0)

    def nearest(self, x: Array) -> Array:
        log_probs = self._each(lambda q: q.log_prob(x))
        return jnp.argmax(log_probs + jax.nn.log_softmax(self.log_weights)[:, None], axis=0)

    def entropy(self) -> Array:
        raise NotImplementedError("The entropy of a mixture has no closed form.")

    def mean(self) -> Array:
        return jax.nn.softmax(self.log_weights) @ self._each(lambda q: q.mean())

    def sd(self) -> Array:
        mean, sd = self._each(lambda q: q.mean()), self._each(lambda q: q.sd())
        return jnp.sqrt(jax.nn.softmax(self.log_weights) @ (sd**2 + (mean - self.mean()) ** 2))

    def affine(self, loc: Array, scale: Array) -> Self:
        return type(self)(jax.vmap(lambda q: q.affine(loc, scale))(self.components), self.log_weights)

    def near(self, loc: Array, scale: Array) -> Self:
        raise NotImplementedError("A mixture is the result of a method; it is not optimised.")

    def standardise(self) -> tuple[Array, Array, Self]:
        loc, sd = self.mean(), self.sd()
        return loc, sd, self.affine(-loc / sd, 1 / sd)

    def to_numpyro(self) -> Any:
        import numpyro.distributions as dist

        return dist.MixtureGeneral(
            dist.Categorical(logits=self.log_weights),
            [q.to_numpyro() for q in self.members],
        )


def _group(leaves: dict[str, Array]) -> dict[str, dict[str, Array]]:
    """The leaves called `family.field`, as `{family: {field: leaf}}`."""
    groups: dict[str, dict[str, Array]] = {}
    for name, leaf in leaves.items():
        if "." in name:
            family, field = name.split(".", 1)
            groups.setdefault(family, {})[field] = leaf
    return groups
