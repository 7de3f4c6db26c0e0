"""One stack as one zarr array on disk, checked before it is read."""

import functools
import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import zarr

from ...errors import StoreError
from ..locations.numbered import NumberedNames
from .rows import read_rows

__all__ = [
    "Store",
    "ZarrReader",
    "chunk_files",
    "chunk_names",
    "is_own_store",
    "is_store",
    "mark_complete",
    "open_store",
]

#: zarr reads chunks that are missing as zeros, so completeness needs a file of its own, written last.
MARKER = ".imgstack-complete"

#: The attribute of the array that holds file names and labels.
ATTRIBUTE = "imgstack_ml"
FORMAT = 1


class Store(NamedTuple):
    """What a stored stack holds besides its pixels.

    Attributes
    ----------
    reader : ZarrReader
    n_images : int
    files : sequence of str
        Names of the files the images came from, or ``"<store>[<i>]"`` where they came from an array.
    labels : ndarray of str or None
    """

    reader: "ZarrReader"
    n_images: int
    files: Sequence[str]
    labels: np.ndarray | None


@dataclass(frozen=True)
class ZarrReader:
    """Read blocks of images from a stored stack.

    Parameters
    ----------
    path : str
        Folder of the zarr array.
    shape : tuple of int
        Shape of an image.
    dtype : numpy.dtype
    images_per_chunk : int
        Images that are stored, and so read, together.
    fingerprint : str
        Differs when the stack was written anew.
    """

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype
    images_per_chunk: int
    fingerprint: str

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Read the images at `rows` into one block."""
        array = _open_once(self.path, self.fingerprint)
        _check_chunks(self.path, array, rows)

        def fetch(first: int, stop: int) -> np.ndarray:
            return np.asarray(array[first:stop])

        return read_rows(fetch, rows, self.shape, self.dtype, images_per_chunk=self.images_per_chunk)


def is_store(path: str) -> bool:
    """Tell whether a folder looks like a zarr array or group, complete or not."""
    return any(os.path.exists(os.path.join(path, name)) for name in (MARKER, "zarr.json", ".zarray", ".zgroup"))


def is_own_store(path: str) -> bool:
    """Tell whether `save_stack` wrote a folder, or began to; other zarr arrays have no mark of completeness."""
    if os.path.exists(os.path.join(path, MARKER)):
        return True
    try:
        with open(os.path.join(path, "zarr.json"), encoding="utf-8") as file:
            return ATTRIBUTE in json.load(file).get("attributes", {})
    except (OSError, ValueError, AttributeError):
        return False


def open_store(path: str) -> Store:
    """Open a stored stack after checking that it is complete.

    Parameters
    ----------
    path : str
        Folder that `save_stack` wrote.

    Returns
    -------
    Store

    Raises
    ------
    StoreError
        The store is incomplete or damaged.
    """
    marker = _read_marker(path)
    array = _open_array(path)
    found = _measure_chunks(path)
    again = _write_again(path)
    if found != (marker["n_chunks"], marker["n_bytes"]) or marker["n_chunks"] != _n_chunks(array):
        raise StoreError(
            f"{path!r} is damaged: it holds {found[0]} chunks of {found[1]:,} bytes, and was written with "
            f"{marker['n_chunks']} of {marker['n_bytes']:,}. {again}"
        )
    described: Any = array.attrs.get(ATTRIBUTE)
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise StoreError(f"{path!r} is not in format {FORMAT} of imgstack_ml, or lost its attributes. {again}")
    n_images, shape = array.shape[0], array.shape[1:]
    files = described["files"]
    labels = described["labels"]
    written = str(os.stat(os.path.join(path, MARKER)).st_mtime_ns)
    reader = ZarrReader(path, shape, array.dtype, array.chunks[0], written)
    names = tuple(files) if files else NumberedNames(path, n_images)
    return Store(reader, n_images, names, None if labels is None else np.array(labels))


def mark_complete(folder: str) -> None:
    """Write the marker of a store whose chunks are all there."""
    n_chunks, n_bytes = _measure_chunks(folder)
    with open(os.path.join(folder, MARKER), "w", encoding="utf-8") as file:
        json.dump({"n_chunks": n_chunks, "n_bytes": n_bytes}, file)


def chunk_files(folder: str) -> Iterator[str]:
    """Yield the names, relative to `folder`, of the files in which a zarr array holds its chunks."""
    for parent, _, names in os.walk(os.path.join(folder, "c")):
        within = os.path.relpath(parent, folder)
        for name in names:
            yield os.path.join(within, name)


def chunk_names(chunks: tuple[int, ...], region: tuple[slice, ...]) -> Iterator[str]:
    """Yield the names, relative to the array's folder, of the chunks of a shape that a region touches."""
    grid = [range(part.start // size, -(-part.stop // size)) for part, size in zip(region, chunks, strict=True)]
    for index in itertools.product(*grid):
        yield os.path.join("c", *map(str, index))


def _measure_chunks(folder: str) -> tuple[int, int]:
    sizes = [os.stat(os.path.join(folder, name)).st_size for name in chunk_files(folder)]
    return len(sizes), sum(sizes)


def _read_marker(path: str) -> dict[str, int]:
    try:
        with open(os.path.join(path, MARKER), encoding="utf-8") as file:
            marker = json.load(file)
            return {"n_chunks": marker["n_chunks"], "n_bytes": marker["n_bytes"]}
    except FileNotFoundError:
        raise StoreError(
            f"{path!r} is incomplete: its writing was cut off, or save_stack did not write it. {_write_again(path)}"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path!r} is damaged: {MARKER} cannot be read. {_write_again(path)}") from error


def _write_again(path: str) -> str:
    return f"Write it again from its source: save_stack(stack, {path!r}, overwrite=True)"


def _open_array(path: str) -> zarr.Array:
    try:
        return zarr.open_array(path, mode="r")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{path!r} cannot be opened as a zarr array: {error}. {_write_again(path)}") from error


@functools.lru_cache(maxsize=16)
def _open_once(path: str, fingerprint: str) -> zarr.Array:
    """Open an array once a process: its attributes hold the names of all files."""
    return _open_array(path)


def _n_chunks(array: zarr.Array) -> int:
    return math.prod(-(-size // chunk) for size, chunk in zip(array.shape, array.chunks, strict=True))


def _check_chunks(path: str, array: zarr.Array, rows: np.ndarray) -> None:
    """Check that the chunks to be read are there: zarr would read zeros for those lost since the opening."""
    for start in np.unique(rows // array.chunks[0]) * array.chunks[0]:
        for name in chunk_names(array.chunks, (slice(start, start + 1), *(slice(0, n) for n in array.shape[1:]))):
            if not os.path.exists(os.path.join(path, name)):
                raise StoreError(f"{path!r} has lost its chunk {name!r}. {_write_again(path)}")
