"""One stack as one zarr array on disk: written whole or not at all, and checked before it is read."""

import contextlib
import errno
import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
import zarr

from .._errors import StoreError
from .._files import atomic_folder, require_space
from .rows import read_rows

__all__ = ["Store", "ZarrReader", "is_own_store", "is_store", "open_store", "save_stack"]

#: zarr reads chunks that are missing as zeros, so completeness needs a file of its own, written last.
MARKER = ".imgstack-complete"

_FORMAT = 1

# A chunk is read whole, which bounds what reading a single image costs; much less would make too many files.
_CHUNK_BYTES = 1_000_000
_BLOCK_BYTES = 64_000_000


class Store(NamedTuple):
    """What a stored stack holds besides its pixels.

    Attributes
    ----------
    reader : ZarrReader
    n_images : int
    files : tuple of str
        Names of the files the images came from, or ``"<store>[<i>]"`` where they came from an array.
    labels : ndarray of str or None
    """

    reader: "ZarrReader"
    n_images: int
    files: tuple[str, ...]
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
        array = _open_array(self.path)
        _check_chunks(self.path, array, rows)

        def fetch(first: int, stop: int) -> np.ndarray:
            return np.asarray(array[first:stop])

        return read_rows(fetch, rows, self.shape, self.dtype, images_per_chunk=self.images_per_chunk)


def save_stack(stack: Any, path: str | os.PathLike[str], *, overwrite: bool = False, progress: bool = False) -> str:
    """Store a stack as one zarr array, block by block.

    The array is built under a hidden name beside `path` and renamed when it is complete: what stood at `path`
    stays until then, and an interrupted call leaves nothing.

    Parameters
    ----------
    stack : ImageStack, dask.array.Array or ndarray of shape (n_images, ...)
        Stored as it is, in its dtype. File names and labels of an ImageStack are kept.
    path : str or PathLike
        Folder to write, usually called ``something.zarr``.
    overwrite : bool, default=False
        Whether a stored array at `path` may be replaced. Nothing but a zarr array ever is.
    progress : bool, default=False
        Whether to show a progress bar (on this machine's own schedulers; a cluster has its dashboard).

    Returns
    -------
    str
        `path`, absolute; ``open_stack(path)`` opens it.

    Raises
    ------
    StoreError
        `path` exists, lies inside or above the input, or its disk has no room for the uncompressed pixels.
    BadImageError
        An image cannot be read.

    Notes
    -----
    Images are stored in chunks of about 1 MB (one image where that is larger), which are read whole: a shuffled
    selection of small images decodes their neighbours too. Blocks of different sizes are regrouped to that of
    the largest, at most 64 MB.

    Examples
    --------
    >>> import numpy as np, os, tempfile
    >>> from imgstack_ml import open_stack, save_stack
    >>> path = save_stack(np.ones((5, 4, 4)), os.path.join(tempfile.mkdtemp(), "ones.zarr"))
    >>> open_stack(path).shape
    (5, 4, 4)
    """
    data = _as_dask(stack)
    target = os.path.realpath(path)
    _check_target(stack, target, overwrite)
    n_bytes = int(data.nbytes)
    with atomic_folder(target, overwrite=overwrite) as folder:
        require_space(folder, n_bytes)
        chunks, blocks = _plan_chunks(data)
        array: Any = zarr.create_array(
            folder,
            shape=data.shape,
            chunks=chunks,
            dtype=data.dtype,
            attributes={"imgstack_ml": _description(stack)},
            # Else chunks of zeros only are left out, and could not be told from lost ones.
            config={"write_empty_chunks": True},
        )
        with _naming_the_space(target, n_bytes), _progress_bar(progress):
            da.store(data.rechunk(blocks), array, lock=False)
        _mark_complete(folder)
    return target


def is_store(path: str) -> bool:
    """Tell whether a folder looks like a zarr array or group, complete or not."""
    return any(os.path.exists(os.path.join(path, name)) for name in (MARKER, "zarr.json", ".zarray", ".zgroup"))


def is_own_store(path: str) -> bool:
    """Tell whether `save_stack` wrote a folder, or began to; other zarr arrays have no mark of completeness."""
    if os.path.exists(os.path.join(path, MARKER)):
        return True
    try:
        with open(os.path.join(path, "zarr.json"), encoding="utf-8") as file:
            return "imgstack_ml" in json.load(file).get("attributes", {})
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
    described: Any = array.attrs.get("imgstack_ml")
    if not isinstance(described, dict) or described.get("format") != _FORMAT:
        raise StoreError(f"{path!r} is not in format {_FORMAT} of imgstack_ml, or lost its attributes. {again}")
    n_images, shape = array.shape[0], array.shape[1:]
    files = described["files"] or [f"{path}[{i}]" for i in range(n_images)]
    labels = described["labels"]
    written = str(os.stat(os.path.join(path, MARKER)).st_mtime_ns)
    reader = ZarrReader(path, shape, array.dtype, array.chunks[0], written)
    return Store(reader, n_images, tuple(files), None if labels is None else np.array(labels))


def _as_dask(stack: Any) -> da.Array:
    if hasattr(stack, "files"):
        stack = stack.data
    if isinstance(stack, np.ndarray) and stack.ndim:
        stack = da.from_array(stack, chunks=-1, name=False)
    if not isinstance(stack, da.Array) or not stack.ndim:
        raise TypeError(f"stack is a {type(stack).__name__}; an ImageStack, a Dask array or an ndarray is needed")
    if any(map(math.isnan, stack.shape)):
        raise ValueError("stack has unknown chunk sizes; call stack.compute_chunk_sizes() first")
    return stack


def _check_target(stack: Any, target: str, overwrite: bool) -> None:
    for source in getattr(stack, "inputs", ()):
        source = os.path.realpath(source)
        if os.path.commonpath([source, target]) in (source, target):
            raise StoreError(f"{target!r} is, holds or lies in the input {source!r}; choose another place")
    if overwrite and os.path.isdir(target) and os.listdir(target) and not is_store(target):
        raise StoreError(f"{target!r} is a folder that holds no zarr array, so it is not replaced; choose another name")


def _plan_chunks(data: da.Array) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Choose the sizes of stored chunks and of the blocks to write, each of which is whole chunks."""
    rows, *pixels = (max(1, *sizes) for sizes in data.chunks)
    bytes_per_row = math.prod(pixels) * data.dtype.itemsize
    rows = min(rows, max(1, _BLOCK_BYTES // bytes_per_row))
    most = min(rows, max(1, _CHUNK_BYTES // bytes_per_row))
    # A divisor, where there is one of about that size, leaves the blocks as they are.
    per_chunk = max((d for d in range(most // 2 + 1, most + 1) if rows % d == 0), default=most)
    return (per_chunk, *pixels), (rows // per_chunk * per_chunk, *pixels)


def _description(stack: Any) -> dict[str, Any]:
    from_files = hasattr(stack, "files")
    labels = stack.labels if from_files else None
    return {
        "format": _FORMAT,
        "files": list(stack.files) if from_files else None,
        "labels": None if labels is None else labels.tolist(),
    }


@contextlib.contextmanager
def _naming_the_space(target: str, n_bytes: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise StoreError(f"the disk is full: {target!r} needs up to {n_bytes:,} bytes, and is not written") from error


@contextlib.contextmanager
def _progress_bar(shown: bool) -> Iterator[None]:
    if not shown:
        yield
        return
    from tqdm.dask import TqdmCallback

    with TqdmCallback(desc="save_stack", unit="task"):
        yield


def _measure_chunks(folder: str) -> tuple[int, int]:
    """Count the chunk files of a zarr array, and their bytes."""
    sizes = [
        os.stat(os.path.join(parent, name)).st_size
        for parent, _, names in os.walk(os.path.join(folder, "c"))
        for name in names
    ]
    return len(sizes), sum(sizes)


def _mark_complete(folder: str) -> None:
    n_chunks, n_bytes = _measure_chunks(folder)
    with open(os.path.join(folder, MARKER), "w", encoding="utf-8") as file:
        json.dump({"n_chunks": n_chunks, "n_bytes": n_bytes}, file)


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


def _n_chunks(array: zarr.Array) -> int:
    return math.prod(-(-size // chunk) for size, chunk in zip(array.shape, array.chunks, strict=True))


def _check_chunks(path: str, array: zarr.Array, rows: Sequence[int] | np.ndarray) -> None:
    """Check that the chunks to be read are there: zarr would read zeros for those lost since the opening."""
    chunk_rows = np.unique(np.asarray(rows, dtype=np.intp) // array.chunks[0]).tolist()
    grid = [range(-(-size // chunk)) for size, chunk in zip(array.shape, array.chunks, strict=True)]
    for index in itertools.product(chunk_rows, *grid[1:]):
        name = os.path.join("c", *map(str, index))
        if not os.path.exists(os.path.join(path, name)):
            raise StoreError(f"{path!r} has lost its chunk {name!r}. {_write_again(path)}")
