"""Rows of data, wherever they are: in memory, in files, or in a stream.

A log density that is a sum over rows (`density.py`) says where they are. The answer is a `Source` (`source.py`), and
nobody outside this room asks of which kind it is:

- `InMemory`: arrays, whose minibatches are named by indices (`memory.py`).
- `Plate`: the rows of a plate of a NumPyro model, which takes the indices itself (`plate.py`).
- `OutOfCore`: rows that are read when they are needed (`out_of_core.py`), from a store on the host (`store.py`): arrays
  in files (`files.py`) or a stream (`stream.py`).
"""
