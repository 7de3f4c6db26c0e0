"""Stacks that are one array in a file of others: zarr and OME-Zarr, HDF5 data sets, NumPy files.

The array is opened in the task that reads it, so that a stack holds no handle and a task carries a path.
OME-Zarr is zarr with a word about its axes, which is read here: the libraries for it bring web servers and clients
for object stores along, to say the same.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import zarr

from ..locations.faults import naming_the_file
from ..locations.open import read_state
from .rows import read_rows

__all__ = ["ArrayReader", "open_hdf5", "open_npy", "open_zarr", "split_hdf5"]

_LARGE_CHUNK = 2**28  # bytes
HDF5_SUFFIXES = (".h5", ".hdf5", ".hdf")


class _Axes(NamedTuple):
    """What the axes of an array stand for: positions of those that count images, of y, x and of the channels."""

    images: tuple[int, ...]
    y: int
    x: int
    channels: int | None


@dataclass(frozen=True)
class ArrayReader:
    """Read blocks of images from one array on disk.

    Parameters
    ----------
    kind : {"zarr", "hdf5", "npy"}
    path : str
    name : str
        Name of the array within, empty where there is only one.
    axes : tuple
        Which axes count images, and which are y, x and channels.
    sizes : tuple of int
        Sizes of the axes that count images.
    shape : tuple of int
        Shape of an image.
    dtype : numpy.dtype
    images_per_chunk : int
        Images that are stored, and so read, together.
    fingerprint : str
        Differs when the array was written anew.
    """

    kind: str
    path: str
    name: str
    axes: _Axes
    sizes: tuple[int, ...]
    shape: tuple[int, ...]
    dtype: np.dtype
    images_per_chunk: int
    fingerprint: str

    @property
    def label(self) -> str:
        """Path and name in one, as a source is given."""
        return f"{self.path}::{self.name}" if self.kind == "hdf5" else os.path.join(self.path, self.name).rstrip("/")

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Read the images at `rows` into one block."""
        with _opened(self.kind, self.path, self.name) as array:
            if (_native(array.dtype), self._image_sizes(array)) != (self.dtype, self.sizes):
                raise ValueError("it has changed since the stack was opened; open the stack again")
            line = self.sizes[-1] if self.sizes else 1

            def fetch(first: int, stop: int) -> np.ndarray:
                return self._fetch(array, first, stop)

            return read_rows(fetch, rows, self.shape, self.dtype, images_per_chunk=self.images_per_chunk, line=line)

    def _image_sizes(self, array: Any) -> tuple[int, ...]:
        return tuple(array.shape[axis] for axis in self.axes.images)

    def _fetch(self, array: Any, first: int, stop: int) -> np.ndarray:
        """Read neighbours along the last axis that counts images."""
        place: list[Any] = [slice(None)] * array.ndim
        axes = self.axes
        if axes.images:
            for axis, index in zip(axes.images, np.unravel_index(first, self.sizes), strict=True):
                place[axis] = slice(int(index), int(index) + 1)
            start = place[axes.images[-1]].start
            place[axes.images[-1]] = slice(start, start + stop - first)
        # A copy where the array is mapped into memory: its file is read here, not wherever the block is used.
        images = np.array(array[tuple(place)], self.dtype, copy=True if self.kind == "npy" else None)
        order = [*axes.images, axes.y, axes.x, *([] if axes.channels is None else [axes.channels])]
        return images.transpose(order).reshape(stop - first, *self.shape)


def open_zarr(path: str) -> ArrayReader:
    """Open a zarr array of images, or the full-resolution image of an OME-Zarr group.

    Raises
    ------
    BadImageError
        It is neither, or it is not clear which axes count images.
    """
    with naming_the_file(path):
        node = zarr.open(path, mode="r")
        name, axes = ("", getattr(node.metadata, "dimension_names", None))
        if isinstance(node, zarr.Group):
            name, axes = _ome_image(node, path)
        return _reader("zarr", path, name, axes, _zarr_state(os.path.join(path, name)))


def open_hdf5(path: str, name: str) -> ArrayReader:
    """Open a data set of an HDF5 file; needs h5py.

    Raises
    ------
    BadImageError
        There is none of this name, or its axes are not those of a stack.
    """
    with naming_the_file(path):
        return _reader("hdf5", path, name, None, str(read_state(path)))


def open_npy(path: str) -> ArrayReader:
    """Open a NumPy file, which is mapped into memory to be read.

    Raises
    ------
    BadImageError
        It is damaged, or its axes are not those of a stack.
    """
    with naming_the_file(path):
        return _reader("npy", path, "", None, str(read_state(path)))


def split_hdf5(source: str) -> tuple[str, str] | None:
    """Split ``file.h5::name``; None where a source is no HDF5 file, and an empty name where none is given."""
    path, _, name = source.partition("::")
    return (path, name) if path.lower().endswith(HDF5_SUFFIXES) and os.path.isfile(path) else None


def _reader(kind: str, path: str, name: str, named_axes: Any, state: str) -> ArrayReader:
    with _opened(kind, path, name) as array:
        if array.dtype.kind not in "uif":
            raise ValueError(f"it is of dtype {array.dtype}; images are of whole or floating-point numbers")
        axes = _axes(array.shape, named_axes)
        channels = () if axes.channels is None else (array.shape[axes.channels],)
        if channels == (1,):  # as a file of one channel is grey
            channels = ()
        shape = (array.shape[axes.y], array.shape[axes.x], *channels)
        sizes = tuple(array.shape[axis] for axis in axes.images)
        chunks = getattr(array, "chunks", None)
        _check_chunks(chunks, array.shape, array.dtype)
        per_chunk = chunks[axes.images[-1]] if chunks and axes.images else 1
        if 0 in shape:
            raise ValueError(f"its images are of shape {shape}, without a pixel")
        return ArrayReader(kind, path, name, axes, sizes, shape, _native(array.dtype), per_chunk, state)


def _check_chunks(chunks: tuple[int, ...] | None, shape: tuple[int, ...], dtype: np.dtype) -> None:
    """Refuse chunks that are mostly outside of the array: they are decoded whole, however large they claim to be."""
    n_bytes = math.prod(chunks or ()) * dtype.itemsize
    n_inside = math.prod(map(min, chunks or (), shape)) * dtype.itemsize
    if n_bytes > max(_LARGE_CHUNK, 4 * n_inside):
        raise ValueError(
            f"its chunks of {chunks} reach far beyond its shape {shape}, and each takes {n_bytes:,} bytes to read. "
            "Write it anew with chunks of at most its shape"
        )


@contextlib.contextmanager
def _opened(kind: str, path: str, name: str) -> Iterator[Any]:
    with naming_the_file(path):
        if kind == "zarr":
            yield zarr.open_array(os.path.join(path, name), mode="r")
        elif kind == "npy":
            _check_npy(path)
            with np.errstate(over="raise"):  # of a size that no file has
                array = np.lib.format.open_memmap(path, mode="r")  # refuses Python objects
            yield array
        else:
            with _hdf5_file(path) as file:
                yield _data_set(file, path, name)


def _check_npy(path: str) -> None:
    """Refuse a header that claims more bytes than there are: NumPy would make room for them."""
    with open(path, "rb") as file:
        head = file.read(12)
    if head[6:7] > b"\1" and int.from_bytes(head[8:], "little") > os.path.getsize(path):
        raise ValueError("its header does not fit into the file: it is damaged")


def _hdf5_file(path: str) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise ImportError("HDF5 files need the package h5py: pip install 'imgstack_ml[hdf5]'") from error
    return h5py.File(path, "r")


def _data_set(file: Any, path: str, name: str) -> Any:
    import h5py

    found = file.get(name) if name else None
    if isinstance(found, h5py.Dataset):
        return found
    names: list[str] = []
    file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
    said = f"it holds no data set {name!r}" if name else "it is not said which of its data sets is meant"
    example = f"open_stack({f'{path}::{names[0]}'!r})" if names else "there is none"
    raise ValueError(f"{said}; it has {', '.join(map(repr, names[:5])) or 'no data set'}. Give one: {example}")


def _native(dtype: np.dtype) -> np.dtype:
    """Return a dtype in the byte order of the machine, which is what estimators compute with."""
    return np.dtype(dtype).newbyteorder("=")


def _axes(shape: tuple[int, ...], names: Any) -> _Axes:
    """Tell the axes by their names, or else by their number: (n, y, x) or (n, y, x, c)."""
    if names and all(isinstance(name, str) for name in names) and {"y", "x"} <= {name.lower() for name in names}:
        letters = [name.lower() for name in names]
        channels = next((i for i, name in enumerate(letters) if name in ("c", "channel")), None)
        y, x = letters.index("y"), letters.index("x")
        return _Axes(tuple(i for i in range(len(letters)) if i not in (y, x, channels)), y, x, channels)
    if len(shape) not in (3, 4):
        raise ValueError(
            f"it is of shape {shape}; a stack is of shape (n_images, height, width) or (n_images, height, width, "
            "n_channels). Reshape it first"
        )
    return _Axes((0,), 1, 2, 3 if len(shape) == 4 else None)


def _ome_image(group: zarr.Group, path: str) -> tuple[str, list[str]]:
    """Find the image of full resolution, and its axes; versions 0.1 to 0.5 of OME-Zarr say it in four ways."""
    attributes: dict[str, Any] = dict(group.attrs)
    described: Any = attributes.get("ome", attributes)
    images = described.get("multiscales") if isinstance(described, dict) else None
    if not images:
        names = sorted(name for name, _ in group.members())
        example = f"open_stack({os.path.join(path, names[0])!r})" if names else "none"
        raise ValueError(f"it is a zarr group without an OME-Zarr image; it holds {names[:5]}. Give one: {example}")
    axes = images[0].get("axes") or ["t", "c", "z", "y", "x"]
    return images[0]["datasets"][0]["path"], [axis if isinstance(axis, str) else axis["name"] for axis in axes]


def _zarr_state(path: str) -> str:
    names = [os.path.join(path, name) for name in ("zarr.json", ".zarray")]
    states = [os.stat(name) for name in [*names, path] if os.path.exists(name)]
    return str([(state.st_size, state.st_mtime_ns) for state in states])


def n_images(reader: ArrayReader) -> int:
    """Count the images of an array."""
    return math.prod(reader.sizes)
