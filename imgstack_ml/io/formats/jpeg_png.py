"""JPEG and PNG, read by Pillow: headers without decoding, and pixels as a viewer shows them."""

import io
import os
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO, ClassVar, cast

import numpy as np
from PIL import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from ..locations.base import Bounded
from ..locations.faults import READ_ERRORS
from .base import ImageFormat, ImageSeries, OpenFile, check_size, orient, oriented_shape
from .tiff_directory import read_first_directory

__all__ = ["Jpeg", "Png"]

# The mode in which a picture of each stored mode is read. For palettes see `_shown_mode`.
_SHOWN = {"1": "L", "L": "L", "LA": "LA", "RGB": "RGB", "RGBA": "RGBA", "CMYK": "RGB", "I;16": "I;16"}
_LAYOUTS: dict[str, tuple[tuple[int, ...], type]] = {
    "L": ((), np.uint8),
    "LA": ((2,), np.uint8),
    "RGB": ((3,), np.uint8),
    "RGBA": ((4,), np.uint8),
    "I;16": ((), np.uint16),
}
_SMALL_FILE = 2**16  # bytes
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Start and step of the columns and rows of Adam7's seven passes.
_ADAM7 = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))


class _JpegFile(JpegImageFile):
    """A JPEG whose resolution is not read from EXIF: that takes time, and warns if the EXIF is damaged."""

    def _read_dpi_from_exif(self) -> None:
        pass


class _Picture(ImageFormat):
    """A file of one image, whose header is checked and whose pixels are not decoded yet."""

    _plugin: ClassVar[type[JpegImageFile | PngImageFile]]

    def __init__(self, source: OpenFile):
        super().__init__(source)
        # Pillow would make room for a PNG chunk that claims 4 GB: its reads are bounded by the size of the file.
        file = source.file
        self._bounded = file if isinstance(file, io.BytesIO) else cast(BinaryIO, Bounded(file, source.n_bytes))
        self._check_file()
        # Image.open would try all the formats that it knows, and warn of large images by a limit that is global to
        # the process.
        self._picture = self._plugin(self._bounded)
        width, height = self._picture.size
        check_size(height, width, max_pixels=source.max_pixels)
        n_frames = getattr(self._picture, "n_frames", 1)
        if n_frames > 1:
            raise ValueError(f"it is an animation of {n_frames} images, which is not read")
        self._shown = _shown_mode(self._picture)
        self._orientation = _orientation(self._picture)

    def _check_file(self) -> None:
        """Raise if Pillow would read it wrongly, and raise nothing."""

    def list_images(self) -> list[ImageSeries]:
        """List the images of the file: one."""
        (width, height), (channels, dtype) = self._picture.size, _LAYOUTS[self._shown]
        shape = oriented_shape((height, width, *channels), self._orientation)
        return [ImageSeries(shape, np.dtype(dtype), mode=self._picture.mode)]

    def read(self, key: None, out: np.ndarray) -> None:
        """Decode the picture into `out`."""
        if ImageFile.LOAD_TRUNCATED_IMAGES:
            raise ValueError(
                "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True, so that Pillow fills damaged images with grey pixels; "
                "set it to False"
            )
        picture = self._picture
        stored = np.asarray(picture)
        self._check_pixels(stored)
        pixels = stored if self._shown == picture.mode else np.asarray(picture.convert(self._shown))
        out[...] = orient(pixels, self._orientation)

    def _check_pixels(self, stored: np.ndarray) -> None:
        """Raise if pixels may be missing."""


class Jpeg(_Picture):
    """JPEG, read by Pillow."""

    name, suffixes, _plugin = "JPEG", (".jpg", ".jpeg"), _JpegFile

    @classmethod
    def recognise(cls, head: bytes) -> bool:
        """Tell whether a file begins like a JPEG."""
        return head.startswith(b"\xff\xd8\xff")


class Png(_Picture):
    """PNG, read by Pillow."""

    name, suffixes, _plugin = "PNG", (".png",), PngImageFile

    @classmethod
    def recognise(cls, head: bytes) -> bool:
        """Tell whether a file begins like a PNG."""
        return head.startswith(_PNG_SIGNATURE)

    def _check_file(self) -> None:
        _check_png(self._bounded)

    def _check_pixels(self, stored: np.ndarray) -> None:
        # Pillow leaves rows at zero, and raises nothing, where the pixel data end early but with a valid end.
        if self._picture.info.get("interlace") or not stored[-1].any():
            _check_png_is_whole(self._bounded)


def _shown_mode(picture: JpegImageFile | PngImageFile) -> str:
    if picture.mode == "P":
        return "RGBA" if "transparency" in picture.info else "RGB"
    if picture.mode not in _SHOWN:
        raise ValueError(
            f"its Pillow mode is {picture.mode!r}, and only P, {', '.join(_SHOWN)} are read. "
            "Convert it first: PIL.Image.open(path).convert('RGB').save(new_path)"
        )
    return _SHOWN[picture.mode]


def _orientation(picture: JpegImageFile | PngImageFile) -> int:
    """Return the EXIF orientation, 1 where there is none; Pillow's getexif would decode a PNG to find it."""
    exif = picture.info.get("exif")
    if not exif:
        return 1
    try:
        directory = read_first_directory(io.BytesIO(exif.removeprefix(b"Exif\0\0")), len(exif))
    except READ_ERRORS:
        return 1  # pixels can be read although the EXIF is damaged
    return directory.orientation


def _check_png(file: BinaryIO) -> None:
    """Raise if Pillow would lose bits of a PNG, or if its last chunk, IEND, is missing: Pillow checks neither."""
    depth, color_type = file.read(26)[24:]
    # Pillow drops the lower 8 bits, and raises nothing.
    if depth == 16 and color_type != 0:
        raise ValueError(
            "it has 16 bits a channel in colour or with transparency, of which Pillow reads only 8; "
            "save it as TIFF, or in grey"
        )
    file.seek(-len(_PNG_END), os.SEEK_END)
    # Other data may follow the last chunk.
    if file.read() != _PNG_END and not any(kind == b"IEND" and len(file.read(4)) == 4 for kind, _ in _chunks(file)):
        raise ValueError("the PNG has no end: it was cut")
    file.seek(0)


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield the kind and size of each chunk of a PNG, with the file positioned at the chunk's content."""
    position = len(_PNG_SIGNATURE)
    file.seek(position)
    while len(head := file.read(8)) == 8:
        n_bytes, kind = struct.unpack(">I4s", head)
        yield kind, n_bytes
        position += n_bytes + 12
        file.seek(position)


def _check_png_is_whole(file: BinaryIO) -> None:
    """Decompress the pixel data of a PNG once more, and raise if they do not fill all of its rows."""
    file.seek(16)
    width, height, depth, color_type, _, _, interlace = struct.unpack(">IIBBBBB", file.read(13))
    passes = _ADAM7 if interlace else ((0, 1, 0, 1),)
    missing = 0
    for left, across, top, down in passes:
        columns, rows = len(range(left, width, across)), len(range(top, height, down))
        # A byte in front of each row names its filter.
        missing += rows * (1 + -(-columns * depth * _PNG_CHANNELS[color_type] // 8)) if columns else 0
    inflate = zlib.decompressobj()
    for kind, n_bytes in _chunks(file):
        if kind == b"IDAT":
            missing -= len(inflate.decompress(file.read(n_bytes), missing))
        if missing == 0:
            return
    raise ValueError(f"its pixel data end {missing:,} bytes early")
