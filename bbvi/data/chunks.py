"""How many rows of data are added up at once."""

WHOLE_SUM = 2**21  # numbers in data that are evaluated as a whole, at most
CHUNK_NUMBERS = 2**18  # numbers in a chunk, about


def fits_whole(num_numbers: int) -> bool:
    """Whether data in memory of this size are evaluated as a whole."""
    return num_numbers <= WHOLE_SUM


def chunk_size(num_rows: int, row_size: int) -> int:
    """Rows in a chunk, where a row is `row_size` numbers."""
    return min(num_rows, max(1, CHUNK_NUMBERS // max(row_size, 1)))


def count_chunks(num_rows: int, row_size: int) -> int:
    """In how many chunks the rows are added up; the last one may share rows with the one before it."""
    return -(-num_rows // chunk_size(num_rows, row_size))
