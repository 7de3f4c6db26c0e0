"""From image files to pixels: one file to one array, a group of files to one block."""

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, ClassVar

import numpy as np
import tifffile
from PIL import ImageFile
from PIL.PngImagePlugin import PngImageFile

from .._errors import BadImageError
from .header import Header, OpenImage, naming_the_file, open_image, png_chunks

__all__ = ["FileReader", "FunctionReader", "decode", "read_group", "read_with"]

# Start and step of the columns and rows of Adam7's seven passes.
_ADAM7 = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


def decode(path: str) -> np.ndarray:
    """Read one image file.

    Parameters
    ----------
    path : str

    Returns
    -------
    ndarray of shape (height, width) or (height, width, n_channels)
        Pixels as the file stores them; see `imgstack_ml.io.header.read_header` for what is read.

    Raises
    ------
    BadImageError
        The file cannot be read whole.
    """
    with open_image(path) as image:
        out = np.empty(image.header.shape, image.header.dtype)
        _decode_into(out, image)
    return out


def read_group(paths: Sequence[str], shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Read several image files into one block, each decoded into its place.

    Parameters
    ----------
    paths : sequence of str
    shape : tuple of int
        Shape that every image had when its header was read.
    dtype : numpy.dtype
        Their dtype then.

    Returns
    -------
    ndarray of shape (len(paths), *shape)

    Raises
    ------
    BadImageError
        A file cannot be read whole, or is of another shape or dtype by now.
    """
    out = np.empty((len(paths), *shape), dtype)
    for place, path in zip(out, paths, strict=True):
        with open_image(path) as image:
            _check_unchanged(image.header, shape, dtype)
            _decode_into(place, image)
    return out


@dataclass(frozen=True)
class FileReader:
    """Read blocks of images from files of one shape and dtype.

    Parameters
    ----------
    shape : tuple of int
        Shape of an image.
    dtype : numpy.dtype
    fingerprint : str
        Differs when the files do, so that Dask does not take new pixels for those it has kept.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    fingerprint: str
    images_per_chunk: ClassVar[int] = 1

    def read(self, paths: Sequence[str]) -> np.ndarray:
        """Read the files at `paths` into one block."""
        return read_group(paths, self.shape, self.dtype)


@dataclass(frozen=True)
class FunctionReader:
    """Read blocks of images with functions of the caller's.

    Parameters
    ----------
    imread : callable
        From a path to an image.
    preprocess : callable or None
        Applied to each image.
    shape : tuple of int
        Shape of every result.
    dtype : numpy.dtype
    fingerprint : str
        Differs when the files do.
    """

    imread: Callable[[str], Any]
    preprocess: Callable[[Any], Any] | None
    shape: tuple[int, ...]
    dtype: np.dtype
    fingerprint: str
    images_per_chunk: ClassVar[int] = 1

    def read(self, paths: Sequence[str]) -> np.ndarray:
        """Read the files at `paths` into one block."""
        out = np.empty((len(paths), *self.shape), self.dtype)
        for i, path in enumerate(paths):
            image = read_with(self.imread, self.preprocess, path)
            if (image.shape, image.dtype) != (self.shape, self.dtype):
                raise BadImageError(
                    path,
                    f"imread and preprocess make {image.shape}, {image.dtype} of it; "
                    f"the first image gave {self.shape}, {self.dtype}",
                )
            out[i] = image
        return out


def read_with(imread: Callable[[str], Any], preprocess: Callable[[Any], Any] | None, path: str) -> np.ndarray:
    """Read one image with functions of the caller's; what they raise names the file."""
    with naming_the_file(path):
        image = imread(path)
        return np.asarray(image if preprocess is None else preprocess(image))


def _check_unchanged(header: Header, shape: tuple[int, ...], dtype: np.dtype) -> None:
    if (header.shape, header.dtype) != (shape, dtype):
        raise ValueError(
            f"it is of shape {header.shape}, {header.dtype} now, and was of shape {shape}, {dtype} when the stack "
            "was opened; open the stack again"
        )


def _decode_into(out: np.ndarray, image: OpenImage) -> None:
    picture = image.picture
    if isinstance(picture, tifffile.TiffPage):
        # One thread: Dask already reads as many blocks at a time as there are cores.
        picture.asarray(out=out, maxworkers=1)
        return
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ValueError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True, which fills up damaged images with grey pixels; "
            "set it to False"
        )
    out[...] = np.asarray(picture)
    # Pillow leaves rows at zero, without a word, where a PNG's pixel data end early but properly.
    if isinstance(picture, PngImageFile) and (picture.info.get("interlace") or not out[-1].any()):
        _check_png_is_whole(image.file)


def _check_png_is_whole(file: BinaryIO) -> None:
    """Inflate the pixel data of a PNG once more to see whether they make all of its rows."""
    file.seek(16)
    width, height, depth, color_type, _, _, interlace = struct.unpack(">IIBBBBB", file.read(13))
    passes = _ADAM7 if interlace else ((0, 1, 0, 1),)
    missing = 0
    for left, across, top, down in passes:
        columns, rows = len(range(left, width, across)), len(range(top, height, down))
        # Each row is led by a byte that names its filter.
        missing += rows * (1 + -(-columns * depth * _PNG_CHANNELS[color_type] // 8)) if columns else 0
    inflate = zlib.decompressobj()
    for kind, n_bytes in png_chunks(file):
        if kind == b"IDAT":
            missing -= len(inflate.decompress(file.read(n_bytes), missing))
        if missing == 0:
            return
    raise ValueError(f"its pixel data end {missing:,} bytes early")
