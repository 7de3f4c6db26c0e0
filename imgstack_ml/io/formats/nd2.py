"""ND2 of Nikon's microscopes, read by the package nd2 (the extra ``microscopy``). Untested: no such file is at hand."""

import math
from typing import NoReturn

import numpy as np

from .advice import import_package
from .base import ImageFormat, ImageSeries, OpenFile

__all__ = ["Nd2"]


class Nd2(ImageFormat):
    """ND2: channels are the last axis; time, position, z and all others count images."""

    name, suffixes = "ND2", (".nd2",)
    beside_pictures = False

    def __init__(self, source: OpenFile):
        super().__init__(source)
        nd2 = import_package("nd2", "nd2")
        self._path = source.as_path()  # the package takes no file that is neither local nor fsspec's
        self._nd2 = nd2.ND2File(self._path.__enter__())
        # The package gives zeros for frames that were never written, as where a run was stopped.
        self._nd2._rdr._missing_frame = _refuse

    @classmethod
    def recognise(cls, head: bytes) -> bool:
        """Tell whether a file begins like ND2, as it is written today."""
        return head.startswith(b"\xda\xce\xbe\x0a")

    def list_images(self) -> list[ImageSeries]:
        """List the images, in the order in which they were taken."""
        sizes = dict(self._nd2.sizes)
        channels = [sizes[axis] for axis in "CS" if sizes.get(axis, 1) > 1]
        if len(channels) > 1:
            raise ValueError(f"its images have {channels[0]} channels of {channels[1]} samples each")
        counting = {axis.lower(): size for axis, size in sizes.items() if axis not in "YXCS"}
        names = tuple(channel.channel.name for channel in getattr(self._nd2.metadata, "channels", None) or ())
        return [
            ImageSeries(
                (sizes["Y"], sizes["X"], *channels),
                np.dtype(self._nd2.dtype),
                range(math.prod(counting.values())),
                "",
                "".join(counting),
                tuple(counting.values()),
                names if len(names) == math.prod(channels) else (),
            )
        ]

    def read(self, key: int, out: np.ndarray) -> None:
        """Read an image."""
        pixels = self._nd2.read_frame(key)
        channels_first = self._nd2.sizes.get("C", 1) > 1
        out[...] = np.moveaxis(pixels, 0, -1) if channels_first else pixels

    def close(self) -> None:
        """Close the reader."""
        self._nd2.close()
        self._path.__exit__(None, None, None)


def _refuse(index: int = 0) -> NoReturn:
    raise ValueError(f"its frame {index} was never written")
