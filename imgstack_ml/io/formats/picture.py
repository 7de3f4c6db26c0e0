"""What all formats that Pillow reads share: the one decoder that is called, how a picture is shown, its frames.

`PIL.Image.open` would try all decoders that it knows, PostScript among them, and warn of large images by a limit that
is global to the process.
"""

import contextlib
import functools
import importlib
import importlib.util
import io
import math
import sys
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO, ClassVar, cast

import numpy as np
from PIL import Image, ImageFile, features

from ..locations.base import Bounded
from ..locations.faults import READ_ERRORS
from .base import ImageFormat, ImageSeries, OpenFile, check_size, orient, oriented_shape
from .tiff_directory import read_first_directory
from .waiting import MOST_BYTES, Turn, filling, keep_decoder, keep_frames, take_decoder, take_frame

__all__ = ["TILE", "Picture", "orientation_of"]

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
#: Before version 11 of Pillow, a tile is a plain tuple.
TILE: Any = getattr(ImageFile, "_Tile", lambda *parts: parts)
_DEEP = "it has more than 8 bits a channel in colour or with transparency, of which Pillow reads only 8"


class Picture(ImageFormat):
    """A file that a decoder of Pillow reads: its header is checked, and pixels are not decoded yet."""

    _decoder: ClassVar[str]  # module and class below PIL
    _signatures: ClassVar[tuple[bytes, ...]] = ()
    _feature: ClassVar[str] = ""  # without which Pillow cannot read it; see PIL.features
    _is_animated: ClassVar[bool] = False
    _passes_fast: ClassVar[bool] = False  # over frames that are not wanted: these are not worth keeping
    _deep_decoder: ClassVar[str] = ""  # that of imagecodecs for colour of more than 8 bits a channel

    def __init__(self, source: OpenFile):
        super().__init__(source)
        plain = self._plain_series(source)
        self._is_plain = plain is not None
        if plain is None:
            self._open_by_pillow()
        else:
            self._file, self._series = source.file, [plain]
            check_size(*plain.shape[:2], max_pixels=source.max_pixels)

    def _open_by_pillow(self) -> None:
        source, self._is_plain = self.source, False
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
        self._has_passed = False
        self._turn = Turn()

    def _plain_series(self, source: OpenFile) -> ImageSeries | None:
        """Return the series of a file whose first bytes tell all of it; Pillow, which opens others, is much slower."""
        return None

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
        starts = () if self._passes_fast else (0,)
        return [self._series_now(keys)._replace(axes="t", sizes=(len(keys),), starts=starts)]

    def _series_now(self, keys: Sequence[Any]) -> ImageSeries:
        (width, height), (channels, dtype) = self._picture.size, _LAYOUTS[self._shown]
        shape = oriented_shape((height, width, *channels), self._orientation)
        return ImageSeries(shape, np.dtype("uint16" if self._is_deep else dtype), keys, mode=self._picture.mode)

    def list_images(self) -> list[ImageSeries]:
        """List the images of the file: one, or the frames of an animation as they are shown."""
        return self._series

    def read(self, key: int | None, out: np.ndarray) -> None:
        """Decode an image into `out`; frames that follow the one before are decoded from there."""
        self._check_settings()
        with self._naming_damage():
            pixels = self._decode_deep() if self._is_deep else self._decode(key)
        out[...] = orient(pixels, self._orientation)

    def _check_settings(self) -> None:
        if ImageFile.LOAD_TRUNCATED_IMAGES:
            raise ValueError(
                "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True, so that Pillow fills damaged images with grey pixels; "
                "set it to False"
            )

    def _decode(self, key: int | None) -> np.ndarray:
        if key is None:
            return self._decode_present()
        if self._is_animated and not self._passes_fast:
            kept = take_frame(self._identity(), key)
            if kept is None and not self._turn.is_of(self._identity()):
                self._turn.begin(self._identity(), key)
                kept = take_frame(self._identity(), key)  # another block may have passed it meanwhile
            if kept is not None:
                return cast(np.ndarray, kept)
        self._resume(key)
        if self._is_animated and self._next > key + 1:
            self._file.seek(0)
            self._picture = self._open()  # Pillow does not go back in all files
            self._next = 0
        if self._is_animated and not self._passes_fast and not self._has_passed:
            self._pass_frames(key)
        return self._decode_frame(key)

    def _pass_frames(self, key: int) -> None:
        """Decode up to a frame, and keep those in front of it for the blocks that are read after this one."""
        self._has_passed = True
        (width, height), (channels, dtype) = self._picture.size, _LAYOUTS[self._shown]
        n_bytes = math.prod((height, width, *channels)) * np.dtype(dtype).itemsize
        n_frames = min(key - self._next, MOST_BYTES // n_bytes)
        if n_frames < 1:
            return
        with filling() as alone:
            if alone:
                frames = [self._decode_frame(number) for number in range(key - n_frames, key)]
                keep_frames(self._identity(), key - n_frames, frames, n_bytes)

    def _decode_frame(self, key: int) -> np.ndarray:
        self._next = sys.maxsize  # until the frame is decoded
        self._seek(key)
        pixels = self._decode_present()
        self._next = key + 1
        return pixels

    def _decode_present(self) -> np.ndarray:
        picture = self._picture
        size = picture.size
        picture.load()
        if picture.size != size:
            raise ValueError(f"its pixels are of {picture.size[::-1]}, and its header says {size[::-1]}")
        stored = np.asarray(picture)
        self._check_pixels(stored)
        return stored if picture.mode == self._shown else np.asarray(picture.convert(self._shown))

    def _identity(self) -> tuple[Any, ...]:
        return type(self), *self.source._replace(file=None, head=b"")  # type: ignore[arg-type]

    def _resume(self, frame: int) -> None:
        """Go on with a decoder that another block left nearer to a frame."""
        if not self._is_animated or self._next == frame:
            return
        first = self._next + 1 if self._next <= frame else 1
        if state := take_decoder(self._identity(), first, frame):
            source, position = self.source, state.pop("position")
            vars(self).update(state, source=source, _turn=self._turn, _has_passed=self._has_passed)
            if isinstance(self._file, Bounded):
                self._file.attach(source.file)
            self._file.seek(position)

    def close(self) -> None:
        """Leave the decoder of an animation to the block that follows."""
        if self._is_plain:
            return
        if self._is_animated and 0 < self._next < sum(len(series.keys) for series in self._series):
            width, height = self._picture.size
            n_bytes = self.source.n_bytes + 12 * width * height  # three canvases
            state = {**vars(self), "source": None, "position": self._file.tell()}
            keep_decoder(self._identity(), self._next, n_bytes, state)
        self._turn.end()

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

    def _check_pixels(self, stored: np.ndarray) -> None:
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
