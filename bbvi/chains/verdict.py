"""What chains say of a posterior, and of the approximation that they began at."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from bbvi.chains.draws import ChainDraws
from bbvi.outcome import ChainSummary, Finding, Status, Value
from bbvi.runtime.types import Array

AGREED, SMALL_ERROR = 1.01, 0.03  # nested R-hat, and Monte Carlo error in standard deviations, of a reliable posterior
FAIR_SD_ERROR = 0.05  # relative Monte Carlo error of standard deviations, above which a posterior is usable at best
HEAVY = 12.0  # excess kurtosis, that of a squared Gaussian, above which draws rarely show what a deviation is made of
NEARLY_AGREED, FAIR_ERROR = 1.02, 0.05  # the same of a usable one
OUTSIDE = 0.01  # share of a chain's draws on either side that may reach into another region
MOST_REGIONS = 4  # above which chains have not settled, rather than found regions
SEVERAL = "compare fits from init= points in these, break a symmetry with ordered constraints, or reparameterise"


class Chained(NamedTuple):
    """What is known of draws by chains, and of the q at which these began."""

    summary: ChainSummary
    effective: float  # independent draws that they are worth
    num_draws: int  # of all chains
    log_evidence: Value
    log_ratio_of_q: np.ndarray  # (n,) log p - log q at draws of q, -inf without density
    x_of_q: np.ndarray | None  # (n, dim) these draws, where they are known


def summarise_chains(made: ChainDraws, mean: Array, names: Sequence[str]) -> ChainSummary:
    """What is remembered of chains, beside their draws.

    Arguments:
        mean: of q, `(dim,)`.
        names: of the coordinates.
    """
    off = np.abs(made.pool.x.mean(axis=0) - np.asarray(mean)) / made.pool.x.std(axis=0)
    agreed = made.agreement
    return ChainSummary(
        status=judge_agreement(made),
        chains=made.num_chains,
        starts=agreed.superchains,
        draws=len(made.pool) // made.num_chains,
        r_hat=float(agreed.r_hat.max()),
        error=float(agreed.error.max()),
        sd_error=float(agreed.sd_error.max()),
        worst=names[int(agreed.r_hat.argmax())],
        vaguest=names[int(agreed.sd_error.argmax())],
        off=float(off.max()),
        most_off=names[int(off.argmax())],
    )


def judge_agreement(made: ChainDraws) -> Status:
    """The best status that the agreement of chains allows."""
    within = lambda r_hat, error: made.agreement.within(r_hat) and bool(made.agreement.error.max() < error)
    if within(AGREED, SMALL_ERROR):
        return Status.RELIABLE
    return Status.USABLE if within(NEARLY_AGREED, FAIR_ERROR) else Status.UNRELIABLE


def find_in_chains(made: ChainDraws, seen: ChainSummary) -> Iterator[Finding]:
    """What speaks against draws of chains."""
    if seen.status is not Status.RELIABLE:
        apart = _regions(made)
        words = f"the chains differ most in {seen.worst}" + (f" (unconstrained): {apart}" if apart else "")
        yield Finding(seen.status, words, SEVERAL if apart else "raise the budget")
    if seen.status is not Status.UNRELIABLE and (doubt := _doubt_of_sd(made, seen)) is not None:
        words = f"the standard deviation of {seen.vaguest} (unconstrained) {doubt}"
        yield Finding(Status.USABLE, words, f"describe {seen.vaguest} by quantiles", inherent=True)
    yield Finding(Status.RELIABLE, f"q itself is off by up to {seen.off:.2g} sd, in the mean of {seen.most_off}")
    if not np.isfinite(made.log_evidence.value):
        yield Finding(Status.RELIABLE, "the log evidence was not found: draws of q and of the chains hardly overlap")


def _regions(made: ChainDraws) -> str | None:
    """Where chains stay that have not met, in the coordinate in which they differ most; None where all have met."""
    column = made.pool.x[:, int(made.agreement.r_hat.argmax())].reshape(-1, made.num_chains)
    order = np.argsort(np.median(column, axis=0))
    lows, highs = np.quantile(column[:, order], (OUTSIDE, 1 - OUTSIDE), axis=0)
    apart = np.minimum.accumulate(lows[::-1])[::-1][1:] > np.maximum.accumulate(highs)[:-1]
    parts = np.split(column[:, order], np.flatnonzero(apart) + 1, axis=1)
    if len(parts) == 1 or len(parts) > MOST_REGIONS:
        return None
    told = [f"{part.shape[1]} of them stay near {part.mean():.3g} (sd {part.std():.2g})" for part in parts]
    return ", ".join(told) + ", and how much mass each has is not known"


def _doubt_of_sd(made: ChainDraws, seen: ChainSummary) -> str | None:
    """What is to be said of the standard deviation that is known least."""
    if seen.sd_error > FAIR_SD_ERROR:
        return f"has a Monte Carlo error of {seen.sd_error:.0%}"
    column = made.pool.x[:, int(made.agreement.sd_error.argmax())]
    with np.errstate(all="ignore"):  # of chains that run off, or that stand still
        excess = np.mean(((column - column.mean()) / column.std()) ** 4) - 3
    return f"rests on few draws: its tails are heavy (excess kurtosis {excess:.0f})" if excess > HEAVY else None
