"""The zarr array that `save_stack` writes: its files on disk, and the checks that none of them is missing."""

import contextlib
import functools
import itertools
import json
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import zarr

from ...errors import StoreError
from ..locations.faults import READ_ERRORS

__all__ = [
    "ATTRIBUTE",
    "FORMAT",
    "MARKER",
    "check_written_chunks",
    "chunk_files",
    "chunk_names",
    "find_chunk",
    "is_own_store",
    "is_zarr",
    "mark_complete",
    "newest_change",
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

#: Arrays of others with more chunks are opened without a look at each; then only their metadata are compared.
_MAX_WATCHED = 20_000


def is_zarr(path: str) -> bool:
    """Tell whether a folder looks like a zarr array or group, complete or not."""
    return any(os.path.exists(os.path.join(path, name)) for name in (MARKER, "zarr.json", ".zarray", ".zgroup"))


def is_own_store(path: str) -> bool:
    """Tell whether `save_stack` wrote a folder, or began to write it."""
    if os.path.exists(os.path.join(path, MARKER)):
        return True
    try:
        with open(os.path.join(path, "zarr.json"), encoding="utf-8") as file:
            return ATTRIBUTE in json.load(file).get("attributes", {})
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
    find_chunk(path)
    array = _open_array(path)
    *found, newest = _measure_chunks(path)
    if tuple(found) != (marker["n_chunks"], marker["n_bytes"]) or marker["n_chunks"] != _n_chunks(array):
        raise StoreError(
            f"{path!r} is damaged: it holds {found[0]} chunks of {found[1]:,} bytes, and was written with "
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


def read_description(path: str, array: zarr.Array) -> tuple[list[str] | None, np.ndarray | None]:
    """Read what a store holds beside its pixels: names of the files that the images came from, and labels.

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
    return described["files"], None if labels is None else np.array(labels)


def state_of_zarr(path: str) -> str:
    """Return sizes and times of change of the metadata of an array, which differ once it is written anew."""
    states = []
    for name in (MARKER, "zarr.json", ".zarray"):
        with contextlib.suppress(OSError):
            found = os.stat(os.path.join(path, name))
            states.append((found.st_size, found.st_mtime_ns))
    return str(states)


def newest_change(path: str, array: zarr.Array) -> int:
    """Return the latest time of change of a chunk, or of a folder of chunks; 0 for arrays of very many chunks."""
    return _measure_chunks(path, "")[2] if array.nchunks <= _MAX_WATCHED else 0


def check_written_chunks(path: str, array: zarr.Array, region: Sequence[slice], newest: int) -> None:
    """Check that no chunk of a region was written or removed after `newest_change`.

    Raises
    ------
    ValueError
        Naming the chunk.
    """
    for index in _chunk_indices(array.shards or array.chunks, region):
        name = array.metadata.encode_chunk_key(index)
        place = os.path.join(path, name)
        while not os.path.lexists(place):  # a chunk that was removed has changed its folder
            place = os.path.dirname(place)
        if _changed(os.stat(place)) > newest:
            raise ValueError(f"its chunk {name!r} has changed since the stack was opened; open the stack again")


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


def find_chunk(path: str, name: str = "") -> bool:
    """Tell whether a zarr array has any chunk, after checking that none of its files is a link that leads elsewhere.

    Parameters
    ----------
    path : str
        The folder that was asked for. Links within it are followed.
    name : str
        Of the array within the folder.

    Raises
    ------
    StoreError
        Naming the link.
    """
    root, has_chunk = os.path.realpath(path), False
    folders = [(os.path.join(path, name), False)]
    _check_within(folders[0][0], root)
    while folders:
        folder, is_linked = folders.pop()
        with os.scandir(folder) as entries:
            for entry in entries:
                is_link = entry.is_symlink()
                if is_link:
                    _check_within(entry.path, root)
                if entry.is_dir():
                    if is_link and is_linked:  # links could lead in a circle
                        raise StoreError(f"{entry.path!r} is a link behind a link, which is not followed. Copy it")
                    folders.append((entry.path, is_link or is_linked))
                elif not entry.name.startswith(".") and entry.name != "zarr.json":
                    has_chunk = True
    return has_chunk


def _check_within(path: str, root: str) -> None:
    if os.path.commonpath([root, os.path.realpath(path)]) != root:
        raise StoreError(f"{path!r} leads out of {root!r} by a link, which is not followed. Copy what it names")


def mark_complete(folder: str) -> None:
    """Write the marker that says that all chunks of a store are written."""
    n_chunks, n_bytes, _ = _measure_chunks(folder)
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


def _measure_chunks(folder: str, within: str = "c") -> tuple[int, int, int]:
    """Count files and their bytes, and find the latest time of change of a file or folder."""
    n_files = n_bytes = newest = 0
    folders = [os.path.join(folder, within)]
    while folders:
        parent = folders.pop()
        with contextlib.suppress(FileNotFoundError), os.scandir(parent) as entries:
            newest = max(newest, _changed(os.stat(parent)))
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.path)
                    continue
                found = entry.stat()
                n_files, n_bytes = n_files + 1, n_bytes + found.st_size
                newest = max(newest, _changed(found))
    return n_files, n_bytes, newest


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
