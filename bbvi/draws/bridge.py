"""The evidence by bridge sampling, from draws of p by Markov chain Monte Carlo and draws of q.

With l = log p - log q, n_1 draws of p and n_2 of q, and shares s_1 and s_2 of both, the evidence r solves

    r = mean_q[ e^l / (s_1 e^l + s_2 r) ] / mean_p[ 1 / (s_1 e^l + s_2 r) ]

It needs far fewer draws than importance sampling where q's tails are too light. Draws of p that were resampled from
those of q would add nothing.

References: Meng and Wong 1996; Gronau et al. 2017 (arXiv:1703.05984); Frühwirth-Schnatter 2004 for the error.
"""

import numpy as np

from bbvi.draws.pareto import log_sum_exp
from bbvi.outcome import Value

BRIDGE_ITERATIONS = 1000
SAME = 1e-10  # relative change of the evidence from which it counts as found


def bridge(of_p: np.ndarray, of_q: np.ndarray, effective: float) -> Value:
    """Log evidence in nats, with its standard error.

    Arguments:
        of_p, of_q: log p - log q at draws of p `(n_1,)` and of q `(n_2,)`; -inf for a draw of q without density.
        effective: number of independent draws that those of p are worth.

    Raises:
        FloatingPointError: when the iteration does not converge.
    """
    shift = np.median(of_p)
    p, q = of_p - shift, of_q - shift
    log_share_p = np.log(effective / (effective + len(q)))
    log_share_q = np.log(len(q) / (effective + len(q)))
    log_r = 0.0
    for _ in range(BRIDGE_ITERATIONS):
        above = q - np.logaddexp(log_share_p + q, log_share_q + log_r)
        below = -np.logaddexp(log_share_p + p, log_share_q + log_r)
        new = (log_sum_exp(above) - np.log(len(q))) - (log_sum_exp(below) - np.log(len(p)))
        if abs(new - log_r) < SAME * max(1, abs(new)):
            error = np.sqrt(_relative_variance(above) / len(q) + _relative_variance(below) / effective)
            return Value(float(new + shift), float(error))
        log_r = new
    raise FloatingPointError("Bridge sampling did not converge: the draws of p and q hardly overlap.")


def _relative_variance(log_values: np.ndarray) -> float:
    values = np.exp(log_values - log_values.max())
    return float(values.var() / values.mean() ** 2)
