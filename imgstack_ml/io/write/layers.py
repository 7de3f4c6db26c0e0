"""Whole images from chunks that hold parts of many images, by way of files: each chunk is read once, in little memory.

Dask would hold all chunks of as many images as a chunk has: 262 MB of 512 x 512 pixels in chunks of (500, 64, 64).
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import dask.array as da
import numpy as np

from ...passes.progress import ImageBar
from .waves import Region, regions_of, run_on_blocks

__all__ = ["layer_bytes", "run_on_whole_images"]

_FOLDER = "layers"


@dataclass(frozen=True)
class _Layers:
    """Pixels in files of a folder, of which `dask.array.from_array` makes an array of whole images.

    A layer is as many images as a chunk has parts of, and a file. There each chunk has a place, of the size of the
    largest one, and in it the parts of its images one after the other.

    Attributes
    ----------
    folder : str
    shape : tuple of int
        Of the stack.
    dtype : dtype
    sizes : tuple of int
        Shape of the largest chunk.
    """

    folder: str
    shape: tuple[int, ...]
    dtype: np.dtype
    sizes: tuple[int, ...]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __getitem__(self, region: Region) -> np.ndarray:
        """Read images, whatever layers they are in."""
        first, stop, height = region[0].start, region[0].stop, self.sizes[0]
        images = np.empty((stop - first, *self.shape[1:]), self.dtype)
        for start in range(first // height * height, stop, height):
            a, b = max(first, start), min(stop, start + height)
            with open(self.path(start), "rb") as file:
                for part in regions_of(self.shape[1:], self.sizes[1:]):
                    shape = tuple(axis.stop - axis.start for axis in part)
                    file.seek(self.place(part) + (a - start) * math.prod(shape) * self.dtype.itemsize)
                    values = np.fromfile(file, self.dtype, (b - a) * math.prod(shape))
                    images[(slice(a - first, b - first), *part)] = values.reshape(b - a, *shape)
        return images

    def path(self, start: int) -> str:
        """Return the file of the layer that begins with an image."""
        return os.path.join(self.folder, str(start))

    def place(self, part: Region) -> int:
        """Return where the chunk of some pixels begins in the file of its layer."""
        index = 0
        for axis, length, size in zip(part, self.shape[1:], self.sizes[1:], strict=True):
            index = index * math.ceil(length / size) + axis.start // size
        return index * math.prod(self.sizes) * self.dtype.itemsize


def layer_bytes(data: da.Array) -> int:
    """Bytes of as many whole images as a chunk has parts of."""
    return int(max(data.chunks[0]) * math.prod(data.shape[1:]) * data.dtype.itemsize)


def run_on_whole_images(
    write: Callable[[np.ndarray, Region], None],
    data: da.Array,
    sizes: tuple[int, ...],
    regions: Sequence[Region],
    bar: ImageBar,
    folder: str,
) -> None:
    """Call ``write(block, region)`` for blocks of whole images of a stack whose chunks hold parts of them.

    Arguments are those of `run_on_blocks`. Each chunk that is needed is read once. `folder` holds two layers at most,
    if blocks are no larger, and none in the end, nor those that a killed call left.
    """
    within = os.path.join(folder, _FOLDER)
    layers = _Layers(within, data.shape, data.dtype, tuple(max(1, *axis) for axis in data.chunks))
    shape, meta = (sizes[0], *data.shape[1:]), np.empty((0,) * data.ndim, data.dtype)
    images = da.from_array(layers, shape, name=False, meta=meta)
    shutil.rmtree(within, ignore_errors=True)
    os.mkdir(within)
    try:
        left, stored = list(regions), list[int]()
        for start in range(0, len(data), layers.sizes[0]):
            stop = start + layers.sizes[0]
            if left and left[0][0].start < stop:
                _store(layers, data, start)
                stored.append(start)
            due = [region for region in left if region[0].stop <= stop]
            run_on_blocks(write, images, sizes, due, _region, bar)
            left = left[len(due) :]
            while stored and (not left or stored[0] + layers.sizes[0] <= left[0][0].start):
                os.remove(layers.path(stored.pop(0)))
    finally:
        shutil.rmtree(within, ignore_errors=True)


def _store(layers: _Layers, data: da.Array, start: int) -> None:
    """Write the chunks of a layer into its file."""
    with open(layers.path(start), "wb"):
        pass
    rows = slice(start, min(start + layers.sizes[0], len(data)))
    chunks = ((rows, *part) for part in regions_of(data.shape[1:], layers.sizes[1:]))
    with ImageBar(1, disable=True) as silent:
        run_on_blocks(partial(_put, layers, start), data, layers.sizes, chunks, _region, silent)


def _put(layers: _Layers, start: int, chunk: np.ndarray, region: Region) -> None:
    with open(layers.path(start), "r+b") as file:
        file.seek(layers.place(region[1:]))
        file.write(np.ascontiguousarray(chunk, layers.dtype).data)


def _region(region: Region) -> tuple[Region]:
    return (region,)
