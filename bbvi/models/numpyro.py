"""NumPyro models."""

from collections.abc import Callable, Iterable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bbvi.compiling import program
from bbvi.constants import detached, with_clean_caches
from bbvi.data.density import SumOverRows
from bbvi.data.plate import Plate
from bbvi.models.base import Model, Named
from bbvi.parameters import Parameters, is_real, make_parameters
from bbvi.precision import lenient_promotion, scope

Array = Any
Trace = Mapping[str, Any]
PRIOR_DRAWS = 30  # at which a model is run before its error counts
BASE = "_base"  # numpyro's ending for the latent site that a reparameterised one is made of
AT_ONCE = 2**20  # numbers made at once while a model is run for many draws
NEEDS_CONCRETE = (  # what JAX raises when Python code looks into a traced array
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)


def from_numpyro(model: Callable[..., Any], *args: Any, params: str = "flat", **kwargs: Any) -> "NumPyroModel":
    """A NumPyro model, to be given to `fit`.

    Arguments:
        model: a function with numpyro primitives. Its continuous `sample` sites are the parameters, on the scale of
            their supports; discrete ones are summed over where numpyro can (`bbvi[enumeration]`). A plate with a
            `subsample_size` is run on minibatches of that many rows, and in full for the verdict.
        params: what becomes of `numpyro.param` sites. "flat" makes them parameters, with a flat prior on what their
            constraint allows; "maximise" has `fit` set them to where the evidence bound is largest, after which they
            are deterministic sites.
        args, kwargs: what it is called with. Arrays are data: others of the same shapes compile nothing anew.

    Returns:
        A model that `fit` takes in place of `logprob` and `dim`. The posterior has the sites by their names, with
        deterministic sites among them, and for arviz the plates as dimensions.

    Raises:
        TypeError, ValueError: naming the site, when a site cannot be inferred.
        ImportError: when sites have to be summed over and funsor is not installed.

    Example:
        >>> def model(y):
        ...     scale = numpyro.sample("scale", numpyro.distributions.HalfNormal(1))
        ...     numpyro.sample("y", numpyro.distributions.Normal(0, scale), obs=y)
        >>> bbvi.from_numpyro(model, np.ones(3)).dim  # give the model to bbvi.fit
        {'scale': ()}

    A site whose support depends on other sites, such as Uniform(0, sigma), is a parameter under the name `<site>_base`,
    unconstrained, and itself a deterministic site.
    """
    with scope(True):  # bounds of supports in full precision
        args, kwargs = jax.tree.map(_in_precision, (args, kwargs))
        if params not in ("flat", "maximise"):
            raise ValueError(f"params={params!r} is unknown. Known: flat, maximise.")
        traces = with_clean_caches(lambda: [_first_trace(model, args, kwargs, seed) for seed in (0, 1)])
        found = _read(model, args, kwargs, *traces)
        if params == "flat":
            return found
        initial = {name: np.asarray(site["value"]) for name, site in traces[0].items() if site["type"] == "param"}
        return replace(found, maximised=initial, notes=())


def with_params(model: "NumPyroModel", values: Mapping[str, np.ndarray]) -> "NumPyroModel":
    """The model with these values of its params, as deterministic sites."""
    from numpyro.primitives import Messenger

    class Fixed(Messenger):
        def process_message(self, msg: Any) -> None:
            if msg["type"] == "param" and msg["name"] in values:
                msg["type"], msg["value"] = "deterministic", jnp.asarray(values[msg["name"]])

    args, kwargs = model.logprob.arguments(model.data)
    shown = ", ".join(f"{name} = {np.array2string(np.asarray(value), precision=4)}" for name, value in values.items())
    note = f"{shown}: without a prior, set to where the evidence bound is largest; their uncertainty is left out"
    return replace(from_numpyro(Fixed(model.logprob.model), *args, **kwargs), notes=(note,))


def _first_trace(model: Callable[..., Any], args: Any, kwargs: Any, seed: int) -> Trace:
    from numpyro import handlers
    from numpyro.infer import init_to_uniform

    if not callable(model):
        raise TypeError(f"model={model!r} must be a function with numpyro primitives.")
    initial: Any = init_to_uniform()

    def begin(site: Any) -> Array | None:
        _check(site)
        return initial(site)

    started = handlers.substitute(handlers.seed(model, seed), substitute_fn=begin)
    try:
        with lenient_promotion():
            trace = handlers.trace(started).get_trace(*args, **kwargs)
    except Exception as error:
        if misfit := _misfitting_mask(error):
            raise misfit from error
        invalid = isinstance(error, ValueError) and "got invalid" in str(error)  # at this random point, says numpyro
        if invalid and (drawn := _trace_of_prior(model, args, kwargs)) is not None:
            return drawn
        error.add_note("bbvi.from_numpyro ran the model once, with the arguments given, to find its sites.")
        raise
    for site in trace.values():
        _check_mask(site)
    return trace


def _trace_of_prior(model: Callable[..., Any], args: Any, kwargs: Any) -> Trace | None:
    """The model at a draw of its prior; None where numpyro finds invalid arguments at all of some draws."""
    from numpyro import handlers

    def begin(site: Any) -> None:
        if site["type"] != "param":
            _check(site)

    for seed in range(PRIOR_DRAWS):
        started = handlers.substitute(handlers.seed(model, seed), substitute_fn=begin)
        try:
            with lenient_promotion():
                return handlers.trace(started).get_trace(*args, **kwargs)
        except (ValueError, NotImplementedError):
            continue
    return None


def _check_mask(site: Any) -> None:
    """Complain about a mask whose shape makes more of a site than was observed."""
    from numpyro.distributions import MaskedDistribution

    if site["type"] != "sample" or not site["is_observed"] or not isinstance(site["fn"], MaskedDistribution):
        return
    if np.ndim(site["value"]) and np.shape(site["value"]) != site["fn"].shape():
        rows = np.shape(site["value"])[: np.ndim(site["value"]) - site["fn"].event_dim]
        raise _mask_misfits(site["name"].removesuffix("_observed"), np.shape(site["fn"]._mask), rows)


def _misfitting_mask(error: Exception) -> ValueError | None:
    """The complaint, where numpyro came to an error while it applied `obs_mask`."""
    frame = error.__traceback__
    while frame is not None:
        here = frame.tb_frame.f_locals
        if frame.tb_frame.f_code.co_name == "_masked_observe":
            mask, rows = np.shape(here["obs_mask"]), tuple(here["fn"].batch_shape)
            return None if mask == rows else _mask_misfits(here["name"], mask, rows)
        frame = frame.tb_next
    return None


def _mask_misfits(name: str, mask: tuple[int, ...], rows: tuple[int, ...]) -> ValueError:
    return ValueError(
        f"The mask of the site {name!r} has shape {mask}, and the site has rows {rows}. A mask has one entry for each "
        "row, all components of which are observed or none: split the site, or write the density of the components "
        "that are observed with numpyro.factor."
    )


def _check(site: Any) -> None:
    """Complain about a site that cannot be inferred."""
    from numpyro.distributions import Delta

    name, kind = site["name"], site["type"]
    if kind == "mutable":
        raise ValueError(
            f"The site {name!r} is a numpyro.mutable, whose value may change from run to run. Pass it to the model as "
            "an argument."
        )
    if kind != "sample" or site["is_observed"]:
        return
    fn = site["fn"]
    if isinstance(getattr(fn, "base_dist", fn), Delta):
        raise ValueError(f"The site {name!r} has a Delta distribution, a fixed value: use numpyro.deterministic.")
    if fn.support.is_discrete:
        if not fn.has_enumerate_support or site["infer"].get("enumerate", "parallel") != "parallel":
            raise ValueError(
                f"The site {name!r} is discrete ({type(fn).__name__}), and numpyro cannot sum over its values. Sum it "
                "out in the model, or write its likelihood with a continuous or marginal distribution."
            )
        if find_spec("funsor") is None:
            raise ImportError(
                f'To sum over the discrete site {name!r} numpyro needs funsor: pip install "bbvi[enumeration]".'
            )
        return
    try:
        _bijection(site)
    except NotImplementedError as error:
        raise ValueError(
            f"The site {name!r} has the support {fn.support}, which numpyro cannot map from unconstrained space."
        ) from error


def _read(model: Callable[..., Any], args: Any, kwargs: Any, trace: Trace, other: Trace) -> "NumPyroModel":
    latent = [name for name, site in trace.items() if site["type"] == "sample" and not site["is_observed"]]
    continuous = [name for name in latent if not trace[name]["fn"].support.is_discrete]
    free = [name for name, site in trace.items() if site["type"] == "param"]
    if not continuous and not free:
        raise ValueError(
            "The model has no continuous latent site: nothing to infer. Leave obs= out where a value is unknown."
        )
    dynamic = tuple(name for name in continuous if _differs(trace[name]["fn"].support, other[name]["fn"].support))
    dim, constraints = {}, {}
    for name in continuous:
        support, shape = trace[name]["fn"].support, np.shape(trace[name]["value"])
        if name in dynamic:
            dim[name + BASE] = make_parameters({name: shape}, {name: support}).free_shapes[0]
        else:
            dim[name] = shape
            constraints[name] = None if is_real(support) else support
    for name in free:
        dim[name], constraint = np.shape(trace[name]["value"]), trace[name]["kwargs"].get("constraint")
        constraints[name] = None if constraint is None or is_real(constraint) else constraint
    make_parameters(dim, constraints)  # complains about supports that cannot be mapped
    leaves, treedef = jax.tree.flatten((args, kwargs))
    density = _Density(
        model,
        treedef,
        tuple(None if _is_array(leaf) else _Static(leaf) for leaf in leaves),
        (*continuous, *free),
        dynamic,
        len(continuous) < len(latent),
        _nesting(trace),
        *_subsampled(trace),
    )
    density = _fitting(density, leaves, dim)
    masks = {name: mask for name, site in trace.items() if (mask := _mask(site, other)) is not None}
    observed = {name: np.asarray(site["value"]) for name, site in trace.items() if _is_observed(site)}
    observed = {name: value[masks[name]] if name in masks else value for name, value in observed.items()}
    observed = {name: value for name, value in observed.items() if value.size}
    visible = {name: site for name, site in trace.items() if site["type"] in ("sample", "deterministic")}
    return NumPyroModel(
        logprob=density,
        dim=dim,
        constraints=constraints,
        data=density.arrays(leaves),
        batch_size=density.subsample_size,
        observed=observed,
        coords={f"{name}_dim_0": np.flatnonzero(mask).tolist() for name, mask in masks.items()},
        dims={name: dims for name, site in visible.items() if name not in masks and (dims := _dims(site)) is not None},
        names=tuple(name for name in dim if name.removesuffix(BASE) not in dynamic),
        deterministic=_deterministic(density, leaves, dim, trace),
        masks=masks,
        notes=_about_params(free),
    )


def _about_params(names: list[str]) -> tuple[str, ...]:
    if not names:
        return ()
    are = "is a numpyro.param" if len(names) == 1 else "are numpyro.params"
    return (f"{', '.join(names)} {are}, without a prior: the density is flat over what its constraint allows",)


def _mask(site: Any, other: Trace) -> np.ndarray | None:
    """Which rows of an observed site are observations, where that is not all of them, and depends on data alone."""
    from numpyro.distributions import MaskedDistribution

    if not _is_observed(site) or not isinstance(site["fn"], MaskedDistribution) or isinstance(site["fn"]._mask, bool):
        return None
    mask, again = (np.asarray(each["fn"]._mask) for each in (site, other[site["name"]]))
    return None if mask.all() or not np.array_equal(mask, again) else mask


def _is_observed(site: Any) -> bool:
    """Whether a site is an observation, rather than a latent one or a numpyro.factor."""
    return site["type"] == "sample" and site["is_observed"] and np.size(site["value"]) > 0


def _differs(a: Any, b: Any) -> bool:
    """Whether two constraints have different bounds."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return any(np.shape(x) != np.shape(y) or not np.array_equal(x, y) for x, y in pairs)


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) or (
        isinstance(leaf, jax.Array) and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    )


def _nesting(trace: Trace) -> int:
    """How many dimensions plates take, counted from the right."""
    frames = (frame for site in trace.values() for frame in site.get("cond_indep_stack", ()))
    return max((-frame.dim for frame in frames), default=0)


def _subsampled(trace: Trace) -> tuple[str | None, int | None, int | None]:
    """Name, size and subsample size of the plate that is subsampled."""
    plates = {name: site["args"] for name, site in trace.items() if site["type"] == "plate"}
    found = [(name, *args) for name, args in plates.items() if args[1] is not None and args[1] < args[0]]
    if not found:
        return None, None, None
    if len(found) > 1:
        raise ValueError(f"The plates {', '.join(name for name, *_ in found)} are all subsampled. Subsample one only.")
    for name, site in trace.items():
        inside = any(frame.name == found[0][0] for frame in site.get("cond_indep_stack", ()))
        if inside and site["type"] == "sample" and not site["is_observed"]:
            raise ValueError(
                f"The latent site {name!r} lies in the subsampled plate {found[0][0]!r}, so that each minibatch would "
                "have parameters of its own. Leave subsample_size out."
            )
    return found[0]


def _dims(site: Any) -> list[str] | None:
    """Names of the dimensions of a site; None when no plate names one."""
    shape, frames = np.shape(site["value"]), site["cond_indep_stack"]
    event_dim = site["fn"].event_dim if site["type"] == "sample" else 0
    dims = [f"{site['name']}_dim_{i}" for i in range(len(shape))]
    for frame in frames:
        axis = len(shape) - event_dim + frame.dim
        if 0 <= axis < len(shape) and shape[axis] == frame.size:
            dims[axis] = frame.name
    return dims if frames else None


@dataclass(frozen=True)
class _Static:
    """An argument of the model that is compiled in, compared by content where it can be."""

    value: Any

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Static) or type(self.value) is not type(other.value):
            return False
        return self.value is other.value or (not _is_array(self.value) and bool(self.value == other.value))

    def __hash__(self) -> int:
        try:
            return hash(self.value)
        except TypeError:
            return id(self.value)


@dataclass(frozen=True)
class _Density(SumOverRows):
    """The joint log density of a model, as a function of its latent sites and of the arrays among its arguments."""

    model: Callable[..., Any]
    treedef: Any  # of (args, kwargs)
    static: tuple[_Static | None, ...]  # None where an argument is among the data
    latent: tuple[str, ...]
    dynamic: tuple[str, ...]  # those whose support depends on other sites
    enumerated: bool
    nesting: int
    plate: str | None  # that is subsampled
    plate_size: int | None
    subsample_size: int | None

    def arrays(self, leaves: Iterable[Any]) -> tuple[Any, ...]:
        """Those of the arguments that are data."""
        return tuple(leaf for leaf, fixed in zip(leaves, self.static, strict=True) if fixed is None)

    def source(self, data: Any) -> Plate | None:
        """The rows of the subsampled plate, None without one."""
        return None if self.plate_size is None else Plate(data, self.plate_size)

    def estimate(self, values: Mapping[str, Array], data: Any, weight: Array | float, at_once: bool) -> Array:
        """The joint log density: the plate weights its rows itself."""
        return self(values, data)

    def __call__(self, values: Mapping[str, Array], data: Any) -> Array:
        """Joint log density at one point, a scalar."""
        from numpyro.infer.util import log_density

        run, args, kwargs = self.prepare(values, data)
        with lenient_promotion():
            if self.enumerated:
                from numpyro.contrib.funsor import log_density

            total, trace = log_density(run, args, kwargs, {})
            for name in self.dynamic:
                bijection, free = _bijection(trace[name]), values[name + BASE]
                total += jnp.sum(bijection.log_abs_det_jacobian(free, bijection(free)))
        self._check_sites(trace)
        return total

    def trace(self, values: Mapping[str, Array], data: Any) -> Trace:
        """All sites at one point."""
        from numpyro import handlers

        run, args, kwargs = self.prepare(values, data)
        with lenient_promotion():
            return handlers.trace(run).get_trace(*args, **kwargs)

    def draw_prior(self, key: Array, data: Any) -> dict[str, Array]:
        """A draw of the latent sites from the prior, as parameters."""
        from numpyro import handlers

        args, kwargs = self.arguments(data)
        run = _settle(handlers.seed(self.model, key), self.plate, None)
        with lenient_promotion():
            trace = handlers.trace(run).get_trace(*args, **kwargs)
            free = {name + BASE: _bijection(trace[name]).inv(trace[name]["value"]) for name in self.dynamic}
        return {name: trace[name]["value"] for name in self.latent if name not in self.dynamic} | free

    def arguments(self, data: Any) -> tuple[Any, Any]:
        """What the model is called with."""
        given = iter(data)
        leaves = [next(given) if fixed is None else fixed.value for fixed in self.static]
        return jax.tree.unflatten(self.treedef, leaves)

    def prepare(self, values: Mapping[str, Array], data: Any) -> tuple[Callable[..., Any], Any, Any]:
        """The model with its latent sites given, and its arguments."""
        from numpyro import handlers

        rows = None
        if len(data) > self.static.count(None):
            *data, rows = data
        args, kwargs = self.arguments(data)

        def support_known(site: Any) -> Array | None:
            return _bijection(site)(values[site["name"] + BASE]) if site["name"] in self.dynamic else None

        run = handlers.substitute(handlers.seed(self.model, 0), data=dict(values))
        run = handlers.substitute(run, substitute_fn=support_known) if self.dynamic else run
        run = _settle(run, self.plate, rows)
        if self.enumerated:
            from numpyro.contrib.funsor import config_enumerate, enum

            run = enum(config_enumerate(run), -self.nesting - 1)
        return run, args, kwargs

    def _check_sites(self, trace: Trace) -> None:
        latent = {name for name, site in trace.items() if site["type"] == "sample" and not site["is_observed"]}
        latent = {name for name in latent if not trace[name]["fn"].support.is_discrete}
        latent |= {name for name, site in trace.items() if site["type"] == "param"}
        if strange := latent.symmetric_difference(self.latent):
            raise ValueError(
                f"The site {min(strange)!r} is in some runs of the model only. All runs must have the same latent "
                "sites."
            )


def _bijection(site: Any) -> Any:
    from numpyro.distributions import biject_to

    return biject_to(site["fn"].support)


def _settle(model: Callable[..., Any], plate: str | None, rows: Array | None) -> Callable[..., Any]:
    """The model with its plates run in full, or on `rows`; and with the prior of what `obs_mask` leaves out in full.

    numpyro masks the prior of the entries that are observed, in which the latent site has no use. Such coordinates
    would be improper; with their prior they change nothing. Observations become arrays of JAX.
    """
    from numpyro.primitives import Messenger

    class Settle(Messenger):
        def process_message(self, msg: Any) -> None:
            if msg["type"] == "plate":
                size = msg["args"][0]
                chosen = jnp.arange(size) if rows is None or msg["name"] != plate else jnp.asarray(rows)
                msg["value"], msg["args"] = chosen, (size, len(chosen))
            elif msg["type"] == "sample" and msg["name"].endswith("_unobserved") and not msg["is_observed"]:
                msg["fn"] = getattr(msg["fn"], "base_dist", msg["fn"]) if hasattr(msg["fn"], "_mask") else msg["fn"]
            elif msg["type"] == "sample" and msg["is_observed"] and isinstance(msg["value"], float | np.ndarray):
                msg["value"] = jnp.asarray(msg["value"])  # numpyro compares what is no JAX array by NumPy

    return Settle(model)


def _with_whole_shapes(model: Callable[..., Any]) -> Callable[..., Any]:
    """The model with distributions that can draw where they come out of a scan: their parts get its axis too."""
    from numpyro.distributions import Distribution
    from numpyro.distributions.batch_util import promote_batch_shape
    from numpyro.primitives import Messenger

    class WithWholeShapes(Messenger):
        def process_message(self, msg: Any) -> None:
            if msg["type"] == "sample" and "_scan_current_index" in msg["infer"]:
                msg["fn"] = fn = copy(msg["fn"])
                for name, part in vars(fn).items():
                    if isinstance(part, Distribution) and name != "base_dist":
                        setattr(fn, name, promote_batch_shape(part))

    return WithWholeShapes(model)


def _in_precision(leaf: Any) -> Any:
    """An argument of a model; arrays of floating point numbers in JAX's present precision.

    An array is another view of the same numbers, since JAX remembers by identity what it made of one before.
    """
    if not _is_array(leaf):
        return leaf
    dtype = jax.dtypes.canonicalize_dtype(float) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype
    return jnp.asarray(leaf, dtype) if isinstance(leaf, jax.Array) else np.asarray(leaf, dtype).view()


def _fitting(density: _Density, leaves: list[Any], dim: Any) -> _Density:
    """`density` with as many arrays as data as its code allows: some models look into theirs while they run."""
    integers = [_is_array(leaf) and not jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
    values = {name: jax.ShapeDtypeStruct(shape, float) for name, shape in dim.items()}
    for fixed in ([False] * len(leaves), integers, list(map(_is_array, leaves))):
        pairs = zip(leaves, density.static, fixed, strict=True)
        density = replace(density, static=tuple(_Static(leaf) if fix else old for leaf, old, fix in pairs))
        try:
            jax.eval_shape(partial(density), values, density.arrays(leaves))  # partial: JAX keeps nothing of it
            return density
        except NEEDS_CONCRETE as error:
            reason = error
        except ValueError as error:
            error.add_note('This is the log density of the model; a "guide" here means the values of its sites.')
            raise
    raise reason


def _deterministic(density: _Density, leaves: list[Any], dim: Any, trace: Trace) -> tuple[str, ...]:
    """Deterministic sites, without those that hang on values that are summed over."""
    values = {name: jax.ShapeDtypeStruct(shape, float) for name, shape in dim.items()}
    shapes = jax.eval_shape(
        lambda values, data: {
            name: site["value"] for name, site in density.trace(values, data).items() if site["type"] == "deterministic"
        },
        values,
        density.arrays(leaves),
    )
    return (*density.dynamic, *(name for name, each in shapes.items() if each.shape == np.shape(trace[name]["value"])))


@dataclass(frozen=True, eq=False, kw_only=True)
class NumPyroModel(Model):
    """What `from_numpyro` returns.

    Fields:
        names: the parameters that are sites themselves.
        deterministic: sites that follow from the parameters.
        masks: for observed sites of which some rows are no observations, which ones are.
        maximised: params to be set to where the evidence bound is largest, with their initial values.
    """

    logprob: _Density
    names: tuple[str, ...]
    deterministic: tuple[str, ...]
    masks: Mapping[str, np.ndarray]
    maximised: Mapping[str, np.ndarray] = field(default_factory=dict)

    def variables(self, values: Any) -> Any:
        return {name: values[name] for name in self.names}

    def named(self, parameters: Parameters, values: Any) -> dict[str, Array]:
        return values

    def derived(self, values: Any, seed: int) -> Named:
        return self._over_draws(values, lambda trace: {name: trace[name]["value"] for name in self.deterministic})

    def prior(self, seed: int, num: int) -> Any:
        try:
            return jax.device_get(_draw_prior(self.logprob, jax.random.split(jax.random.key(seed), num), self.data))
        except NotImplementedError:  # by which numpyro says that a distribution, such as an improper one, has no draws
            return None

    def log_likelihood(self, values: Any) -> Named | None:
        if self.logprob.enumerated or not self.observed:  # then a row's likelihood is no site's
            return None

        def read(trace: Trace) -> dict[str, Array]:
            return {name: trace[name]["fn"].log_prob(trace[name]["value"]) for name in self.observed}

        return {name: self._only_observed(name, value) for name, value in self._over_draws(values, read).items()}

    def _only_observed(self, name: str, values: np.ndarray) -> np.ndarray:
        """Without the rows, behind the axis of draws, that are no observations."""
        return values[:, self.masks[name]] if name in self.masks else values

    def predict(self, values: Any, seed: int, *args: Any, **kwargs: Any) -> Named:
        from numpyro import handlers
        from numpyro.infer import Predictive

        density = self.logprob
        new = bool(args or kwargs)
        if new:
            args, kwargs = jax.tree.map(_in_precision, (args, kwargs))
        else:
            args, kwargs = density.arguments(self.data)
        known = self.variables(values) | {name: self.derived(values, seed)[name] for name in density.dynamic}
        sites = [*self.observed, *(self.deterministic if new else ())]
        model = _settle(density.model, None, None)
        model = model if new else handlers.uncondition(_with_whole_shapes(model))
        predictive = Predictive(model, jax.tree.map(jnp.asarray, known), return_sites=sites, batch_ndims=1)
        with lenient_promotion():
            made = predictive(jax.random.key(seed), *args, **kwargs)
        made = {name: np.asarray(value) for name, value in made.items()}
        return made if new else {name: self._only_observed(name, value) for name, value in made.items()}

    def _over_draws(self, values: Any, read: Callable[[Trace], dict[str, Array]]) -> Named:
        shapes = jax.eval_shape(partial(_read_all, self.logprob, read, 1), values, self.data)
        draws = len(next(iter(values.values())))
        made = sum(leaf.size for leaf in jax.tree.leaves(shapes)) // max(draws, 1)
        found = program(partial(_read_all, self.logprob, read, max(1, AT_ONCE // max(made, 1))))(values, self.data)
        return {name: np.asarray(value) for name, value in found.items()}


@program(static_argnames="density")
def _draw_prior(density: _Density, keys: Array, data: Any) -> dict[str, Array]:
    return jax.vmap(lambda key: detached(density.draw_prior)(key, data))(keys)


def _read_all(density: _Density, read: Callable[[Trace], Any], at_once: int, values: Any, data: Any) -> Any:
    with lenient_promotion():
        one = detached(lambda each, data: read(density.trace(each, data)))
        return jax.lax.map(lambda each: one(each, data), values, batch_size=at_once)
