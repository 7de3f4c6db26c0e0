"""Named arrays written to safetensors files without copies of them, and read as views of the file.

safetensors' own writer copies all arrays first, and a killed process leaves its temporary file behind. The format is
simple: eight bytes with the length of the header, a JSON header, then the arrays one after the other. Files are
checked by the safetensors library before `map_tensors` reads them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ..errors import StoreError
from .atomic import atomic_path
from .space import explain_full_disk

__all__ = ["Tensors", "map_tensors", "save_tensors"]

MAPPED_BYTES = 2**20  # smaller arrays are read even where maps are wanted, and checked for NaN

# Names that the format gives to dtypes, by NumPy's letter for the kind and the bytes of an item.
_DTYPES = {"b1": "BOOL"} | {
    f"{kind}{size}": f"{letter}{8 * size}"
    for kind, letter, sizes in (("i", "I", (1, 2, 4, 8)), ("u", "U", (1, 2, 4, 8)), ("f", "F", (2, 4, 8)))
    for size in sizes
}

_NUMPY_DTYPES = {name: np.dtype("<" + code) for code, name in _DTYPES.items()}


def save_tensors(
    path: str | os.PathLike[str],
    arrays: Mapping[str, np.ndarray],
    metadata: dict[str, str],
    *,
    overwrite: bool = True,
) -> None:
    """Write arrays to a file that safetensors reads. It appears whole or not at all.

    Parameters
    ----------
    path : str or PathLike
        The file.
    arrays : mapping of str to ndarray
        Booleans, integers and floats of up to 64 bits, in any memory layout and byte order.
    metadata : dict of str to str
        Text that is stored in the header.
    overwrite : bool, default=True
        Whether an existing file may be replaced.

    Raises
    ------
    StoreError
        The file exists and `overwrite` is False, or it cannot be written. If the disk is full, the message says how
        many bytes the file needs.
    """
    # Wide items first, so that each array begins at a multiple of its item size. Names settle the order of the others.
    ordered = sorted(arrays.items(), key=lambda entry: (-entry[1].itemsize, entry[0]))
    header = _header(ordered, metadata)
    name, n_bytes = os.fspath(path), len(header) + sum(array.nbytes for array in arrays.values())
    try:
        with explain_full_disk(name, n_bytes), atomic_path(path, overwrite=overwrite) as temporary:
            _write(temporary, header, (array for _, array in ordered))
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{name!r} cannot be written: {error}") from error


def map_tensors(path: str) -> dict[str, np.ndarray]:
    """Arrays of a file as read-only views of it. The system reads them from the disk when they are used.

    Parameters
    ----------
    path : str
        A file that the safetensors library has opened without an error. This function checks nothing.

    Returns
    -------
    arrays : dict of str to ndarray
        The arrays of those dtypes that `save_tensors` can write.
    """
    content = np.memmap(path, np.uint8, mode="r").view(np.ndarray)
    first = 8 + int.from_bytes(content[:8].tobytes(), "little")
    entries = json.loads(content[8:first].tobytes())
    entries.pop("__metadata__", None)
    arrays = {}
    for name, entry in entries.items():
        if entry["dtype"] in _NUMPY_DTYPES:
            begin, end = (first + offset for offset in entry["data_offsets"])
            arrays[name] = content[begin:end].view(_NUMPY_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return arrays


class Tensors(NamedTuple):
    """Arrays of an open file: the file, its arrays as memory maps by name (if wanted), and the names taken so far."""

    file: Any
    mapped: dict[str, np.ndarray]
    taken: set[str]

    def take(self, key: str) -> np.ndarray:
        """Return the array `key`: memory-mapped if maps are wanted and it is large, otherwise read and checked.

        Raises
        ------
        ValueError
            It is missing, has a dtype of others, or holds NaN or infinity.
        """
        if key not in self.file.keys():  # noqa: SIM118 (the file is no dict)
            raise ValueError(f"its array {key!r} is missing")
        dtype = self.file.get_slice(key).get_dtype()
        if dtype not in _NUMPY_DTYPES:
            raise ValueError(f"its array {key!r} has the dtype {dtype}, which no estimator uses")
        self.taken.add(key)
        if key in self.mapped and self.mapped[key].nbytes >= MAPPED_BYTES:
            return self.mapped[key]
        array: np.ndarray = self.file.get_tensor(key)
        if not np.isfinite(array).all():
            raise ValueError(f"its array {key!r} holds NaN or infinity")
        return array


def _header(ordered: Iterable[tuple[str, np.ndarray]], metadata: dict[str, str]) -> bytes:
    """Length and text of the header for arrays that are stored in this order."""
    entries: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, array in ordered:
        begin, end = end, end + array.nbytes
        dtype = _DTYPES[f"{array.dtype.kind}{array.itemsize}"]
        entries[name] = {"dtype": dtype, "shape": array.shape, "data_offsets": [begin, end]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write(path: str, header: bytes, arrays: Iterable[np.ndarray]) -> None:
    """Write the header and the arrays, each in little-endian byte order and C layout."""
    with open(path, "wb") as file:
        file.write(header)
        for array in arrays:
            plain = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
            file.write(plain.reshape(-1).view(np.uint8).data)
