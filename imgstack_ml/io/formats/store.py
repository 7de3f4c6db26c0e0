"""The zarr array that `save_stack` writes: its files on disk, and the checks that none of them is missing."""

import contextlib
import functools
import itertools
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import zarr

from ...errors import StoreError
from ..locations.faults import READ_ERRORS

__all__ = [
    "ATTRIBUTE",
    "FORMAT",
    "MARKER",
    "Chunks",
    "check_within",
    "check_written_chunks",
    "chunk_files",
    "chunk_names",
    "find_chunks",
    "is_own_store",
    "is_zarr",
    "mark_complete",
    "open_complete",
    "opened_store",
    "read_description",
    "state_of_zarr",
]

#: zarr reads missing chunks as zeros, so that a file of its own, written last, has to say that none is missing.
MARKER = ".imgstack-complete"

#: The attribute of the array that holds file names and labels.
ATTRIBUTE = "imgstack_ml"
FORMAT = 1

#: Of arrays of others, so many files and folders are looked at when they are opened: 10 ms.
_MOST_ENTRIES = 2000


class Chunks(NamedTuple):
    """What was found of the chunks of an array.

    Attributes
    ----------
    n_files, n_bytes : int
    newest : int
        Latest time of change of a chunk, or of a folder of chunks, in nanoseconds.
    opened : int
        When they were counted, if there are more of them; else 0.
    """

    n_files: int
    n_bytes: int
    newest: int
    opened: int


def is_zarr(path: str) -> bool:
    """Tell whether a folder looks like a zarr array or group, complete or not."""
    return any(os.path.exists(os.path.join(path, name)) for name in (MARKER, "zarr.json", ".zarray", ".zgroup"))


def is_own_store(path: str) -> bool:
    """Tell whether `save_stack` wrote a folder, or began to write it."""
    if os.path.exists(os.path.join(path, MARKER)):
        return True
    try:
        with open(os.path.join(path, "zarr.json"), encoding="utf-8") as file:
            # Datasets of ImagePCA.to_xarray have the version under this name: they are groups of several arrays.
            return isinstance(json.load(file).get("attributes", {}).get(ATTRIBUTE), dict)
    except (OSError, ValueError, AttributeError):
        return False


def open_complete(path: str) -> tuple[zarr.Array, int]:
    """Open a store after checking that all its chunks are there; return it with the latest time of change of a chunk.

    Raises
    ------
    StoreError
        The store is incomplete or damaged.
    """
    marker = _read_marker(path)
    check_within(os.path.join(path, "zarr.json"), os.path.realpath(path))
    array = _open_array(path)
    n_chunks, n_bytes, newest, _ = find_chunks(path, "c", most=None)
    if (n_chunks, n_bytes) != (marker["n_chunks"], marker["n_bytes"]) or n_chunks != _n_chunks(array):
        raise StoreError(
            f"{path!r} is damaged: it holds {n_chunks} chunks of {n_bytes:,} bytes, and was written with "
            f"{marker['n_chunks']} of {marker['n_bytes']:,}. {_write_again(path)}"
        )
    return array, newest


@contextlib.contextmanager
def opened_store(path: str, state: str, newest: int, rows: np.ndarray) -> Iterator[zarr.Array]:
    """Give a store to read some images from while the block runs.

    Parameters
    ----------
    path : str
    state : str
        Its `state_of_zarr` when the stack was opened.
    newest : int
        Latest time of change of a chunk then, in nanoseconds.
    rows : ndarray of int
        The images.

    Raises
    ------
    StoreError
        The store has changed since, a chunk of these images is missing, or it cannot be decoded.
    """
    if state_of_zarr(path) != state:
        raise StoreError(f"{path!r} has changed since the stack was opened; open the stack again")
    array = _open_once(path, state)
    _check_chunks(path, array, rows, newest)
    try:
        yield array
    except StoreError:
        raise
    except READ_ERRORS as error:
        name = _damaged_chunk(array, rows)
        raise StoreError(f"{path!r} is damaged: {name} cannot be decoded ({error}). {_write_again(path)}") from error


@functools.lru_cache(maxsize=16)
def _open_once(path: str, state: str) -> zarr.Array:
    """Open a store once a process and state: its attributes, the names of all files, take time to read."""
    return _open_array(path)


def read_description(path: str, array: zarr.Array) -> tuple[list[str] | None, np.ndarray | None, tuple[str, ...]]:
    """Read what a store holds beside its pixels: names of the files that the images came from, labels, channels.

    Raises
    ------
    StoreError
        It has no such attributes, or those of another version.
    """
    described: Any = array.attrs.get(ATTRIBUTE)
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        raise StoreError(
            f"{path!r} is not in format {FORMAT} of imgstack_ml, or lost its attributes. {_write_again(path)}"
        )
    labels = described["labels"]
    channels = tuple(map(str, described.get("channels", ())))
    n_channels = array.shape[3] if array.ndim == 4 else 1
    return (
        described["files"],
        None if labels is None else np.array(labels),
        channels if len(channels) == n_channels else (),
    )


def state_of_zarr(path: str) -> str:
    """Return sizes and times of change of the metadata of an array, which differ once it is written anew."""
    states = []
    for name in (MARKER, "zarr.json", ".zarray"):
        with contextlib.suppress(OSError):
            found = os.stat(os.path.join(path, name))
            states.append((found.st_size, found.st_mtime_ns))
    return str(states)


def check_written_chunks(path: str, name: str, array: zarr.Array, region: Sequence[slice], newest: int) -> None:
    """Check that no chunk of a region was written or removed after `newest`, or is a link that leads elsewhere.

    Raises
    ------
    StoreError, ValueError
        Naming the chunk.
    """
    root = os.path.realpath(path)
    for index in _chunk_indices(array.shards or array.chunks, region):
        chunk = array.metadata.encode_chunk_key(index)
        place = os.path.join(path, name, chunk)
        while not os.path.lexists(place):  # a chunk that was removed has changed its folder
            place = os.path.dirname(place)
        check_within(place, root)
        if _changed(os.stat(place)) > newest:
            raise ValueError(f"its chunk {chunk!r} has changed since the stack was opened; open the stack again")


def _check_chunks(path: str, array: zarr.Array, rows: np.ndarray, newest: int) -> None:
    """Check that the chunks of some images are there: zarr would read zeros for those lost since the opening."""
    for name in _chunks_of_rows(array, rows):
        try:
            changed = _changed(os.stat(os.path.join(path, name))) > newest
        except FileNotFoundError:
            raise StoreError(f"{path!r} has lost its chunk {name!r}. {_write_again(path)}") from None
        if changed:
            raise StoreError(f"the chunk {name!r} of {path!r} has changed since the stack was opened; open it again")


def _damaged_chunk(array: zarr.Array, rows: np.ndarray) -> str:
    """Name the first chunk of some images that cannot be decoded."""
    for name in _chunks_of_rows(array, rows):
        index = map(int, name.split(os.sep)[1:])
        try:
            array[tuple(slice(i * size, i * size + 1) for i, size in zip(index, array.chunks, strict=True))]
        except READ_ERRORS:
            return f"its chunk {name!r}"
    return "a chunk"


def _chunks_of_rows(array: zarr.Array, rows: np.ndarray) -> Iterator[str]:
    for start in np.unique(rows // array.chunks[0]) * array.chunks[0]:
        yield from chunk_names(array.chunks, (slice(start, start + 1), *(slice(0, n) for n in array.shape[1:])))


def find_chunks(path: str, name: str, *, most: int | None = _MOST_ENTRIES) -> Chunks:
    """Count the chunks of a zarr array, and check that none of its files is a link that leads elsewhere.

    Parameters
    ----------
    path : str
        The folder that was asked for. Links within it are followed.
    name : str
        Of the array, or of its folder of chunks, within the folder.
    most : int, optional
        How many files and folders are looked at. `check_written_chunks` looks at the others when they are read.

    Raises
    ------
    StoreError
        Naming the link.
    """
    check_within(os.path.join(path, name), root := os.path.realpath(path))
    n_files = n_bytes = newest = 0
    for n_seen, (is_file, found) in enumerate(_walk(os.path.join(path, name), root), start=1):
        newest = max(newest, _changed(found))
        if is_file:
            n_files, n_bytes = n_files + 1, n_bytes + found.st_size
        if most and n_files and n_seen >= most:
            return Chunks(n_files, n_bytes, newest, time.time_ns())
    return Chunks(n_files, n_bytes, newest, 0)


def _walk(folder: str, root: str, is_linked: bool = False) -> Iterator[tuple[bool, os.stat_result]]:
    """Yield the states of a folder and of what is in it, each with whether it is a chunk; the depth comes first."""
    with contextlib.suppress(FileNotFoundError), os.scandir(folder) as entries:
        yield False, os.stat(folder)
        for entry in entries:
            is_link = entry.is_symlink()
            if is_link:
                check_within(entry.path, root)
            if entry.is_dir():
                if is_link and is_linked:  # links could lead in a circle
                    raise StoreError(f"{entry.path!r} is a link behind a link, which is not followed. Copy it")
                yield from _walk(entry.path, root, is_link or is_linked)
            elif not entry.name.startswith(".") and entry.name != "zarr.json":
                yield True, entry.stat()


def check_within(path: str, root: str) -> None:
    """Raise a StoreError if a path leads out of a folder by a link, or by its own parts."""
    if os.path.commonpath([root, os.path.realpath(path)]) != root:
        raise StoreError(
            f"{path!r} leads out of {root!r}, by a link or its name, which is not followed. Copy what it names"
        )


def mark_complete(folder: str) -> None:
    """Write the marker that says that all chunks of a store are written."""
    n_chunks, n_bytes, *_ = find_chunks(folder, "c", most=None)
    with open(os.path.join(folder, MARKER), "w", encoding="utf-8") as file:
        json.dump({"n_chunks": n_chunks, "n_bytes": n_bytes}, file)


def chunk_files(folder: str) -> Iterator[str]:
    """Yield the names, relative to `folder`, of all chunk files of a zarr array."""
    for parent, _, names in os.walk(os.path.join(folder, "c")):
        within = os.path.relpath(parent, folder)
        for name in names:
            yield os.path.join(within, name)


def chunk_names(chunks: tuple[int, ...], region: tuple[slice, ...]) -> Iterator[str]:
    """Yield the names, relative to the array's folder, of the chunks of shape `chunks` that a region touches."""
    for index in _chunk_indices(chunks, region):
        yield os.path.join("c", *map(str, index))


def _chunk_indices(chunks: tuple[int, ...], region: Sequence[slice]) -> Iterator[tuple[int, ...]]:
    grid = [range(part.start // size, -(-part.stop // size)) for part, size in zip(region, chunks, strict=True)]
    return itertools.product(*grid)


def _changed(found: os.stat_result) -> int:
    """Return when a file was written or put in its place: a copy from a backup keeps an old time of modification."""
    return max(found.st_mtime_ns, found.st_ctime_ns)


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
