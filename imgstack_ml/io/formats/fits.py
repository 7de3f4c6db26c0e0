"""FITS, read by astropy (the extra ``astro``)."""

import math
from typing import BinaryIO, cast

import numpy as np

from ..locations.base import Bounded
from .advice import import_package
from .base import ImageFormat, ImageSeries, OpenFile, check_size

__all__ = ["Fits"]


class Fits(ImageFormat):
    """FITS: the first image extension, and all that have its name, shape and dtype.

    Values are those after BSCALE and BZERO, of the dtype that astropy gives them; BLANK is NaN. Rows are in the
    order of the file; viewers show the first one lowest. Axes beyond two count images, in NumPy's order.
    """

    name, suffixes = "FITS", (".fits", ".fit", ".fts")

    def __init__(self, source: OpenFile):
        super().__init__(source)
        fits = import_package("astropy.io.fits", "fits")
        self._compressed = fits.CompImageHDU
        self._units = fits.open(cast(BinaryIO, Bounded(source.file, source.n_bytes)), memmap=False)
        images = [(n, unit) for n, unit in enumerate(self._units) if unit.is_image and len(unit.shape) > 1]
        self._images = [(n, unit) for n, unit in images if 0 not in unit.shape]
        if not self._images:
            raise ValueError("it holds no image of two axes or more")

    @classmethod
    def recognise(cls, head: bytes) -> bool:
        """Tell whether a file begins like FITS."""
        return head.startswith(b"SIMPLE  =")

    def list_images(self) -> list[ImageSeries]:
        """List the images of the extensions."""
        keys, kinds = [], []
        for n, unit in self._images:
            check_size(*unit.shape[-2:], max_pixels=self.source.max_pixels)
            end = unit.fileinfo()["datLoc"] + unit.size
            if end > self.source.n_bytes and not isinstance(unit, self._compressed):
                raise ValueError(f"its pixels end at byte {end:,}, and it has {self.source.n_bytes:,}: it was cut")
            # One pixel tells the dtype that scaling gives.
            dtype = unit.section[(slice(0, 1),) * len(unit.shape)].dtype.newbyteorder("=")
            kinds.append((unit.shape, dtype, unit.name))
            if kinds[-1][:2] == kinds[0][:2] and unit.name in (kinds[0][2], ""):
                keys += [(n, i) for i in range(math.prod(unit.shape[:-2]))]
        shape, dtype, _ = kinds[0]
        return [ImageSeries(shape[-2:], dtype, keys)]

    def read(self, key: tuple[int, int], out: np.ndarray) -> None:
        """Read an image."""
        unit = self._units[key[0]]
        place = np.unravel_index(key[1], unit.shape[:-2]) if len(unit.shape) > 2 else ()
        pixels = unit.section[(*map(int, place), slice(None), slice(None))]
        if pixels.shape != out.shape or pixels.dtype.newbyteorder("=") != out.dtype:
            raise ValueError(f"astropy reads {pixels.shape}, {pixels.dtype} where {out.shape}, {out.dtype} was listed")
        out[...] = pixels

    def close(self) -> None:
        """Let go of the headers."""
        self._units.close()
