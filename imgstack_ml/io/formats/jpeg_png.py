"""JPEG and PNG, read by Pillow: headers without decoding, and pixels as a viewer shows them."""

import functools
import importlib
import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from .base import ImageSeries, OpenFile
from .picture import Picture, orientation_of

__all__ = ["Jpeg", "Png"]

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PNG_MODES: dict[int, tuple[str, tuple[int, ...]]] = {
    0: ("L", ()),
    2: ("RGB", (3,)),
    4: ("LA", (2,)),
    6: ("RGBA", (4,)),
}
# Size, 8 bits, no palette, not interlaced; perhaps the resolution; then pixels. Both parts have checksums.
_PLAIN_PNG = re.compile(
    rb"\x89PNG\r\n\x1a\n\0{3}\r(IHDR.{8}\x08[\0\2\4\6]\0{3})(.{4})(?:\0{3}\t(pHYs.{9})(.{4}))?(?=.{4}IDAT)", re.DOTALL
)
# Start and step of the columns and rows of Adam7's seven passes.
_ADAM7 = ((0, 8, 0, 8), (4, 8, 0, 8), (0, 4, 4, 8), (2, 4, 0, 4), (0, 2, 2, 4), (1, 2, 0, 2), (0, 1, 1, 2))
# JFIF, tables of 8 bits, size and sampling of one or three channels of 8 bits; no EXIF.
_TABLE = rb"[\0-\3].{64}"
_PLAIN_JPEG = re.compile(
    rb"\xff\xd8\xff\xe0\0\x10JFIF\0.{9}(?:\xff\xdb(?:\0\x43%b|\0\x84%b%b)){1,4}"
    rb"\xff[\xc0\xc2]\0(?:\x0b\x08(.{4})\x01.{3}|\x11\x08(.{4})\x03.{9})" % (_TABLE, _TABLE, _TABLE),
    re.DOTALL,
)
_COLOR_SPACES = {"L": "GRAY", "RGB": "RGB"}
_TAIL = 1 << 16  # bytes
_MOST_PARTS = 20  # of the pixel data of a plain PNG, each of which is a place that is read
_TELLS_ORIENTATION = (b"eXIf", b"tEXtexif", b"Raw profile type exif", b"XML:com.adobe.xmp")


class _JpegFile(JpegImageFile):
    """A JPEG whose resolution is not read from EXIF: that takes time, and warns if the EXIF is damaged."""

    def _read_dpi_from_exif(self) -> None:
        pass


@functools.cache
def _installed(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


class Jpeg(Picture):
    """JPEG; a file that ends in ``.mpo`` may hold several, of which thumbnails are left out."""

    name, suffixes, _signatures = "JPEG", (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), (b"\xff\xd8\xff",)

    def _open(self) -> JpegImageFile:
        picture = _JpegFile(self._file)
        self._entries = picture._getmp() if self.source.name.lower().endswith(".mpo") else None
        if self._entries:
            from PIL.MpoImagePlugin import MpoImageFile

            return MpoImageFile.adopt(picture, self._entries)
        return picture

    def _frames(self) -> Sequence[int]:
        entries = self._entries[0xB002] if self._entries else [{"Attribute": {"MPType": ""}}]
        return [i for i, entry in enumerate(entries) if "Thumbnail" not in entry["Attribute"]["MPType"]]

    def _find_series(self) -> list[ImageSeries]:
        frames = self._frames()
        if len(frames) == 1:
            return [self._series_now((None,))]
        series = []
        for frame in frames:  # each is a JPEG of its own size
            with self._naming_damage():
                self._seek(frame)
            series.append(self._series_now((frame,)))
        return series

    def _seek(self, frame: int) -> None:
        super()._seek(frame)
        self._check_size(self._picture.size)
        self._look()

    def _plain_series(self, source: OpenFile) -> ImageSeries | None:
        """Return the series of a JPEG of grey or RGB without EXIF."""
        start = source.head
        found = _PLAIN_JPEG.match(start)
        if found is None:
            return None
        position = found.end()
        while start[position : position + 2] in (b"\xff\xc4", b"\xff\xdd"):  # tables of codes, and restarts
            position += 2 + int.from_bytes(start[position + 2 : position + 4], "big")
        height, width = struct.unpack(">HH", found[1] or found[2])
        if start[position : position + 2] != b"\xff\xda" or not height * width:
            return None
        mode, channels = ("L", ()) if found[1] else ("RGB", (3,))
        return ImageSeries((height, width, *channels), np.dtype(np.uint8), mode=mode)

    def read(self, key: int | None, out: np.ndarray) -> None:
        """Decode an image into `out`."""
        if self._is_plain:
            self._check_settings()
            into = out if out.flags.c_contiguous else None
            pixels = self._decode_strictly("RGB" if out.ndim == 3 else "L", into)
            if pixels is not None and pixels.shape == out.shape:
                if into is None:
                    out[...] = pixels
                return
            self._open_by_pillow()
        super().read(key, out)

    def _decode(self, key: int | None) -> np.ndarray:
        mode = self._picture.mode
        pixels = self._decode_strictly(mode) if key is None and mode in _COLOR_SPACES else None
        return super()._decode(key) if pixels is None else pixels

    def _decode_strictly(self, mode: str, into: np.ndarray | None = None) -> np.ndarray | None:
        """Decode by simplejpeg; None where libjpeg warns of anything, for Pillow has the last word then."""
        simplejpeg = _installed("simplejpeg")
        if simplejpeg is None:
            return None
        self._file.seek(0)
        try:
            pixels: np.ndarray = simplejpeg.decode_jpeg(
                self._file.read(), _COLOR_SPACES[mode], buffer=into, strict=True
            )
        except Exception:
            return None
        return pixels if mode == "RGB" else pixels[:, :, 0]


class _Frame(NamedTuple):
    """A frame of a PNG: width, height, and offset and size of each part of its pixel data."""

    width: int
    height: int
    parts: list[tuple[int, int]]


class _PngFile(PngImageFile):
    """A PNG that notes the frames of an animation whose last row may not have been decoded."""

    def __init__(self, file: Any):
        self.doubtful: list[int] = []
        super().__init__(file)

    def load_prepare(self) -> None:
        """Clear the last row, so that it tells whether all rows were decoded."""
        super().load_prepare()
        if self.is_animated:  # its pixels are those of the frame before
            left, _, right, bottom = self.tile[0][1] or (0, 0, *self.size)
            self._last_row = left, bottom - 1, right, bottom
            self.im.paste(Image.core.fill(self.mode, (right - left, 1)), self._last_row)

    def load_end(self) -> None:
        """Look at the last row before the frame is drawn on those before."""
        if self.is_animated and (self.info.get("interlace") or self.im.crop(self._last_row).getbbox(False) is None):
            self.doubtful.append(self.tell())
        super().load_end()


class Png(Picture):
    """PNG, animations included; an image for viewers that show no animations counts as a frame, as in Pillow."""

    name, suffixes, _signatures = "PNG", (".png", ".apng"), (_PNG_SIGNATURE,)
    _is_animated, _deep_decoder = True, "png_decode"

    def read(self, key: int | None, out: np.ndarray) -> None:
        """Decode an image into `out`."""
        if not self._is_plain:
            super().read(key, out)
        elif not self._read_by_imagecodecs(out):
            self._read_plain(out)

    def _plain_series(self, source: OpenFile) -> ImageSeries | None:
        """Return the series of a PNG that says no more than the size of its pixels; with checksums, as Pillow."""
        found = _PLAIN_PNG.match(source.head)
        if found is None or any(
            checked and zlib.crc32(checked) != int.from_bytes(crc, "big")
            for checked, crc in (found.group(1, 2), found.group(3, 4))
        ):
            return None
        file, position = source.file, found.end()
        for _ in range(_MOST_PARTS):
            file.seek(position)
            chunk = file.read(len(_PNG_END))
            if chunk[4:8] != b"IDAT":
                break
            position += 12 + int.from_bytes(chunk[:4], "big")
        if chunk != _PNG_END or position + len(chunk) != source.n_bytes:
            return None
        width, height, _, color_type = struct.unpack(">4xIIBB3x", found[1])
        mode, channels = _PNG_MODES[color_type]
        return ImageSeries((height, width, *channels), np.dtype(np.uint8), mode=mode)

    def _read_plain(self, out: np.ndarray) -> None:
        """Decode by Pillow, without a look at what a plain PNG does not have."""
        self._check_settings()
        self._file.seek(0)
        with self._naming_damage():
            picture = PngImageFile(self._file)
            picture.load()
            stored = np.asarray(picture)
            if stored.shape != out.shape:
                raise ValueError(f"Pillow reads {stored.shape} where its header says {out.shape}")
            if not stored[-1].any():  # else all rows were decoded
                self._check_is_whole(next(_frames(self._file)))
        out[...] = stored

    def _read_by_imagecodecs(self, out: np.ndarray) -> bool:
        """Decode by imagecodecs, in two thirds of Pillow's time; Pillow has the last word on files that are damaged."""
        imagecodecs = _installed("imagecodecs")
        if imagecodecs is None or out.shape[2:] not in ((3,), (4,)) or ImageFile.LOAD_TRUNCATED_IMAGES:
            return False
        self._file.seek(0)
        try:
            imagecodecs.png_decode(self._file.read(), out=out)
        except Exception:
            return False
        if not out[-1].any():
            self._check_is_whole(next(_frames(self._file)))
        return True

    def _check_file(self) -> None:
        self._file.seek(-min(_TAIL, self.source.n_bytes), os.SEEK_END)
        tail = self._file.read()
        # Other data may follow the last chunk.
        if not tail.endswith(_PNG_END) and not any(
            kind == b"IEND" and len(self._file.read(4)) == 4 for kind, _ in _chunks(self._file)
        ):
            raise ValueError("the PNG has no end: it was cut")
        start = max(0, tail.find(b"IDAT"))
        self._tells_late = any(tail.find(name, start) >= 0 for name in _TELLS_ORIENTATION)

    def _open(self) -> _PngFile:
        return _PngFile(self._file)

    def _has_deep_colour(self) -> bool:
        depth, color_type = self.source.head[24:26]
        return depth == 16 and color_type != 0

    def _shown_mode(self) -> str:
        # Pillow has no mode of 16 bits with alpha: it makes four channels of grey with alpha.
        is_grey_alpha = self.source.head[25] == 4
        return "LA" if is_grey_alpha else super()._shown_mode()

    def _look(self) -> None:
        if self._tells_late:  # Pillow reads what stands behind the pixels when it has decoded them
            with self._naming_damage():
                self._picture.load()
        super()._look()

    def _frames(self) -> Sequence[int]:
        n_frames = self._picture.n_frames
        if n_frames == 1:
            return (0,)
        # The number that a PNG claims may be any.
        position = self._file.tell()
        self._animation = list(_frames(self._file))
        self._file.seek(position)
        if len(self._animation) != n_frames:
            raise ValueError(f"it claims {n_frames:,} images and holds {len(self._animation)}: it was cut")
        return range(n_frames)

    def _check_pixels(self, stored: np.ndarray) -> None:
        # Pillow leaves rows at zero, and raises nothing, where the pixel data end early but with a valid end.
        picture = self._picture
        if orientation_of(picture) != self._orientation:
            raise ValueError(
                "its orientation stands behind its pixels. Write it upright: "
                "PIL.ImageOps.exif_transpose(PIL.Image.open(path)).save(new_path)"
            )
        if picture.is_animated:
            position = self._file.tell()  # Pillow goes on there
            while picture.doubtful:
                self._check_is_whole(self._animation[picture.doubtful.pop()])
            self._file.seek(position)
        elif picture.info.get("interlace") or not stored[-1].any():
            self._check_is_whole(next(_frames(self._file)))

    def _decode(self, key: int | None) -> np.ndarray:
        # imagecodecs prints warnings of interlaced images, and of metadata that are damaged.
        is_plain = self.source.head[28] == 0 and self._picture.info.keys() <= {"dpi"}
        if is_plain and key is None and self._picture.mode == self._shown:
            pixels = np.empty(self._series[0].shape, self._series[0].dtype)
            if self._read_by_imagecodecs(pixels):
                return pixels
        return super()._decode(key)

    def _decode_deep(self) -> np.ndarray:
        pixels = super()._decode_deep()
        self._check_is_whole(next(_frames(self._file)))
        return pixels

    def _check_is_whole(self, frame: _Frame) -> None:
        """Decompress the pixel data of a frame once more, and raise if they do not fill all of its rows."""
        depth, color_type, _, _, interlace = self.source.head[24:29]
        missing = 0
        for left, across, top, down in _ADAM7 if interlace else ((0, 1, 0, 1),):
            columns, rows = len(range(left, frame.width, across)), len(range(top, frame.height, down))
            # A byte in front of each row names its filter.
            missing += rows * (1 + -(-columns * depth * _PNG_CHANNELS[color_type] // 8)) if columns else 0
        inflate = zlib.decompressobj()
        for position, n_bytes in frame.parts:
            self._file.seek(position)
            missing -= len(inflate.decompress(self._file.read(n_bytes), missing))
            if missing == 0:
                return
        raise ValueError(f"its pixel data end {missing:,} bytes early")


def _chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield the kind and size of each chunk of a PNG, with the file positioned at the chunk's content."""
    position = len(_PNG_SIGNATURE)
    file.seek(position)
    while len(head := file.read(8)) == 8:
        n_bytes, kind = struct.unpack(">I4s", head)
        yield kind, n_bytes
        position += n_bytes + 12
        file.seek(position)


def _frames(file: BinaryIO) -> Iterator[_Frame]:
    """Yield the frames of a PNG: that of the chunks IDAT, and those of an animation."""
    file.seek(16)
    frame = _frame(file.read(8))
    for kind, n_bytes in _chunks(file):
        if kind == b"fcTL":
            if frame.parts:
                yield frame
            frame = _frame(file.read(12)[4:])
        elif kind == b"IDAT":
            frame.parts.append((file.tell(), n_bytes))
        elif kind == b"fdAT":  # begins with a number
            frame.parts.append((file.tell() + 4, n_bytes - 4))
    if frame.parts:
        yield frame


def _frame(size: bytes) -> _Frame:
    width, height = struct.unpack(">II", size)
    return _Frame(width, height, [])
