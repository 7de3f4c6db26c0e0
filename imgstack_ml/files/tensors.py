"""Named arrays as a safetensors file, written one after the other as they lie in memory.

safetensors' own writer copies all arrays first, and writes under a name of its own that stays where the process is
killed. The format is eight bytes, a JSON header, and the arrays; the library reads them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping

import numpy as np

from ..errors import StoreError
from .atomic import atomic_path, naming_the_space

__all__ = ["map_tensors", "save_tensors"]

# Names of the format, by kind and bytes of an item.
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
    """Write a file that safetensors reads; it appears complete or not at all.

    Parameters
    ----------
    path : str or PathLike
        The file.
    arrays : mapping of str to ndarray
        Booleans, integers and floats of up to 64 bits, in any layout and byte order.
    metadata : dict of str to str
        Goes to the header.
    overwrite : bool, default=True
        Whether an existing file may be replaced.

    Raises
    ------
    StoreError
        The file exists and `overwrite` is False, or it cannot be written: where the disk is full, the bytes that it
        takes are named.
    """
    # Wider items first, so that each array begins at a multiple of its item; names make the order the same each time.
    ordered = sorted(arrays.items(), key=lambda entry: (-entry[1].itemsize, entry[0]))
    header = _header(ordered, metadata)
    name, n_bytes = os.fspath(path), len(header) + sum(array.nbytes for array in arrays.values())
    try:
        with naming_the_space(name, n_bytes), atomic_path(path, overwrite=overwrite) as temporary:
            _write(temporary, header, (array for _, array in ordered))
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{name!r} cannot be written: {error}") from error


def map_tensors(path: str) -> dict[str, np.ndarray]:
    """Give the arrays of a file as read-only views of it, which are read where they are used.

    Parameters
    ----------
    path : str
        A file that safetensors has opened, and so found to be whole: nothing is checked here.

    Returns
    -------
    arrays : dict of str to ndarray
        Those of the dtypes that `save_tensors` writes.
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


def _header(ordered: Iterable[tuple[str, np.ndarray]], metadata: dict[str, str]) -> bytes:
    """Describe arrays that follow each other in this order; its own length comes first."""
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
    with open(path, "wb") as file:
        file.write(header)
        for array in arrays:
            plain = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
            file.write(plain.reshape(-1).view(np.uint8).data)
