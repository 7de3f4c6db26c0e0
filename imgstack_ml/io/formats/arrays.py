"""Stacks that are one array on disk: zarr, with OME-Zarr and the stores of `save_stack`, HDF5 data sets, NumPy files.

The array is opened in the task that reads it, so that a stack holds no handle and a task carries a path.
"""

import base64
import contextlib
import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import zarr

from ...base.axes import axis_names_of, letter_of, order_of_axes
from ..locations.faults import naming_the_file
from ..locations.files import state_of_file
from .base import check_level
from .hdf5 import open_data_set
from .npy import open_mapped
from .ome_zarr import axis_names_within, channel_names_of, image_of
from .rows import read_rows
from .store import (
    check_written_chunks,
    find_chunks,
    open_complete,
    opened_store,
    read_description,
    state_of_zarr,
)
from .uncompressed import read_uncompressed

__all__ = ["ArrayReader", "open_hdf5", "open_npy", "open_store", "open_zarr", "read_channels", "refuse_encoded"]

_LARGE_CHUNK = 2**28  # bytes
_ENCODINGS = ("scale_factor", "add_offset", "_FillValue", "missing_value")


@dataclass(frozen=True)
class ArrayReader:
    """Read blocks of images from one array on disk.

    Parameters
    ----------
    kind : {"zarr", "hdf5", "npy"}
    path : str
    name : str
        Name of the array within, empty where there is only one.
    axes : tuple of int
        All axes of the array in the order in which they are read: those that count images first, then those of an
        image.
    sizes : tuple of int
        Sizes of the axes that count images.
    shape : tuple of int
        Shape of an image.
    dtype : numpy.dtype
    images_per_chunk : int
        Images that are stored, and so read, together.
    fingerprint : str
        Differs when the array was written anew.
    axis_names : tuple of str
        Of the axes that count images; empty where they have no names.
    channel_names : tuple of str
    is_own_store : bool
        Whether `save_stack` wrote it. It is then opened once a process, and a missing chunk is an error.
    newest : int
        Latest time of change of a chunk of a zarr array, in nanoseconds.
    opened : int
        When a zarr array of very many chunks was opened: its chunks were not all looked at then.
    pixel_chunks : tuple of int
        Sizes of a chunk along the axes of an image, if it holds parts of images; else empty.
    channels : tuple of int or None
        Those that are read; see `with_channels`.
    """

    kind: str
    path: str
    name: str
    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    images_per_chunk: int
    fingerprint: str
    axis_names: tuple[str, ...] = ()
    channel_names: tuple[str, ...] = ()
    is_own_store: bool = False
    newest: int = 0
    opened: int = 0
    channels: tuple[int, ...] | None = None
    pixel_chunks: tuple[int, ...] = ()

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        # Without the time of opening, so that a write from an array that is opened again can be resumed.
        return tuple(getattr(self, field.name) for field in fields(self) if field.name != "opened")

    @property
    def label(self) -> str:
        """Path and name in one, as a source is given."""
        return f"{self.path}::{self.name}" if self.kind == "hdf5" else os.path.join(self.path, self.name).rstrip("/")

    @property
    def n_images(self) -> int:
        """Number of images in the array."""
        return math.prod(self.sizes)

    def with_channels(self, channels: tuple[int, ...]) -> "ArrayReader":
        """Return a reader of some channels of the images only; a single one becomes grey."""
        shape = (*self.shape[:2], *([len(channels)] if len(channels) > 1 else []))
        names = tuple(self.channel_names[i] for i in channels) if self.channel_names else ()
        return replace(self, shape=shape, channels=channels, channel_names=names, pixel_chunks=())

    def read(self, rows: np.ndarray, region: tuple[slice, ...] = ()) -> np.ndarray:
        """Read the images at `rows`, or a region of each, into one block."""
        shape = tuple(part.stop - part.start for part in region) if region else self.shape
        with self._opened(rows) as array:
            line = self.sizes[-1] if self.sizes else 1

            def fetch(first: int, stop: int) -> np.ndarray:
                return self._fetch(array, first, stop, region, shape)

            return read_rows(fetch, rows, shape, self.dtype, images_per_chunk=self.images_per_chunk, line=line)

    @contextlib.contextmanager
    def _opened(self, rows: np.ndarray) -> Iterator[Any]:
        if self.is_own_store:
            with opened_store(self.path, self.fingerprint, self.newest, rows) as array:
                yield array
            return
        with _open_array(self.kind, self.path, self.name) as array:
            if _state_of(self.kind, self.path, self.name) != self.fingerprint:
                raise ValueError("it has changed since the stack was opened; open the stack again")
            yield array

    def _fetch(self, array: Any, first: int, stop: int, region: Sequence[slice], shape: tuple[int, ...]) -> np.ndarray:
        """Read images that are neighbours along the last axis that counts images."""
        place: list[Any] = [slice(None)] * array.ndim
        counting = self.axes[: len(self.sizes)]
        for axis, part in zip(self.axes[len(self.sizes) :], region, strict=False):  # a single channel is no axis
            place[axis] = part
        if counting:
            for axis, index in zip(counting, map(int, np.unravel_index(first, self.sizes)), strict=True):
                place[axis] = slice(index, index + 1)
            start = place[counting[-1]].start
            place[counting[-1]] = slice(start, start + stop - first)
        if self.channels is None:
            return self._region(array, place).transpose(self.axes).reshape(stop - first, *shape)
        images = read_channels(functools.partial(self._region, array), array, place, self.axes[-1], self.channels)
        return images.transpose(self.axes).reshape(stop - first, *self.shape)

    def _region(self, array: Any, place: Sequence[slice]) -> np.ndarray:
        if self.kind == "zarr":
            region = [slice(*part.indices(size)[:2]) for part, size in zip(place, array.shape, strict=True)]
            if not self.is_own_store:
                check_written_chunks(self.path, self.name, array, region, max(self.newest, self.opened))
            found = read_uncompressed(os.path.join(self.path, self.name), array, region, self.dtype)
            if found is not None:
                return found
        # A copy where the array is mapped into memory: its file is read here, not wherever the block is used.
        return np.array(array[tuple(place)], self.dtype, copy=True if self.kind == "npy" else None)


def read_channels(
    read: Callable[[list[slice]], np.ndarray], array: Any, place: Sequence[slice], axis: int, channels: Sequence[int]
) -> np.ndarray:
    """Read some channels of a region of an array: of the chunks that hold none of them, nothing is read.

    Of those that hold some, all channels are read, as of arrays without chunks whose channels lie side by side: HDF5
    takes 4 to 46 times as long to gather the values of one of them.
    """
    chunks, n_channels = getattr(array, "chunks", None), array.shape[axis]
    per_chunk = chunks[axis] if chunks else n_channels if axis == array.ndim - 1 else 1
    runs: list[slice] = []
    for chunk in sorted({channel // per_chunk for channel in channels}):
        stop = min((chunk + 1) * per_chunk, n_channels)
        if runs and runs[-1].stop == chunk * per_chunk:
            runs[-1] = slice(runs[-1].start, stop)
        else:
            runs.append(slice(chunk * per_chunk, stop))
    parts = [read([*place[:axis], run, *place[axis + 1 :]]) for run in runs]
    found = [channel for run in runs for channel in range(run.start, run.stop)]
    return np.concatenate(parts, axis).take([found.index(channel) for channel in channels], axis)


def open_store(path: str) -> tuple[ArrayReader, list[str] | None, np.ndarray | None]:
    """Open a stack that `save_stack` wrote, after checking that it is complete.

    Returns
    -------
    reader : ArrayReader
    files : list of str or None
        Names of the files that the images came from, if they came from files.
    labels : ndarray of str or None

    Raises
    ------
    StoreError
        The store is incomplete or damaged.
    """
    array, newest = open_complete(path)
    files, labels, channel_names = read_description(path, array)
    n_images, *image_shape = array.shape
    reader = ArrayReader(
        "zarr",
        path,
        "",
        tuple(range(array.ndim)),
        (n_images,),
        tuple(image_shape),
        array.dtype,
        array.chunks[0],
        state_of_zarr(path),
        channel_names=channel_names,
        is_own_store=True,
        newest=newest,
    )
    return reader, files, labels


def open_zarr(path: str, axes: Sequence[str] | None = None, level: int = 0) -> ArrayReader:
    """Open a zarr array of images, or the image of an OME-Zarr group at a level of its pyramid.

    `axes` names the axes of an array that does not say itself what they are.

    Raises
    ------
    BadImageError
        It is neither, or it is not clear which axes count images.
    """
    with naming_the_file(path):
        node = zarr.open(path, mode="r")
        channel_names: tuple[str, ...] = ()
        said: Sequence[str] | None
        if isinstance(node, zarr.Group):
            (name, said), channel_names = image_of(node, path, level), channel_names_of(node)
        else:
            check_level(level, [node.shape])
            name, said = "", axis_names_within(path)
        chunks = find_chunks(path, name)  # before the array is read: what changes later is noticed
        if not chunks.n_files:
            raise ValueError("it has no chunk: none was written, or all were lost, and its pixels are unknown")
        array = zarr.open_array(os.path.join(path, name), mode="r")
        own = axis_names_of(array)
        if said and own and order_of_axes(array.shape, said) != order_of_axes(array.shape, own):
            raise ValueError(f"its axes are named {tuple(own)}, and {tuple(said)} by the group that it belongs to")
        reader = _reader("zarr", path, name, said or own, axes)
        if len(channel_names) != (reader.shape[2] if len(reader.shape) == 3 else 1):
            channel_names = ()  # it is not known which is whose
        return replace(reader, newest=chunks.newest, opened=chunks.opened, channel_names=channel_names)


def open_hdf5(path: str, name: str, axes: Sequence[str] | None = None) -> ArrayReader:
    """Open a data set of an HDF5 file; needs h5py.

    Raises
    ------
    BadImageError
        The file has no data set of this name, or its axes are not those of a stack.
    """
    with naming_the_file(path):
        with open_data_set(path, name) as data_set:
            axis_names = axis_names_of(data_set)
        return _reader("hdf5", path, name, axis_names, axes)


def open_npy(path: str, axes: Sequence[str] | None = None) -> ArrayReader:
    """Open a NumPy file.

    Raises
    ------
    BadImageError
        It is damaged, or its axes are not those of a stack.
    """
    with naming_the_file(path):
        return _reader("npy", path, "", None, axes)


def _reader(kind: str, path: str, name: str, own_names: Any, axes_given: Sequence[str] | None) -> ArrayReader:
    state = _state_of(kind, path, name)
    with _open_array(kind, path, name) as array:
        if array.dtype.kind not in "uif":
            raise ValueError(f"it is of dtype {array.dtype}; images are of whole or floating-point numbers")
        refuse_encoded(array, kind, path, name)
        axis_names = _names(array.shape, own_names, axes_given)
        n_counting, axes = order_of_axes(array.shape, axis_names)
        shape = tuple(array.shape[axis] for axis in axes)
        sizes, image_shape = shape[:n_counting], shape[n_counting:]
        if image_shape[2:] == (1,):  # one channel is grey, as in files
            image_shape = image_shape[:2]
        chunks = getattr(array, "chunks", None)
        _check_chunk_shape(chunks, array.shape, array.dtype)
        if 0 in image_shape:
            raise ValueError(f"its images are of shape {image_shape}, without a pixel")
        per_chunk = chunks[axes[n_counting - 1]] if chunks and n_counting else 1
        dtype = _native(array.dtype)
        letters = tuple(letter_of(axis_names[axis]) for axis in axes[:n_counting]) if axis_names else ()
        letters = letters if all(letters) else ()
        parts = tuple(chunks[axis] for axis in axes[n_counting:][: len(image_shape)]) if chunks else ()
        parts = () if all(part >= size for part, size in zip(parts, image_shape, strict=False)) else parts
        found = ArrayReader(kind, path, name, axes, sizes, image_shape, dtype, per_chunk, state, letters)
        return replace(found, pixel_chunks=parts)


def _names(
    shape: tuple[int, ...], own: Sequence[str | None] | None, given: Sequence[str] | None
) -> Sequence[str | None] | None:
    """Return the names of the axes: those of the array, or those that the user gives where it has none."""
    if given is None:
        return own
    if own and any(letter_of(name) for name in own) and order_of_axes(shape, own) != order_of_axes(shape, given):
        raise ValueError(f"its axes are named {tuple(own)}, and axes={''.join(given)!r} says otherwise")
    return given


def refuse_encoded(array: Any, kind: str, path: str, name: str) -> None:
    """Refuse numbers that stand for others by attributes of netCDF: xarray decodes them, and they are not read here."""
    said = dict(getattr(array, "attrs", {}))
    if "_ARRAY_DIMENSIONS" in said and array.fill_value:  # where xarray keeps it in zarr of format 2
        said.setdefault("_FillValue", array.fill_value)
    found = [f"{key}={said[key]}" for key in _ENCODINGS if key in said and not _changes_nothing(key, said[key])]
    if not found:
        return
    group, own = os.path.split(os.path.join("/", name) if kind == "hdf5" else os.path.join(path, name).rstrip("/"))
    lines = {
        "zarr": (f"xarray.open_zarr({group!r})[{own!r}]", f"dask.array.from_zarr({os.path.join(group, own)!r})"),
        "hdf5": (
            f"xarray.open_dataset({path!r}, group={group!r}, engine='h5netcdf', chunks={{}})[{own!r}]",
            f"h5py.File({path!r})[{name!r}]",
        ),
    }
    decoded, stored = lines[kind]
    raise ValueError(
        f"its numbers stand for others, by its attributes {', '.join(found)}, which are not applied here. Give an "
        f"estimator {decoded}, where xarray wrote it; or {stored}, the numbers as they are stored"
    )


def _changes_nothing(key: str, value: Any) -> bool:
    value = np.ravel(value)[0]
    if key in ("scale_factor", "add_offset"):
        return bool(value == (key == "scale_factor"))
    if isinstance(value, str):  # xarray writes NaN so in zarr of format 3
        value = np.frombuffer(base64.b64decode(value).ljust(8, b"\0"), "<f8")[0]
    return bool(value != value)


def _check_chunk_shape(chunks: tuple[int, ...] | None, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse chunks that lie mostly outside of the array: they are decoded whole, however large they claim to be."""
    n_bytes = math.prod(chunks or ()) * dtype.itemsize
    n_inside = math.prod(map(min, chunks or (), shape)) * dtype.itemsize
    if n_bytes > max(_LARGE_CHUNK, 4 * n_inside):
        raise ValueError(
            f"its chunks of {chunks} reach far beyond its shape {shape}, and each takes {n_bytes:,} bytes to read. "
            "Write it anew with chunks of at most its shape"
        )


@contextlib.contextmanager
def _open_array(kind: str, path: str, name: str) -> Iterator[Any]:
    """Open an array while the block runs; whatever fails inside the block names the file."""
    with naming_the_file(path):
        if kind == "zarr":
            yield zarr.open_array(os.path.join(path, name), mode="r")
        elif kind == "npy":
            yield open_mapped(path)
        else:
            with open_data_set(path, name) as array:
                yield array


def _native(dtype: np.dtype) -> np.dtype:
    """Return a dtype in the byte order of the machine, in which estimators compute."""
    return np.dtype(dtype).newbyteorder("=")


def _state_of(kind: str, path: str, name: str) -> str:
    """Return what differs once an array is written anew; of zarr arrays, chunks are compared by their own times."""
    return state_of_zarr(os.path.join(path, name)) if kind == "zarr" else str(state_of_file(path))
