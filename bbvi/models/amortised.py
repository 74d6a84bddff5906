"""Amortised inference: a network says from a group's rows, and the shared parameters, where its own parameters are.

The network's answer is a Gaussian r with independent coordinates. Training maximises

    E_q [ log p(shared) - log q(shared) + sum_i E_r log p(own_i, rows_i | shared) / r(own_i | rows_i, shared) ]

over q and the network's weights. Afterwards the network stands where otherwise the mode of each group is sought: the
same nodes around its Gaussian integrate a group's own parameters out, and the same candidates are resampled. So what
the network misses is corrected as far as these reach, and there may be more coordinates than a search can afford.

References: Kingma and Welling 2014 (arXiv:1312.6114); Burda et al. 2016 (arXiv:1509.00519) for the importance weights;
Cremer et al. 2018 (arXiv:1801.03558) for the gap.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.data.groups import Grouped, SumOverGroups
from bbvi.models.grouped import GroupedModel
from bbvi.models.local import Gaussian
from bbvi.models.networks import MLP, Group, Network, SetEncoder
from bbvi.models.own import GroupDensity, counted, without_density
from bbvi.models.steps import improvement
from bbvi.runtime.compiling import program
from bbvi.runtime.precision import lenient_promotion, scope, use_double
from bbvi.runtime.types import Array

CHECKED_GROUPS = 1000  # at most, whose bounds are looked at before a training


class Trained(NamedTuple):
    """What a training is about: `(noise, random, point)`, in which order they are coordinates of one vector."""

    noise: Any  # () standard normal, the seed of the draws from the network's Gaussians
    random: dict[str, Any]  # shared parameters that q is a distribution of
    point: tuple[dict[str, Any], Any]  # shared parameters that are maximised, and the network's weights


class AmortisationGap(NamedTuple):
    """What groups lose by sharing a network, in nats a group.

    Fields:
        value: mean over groups of the evidence bound after local steps, minus that of the network's answer.
        standard_error: of that mean, over groups.
        before, after: the two bounds, means over the same groups.
    """

    value: float
    standard_error: float
    before: float
    after: float

    def __str__(self) -> str:
        return (
            f"amortisation gap {self.value:.3f} ± {self.standard_error:.3f} nats a group (bound {self.before:.3f} by "
            f"the network, {self.after:.3f} after local steps)"
        )


@dataclass(frozen=True, eq=False)
class Encoder:
    """A network as a map from groups to Gaussians over their own parameters, `dim` unconstrained coordinates."""

    network: Network
    dim: int

    def init(self, key: Array, shared: Any, group: Grouped) -> Any:
        """Weights to begin with."""
        with lenient_promotion():
            return self.network.init(key, _seen(shared, group))

    def __call__(self, weights: Any, shared: Any, group: Grouped) -> Gaussian:
        with lenient_promotion():
            found = self.network.apply(weights, _seen(shared, group))
        loc, log_sd = found if isinstance(found, tuple | list) and len(found) == 2 else _halves(found, self.dim)
        if not np.shape(loc) == np.shape(log_sd) == (self.dim,):
            raise ValueError(_wrong(f"the shapes {np.shape(loc)} and {np.shape(log_sd)}", self.dim))
        dtype = jnp.result_type(float)
        scale = jnp.diag(jnp.exp(jnp.asarray(log_sd, dtype)))
        return Gaussian(jnp.asarray(loc, dtype), scale, jnp.zeros((), jnp.int32))


def _seen(shared: Any, group: Grouped) -> Group:
    count = len(jax.tree.leaves(group.rows)[0])
    used = jnp.ones(count, bool) if group.used is None else jnp.asarray(group.used)
    return Group(group.rows, used, dict(shared))


def _halves(found: Any, dim: int) -> tuple[Array, Array]:
    if np.shape(found) != (2 * dim,):
        raise ValueError(_wrong(f"the shape {np.shape(found)}", dim))
    return found[:dim], found[dim:]


def _wrong(what: str, dim: int) -> str:
    return (
        f"amortise: the network returned {what} for a group, and a group has {dim} free coordinates of its own. It "
        f"must return means and log standard deviations, ({2 * dim},), or a pair of ({dim},) and ({dim},)."
    )


@dataclass(frozen=True, eq=False, kw_only=True)
class AmortisedModel(GroupedModel):
    """What `from_groups` returns with `amortise`; `fit` or `bbvi.train` trains its network.

    Fields:
        encoder: the network.
        functions: the log densities of the shared parameters, and of a group.
        maximised: names of shared parameters that are trained with the network.
        weights: of the network, None before it is trained.
        point: values of the maximised parameters, after that.
    """

    encoder: Encoder
    functions: tuple[Callable[..., Array], Callable[..., Array]]
    maximised: tuple[str, ...] = ()
    weights: Any = None
    point: Mapping[str, np.ndarray] | None = None

    def with_weights(self, weights: Any, point: Mapping[str, Any] | None = None) -> "AmortisedModel":
        """The model with a trained network, such as one that was saved.

        Arguments:
            weights: as in the field of a trained model.
            point: values of the maximised parameters, likewise.
        """
        kept = dict(point or {})
        log_prior, log_joint = self.functions
        density = GroupDensity(
            partial(_joint_at, log_joint, kept),
            self.own.density.own,
            guess=lambda shared, group: self.encoder(_held(weights), {**shared, **_held(kept)}, group),
        )
        prior = partial(_prior_at, log_prior, kept)
        return replace(
            self,
            logprob=SumOverGroups(prior, density.log_marginals, SumOverGroups(prior, density.refined.log_marginals)),
            dim={name: shape for name, shape in self.dim.items() if name not in kept},
            own=replace(self.own, density=density),
            weights=weights,
            point=kept,
        )

    def encode(
        self, values: Any, groups: Sequence[Any] | None = None, *, data: Any = None, group: Any = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means and standard deviations of the network's Gaussians, unconstrained, both `(n, groups, d)`.

        Arguments:
            values, groups, data, group: as for `local`.
        """
        with scope(use_double("auto")):
            own = self._own_of(data, group)
            gaussians = own.gaussians(self._shared(values), groups)
        return np.asarray(gaussians.loc), np.diagonal(gaussians.scale, axis1=-2, axis2=-1)

    def amortisation_gap(self, values: Any, num: int = 100, seed: int = 0) -> AmortisationGap:
        """What groups lose by sharing a network: their evidence bounds after local steps minus those of its answers.

        Steps of Adam lead from the network's Gaussian to the best one with independent coordinates, group by group;
        both bounds are averages over the same draws.

        Arguments:
            values: draws of the shared parameters, as for `local`; each group gets one of them.
            num: groups at most, chosen at random.
            seed: of all random numbers.
        """
        rng = np.random.default_rng(seed)
        with scope(use_double("auto")):
            count = len(self.own.labels)
            chosen = np.sort(rng.choice(count, min(num, count), replace=False))
            shared, _ = counted(self._shared(values))
            shared = jax.tree.map(lambda x: np.resize(x, (len(chosen), *np.shape(x)[1:])), shared)
            keys = jax.random.split(jax.random.key(seed), len(chosen))
            density = self.own.density

            def of(shared: Any, group: Any, key: Array) -> Any:
                return improvement(density.at(shared, group), density.gaussian(shared, group), key)

            before, after = map(np.asarray, program(jax.vmap(of))(shared, self.own.take(chosen), keys))
        gain = after - before
        error = gain.std(ddof=1) / len(gain) ** 0.5 if len(gain) > 1 else np.nan
        return AmortisationGap(float(gain.mean()), float(error), float(before.mean()), float(after.mean()))

    # -- what a training asks ------------------------------------------------------------------------------------------

    def first_weights(self, seed: int) -> Any:
        """Weights to begin a training with.

        Raises:
            ValueError: where the network returns something else than Gaussians.
        """
        shared = {name: jnp.zeros(shape) for name, shape in self._shapes.items()}
        example = jax.tree.map(lambda leaf: leaf[0], self.own.take(np.arange(1)))
        weights = program(lambda key: self.encoder.init(key, shared, example))(jax.random.key(seed))
        jax.eval_shape(self.encoder, weights, shared, example)
        return jax.tree.map(np.asarray, weights)

    @property
    def bound(self) -> SumOverGroups:
        """The density of `Trained`: prior and one draw of the evidence bound of each group."""
        return SumOverGroups(self._log_prior, self._bounds)

    def refuse_groups_without_bound(self, values: Trained) -> None:
        """Raise FloatingPointError that names the groups whose bound is not finite there, of a sample of them."""
        count = len(self.own.labels)
        some = np.sort(np.random.default_rng(0).permutation(count)[:CHECKED_GROUPS])
        bounds = np.asarray(program(self._bounds)(values, self.own.take(some)))
        why = without_density([self.own.labels[i] for i in some], bounds[None])
        if why or not np.isfinite(bounds).all():
            raise FloatingPointError(
                f"The log density is not finite where the training begins. {why or 'No group has one.'} "
                "Give init a point at which they have one."
            )

    @property
    def _shapes(self) -> dict[str, tuple[int, ...]]:
        return {name: np.shape(shape) if hasattr(shape, "shape") else tuple(shape) for name, shape in self.dim.items()}

    def _log_prior(self, values: Trained) -> Array:
        return self.functions[0]({**values.random, **values.point[0]}) - 0.5 * values.noise**2 - 0.5 * np.log(2 * np.pi)

    def _bounds(self, values: Trained, groups: Any) -> Array:
        """One draw of the evidence bound of each group `(groups,)`, with derivatives along the path of the draw."""
        shared, weights = {**values.random, **values.point[0]}, values.point[1]
        density = replace(self.own.density, log_joint=self.functions[1], guess=None)

        def of(group: Any, key: Array) -> Array:
            there = self.encoder(weights, shared, group)
            x = there(jax.random.normal(key, (1, self.encoder.dim), there.loc.dtype))[0]
            return density.at(shared, group)(x) - jax.lax.stop_gradient(there).log_prob(x)

        keys = jax.random.split(_key(values.noise), len(jax.tree.leaves(groups)[0]))
        return jax.vmap(of)(groups, keys)


def _key(noise: Array) -> Array:
    """A key made of the bits of a number."""
    bits = jax.lax.bitcast_convert_type(jax.lax.stop_gradient(noise), jnp.uint32).ravel()
    return jax.random.wrap_key_data(jnp.resize(bits, (2,)), impl="threefry2x32")


def _prior_at(log_prior: Callable[..., Array], point: Any, values: Any) -> Array:
    return log_prior({**values, **_held(point)})


def _joint_at(log_joint: Callable[..., Array], point: Any, values: Any, own: Any, group: Any) -> Array:
    return log_joint({**values, **_held(point)}, own, group)


def _held(arrays: Any) -> Any:
    """Arrays in the type that is computed in, as constants of a program."""
    return jax.tree.map(jnp.asarray, arrays)


def untrained(shared: Any, group: Any) -> Gaussian:
    """What stands for the answer of a network that has not been trained.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        "The network of this model has not been trained. Take model = bbvi.train(model, batch_size=...); or after "
        "posterior = bbvi.fit(model), which trains it, posterior.model."
    )


def read_network(network: Any, dim: int, grouped: Any) -> Encoder:
    """The argument `amortise` for groups with `dim` free coordinates of their own.

    Raises:
        TypeError, ValueError: naming the argument, what is wrong with it and the remedy.
    """
    if not all(callable(getattr(network, method, None)) for method in ("init", "apply")) or isinstance(network, type):
        raise TypeError(
            f"amortise={network!r} is no network: it needs init(key, group) and apply(weights, group). Give for "
            "example bbvi.SetEncoder()."
        )
    if isinstance(network, MLP) and getattr(grouped, "used", True) is not None:
        raise ValueError(
            "amortise: an MLP is for groups of as many rows in each, and these differ: SetEncoder is for them."
        )
    if isinstance(network, MLP | SetEncoder) and network.outputs is None:
        network = replace(network, outputs=2 * dim)
    return Encoder(network, dim)
