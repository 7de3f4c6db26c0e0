"""What Pillow reads: a class for each format that is allowed, with the one decoder that is called for it.

`PIL.Image.open` would try all decoders that it knows, PostScript among them, and warn of large images by a limit that
is global to the process.
"""

import contextlib
import functools
import importlib
import importlib.util
import io
import re
import struct
import sys
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, ClassVar, cast

import numpy as np
from PIL import Image, ImageFile, features

from ..locations.base import Bounded
from ..locations.faults import READ_ERRORS
from .base import ImageFormat, ImageSeries, OpenFile, check_size, orient, oriented_shape
from .tiff_directory import read_first_directory
from .waiting import keep_decoder, take_decoder

__all__ = ["PILLOW_FORMATS", "Picture", "orientation_of"]

# The mode in which a picture of each stored mode is read. For palettes see `_shown_mode`.
_SHOWN = {mode: mode for mode in ("L", "LA", "RGB", "RGBA", "I;16", "I", "F")}
_SHOWN |= {"1": "L", "CMYK": "RGB", "YCbCr": "RGB", "PA": "RGBA", "RGBX": "RGB"}
_LAYOUTS: dict[str, tuple[tuple[int, ...], type]] = {
    "L": ((), np.uint8),
    "LA": ((2,), np.uint8),
    "RGB": ((3,), np.uint8),
    "RGBA": ((4,), np.uint8),
    "I;16": ((), np.uint16),
    "I": ((), np.int32),
    "F": ((), np.float32),
}
_ORIENTATION = 0x0112  # in EXIF
_METADATA = ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")
_DEEP = "it has more than 8 bits a channel in colour or with transparency, of which Pillow reads only 8"


class Picture(ImageFormat):
    """A file that a decoder of Pillow reads: its header is checked, and pixels are not decoded yet."""

    _decoder: ClassVar[str]  # module and class below PIL
    _signatures: ClassVar[tuple[bytes, ...]] = ()
    _feature: ClassVar[str] = ""  # without which Pillow cannot read it; see PIL.features
    _is_animated: ClassVar[bool] = False
    _deep_decoder: ClassVar[str] = ""  # that of imagecodecs for colour of more than 8 bits a channel

    def __init__(self, source: OpenFile):
        super().__init__(source)
        # Pillow would make room for a part that claims 4 GB: its reads are bounded by the size of the file.
        file = source.file
        self._file = file if isinstance(file, io.BytesIO) else cast(BinaryIO, Bounded(file, source.n_bytes))
        self._check_file()
        self._file.seek(0)
        with self._naming_damage():
            self._picture: Any = self._open()
        self._check_size(self._picture.size)
        self._is_deep = self._has_deep_colour()
        if self._is_deep:
            self._check_deep()
        self._look()
        self._series = self._find_series()
        self._next = 0  # frame that would be decoded next

    @classmethod
    def recognise(cls, head: bytes) -> bool | None:
        """Tell whether a file begins like one of this format."""
        return head.startswith(cls._signatures) if cls._signatures else None

    def _check_file(self) -> None:
        """Raise if Pillow would read the file wrongly, or make room for pixels before its size is checked."""

    def _open(self) -> Any:
        return _decoder_of(self.name, self._decoder, self._feature)(self._file)

    def _frames(self) -> Sequence[int]:
        """Return the numbers of the frames that are images."""
        n_frames = self._picture.n_frames if self._is_animated else 1
        if n_frames > self.source.n_bytes:
            raise ValueError(f"it claims {n_frames:,} images in {self.source.n_bytes:,} bytes")
        return range(n_frames)

    def _has_deep_colour(self) -> bool:
        """Tell whether it has colour or alpha of more than 8 bits a channel, of which Pillow keeps 8."""
        return False

    def _check_deep(self) -> None:
        if not self._deep_decoder or len(self._frames()) > 1:
            raise ValueError(f"{_DEEP}; save it as TIFF")
        if importlib.util.find_spec("imagecodecs") is None:
            raise ValueError(f"{_DEEP}; to read it as uint16: pip install 'imgstack_ml[codecs]'")

    def _check_size(self, size: tuple[int, int]) -> None:
        check_size(size[1], size[0], max_pixels=self.source.max_pixels)

    def _look(self) -> None:
        """Note how the present frame is shown."""
        self._shown = self._shown_mode()
        self._orientation = orientation_of(self._picture)

    def _shown_mode(self) -> str:
        shown = _shown_mode(self._picture)
        if self.source.with_alpha and "transparency" in self._picture.info:
            return {"L": "LA", "RGB": "RGBA"}.get(shown, shown)
        return shown

    def _find_series(self) -> list[ImageSeries]:
        keys = self._frames()
        if len(keys) == 1:
            return [self._series_now((None,))]
        return [self._series_now(keys)._replace(axes="t", sizes=(len(keys),))]

    def _series_now(self, keys: Sequence[Any]) -> ImageSeries:
        (width, height), (channels, dtype) = self._picture.size, _LAYOUTS[self._shown]
        shape = oriented_shape((height, width, *channels), self._orientation)
        return ImageSeries(shape, np.dtype("uint16" if self._is_deep else dtype), keys, mode=self._picture.mode)

    def list_images(self) -> list[ImageSeries]:
        """List the images of the file: one, or the frames of an animation as they are shown."""
        return self._series

    def read(self, key: int | None, out: np.ndarray) -> None:
        """Decode an image into `out`; frames that follow the one before are decoded from there."""
        if ImageFile.LOAD_TRUNCATED_IMAGES:
            raise ValueError(
                "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True, so that Pillow fills damaged images with grey pixels; "
                "set it to False"
            )
        with self._naming_damage():
            pixels = self._decode_deep() if self._is_deep else self._decode(key)
        out[...] = orient(pixels, self._orientation)

    def _decode(self, key: int | None) -> np.ndarray:
        if key is not None:
            self._resume(key)
            if self._is_animated and self._next > key + 1:
                self._file.seek(0)
                self._picture = self._open()  # Pillow does not go back in all files
            self._next = sys.maxsize  # until the frame is decoded
            self._seek(key)
        picture = self._picture
        size = picture.size
        picture.load()
        if picture.size != size:
            raise ValueError(f"its pixels are of {picture.size[::-1]}, and its header says {size[::-1]}")
        self._check_pixels()
        self._next = 0 if key is None else key + 1
        return np.asarray(picture if picture.mode == self._shown else picture.convert(self._shown))

    def _identity(self) -> tuple[Any, ...]:
        return type(self), *self.source._replace(file=None, head=b"")  # type: ignore[arg-type]

    def _resume(self, frame: int) -> None:
        """Go on with a decoder that another block left nearer to a frame."""
        if not self._is_animated or self._next == frame:
            return
        first = self._next + 1 if self._next <= frame else 1
        if state := take_decoder(self._identity(), first, frame):
            source, position = self.source, state.pop("position")
            vars(self).update(state, source=source)
            if isinstance(self._file, Bounded):
                self._file.attach(source.file)
            self._file.seek(position)

    def close(self) -> None:
        """Leave the decoder of an animation to the block that follows."""
        if self._is_animated and 0 < self._next < sum(len(series.keys) for series in self._series):
            width, height = self._picture.size
            n_bytes = self.source.n_bytes + 12 * width * height  # three canvases
            state = {**vars(self), "source": None, "position": self._file.tell()}
            keep_decoder(self._identity(), self._next, n_bytes, state)

    def _decode_deep(self) -> np.ndarray:
        self._file.seek(0)
        decode = getattr(importlib.import_module("imagecodecs"), self._deep_decoder)
        (width, height), (channels, _) = self._picture.size, _LAYOUTS[self._shown]
        # A colour key becomes a channel, which is not read.
        pixels = decode(self._file.read())[:, :, slice(*channels)]
        if (pixels.shape, pixels.dtype) != ((height, width, *channels), np.uint16):
            raise ValueError(
                f"imagecodecs reads {pixels.shape}, {pixels.dtype}, and Pillow {(height, width, *channels)}"
            )
        return pixels

    def _seek(self, frame: int) -> None:
        self._picture.seek(frame)

    def _check_pixels(self) -> None:
        """Raise if pixels of the present frame may be missing, though Pillow raises nothing."""

    @contextlib.contextmanager
    def _naming_damage(self) -> Iterator[None]:
        """Say of errors from inside decoders, such as struct.error, that the file is damaged."""
        try:
            yield
        except (OSError, ValueError) as error:
            if isinstance(error, OSError) and error.strerror:
                raise
            raise ValueError(str(error) or f"the {self.name} is damaged") from error
        except READ_ERRORS as error:
            # Pillow makes a SyntaxError of others, too.
            told = f": {error}" if isinstance(error, SyntaxError) and error.__cause__ is None else ""
            raise ValueError(f"the {self.name} is damaged or cut{told}") from error


@functools.cache
def _decoder_of(name: str, decoder: str, feature: str) -> Any:
    """Import the module of a decoder; most are never needed."""
    module, kind = decoder.split(".")
    try:
        if feature and feature not in features.get_supported():
            raise ImportError
        return getattr(importlib.import_module(f"PIL.{module}"), kind)
    except ImportError:
        raise ValueError(
            f"it is {name}, which the installed Pillow cannot read; to read it: pip install --upgrade pillow"
        ) from None


def _shown_mode(picture: Any) -> str:
    if picture.mode == "P":
        has_alpha = "transparency" in picture.info or (picture.palette and picture.palette.mode == "RGBA")
        return "RGBA" if has_alpha else "RGB"
    if picture.mode not in _SHOWN:
        raise ValueError(
            f"its Pillow mode is {picture.mode!r}, and only P, {', '.join(_SHOWN)} are read. "
            "Convert it first: PIL.Image.open(path).convert('RGB').save(new_path)"
        )
    return _SHOWN[picture.mode]


def orientation_of(picture: Any) -> int:
    """Return the orientation that EXIF or XMP tell, 1 where there is none, by the rules of Pillow's exif_transpose."""
    found = [key for key in _METADATA if picture.info.get(key)]
    if not found:
        return 1
    try:
        if found == ["exif"]:  # the usual case, several times as fast as by Pillow
            exif = picture.info["exif"]
            return read_first_directory(io.BytesIO(exif.removeprefix(b"Exif\0\0")), len(exif)).orientation
        # Not that of a PNG, which would decode it.
        orientation = Image.Image.getexif(picture).get(_ORIENTATION, 1)
    except READ_ERRORS:
        return 1  # pixels can be read although the EXIF is damaged
    return orientation if orientation in range(1, 9) else 1


class Gif(Picture):
    """GIF, animations included."""

    name, suffixes, _decoder = "GIF", (".gif",), "GifImagePlugin.GifImageFile"
    _signatures, _is_animated = (b"GIF87a", b"GIF89a"), True

    def _check_file(self) -> None:
        self._file = io.BytesIO(self._file.read())  # it is read in parts of at most 255 bytes
        self._boxes, self._has_colour = _gif_frames(self._file, self.source.head)
        if not self._boxes:
            raise ValueError("it holds no image")
        self._check_size(self._canvas(self._boxes))

    def _canvas(self, boxes: list[tuple[int, ...]]) -> tuple[int, int]:
        width, height = struct.unpack("<HH", self.source.head[6:10])
        return max(width, *(x + w for x, _, w, _ in boxes)), max(height, *(y + h for _, y, _, h in boxes))

    def _frames(self) -> Sequence[int]:
        if self._canvas(self._boxes) != self._canvas(self._boxes[:1]):
            raise ValueError("a later image of the animation reaches beyond the first one")
        if self._picture.mode == "L" and any(self._has_colour[1:]):
            raise ValueError("its first image is grey and a later one has colours, which Pillow does not compose")
        return range(len(self._boxes))


def _gif_frames(file: BinaryIO, head: bytes) -> tuple[list[tuple[int, ...]], list[bool]]:
    """List left, top, width and height of each image of a GIF, and whether it has a palette of its own."""
    boxes: list[tuple[int, ...]] = []
    own_palette = []
    file.seek(13 + _palette_size(head[10:11]))
    while (kind := file.read(1)) != b";":
        if not kind:
            raise ValueError(f"the GIF has no end: it was cut behind image {len(boxes) - 1}")
        if kind not in b"!,":
            continue  # padding, which viewers pass over
        if kind == b",":
            *box, flags = struct.unpack("<HHHHc", file.read(9).ljust(9, b"\0"))
            boxes.append(tuple(box))
            own_palette.append(bool(_palette_size(flags)))
            file.seek(_palette_size(flags), io.SEEK_CUR)
        file.seek(1, io.SEEK_CUR)  # the kind of the extension, or the size of the first code
        while n_bytes := file.read(1).ljust(1, b"\0")[0]:
            file.seek(n_bytes, io.SEEK_CUR)
    return boxes, own_palette


def _palette_size(flags: bytes) -> int:
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 128 else 0


class WebP(Picture):
    """WebP, animations included."""

    name, suffixes, _decoder = "WebP", (".webp",), "WebPImagePlugin.WebPImageFile"
    _feature, _is_animated = "webp", True

    @classmethod
    def recognise(cls, head: bytes) -> bool:
        """Tell whether a file begins like a WebP."""
        return head[:4] == b"RIFF" and head[8:12] == b"WEBP"

    def _check_file(self) -> None:
        # The decoder makes room for two canvases when it opens a file.
        head, kind = self.source.head.ljust(30, b"\0"), self.source.head[12:16]
        if kind == b"VP8X":
            size = 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
        elif kind == b"VP8L":
            bits = int.from_bytes(head[21:25], "little")
            size = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        else:
            size = int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
        self._check_size(size)
        if self.source.n_bytes < 8 + int.from_bytes(head[4:8], "little"):
            raise ValueError("the WebP was cut")


class Avif(Picture):
    """AVIF, sequences included."""

    name, suffixes, _decoder = "AVIF", (".avif", ".avifs"), "AvifImagePlugin.AvifImageFile"
    _feature, _is_animated, _deep_decoder = "avif", True, "avif_decode"

    @classmethod
    def recognise(cls, head: bytes) -> bool:
        """Tell whether a file begins like an AVIF."""
        return head[4:8] == b"ftyp" and head[8:12] in (b"avif", b"avis")

    def _has_deep_colour(self) -> bool:
        # The third byte of the codec's configuration has a bit for more than 8 bits a channel.
        self._file.seek(0)
        configuration = re.search(rb"av1C\x81.(.)", self._file.read(1 << 20), re.DOTALL)
        return configuration is not None and bool(configuration[1][0] & 0x40)


class Jpeg2000(Picture):
    """JPEG 2000."""

    name, suffixes = "JPEG 2000", (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c")
    _decoder, _feature, _deep_decoder = "Jpeg2KImagePlugin.Jpeg2KImageFile", "jpg_2000", "jpeg2k_decode"
    _signatures = (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")

    def _has_deep_colour(self) -> bool:
        self._file.seek(0)
        # SIZ, the first marker of the code stream, has the bits of each channel.
        start = self._file.read(1 << 16)
        at = start.find(b"\xff\x4f\xff\x51")
        if at < 0:
            raise ValueError("it has no code stream in its first 65,536 bytes")
        n_channels = int.from_bytes(start[at + 40 : at + 42], "big")
        kinds = start[at + 42 : at + 42 + 3 * n_channels : 3]
        if not kinds or max(kinds) > 127:  # Pillow adds half of the range
            raise ValueError("its values are signed, which is not read; save it as TIFF")
        bits = [kind + 1 for kind in kinds]
        return n_channels > 1 and max(bits) > 8


class Bmp(Picture):
    """Windows bitmaps."""

    name, suffixes, _decoder, _signatures = "BMP", (".bmp", ".dib"), "BmpImagePlugin.BmpImageFile", (b"BM",)


class Ppm(Picture):
    """Netpbm: PBM, PGM, PPM and PFM."""

    name, suffixes, _decoder = "PPM", (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"), "PpmImagePlugin.PpmImageFile"

    @classmethod
    def recognise(cls, head: bytes) -> bool:
        """Tell whether a file begins like a PBM, PGM, PPM or PFM."""
        return re.match(rb"P[1-6f]\s", head) is not None

    def _has_deep_colour(self) -> bool:
        arguments = self._picture.tile[0][3]  # the last one is the largest value
        return self._picture.mode == "RGB" and isinstance(arguments, tuple) and arguments[-1] > 255


class Tga(Picture):
    """Truevision TGA, which has no signature."""

    name, suffixes, _decoder = "TGA", (".tga",), "TgaImagePlugin.TgaImageFile"


class Ico(Picture):
    """Windows icons: the largest one of a file."""

    beside_pictures = False  # of a web site

    name, suffixes, _decoder, _signatures = "ICO", (".ico",), "IcoImagePlugin.IcoImageFile", (b"\0\0\1\0",)

    def _check_file(self) -> None:
        # The decoder decodes when it opens a file.
        n_images = int.from_bytes(self._file.read(6)[4:], "little")
        entries = self._file.read(16 * n_images)
        with self._naming_damage():
            for (offset,) in struct.iter_unpack("<12xI", entries):
                self._file.seek(offset)
                head = self._file.read(24)
                order, at = (">II", 16) if head.startswith(b"\x89PNG") else ("<II", 4)
                self._check_size(struct.unpack(order, head[at : at + 8]))


class Dds(Picture):
    """DirectDraw surfaces."""

    name, suffixes, _decoder, _signatures = "DDS", (".dds",), "DdsImagePlugin.DdsImageFile", (b"DDS ",)

    def _check_file(self) -> None:
        # Pillow before version 11 fills pixels that are not compressed with zeros where they end.
        head = self.source.head.ljust(128, b"\0")
        height, width, kind, n_bits = (int.from_bytes(head[at : at + 4], "little") for at in (12, 16, 80, 88))
        is_compressed = kind & 4
        if not is_compressed and self.source.n_bytes < 128 + height * width * n_bits // 8:
            raise ValueError("the DDS was cut")


class Pcx(Picture):
    """PC Paintbrush."""

    name, suffixes, _decoder = "PCX", (".pcx",), "PcxImagePlugin.PcxImageFile"


class Sgi(Picture):
    """Images of SGI."""

    name, suffixes, _decoder = "SGI", (".sgi",), "SgiImagePlugin.SgiImageFile"
    _signatures = (b"\x01\xda",)


class Psd(Picture):
    """Photoshop: all layers as one image, as the file holds it."""

    beside_pictures = False  # the pictures are often made of it

    name, suffixes, _decoder, _signatures = "PSD", (".psd",), "PsdImagePlugin.PsdImageFile", (b"8BPS",)


class Qoi(Picture):
    """QOI."""

    name, suffixes, _decoder, _signatures = "QOI", (".qoi",), "QoiImagePlugin.QoiImageFile", (b"qoif",)


#: PostScript, metafiles and formats that Pillow gives to other programs are not among them.
PILLOW_FORMATS: tuple[type[Picture], ...] = (
    *(Gif, WebP, Avif, Jpeg2000, Bmp, Ppm, Psd, Dds, Sgi, Qoi, Ico),
    *(Tga, Pcx),  # without a signature: the suffix tells them
)
