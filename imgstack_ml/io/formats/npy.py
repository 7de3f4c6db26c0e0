"""NumPy files, which are mapped into memory to be read."""

import os
from typing import BinaryIO

import numpy as np

__all__ = ["is_npy", "open_mapped", "read_npy_header"]


def is_npy(source: str) -> bool:
    """Tell whether a source names a NumPy file."""
    return source.lower().endswith(".npy") and os.path.isfile(source)


def open_mapped(path: str) -> np.ndarray:
    """Map a NumPy file into memory.

    Raises
    ------
    ValueError
        It is damaged, or holds Python objects.
    """
    with open(path, "rb") as file:
        read_npy_header(file, os.path.getsize(path))
    with np.errstate(over="raise"):  # a shape of more bytes than any file has
        return np.lib.format.open_memmap(path, mode="r")  # refuses Python objects


def read_npy_header(file: BinaryIO, n_bytes: int) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read shape, whether it is in Fortran's order, and dtype of a NumPy file; the file then stands at its pixels.

    Raises
    ------
    ValueError
        It is damaged, or holds Python objects.
    """
    head = file.read(12)
    # NumPy would make room for as many bytes as the header claims to have.
    if head[6:7] > b"\1" and int.from_bytes(head[8:], "little") > n_bytes:
        raise ValueError("its header does not fit into the file: it is damaged")
    file.seek(0)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("it holds Python objects, which are never read")
    return shape, is_fortran, dtype
