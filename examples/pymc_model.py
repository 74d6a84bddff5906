"""A PyMC model: eight schools, with names, dims and coords carried over. Needs `pip install "bbvi[pymc]"`.

python examples/pymc_model.py
"""

import numpy as np
import pymc

import bbvi


def build():
    """The model of Rubin (1981), non-centred."""
    with pymc.Model(coords={"school": list("ABCDEFGH")}) as model:
        sigma = pymc.Data("sigma", np.array([15.0, 10, 16, 11, 9, 11, 10, 18]), dims="school")
        mu = pymc.Normal("mu", 0, 5)
        tau = pymc.HalfCauchy("tau", 5)
        raw = pymc.Normal("raw", 0, 1, dims="school")
        theta = pymc.Deterministic("theta", mu + tau * raw, dims="school")
        pymc.Normal("y", theta, sigma, observed=np.array([28.0, 8, -3, 7, -1, 1, 18, 12]), dims="school")
    return model


def main():
    posterior = bbvi.fit(bbvi.from_pymc(build()))
    print(posterior)
    print(posterior.predict())


if __name__ == "__main__":
    main()
