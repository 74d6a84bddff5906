"""Which rows stand for all where there are very many of them."""

import numpy as np

from bbvi.data.epochs import ROW_STREAM

SAMPLE_NUMBERS = 2**20  # numbers in the rows that stand for all where a fit starts; more of them up to MANY_ROWS
MANY_ROWS, MANY_NUMBERS = 10_000, 2**24  # as long as these are no more numbers than MANY_NUMBERS
FEWEST_ROWS = 256


def num_sampled(num_rows: int, row_size: int) -> int:
    """How many rows stand for all, where a row is `row_size` numbers."""
    row_size = max(row_size, 1)
    return min(num_rows, max(FEWEST_ROWS, SAMPLE_NUMBERS // row_size, min(MANY_ROWS, MANY_NUMBERS // row_size)))


def sample_rows(num_rows: int, row_size: int) -> np.ndarray:
    """Sorted numbers of these rows, chosen at random without replacement."""
    rng = np.random.default_rng(ROW_STREAM)
    return np.sort(rng.choice(num_rows, num_sampled(num_rows, row_size), replace=False, shuffle=False))
