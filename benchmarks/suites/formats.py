"""How fast is each format read, beside a bare loop over its library?

Ratios of one run, so that a regression shows. Both read the same files by one thread and keep a pixel of each image, as
passes keep little. One array of all images would be made by Dask, which copies them once more. Formats of folders are a
file an image; films and arrays hold all of them. Those whose package is not installed are left out.
"""

import importlib
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import dask
import numpy as np
import tifffile
from PIL import Image, ImageSequence, features

from benchmarks.lib.measure import seconds_of
from benchmarks.lib.suite import LARGE, Suite, unit
from imgstack_ml import open_stack
from imgstack_ml.datasets import cell_image

N_IMAGES, SIZE = (120, 512) if LARGE else (12, 32)
FOLDERS = ["jpg", "png", "tif", "gif", "webp", "bmp", "jp2", *{"avif"}.intersection(features.get_supported())]
FILMS = ["film.gif", "film.webp", "film.apng", "pages.tif", "film.ome.tif", *["film.mp4"] * bool(find_spec("av"))]
ARRAYS = ["stack.npy", *["stack.h5"] * bool(find_spec("h5py"))]


def write_formats() -> None:
    """Write the same images in every format into the current folder."""
    pictures = [Image.fromarray(cell_image(i, SIZE)) for i in range(N_IMAGES)]
    for name in FOLDERS:
        os.mkdir(name)
        for i, picture in enumerate(pictures):
            picture.save(f"{name}/{i:03d}.{name}")
    first, *others = pictures
    for name in FILMS[:3]:
        kind = {"apng": "PNG"}.get(name.partition(".")[2])
        first.save(name, kind, save_all=True, append_images=others)
    pixels = np.stack(pictures)
    tifffile.imwrite("pages.tif", pixels, photometric="rgb", metadata=None)
    tifffile.imwrite("film.ome.tif", pixels[..., 0], photometric="minisblack", metadata={"axes": "TYX"})
    np.save("stack.npy", pixels)
    if "stack.h5" in ARRAYS:
        with importlib.import_module("h5py").File("stack.h5", "w") as file:
            file["images"] = pixels
    if "film.mp4" in FILMS:
        write_video("film.mp4", pixels)


def write_video(name: str, pixels: np.ndarray) -> None:
    """Write images as a film in H.264, with a keyframe each 12 images."""
    av = importlib.import_module("av")
    with av.open(name, "w") as film:
        stream = film.add_stream("libx264", rate=25, options={"g": "12"})
        stream.height, stream.width, stream.pix_fmt = *pixels.shape[1:3], "yuv420p"
        for image in pixels:
            film.mux(stream.encode(av.VideoFrame.from_ndarray(image)))
        film.mux(stream.encode())


def read_bare(name: str) -> np.ndarray:
    """Read all images of a format by a bare loop over its library; keep the first pixel of each."""
    if name == "stack.npy":
        return np.load(name)[:, 0, 0].copy()
    if name == "stack.h5":
        with importlib.import_module("h5py").File(name) as file:
            return file["images"][:][:, 0, 0].copy()
    return np.stack([image[0, 0].copy() for image in _images(name)])


def _images(name: str) -> Iterator[np.ndarray]:
    for path in sorted(Path(name).iterdir()) if os.path.isdir(name) else [name]:
        if name.endswith("tif"):
            with tifffile.TiffFile(path) as tiff:
                yield from (page.asarray() for page in tiff.pages)
        elif name.endswith("mp4"):
            with importlib.import_module("av").open(path) as film:
                film.streams.video[0].codec_context.thread_count = 1  # FFmpeg's own threads, which blocks do not have
                yield from (frame.to_ndarray(format="rgb24") for frame in film.decode(video=0))
        else:
            with Image.open(path) as picture:
                yield from map(_shown, ImageSequence.Iterator(picture))


def _shown(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.convert("RGB") if picture.mode == "P" else picture)


class Formats(Suite):
    params = ([*FOLDERS, *FILMS, *ARRAYS],)
    param_names = ("format",)

    def setup_cache(self) -> None:
        write_formats()

    def time_open(self, name):
        open_stack(name)

    def time_read(self, name):
        self._read(name)

    @unit("of a bare loop")
    def track_time(self, name):
        bare, own = [], []
        for _ in range(5 if LARGE else 1):
            bare.append(seconds_of(lambda: read_bare(name)))
            own.append(seconds_of(lambda: self._read(name)))
        return min(own) / min(bare)

    def _read(self, name: str) -> np.ndarray:
        with dask.config.set(scheduler="synchronous", num_workers=1):
            return open_stack(name).data[:, 0, 0].compute()
