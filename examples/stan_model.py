"""A Stan model, through BridgeStan. Needs `pip install "bbvi[stan]"` and, to compile, a C++ compiler.

    python examples/stan_model.py MODEL [DATA]

MODEL is a `.stan` file, or the library that BridgeStan compiled of one; DATA is a `.json` file.
"""

import sys

import bbvi


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    posterior = bbvi.fit(bbvi.from_stan(*sys.argv[1:]))
    print(posterior)
    print(posterior.to_arviz())


if __name__ == "__main__":
    main()
