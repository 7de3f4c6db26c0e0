"""NumPy files, which are mapped into memory to be read."""

import os

import numpy as np

__all__ = ["is_npy", "open_mapped"]


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
    # NumPy would make room for as many bytes as the header claims to have.
    with open(path, "rb") as file:
        head = file.read(12)
    if head[6:7] > b"\1" and int.from_bytes(head[8:], "little") > os.path.getsize(path):
        raise ValueError("its header does not fit into the file: it is damaged")
    with np.errstate(over="raise"):  # a shape of more bytes than any file has
        return np.lib.format.open_memmap(path, mode="r")  # refuses Python objects
