"""The sites of a NumPyro model, as one run of it has them."""

from collections.abc import Callable
from typing import Any

from bbvi.models.numpyro.masks import check_mask, misfitting_mask
from bbvi.models.numpyro.sites import Trace, check_site
from bbvi.runtime.precision import lenient_promotion
from bbvi.runtime.types import Array

PRIOR_DRAWS = 30  # at which a model is run before its error counts


def first_trace(model: Callable[..., Any], args: Any, kwargs: Any, seed: int) -> Trace:
    """The sites of one run, all of which can be inferred, by name."""
    from numpyro import handlers
    from numpyro.infer import init_to_uniform

    if not callable(model):
        raise TypeError(f"model={model!r} must be a function with numpyro primitives.")
    initial: Any = init_to_uniform()

    def begin(site: Any) -> Array | None:
        check_site(site)
        return initial(site)

    started = handlers.substitute(handlers.seed(model, seed), substitute_fn=begin)
    try:
        with lenient_promotion():
            trace = handlers.trace(started).get_trace(*args, **kwargs)
    except Exception as error:
        if misfit := misfitting_mask(error):
            raise misfit from error
        invalid = isinstance(error, ValueError) and "got invalid" in str(error)  # at this random point, says numpyro
        if invalid and (drawn := _trace_of_prior(model, args, kwargs)) is not None:
            return drawn
        error.add_note("bbvi.from_numpyro ran the model once, with the arguments given, to find its sites.")
        raise
    for site in trace.values():
        check_mask(site)
    return trace


def _trace_of_prior(model: Callable[..., Any], args: Any, kwargs: Any) -> Trace | None:
    """The model at a draw of its prior; None where numpyro finds invalid arguments at all of some draws."""
    from numpyro import handlers

    def begin(site: Any) -> None:
        if site["type"] != "param":
            check_site(site)

    for seed in range(PRIOR_DRAWS):
        started = handlers.substitute(handlers.seed(model, seed), substitute_fn=begin)
        try:
            with lenient_promotion():
                return handlers.trace(started).get_trace(*args, **kwargs)
        except (ValueError, NotImplementedError):
            continue
    return None
