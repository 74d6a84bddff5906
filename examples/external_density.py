"""A log density in SciPy, with its own gradient: a Weibull model of times, some of which are censored.

    python examples/external_density.py

Times to failure t follow a Weibull distribution with shape k and scale s; of those beyond the end of the study only
that is known. With u = (t / s)^k the log density of a failure is log k - log t + log u - u, and that of a survivor -u.
"""

import numpy as np
from numpyro.distributions import constraints
from scipy.stats import expon, weibull_min

import bbvi

END = 2.0  # of the study


def simulate(rng):
    """Times of 80 machines, cut at the end of the study."""
    return np.minimum(weibull_min.rvs(1.5, scale=1.2, size=80, random_state=rng), END)


def logprob(p, times):
    failed = times < END
    failures = weibull_min.logpdf(times[failed], p["shape"], scale=p["scale"]).sum()
    survivors = np.sum(~failed) * weibull_min.logsf(END, p["shape"], scale=p["scale"])
    return expon.logpdf(p["shape"]) + expon.logpdf(p["scale"]) + failures + survivors


def gradient(p, times):
    shape, scale, failed = p["shape"], p["scale"], times < END
    ratio = np.log(times / scale)
    u = np.exp(shape * ratio)
    return {
        "shape": -1 + np.sum(failed * (1 / shape + ratio) - u * ratio),
        "scale": -1 + shape / scale * np.sum(u - failed),
    }


def main():
    posterior = bbvi.fit(
        bbvi.external(logprob, gradient),
        {"shape": (), "scale": ()},
        data=simulate(np.random.default_rng(0)),
        constraints={"shape": constraints.positive, "scale": constraints.positive},
    )
    print(posterior)
    print(posterior.to_arviz())


if __name__ == "__main__":
    main()
