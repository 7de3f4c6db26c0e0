"""How fast does open_stack open a folder and decode all of it, by format and block size?

The reference is `dask.array.image.imread`, whose blocks are single images. Files are in the operating system's cache.
Benchmarks that read compute one pixel of each image: each file is decoded, and no large result is assembled.
"""

import os
from collections.abc import Callable

import dask.array as da
from dask.array.image import imread
from PIL import Image

from benchmarks.lib.measure import seconds_of
from benchmarks.lib.suite import LARGE, Suite, unit
from imgstack_ml import open_stack
from imgstack_ml.datasets import cell_image

FORMATS = ["jpeg", "png", "tiff"]
N_IMAGES, SIZE = (844, 256) if LARGE else (96, 64)


class _Reading(Suite):
    open: Callable[[], da.Array]

    def setup_cache(self) -> None:
        for name in FORMATS:
            os.mkdir(name)
        for index in range(N_IMAGES):
            image = Image.fromarray(cell_image(index, SIZE))
            for name in FORMATS:
                image.save(f"{name}/{index:04d}.{name}")

    def time_open(self, *params):
        self.open()

    def time_read(self, *params):
        _decode_all(self.open())

    @unit("images/s")
    def track_images_per_second(self, *params):
        data = self.open()
        return N_IMAGES / seconds_of(lambda: _decode_all(data))

    @unit("MB of pixels/s")
    def track_megabytes_per_second(self, *params):
        data = self.open()
        return data.nbytes / 1e6 / seconds_of(lambda: _decode_all(data))

    def peakmem_read(self, *params):
        _decode_all(self.open())


class OpenStack(_Reading):
    params = (FORMATS, ["auto", 1, 16])
    param_names = ("format", "images_per_block")

    def setup(self, name, images_per_block):
        super().setup()
        self.open = lambda: open_stack(name, chunks=images_per_block).data


class DaskImread(_Reading):
    params = (FORMATS,)
    param_names = ("format",)

    def setup(self, name):
        super().setup()
        self.open = lambda: imread(f"{name}/*.{name}")


def _decode_all(data: da.Array) -> None:
    data[:, 0, 0].compute()
