"""LIF of Leica's microscopes, read by liffile (the extra ``microscopy``). Untested: no such file is at hand."""

import itertools
from typing import Any, BinaryIO, cast

import numpy as np

from ..locations.base import Bounded
from .advice import import_package
from .base import ImageFormat, ImageSeries, OpenFile, channels_of

__all__ = ["Lif"]


class Lif(ImageFormat):
    """LIF: channels are the last axis; time, z, mosaic tiles and all others count images."""

    name, suffixes = "LIF", (".lif",)
    beside_pictures = False

    def __init__(self, source: OpenFile):
        super().__init__(source)
        liffile = import_package("liffile", "lif")
        self._lif = liffile.LifFile(cast(BinaryIO, Bounded(source.file, source.n_bytes)), squeeze=True)

    @classmethod
    def recognise(cls, head: bytes) -> bool:
        """Tell whether a file begins like LIF."""
        return head[:4] == b"p\0\0\0" and head[8:9] == b"*"

    def list_images(self) -> list[ImageSeries]:
        """List the images of all series."""
        return [self._series(number, image) for number, image in enumerate(self._lif.images)]

    def _series(self, number: int, image: Any) -> ImageSeries:
        sizes = dict(image.sizes)
        channels = [sizes[axis] for axis in "CS" if sizes.get(axis, 1) > 1]
        if len(channels) > 1 or not {"Y", "X"} <= sizes.keys():
            raise ValueError(f"its series {image.name!r} has the axes {sizes}: it is not clear what its images are")
        counting = {axis: size for axis, size in sizes.items() if axis not in "YXCS"}
        keys = [(number, *place) for place in itertools.product(*map(range, counting.values()))]
        names = "".join(counting).replace("M", "p").lower()
        shape, dtype = (sizes["Y"], sizes["X"], *channels), np.dtype(image.dtype)
        mode = channels_of(shape, dtype) if sizes.get("C", 1) > 1 else ""
        return ImageSeries(shape, dtype, keys, mode, names, tuple(counting.values()))

    def read(self, key: tuple[int, ...], out: np.ndarray) -> None:
        """Read an image."""
        image = self._lif.images[key[0]]
        counting = [axis for axis in image.sizes if axis not in "YXCS"]
        place = dict(zip(counting, key[1:], strict=True))
        if image.sizes.get("C", 1) > 1:
            for channel in range(out.shape[-1]):
                out[..., channel] = image.frame(**place, C=channel)
        else:
            out[...] = image.frame(**place)

    def close(self) -> None:
        """Close the reader."""
        self._lif.close()
