"""Arrays in one file that is there as a whole or not at all, and is read only if no bit of it has changed.

It is an `.npz`, a zip of NumPy arrays. The zip's comment, which ends the file, is the SHA-256 digest of all before it.
"""

import glob
import hashlib
import io
import os
import time
import uuid
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

DIGEST = 64  # bytes
LEFT_OVER = 3600.0  # seconds after which a file that is still incomplete belongs to a process that was killed


def read_path(argument: str, value: Any) -> Path:
    """The path of a file, which need not exist.

    Raises:
        TypeError, ValueError: naming the argument, when it is no path, or that of a folder.
    """
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{argument}={value!r} must be the path of a file, a str or a pathlib.Path.")
    path = Path(value)
    if path.is_dir():
        raise ValueError(f"{argument}={str(path)!r} is a folder. Give the path of a file in it.")
    return path


def write_arrays(path: Path, arrays: Mapping[str, Any], compress: bool = False) -> None:
    """Write arrays to `path`; what was there is replaced once the new file is whole and on the disk.

    Raises:
        OSError: when it cannot be written; what was there stays.
        TypeError: when an array holds anything but numbers and text.
    """
    content = _sealed(arrays, compress)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        _remove_left_over(path)
        with open(partial, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """What `write_arrays` wrote.

    Raises:
        OSError: when the file cannot be read.
        ValueError: when it was not written by `write_arrays`, or has changed since.
    """
    content = path.read_bytes()
    if not content.startswith(b"PK"):
        raise ValueError("it is empty, or of another kind")
    if _digest(content) != content[-DIGEST:]:
        raise ValueError("it was cut short or changed, or was not written by this version of bbvi: its digest is wrong")
    with np.load(io.BytesIO(content), allow_pickle=False) as archive:
        return dict(archive)


def _sealed(arrays: Mapping[str, Any], compress: bool) -> memoryview:
    """The bytes of the file."""
    for name, array in arrays.items():
        if np.asarray(array).dtype.kind not in "biufcSU":
            raise TypeError(f"{name} has dtype {np.asarray(array).dtype}: only numbers and text can be stored.")
    buffer = io.BytesIO()
    (np.savez_compressed if compress else np.savez)(buffer, **arrays)
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.comment = bytes(DIGEST)
    content = buffer.getbuffer()
    content[-DIGEST:] = _digest(content)
    return content


def _digest(content: bytes | memoryview) -> bytes:
    return hashlib.sha256(memoryview(content)[:-DIGEST]).hexdigest().encode()


def _remove_left_over(path: Path) -> None:
    """Remove what processes that were killed while they wrote to `path` have left."""
    for partial in path.parent.glob(f"{glob.escape(path.name)}.{'[0-9a-f]' * 8}.partial"):
        with suppress(FileNotFoundError):  # another process removed it first
            if time.time() - partial.stat().st_mtime > LEFT_OVER:
                partial.unlink()


def _sync_folder(folder: Path) -> None:
    """Put the new name on the disk, where the system can do that to a folder."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
