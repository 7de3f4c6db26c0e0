"""CZI of Zeiss' microscopes, read by czifile (the extra ``microscopy``). Untested: no such file is at hand."""

import itertools
from typing import Any, BinaryIO, cast

import numpy as np

from ..locations.base import Bounded
from .advice import import_package
from .base import ImageFormat, ImageSeries, OpenFile, channels_of, check_size

__all__ = ["Czi"]

_LETTERS = {"S": "s", "T": "t", "Z": "z", "M": "p"}


class Czi(ImageFormat):
    """CZI: channels are the last axis; scene, time, z and others count images; tiles are put together."""

    name, suffixes = "CZI", (".czi",)
    beside_pictures = False

    def __init__(self, source: OpenFile):
        super().__init__(source)
        czifile = import_package("czifile", "czi")
        self._czi = czifile.CziFile(cast(BinaryIO, Bounded(source.file, source.n_bytes)), filesize=source.n_bytes)
        # Axes and shape of the whole: X, Y, C and others, and 0 for the samples of a pixel.
        self._sizes = dict(zip(self._czi.axes, self._czi.shape, strict=True))
        self._start = dict(zip(self._czi.axes, self._czi.start, strict=True))
        self._counting = [axis for axis in self._sizes if axis not in "YXC0"]

    @classmethod
    def recognise(cls, head: bytes) -> bool:
        """Tell whether a file begins like CZI."""
        return head.startswith(b"ZISRAWFILE")

    def list_images(self) -> list[ImageSeries]:
        """List the images."""
        sizes = self._sizes
        channels = [sizes[axis] for axis in "C0" if sizes.get(axis, 1) > 1]
        if len(channels) > 1:
            raise ValueError(f"its images have {channels[0]} channels of {channels[1]} samples each")
        check_size(sizes["Y"], sizes["X"], max_pixels=self.source.max_pixels)
        counts = tuple(sizes[axis] for axis in self._counting)
        keys = list(itertools.product(*map(range, counts)))
        letters = "".join(_LETTERS.get(axis, axis.lower()) for axis in self._counting)
        shape, dtype = (sizes["Y"], sizes["X"], *channels), np.dtype(self._czi.dtype)
        mode = channels_of(shape, dtype) if sizes.get("C", 1) > 1 else ""
        return [ImageSeries(shape, dtype, keys, mode, letters, counts)]

    def read(self, key: tuple[int, ...], out: np.ndarray) -> None:
        """Read an image from its tiles; each of its pixels must be in one."""
        is_read = np.zeros(out.shape, bool)
        whole = out.reshape(*out.shape[:2], -1)
        for entry in self._czi.filtered_subblock_directory:
            place = {axis: at - self._start[axis] for axis, at in zip(entry.axes, entry.start, strict=True)}
            if tuple(place[axis] for axis in self._counting) != key:
                continue
            tile = self._tile(entry)
            y, x, c = place["Y"], place["X"], place.get("C", 0)
            region = (slice(y, y + tile.shape[0]), slice(x, x + tile.shape[1]), slice(c, c + tile.shape[2]))
            whole[region] = tile
            is_read.reshape(whole.shape)[region] = True
        if not is_read.all():
            raise ValueError(f"its image {key} lacks {1 - is_read.mean():.1%} of its pixels: they were not scanned")

    def _tile(self, entry: Any) -> np.ndarray:
        """Return the pixels of a tile as (height, width, n_samples)."""
        pixels = entry.data_segment().data()
        order = [entry.axes.index(axis) for axis in "YX"]
        rest = [axis for axis in range(pixels.ndim) if axis not in order]
        return pixels.transpose(*order, *rest).reshape(pixels.shape[order[0]], pixels.shape[order[1]], -1)

    def close(self) -> None:
        """Close the reader."""
        self._czi.close()
