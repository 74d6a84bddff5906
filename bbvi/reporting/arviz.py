"""A posterior as an arviz DataTree."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bbvi.posterior import Posterior


def to_arviz(
    posterior: "Posterior",
    num_samples: int,
    seed: int,
    resample: bool | None,
    coords: Mapping[str, Sequence[Any]] | None,
    dims: Mapping[str, Sequence[str]] | None,
) -> Any:
    """See `Posterior.to_arviz`."""
    import arviz_base

    draws, resampled = posterior.draw(num_samples, seed=seed, resample=resample)
    values = posterior.parameters.named(posterior.structure(draws.x))
    groups: dict[str, dict[str, np.ndarray]] = {
        "posterior": {name: value[None] for name, value in values.items()},
        "sample_stats": {"log_p": draws.log_p[None], "log_q": draws.log_q[None]},
    }
    if posterior.observed_data:
        groups["observed_data"] = dict(posterior.observed_data)
    tree = arviz_base.from_dict(groups, coords=dict(coords or {}), dims={k: list(v) for k, v in (dims or {}).items()})
    diagnosis = posterior.diagnosis
    tree.attrs.update(
        inference_library="bbvi",
        method=posterior.method,
        status=diagnosis.status.name.lower(),
        k_hat=diagnosis.k_hat,
        resampling_k_hat=diagnosis.resampling_k_hat,
        elbo=diagnosis.elbo.value,
        importance_resampled=int(resampled),
    )
    return tree
