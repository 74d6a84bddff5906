"""What chains leave: draws of equal weight, how far they agree, and the evidence by a bridge from q."""

from typing import NamedTuple

import numpy as np

from bbvi.draws.agreement import Agreement
from bbvi.draws.bridge import bridge
from bbvi.draws.importance import Draws
from bbvi.outcome import Value


class ChainDraws(NamedTuple):
    """Draws by chains, after they have settled.

    Fields:
        pool: of equal weight: those of all chains at one step, then at the next.
        num_chains: of them.
        agreement: of the chains.
        log_evidence: by bridge sampling, not a number where draws of q and of the chains hardly overlap.
        log_ratio_of_q: log p - log q at draws of q `(n,)`, -inf without density.
        x_of_q: these draws `(n, dim)`, where they are known.
    """

    pool: Draws
    num_chains: int
    agreement: Agreement
    log_evidence: Value
    log_ratio_of_q: np.ndarray
    x_of_q: np.ndarray | None = None


def draws_of_chains(
    x: np.ndarray, log_p: np.ndarray, log_q: np.ndarray, log_ratio_of_q: np.ndarray, agreed: Agreement
) -> ChainDraws:
    """From what chains have seen.

    Arguments:
        x: draws `(steps, chains, dim)`.
        log_p, log_q: log densities of p and q at them `(steps, chains)`.
        log_ratio_of_q: log p - log q at draws of q `(n,)`.
        agreed: how far the chains agree.
    """
    log_p, log_q = np.ravel(log_p), np.ravel(log_q)
    pool = Draws(x.reshape(-1, x.shape[-1]), log_p, log_q, log_p, np.ones(log_p.shape, bool))
    return ChainDraws(pool, x.shape[1], agreed, _evidence(log_p - log_q, log_ratio_of_q, agreed), log_ratio_of_q)


def _evidence(of_p: np.ndarray, of_q: np.ndarray, agreed: Agreement) -> Value:
    """Log evidence from log p - log q at draws of both."""
    try:
        return bridge(of_p, of_q, min(agreed.effective, len(of_p)))
    except FloatingPointError:
        return Value(np.nan, np.nan)
