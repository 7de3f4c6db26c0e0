"""Pages of a TIFF: how their pixels are stored, checked before memory is allocated, and their decoding.

Uncompressed strips are read straight into their place. All else is decoded by tifffile, one strip or tile after the
other, in bounded memory; by itself it decompresses a strip however large it becomes, and leaves out strips that are
missing. What it cannot decode with the packages that are installed is decoded by Pillow.
"""

import functools
import importlib.util
import io
import lzma
import math
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Literal, NamedTuple

import numpy as np
import tifffile
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from .base import check_size, orient
from .picture import TILE
from .tiff_directory import Directory, Tag
from .tiff_segments import find_segments, n_missing_planes, strip_sizes

__all__ = ["PageLayout", "check_ends", "decode_by_pillow", "decode_segments", "is_negative", "page_layout", "show"]

_NONE, _OLD_JPEG, _JPEG, _PACKBITS = 1, 6, 7, 32773
_FAX = (2, 3, 4)
_JPEGS = (_OLD_JPEG, _JPEG, 34892, 33007)
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_NOT_TOLD = -1
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
_WHOLE = (8, 16, 32, 64)  # bits
_LEVELS = (1, 2, 4)  # bits of grey that are shown in 8, as in PNG
_INVERTED = (*_LEVELS, 8, 16, 24, 32, 64)  # bits; pixels of others are numbers, not shown
ALPHA = (1, 2)  # EXTRA_SAMPLES: alpha, multiplied into the colours or not
_ALPHA_APART = 2
_JPEG_END, _TAIL = b"\xff\xd9", 64  # bytes behind the end may pad a strip
_BUFFER = 16_000_000  # bytes that are read at once
# LZMA's strongest preset needs 65 MB; a damaged file may ask for 4 GB.
_LZMA, _LZMA_MEMORY = 34925, 100_000_000
# imagecodecs decodes into a buffer of given size, and stops at its end.
_HAS_IMAGECODECS = importlib.util.find_spec("imagecodecs") is not None


class Samples(NamedTuple):
    """What the samples of a page are.

    Attributes
    ----------
    dtype : numpy.dtype
        As shown, in the byte order of the machine.
    n_shown : int
        Channels as shown, 1 for grey.
    photometric : int
        What has to be converted; `_BLACK_IS_ZERO` where nothing has.
    bits : int
    compression : int
    by_tifffile : bool
        Whether tifffile decodes them with the packages that are installed; else Pillow does, if it can.
    """

    dtype: np.dtype
    n_shown: int
    photometric: int
    bits: int
    compression: int
    by_tifffile: bool


class PageLayout(NamedTuple):
    """How the pixels of a page are stored, checked against the file.

    Attributes
    ----------
    shape : tuple of int
        (height, width) or (height, width, n_channels), as shown, before the orientation is applied.
    dtype : numpy.dtype
        As shown.
    orientation : int
    n_samples : int
        Before palettes and colours are converted.
    samples : Samples
    segments : list of (int, int)
        Offset and size of each strip or tile; (0, 0) for one that is left out because it is empty.
    is_raw : bool
        Whether pixels lie in the file as they do in memory, except for the order of their bytes.
    is_planar : bool
        Whether each sample is stored as an image of its own.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    orientation: int
    n_samples: int
    samples: Samples
    segments: list[tuple[int, int]]
    is_raw: bool
    is_planar: bool


def page_layout(directory: Directory, n_bytes: int, max_pixels: int) -> PageLayout:
    """Return how the pixels of a page are stored, after checking its directory against the size of the file.

    Raises
    ------
    ValueError
        It is damaged, too large, or of a kind that is not read.
    """
    tags, one = directory.tags, directory.one
    height, width, n_samples = one(Tag.HEIGHT), one(Tag.WIDTH), one(Tag.SAMPLES, 1) - n_missing_planes(directory)
    if not height * width * n_samples:
        raise ValueError(f"it has no pixels: {height} rows of {width}, {n_samples} samples each")
    check_size(height, width, n_samples, max_pixels=max_pixels)
    is_tiled = Tag.TILE_WIDTH in tags
    if is_tiled:
        tile_height, tile_width = one(Tag.TILE_HEIGHT), one(Tag.TILE_WIDTH)
        check_size(tile_height, tile_width, n_samples, max_pixels=max_pixels)
        # Tiles are decoded whole, also where they reach beyond the image. A thin image of tall tiles would take hours.
        padded = (-(-height // tile_height) * tile_height, -(-width // tile_width) * tile_width)
        check_size(*padded, n_samples, max_pixels=4 * max_pixels)
    samples = _samples(
        n_samples,
        directory.many(Tag.BITS, 1)[:n_samples],
        directory.many(Tag.SAMPLE_FORMAT, 1)[:n_samples],
        one(Tag.PHOTOMETRIC, _NOT_TOLD),
        one(Tag.COMPRESSION, 1),
        one(Tag.PREDICTOR, 1),
        directory.many(Tag.EXTRA_SAMPLES)[0],
        directory.many(Tag.SUBSAMPLING, 2),
    )
    is_planar = one(Tag.SAMPLES, 1) > 1 and one(Tag.PLANAR, 1) == 2
    row_bytes = (width * samples.bits * (1 if is_planar else n_samples) + 7) // 8
    segments = find_segments(directory, row_bytes, n_samples if is_planar else 1, n_bytes)
    is_raw = False
    if samples.compression == _NONE and not is_tiled:
        needed = strip_sizes(directory, row_bytes, n_samples if is_planar else 1)
        for number, ((_, n_held), n_needed) in enumerate(zip(segments, needed, strict=True)):
            if n_held < n_needed:
                raise ValueError(f"its strip {number} holds {n_held:,} bytes, and its pixels need {n_needed:,}")
        # Strips with bytes behind their rows are left to tifffile.
        is_raw = not is_planar and one(Tag.PREDICTOR, 1) == one(Tag.FILL_ORDER, 1) == one(Tag.DEPTH, 1) == 1
        is_raw &= samples.photometric == _BLACK_IS_ZERO and samples.bits in _WHOLE
        is_raw = is_raw and [n for _, n in segments] == needed
    shape = (height, width) if samples.n_shown == 1 else (height, width, samples.n_shown)
    return PageLayout(shape, samples.dtype, directory.orientation, n_samples, samples, segments, is_raw, is_planar)


def is_negative(directory: Directory) -> bool:
    """Tell whether pixels are read as they are stored although 0 is white."""
    is_unusual = directory.many(Tag.BITS, 1)[0] not in _INVERTED or directory.one(Tag.SAMPLES, 1) > 1
    is_unusual |= _KINDS.get(directory.many(Tag.SAMPLE_FORMAT, 1)[0]) != "u"
    return is_unusual and directory.tags.get(Tag.PHOTOMETRIC) == _WHITE_IS_ZERO


@functools.lru_cache(maxsize=1000)
def _samples(
    n: int, all_bits: Any, formats: Any, code: int, compression: int, predictor: int, extra: int, subsampling: Any
) -> Samples:
    """Return what samples are, which most files of a folder have in common; raise if they are not read."""
    kind, bits = _KINDS.get(formats[0], ""), all_bits[0]
    widths = {"u": (*range(1, 33), 64), "i": _WHOLE, "f": (16, 24, 32, 64)}.get(kind, ())
    if len(set(all_bits)) > 1 or len(set(formats)) > 1 or bits not in widths:
        raise ValueError(
            f"its samples are of {'/'.join(map(str, all_bits))} bits and format {'/'.join(map(str, formats))}; whole "
            "numbers of 1 to 32 or 64 bits and floating-point numbers of 16 to 64 bits are read, all samples alike"
        )
    if code == _NOT_TOLD:
        code = _RGB if n > 2 else _WHITE_IS_ZERO if compression in _FAX else _BLACK_IS_ZERO
    n_colours = {_PALETTE: 1, _CMYK: 4}.get(code, n)
    has_alpha = n > n_colours and extra in ALPHA
    is_apart = n == n_colours + 1 and extra == _ALPHA_APART and bits == 8
    is_read = {
        _WHITE_IS_ZERO: True,
        _BLACK_IS_ZERO: True,
        _RGB: True,
        _PALETTE: kind == "u" and bits <= 16 and (is_apart or not has_alpha),
        _CMYK: (kind == "u" and bits in (8, 16) and (n == 4 or (n == 5 and (is_apart or not has_alpha))))
        or (kind == "f" and n == 4),
        # Without JPEG, libtiff converts them; pixels that are not compressed and share colours are not whole rows.
        _YCBCR: kind == "u" and bits == 8 and n == 3 and (compression != _NONE or subsampling == (1, 1)),
    }
    if not is_read.get(code):
        alpha = " with alpha that is multiplied into the colours or is no byte" if has_alpha else ""
        raise ValueError(
            f"its pixels are {_name(tifffile.PHOTOMETRIC, code)}{alpha}, {n} samples of {bits} bits, which are not "
            "converted to grey or RGB. To read the numbers as they are stored: "
            "imgstack_ml.imread(path, imread=tifffile.imread)"
        )
    if code == _RGB or (code == _WHITE_IS_ZERO and (kind != "u" or bits not in _INVERTED or n > 1)):
        code = _BLACK_IS_ZERO
    n_bytes = 4 if bits == 24 else next(size for size in (1, 2, 4, 8) if bits <= 8 * size)
    # Of faxes, imagecodecs reads one kind, and libtiff all; the same is true of colours in old JPEG.
    by_tifffile = compression not in _FAX and (code != _YCBCR or compression in _JPEGS[1:])
    if _HAS_IMAGECODECS:
        by_tifffile &= compression in tifffile.TIFF.DECOMPRESSORS
    else:
        by_tifffile &= compression in (_NONE, _PACKBITS, *_INFLATE) and bits in (1, *_WHOLE)
    by_tifffile &= predictor in tifffile.TIFF.UNPREDICTORS
    n_shown = 3 + is_apart if code > _RGB else n
    dtype = np.dtype("u1" if code > _RGB else f"{kind}{n_bytes}")
    return Samples(dtype, n_shown, code, bits, compression, by_tifffile)


def _name(codes: Any, code: int) -> str:
    try:
        return codes(code).name
    except ValueError:
        return f"of kind {code}"


def check_ends(file: BinaryIO, layout: PageLayout) -> None:
    """Raise if a strip or tile of JPEG has no end: libjpeg would fill it with grey."""
    if layout.samples.compression != _JPEG:
        return
    for offset, count in filter(all, layout.segments):
        file.seek(offset + max(0, count - _TAIL))
        if _JPEG_END not in file.read(min(count, _TAIL)):
            raise ValueError("a JPEG strip or tile of it has no end: it was cut")


def decode_segments(tiff: tifffile.TiffFile, offset: int, layout: PageLayout) -> np.ndarray:
    """Decode all strips or tiles of a page by tifffile.

    Parameters
    ----------
    tiff : tifffile.TiffFile
    offset : int
        Of the page's directory.
    layout : PageLayout

    Returns
    -------
    ndarray of shape (height, width, n_samples)
        As stored.

    Raises
    ------
    ValueError
        A strip or tile holds fewer bytes than its pixels need, or more than twice as many.
    """
    inflate = _INFLATE.get(layout.samples.compression)
    # Of LZMA imagecodecs reads what the pixels take, and not the checksum at the end.
    if not _HAS_IMAGECODECS or layout.samples.compression == _LZMA:
        return _decode(tiff, offset, layout, inflate)
    try:
        return _decode(tiff, offset, layout, None)
    except RuntimeError as error:
        if inflate is None:
            raise ValueError(f"its compressed pixels are damaged ({error})") from error
    return _decode(tiff, offset, layout, inflate)  # imagecodecs refuses strips that are longer than their pixels


def _decode(tiff: tifffile.TiffFile, offset: int, layout: PageLayout, inflate: Callable[[], Any] | None) -> np.ndarray:
    tiff.filehandle.seek(offset)
    page = tifffile.TiffPage(tiff, index=0)
    shaped = (layout.n_samples if layout.is_planar else 1, *page.shaped[1:])  # planes may be missing
    if math.prod(shaped) != math.prod(layout.shape[:2]) * layout.n_samples or page.dtype is None:
        raise ValueError(f"tifffile reads {page.shape}, {page.dtype} where the directory says {layout.shape}")
    n_needed = math.prod(page.chunks) * page.dtype.itemsize
    if inflate is not None:
        page.compression = _NONE  # page.decode is given bytes that are decompressed already
    pixels = np.empty(shaped, page.dtype)
    tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if page.compression in _JPEGS else {}
    offsets, counts = zip(*layout.segments, strict=True)
    for content, number in page.parent.filehandle.read_segments(
        offsets, counts, sort=True, buffersize=_BUFFER, flat=True
    ):
        encoded: Any = content if content is None or inflate is None else _decompress(inflate(), content, n_needed)  # type: ignore[arg-type]
        segment, (sample, depth, top, left, _), shape = page.decode(encoded, number, _fullsize=False, **tables)
        place = pixels[sample, depth : depth + shape[0], top : top + shape[1], left : left + shape[2]]
        place[...] = page.nodata if segment is None else segment[: place.shape[0], : place.shape[1], : place.shape[2]]
    return np.moveaxis(pixels[:, 0, ..., 0], 0, -1) if layout.is_planar else pixels[0, 0]


def show(pixels: np.ndarray, layout: PageLayout, directory: Directory) -> np.ndarray:
    """Return stored pixels as a viewer shows them, of the shape and dtype of a layout."""
    if layout.samples.photometric in (_PALETTE, _CMYK):
        colours = _colours(pixels, directory) if layout.samples.photometric == _PALETTE else _rgb(pixels, layout)
        return np.concatenate([colours, pixels[..., -1:]], 2) if layout.samples.n_shown == 4 else colours
    most = (1 << layout.samples.bits) - 1
    if layout.samples.photometric == _WHITE_IS_ZERO:
        pixels = np.subtract(most, pixels, dtype=layout.dtype)
    if layout.samples.bits == 1 or (layout.samples.bits in _LEVELS and layout.n_samples == 1):
        pixels = pixels.astype(np.uint8) * (255 // most)
    return pixels.reshape(layout.shape)


def _rgb(pixels: np.ndarray, layout: PageLayout) -> np.ndarray:
    if pixels.dtype.kind == "f":
        if not (pixels.min() >= 0 and pixels.max() <= 1):
            raise ValueError("its pixels are CMYK in floating-point numbers that are not all between 0 and 1")
        inks = pixels.astype(np.float64)
        return np.rint(255 * (1 - inks[..., :3]) * (1 - inks[..., 3:])).astype(np.uint8)
    eight = np.ascontiguousarray(pixels[..., :4] >> (layout.samples.bits - 8), np.uint8)
    return np.asarray(Image.frombuffer("CMYK", eight.shape[1::-1], eight, "raw", "CMYK", 0, 1).convert("RGB"))


def _colours(pixels: np.ndarray, directory: Directory) -> np.ndarray:
    """Look up the colours of a palette, of which the upper 8 of 16 bits are shown."""
    values = np.array(directory.many(Tag.COLORMAP), np.uint16)
    table = (values.reshape(3, -1).T >> 8).astype(np.uint8) if len(values) % 3 == 0 else values[:0]
    numbers = pixels[..., 0].astype(np.intp)
    if numbers.max() >= len(table):
        raise ValueError(f"its palette has {len(table)} colours, and a pixel has colour {numbers.max()}: it is damaged")
    return table[numbers]


class _Starting:
    """A TIFF whose first page is another one of its pages: Pillow would read all pages in front of it."""

    def __init__(self, file: BinaryIO, n_bytes: int, directory: Directory):
        self._file, self._n_bytes = file, n_bytes
        order: Literal["little", "big"] = "little" if directory.layout.order == "<" else "big"
        start, size = (8, 8) if directory.layout.big else (4, 4)
        self._link = slice(start, start + size), directory.offset.to_bytes(size, order)
        self.seek, self.tell = file.seek, file.tell
        if isinstance(getattr(file, "raw", None), io.FileIO):  # else libtiff is given the whole file at once
            self.fileno = file.fileno

    def read(self, n_bytes: int = -1, /) -> bytes:
        """Read up to `n_bytes`, at most to the end."""
        position = self._file.tell()
        left = max(0, self._n_bytes - position)
        content = self._file.read(left if n_bytes < 0 else min(n_bytes, left))
        if position == 0:
            where, link = self._link
            content = (content[: where.start] + link + content[where.stop :])[: len(content)]
        return content


class _ByLibtiff(TiffImageFile):
    """A TIFF whose pixels libtiff converts to RGB, also where Pillow would read YCbCr as it is stored."""

    def _setup(self) -> None:
        super()._setup()
        if self.mode == "YCbCr":
            self.use_load_libtiff, self._mode = True, "RGB"
            size = self.tag_v2[Tag.WIDTH], self.tag_v2[Tag.HEIGHT]
            self.tile = [TILE("libtiff", (0, 0, *size), 0, ("RGBX", False, self.tag_v2.offset))]


def decode_by_pillow(file: BinaryIO, n_bytes: int, layout: PageLayout, directory: Directory) -> np.ndarray:
    """Decode a page by Pillow, and return it upright and as shown."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ValueError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True: Pillow would fill damaged images; set it to False"
        )
    file.seek(0)
    try:
        with _ByLibtiff(_Starting(file, n_bytes, directory)) as picture:  # type: ignore[arg-type]
            if layout.samples.bits not in (*_LEVELS, 8, 12, 16, 32) or sorted(picture.size) != sorted(layout.shape[:2]):
                raise ValueError("Pillow does not read it as it is stored")
            picture.load()
            mode = {"1": "L", "P": "RGB", "CMYK": "RGB", "PA": "RGBA"}.get(picture.mode, picture.mode)
            pixels = np.asarray(picture if mode == picture.mode else picture.convert(mode))
    except (OSError, ValueError, SyntaxError, KeyError, Warning) as error:
        raise ValueError(f"it is damaged ({error}), or {_needs(directory, layout)}") from error
    upright = orient(np.empty(layout.shape, layout.dtype), layout.orientation)
    if pixels.shape != upright.shape or pixels.dtype != layout.dtype:
        raise ValueError(_needs(directory, layout))
    return pixels


def _needs(directory: Directory, layout: PageLayout) -> str:
    name, predictor = _name(tifffile.COMPRESSION, layout.samples.compression), directory.one(Tag.PREDICTOR, 1)
    what = f"its compression {name}, predictor {predictor} and {layout.samples.bits} bits a sample"
    if _HAS_IMAGECODECS:
        return f"{what} are read neither by tifffile nor by Pillow"
    return f"{what} need the package imagecodecs: pip install imagecodecs"


def _decompress(decompressor: Any, content: bytes, n_needed: int) -> bytes:
    """Decompress to the end, where the checksum is.

    Some programs write a full strip where a shorter one is left, so that up to twice the bytes are accepted.
    """
    most = 2 * n_needed + 1
    found = decompressor.decompress(content, most)
    if not decompressor.eof:
        if len(found) < most:
            raise ValueError("a strip or tile of it ends early: it was cut")
        raise ValueError(f"a strip or tile of it inflates to more than twice its {n_needed:,} bytes of pixels")
    return found


_INFLATE: dict[int, Callable[[], Any]] = {
    **dict.fromkeys((8, 32946, 50013), zlib.decompressobj),
    _LZMA: functools.partial(lzma.LZMADecompressor, memlimit=_LZMA_MEMORY),
}
