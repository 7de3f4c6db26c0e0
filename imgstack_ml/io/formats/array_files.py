"""NumPy files and HDF5 files as files among others: in folders, lists, archives and at URLs.

An array of 2 axes is an image; of 3, images of one channel, (n, height, width); of 4, (n, height, width, n_channels).
"""

import math
import zipfile
from typing import Any, BinaryIO, cast

import numpy as np

from ...base.axes import axis_names_of, order_of_axes
from .advice import import_package
from .arrays import read_channels, refuse_encoded
from .base import Header, ImageFormat, ImageSeries, OpenFile, check_size
from .hdf5 import open_data_set
from .npy import read_npy_header

__all__ = ["Hdf5", "Npy"]


def _axes_of(shape: tuple[int, ...], names: Any, name: str) -> tuple[int, tuple[int, ...]]:
    """Tell how many axes of an array count images, and order the axes: these first, then y, x and channels."""
    if len(shape) == 2 and not names:
        return 0, (0, 1)
    channels = shape[0] if names and names[:2] == ("image", "x") else None if names else shape[-1]
    if len(shape) == 3 and channels is not None and channels <= 4:
        raise ValueError(
            f"it is of shape {shape}, images or one of {channels} channels. Give an estimator the "
            f"array: {name}[None] of one image, or {name}[..., None]"
        )
    return order_of_axes(shape, names)


class _Array(ImageFormat):
    """A file of one array of images; keys are their numbers."""

    beside_pictures = False
    _names: Any = None  # of the axes
    _line = "numpy.load(path)"

    def _set_array(self, shape: tuple[int, ...], dtype: np.dtype) -> None:
        if dtype.kind not in "uif":
            raise ValueError(f"it is of dtype {dtype}; images are of whole or floating-point numbers")
        self._shape, self._stored = shape, dtype
        n_counting, self._axes = _axes_of(shape, self._names, self._line)
        ordered = [shape[axis] for axis in self._axes]
        self._sizes, self._image_shape = tuple(ordered[:n_counting]), tuple(ordered[n_counting:])
        check_size(*self._image_shape, max_pixels=self.source.max_pixels)
        if math.prod(shape) == 0:
            raise ValueError(f"it is of shape {shape}, without an image")

    def list_images(self) -> list[ImageSeries]:
        """List the images of the array, without reading their pixels."""
        shape = self._image_shape[:2] if self._image_shape[2:] == (1,) else self._image_shape
        keys = range(math.prod(self._sizes)) if self._sizes else (None,)
        return [ImageSeries(shape, self._stored.newbyteorder("="), keys)]

    def key_of_channels(self, key: Any, channels: tuple[int, ...]) -> Any:
        """Return the number of the image with the channels."""
        return (key, channels)

    def header(self, key: Any) -> Header:
        """Return the header of an image, or of some channels of it."""
        if not isinstance(key, tuple):
            return super().header(key)
        _, channels = key
        shape = (*self._image_shape[:2], *([len(channels)] if len(channels) > 1 else []))
        return self.header_of(ImageSeries(shape, self._stored.newbyteorder("=")))


class Npy(_Array):
    """NumPy's files of one array: .npy, or .npz with a single one. Python objects are never read."""

    name, suffixes = "NumPy", (".npy", ".npz")

    def __init__(self, source: OpenFile):
        super().__init__(source)
        self._file, n_bytes = source.file, source.n_bytes
        if not source.head.startswith(b"\x93NUMPY"):
            self._file, n_bytes = self._only_member()
        shape, self._is_fortran, dtype = read_npy_header(self._file, n_bytes)
        self._start = self._file.tell()
        self._set_array(shape, dtype)
        if self._start + math.prod(shape) * dtype.itemsize > n_bytes:
            raise ValueError(f"its pixels end early: it has {n_bytes:,} bytes, and was cut")
        if self._is_fortran and len(shape) > 2:
            raise ValueError(
                "its images are not stored one after the other. Write it anew: "
                "numpy.save(new_path, numpy.ascontiguousarray(numpy.load(path)))"
            )

    @classmethod
    def recognise(cls, head: bytes) -> bool | None:
        """Tell whether a file begins like a .npy file; a .npz is a zip file, which the suffix tells."""
        return True if head.startswith(b"\x93NUMPY") else None if head.startswith(b"PK") else False

    def _only_member(self) -> tuple[BinaryIO, int]:
        self._archive = zipfile.ZipFile(self.source.file)
        members = [member for member in self._archive.infolist() if member.filename.endswith(".npy")]
        if len(members) != 1:
            names = ", ".join(repr(member.filename.removesuffix(".npy")) for member in members[:10]) or "none"
            raise ValueError(
                f"it holds {len(members)} arrays, and one is read: {names}. Give an estimator one of them: "
                "numpy.load(path)[name]"
            )
        return cast(BinaryIO, self._archive.open(members[0])), members[0].file_size

    def read(self, key: Any, out: np.ndarray) -> None:
        """Read an image."""
        number, channels = key if isinstance(key, tuple) else (key, None)
        n_bytes = math.prod(self._image_shape) * self._stored.itemsize
        self._file.seek(self._start + (number or 0) * n_bytes)
        content = self._file.read(n_bytes)
        if len(content) != n_bytes:
            raise ValueError("its pixels end early: it was cut")
        pixels = np.frombuffer(content, self._stored)
        if channels is not None:
            pixels = pixels.reshape(self._image_shape)[..., channels]
        out[...] = pixels.reshape(out.shape[::-1]).T if self._is_fortran else pixels.reshape(out.shape)


class Hdf5(_Array):
    """HDF5 and what is built on it (netCDF 4, MATLAB 7.3, Imaris) with a single data set of images; needs h5py."""

    name, suffixes = "HDF5", (".h5", ".hdf5", ".hdf", ".he5", ".nc", ".mat", ".ims")
    _line = "h5py.File(path)[name]"

    def __init__(self, source: OpenFile):
        super().__init__(source)
        import_package("h5py", "h5")
        self._open = open_data_set(source.name, "", source.file)
        self._data_set = self._open.__enter__()
        name = self._data_set.name.strip("/")
        refuse_encoded(self._data_set, "hdf5", source.name, name)
        names = axis_names_of(self._data_set)
        self._names = names if names and any(names) else None
        self._set_array(self._data_set.shape, self._data_set.dtype)

    @classmethod
    def recognise(cls, head: bytes) -> bool:
        """Tell whether a file begins like HDF5, or like MATLAB 7.3, which puts a text in front of it."""
        return b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:520])

    def read(self, key: Any, out: np.ndarray) -> None:
        """Read an image."""
        number, channels = key if isinstance(key, tuple) else (key, None)
        place: list[Any] = [slice(None)] * len(self._shape)
        for axis, index in zip(
            self._axes, np.unravel_index(number or 0, self._sizes) if self._sizes else (), strict=False
        ):
            place[axis] = slice(int(index), int(index) + 1)
        if channels is None:
            pixels = self._data_set[tuple(place)]
        else:
            pixels = read_channels(self._region, self._data_set, place, self._axes[-1], channels)
        out[...] = pixels.transpose(self._axes).reshape(out.shape)

    def _region(self, place: list[slice]) -> np.ndarray:
        return cast(np.ndarray, self._data_set[tuple(place)])

    def close(self) -> None:
        """Close the HDF5 file."""
        self._open.__exit__(None, None, None)
