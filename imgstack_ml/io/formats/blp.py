"""Textures of Blizzard's games (BLP). Pillow's reader of them takes other bytes for alpha, and cuts the bits of DXT."""

import io
import struct
from typing import Any, ClassVar

import numpy as np
from PIL import ImageFile, ImagePalette
from PIL.JpegImagePlugin import JpegImageFile

from .picture import TILE, Picture

__all__ = ["Blp"]

_DXT = {0: (1, "DXT1"), 1: (2, "DXT3"), 7: (3, "DXT5")}  # by the kind of alpha


class _Texture(ImageFile.ImageFile):
    """Pixels in DXT, or numbers of colours, which Pillow decodes as those of other formats."""

    format = "BLP"

    def __init__(self, file: Any, size: tuple[int, int], tile: Any, palette: Any):
        self._layout = size, tile, palette
        super().__init__(file)

    def _open(self) -> None:
        self._size, tile, self.palette = self._layout
        self._mode, self.tile = "P" if self.palette else "RGBA", [tile]


class Blp(Picture):
    """BLP in DXT, and without alpha in JPEG or with a palette; of its images, the largest one."""

    name, suffixes, beside_pictures = "BLP", (".blp",), False
    _signatures: ClassVar[tuple[bytes, ...]] = (b"BLP1", b"BLP2")

    def _open(self) -> Any:
        head = self.source.head.ljust(160, b"\0")
        is_first = head.startswith(b"BLP1")
        if is_first:
            kind, self._alpha, width, height, encoding, dxt = struct.unpack("<6I", head[4:28])
        else:
            kind, encoding, self._alpha, dxt, _, width, height = struct.unpack("<I4B2I", head[4:20])
        end = 156 if is_first else 148  # of the offsets and sizes of 16 images, the largest one first
        (start,), (n_bytes,) = struct.unpack_from("<I", head, end - 128), struct.unpack_from("<I", head, end - 64)
        place = (0, 0, width, height)
        self._check_size((width, height))
        if (kind, is_first, self._alpha) == (0, True, 0):
            return self._jpeg(end, start, n_bytes, (width, height))
        if (kind, is_first, encoding) == (1, False, 2) and dxt in _DXT:
            n_needed = -(-width // 4) * -(-height // 4) * (8 if dxt == 0 else 16)
            tile, palette = TILE("bcn", place, start, _DXT[dxt]), None
        elif (kind, self._alpha) == (1, 0) and encoding in ((4, 5) if is_first else (1,)):
            n_needed = width * height
            self._file.seek(end)
            tile, palette = TILE("raw", place, start, ("P", 0, 1)), ImagePalette.raw("BGRX", self._file.read(1024))
            end += 1024
        else:
            raise ValueError("it is a BLP of a kind that is not read, such as one of a palette with alpha")
        if start < end or n_bytes < n_needed:
            raise ValueError(f"it tells {n_bytes:,} bytes of pixels, and they need {n_needed:,}: it is damaged")
        return _Texture(self._file, (width, height), tile, palette)

    def _jpeg(self, end: int, start: int, n_bytes: int, size: tuple[int, int]) -> JpegImageFile:
        """Open a JPEG, of which all images share the beginning; its channels are blue, green, red and alpha."""
        self._file.seek(end)
        beginning = self._file.read(int.from_bytes(self._file.read(4), "little"))
        self._file.seek(start)
        picture: Any = JpegImageFile(io.BytesIO(beginning + self._file.read(n_bytes)))
        if (picture.mode, picture.size) != ("CMYK", size):
            raise ValueError(f"its JPEG is of mode {picture.mode} and {picture.size}, and not of CMYK and {size}")
        ((*tile, _),) = picture.tile
        picture.tile = [TILE(*tile, ("CMYK", "CMYK"))]  # as they are stored
        return picture

    def _shown_mode(self) -> str:
        return super()._shown_mode() if self._alpha else "RGB"

    def _decode_present(self) -> np.ndarray:
        if self._picture.mode != "CMYK":
            return super()._decode_present()
        self._picture.load()
        return np.asarray(self._picture)[:, :, 2::-1]
