"""Pages of a TIFF: how their pixels are stored, checked before memory is allocated, and their decoding.

Uncompressed strips are read straight into their place. All else is decoded by tifffile, one strip or tile after the
other, in bounded memory; by itself it decompresses a strip however large it becomes, and leaves out strips that are
missing. What it cannot decode with the packages that are installed is decoded by Pillow.
"""

import importlib.util
import io
import lzma
import math
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import tifffile
from PIL import Image, ImageFile
from PIL.TiffImagePlugin import TiffImageFile

from .base import check_size, orient
from .tiff_directory import Directory, Tag

__all__ = ["PageLayout", "decode_by_pillow", "decode_segments", "page_layout", "show"]

_NONE, _OLD_JPEG, _JPEG, _PACKBITS = 1, 6, 7, 32773
_FAX = (2, 3, 4)
_JPEGS = (_OLD_JPEG, _JPEG, 34892, 33007)
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
_INVERTED = (1, 8, 16, 24, 32, 64)  # bits; pixels of others are numbers, not shown
_ALPHA = (1, 2)  # EXTRA_SAMPLES: alpha, multiplied into the colours or not
_BUFFER = 16_000_000  # bytes that are read at once
# LZMA's strongest preset needs 65 MB; a damaged file may ask for 4 GB.
_LZMA_MEMORY = 100_000_000
# imagecodecs decodes into a buffer of given size, and stops at its end.
_HAS_IMAGECODECS = importlib.util.find_spec("imagecodecs") is not None
_MISSING = "some of its strips or tiles are missing"


class PageLayout(NamedTuple):
    """How the pixels of a page are stored, checked against the file.

    Attributes
    ----------
    shape : tuple of int
        (height, width) or (height, width, n_channels), as shown, before the orientation is applied.
    dtype : numpy.dtype
        As shown, in the byte order of the machine.
    orientation : int
    stored : tuple of int
        (height, width, n_samples) before palettes and colours are applied.
    photometric : int
        What the samples mean.
    bits : int
        Of a sample.
    segments : sequence of (int, int)
        Offset and size of each strip or tile; (0, 0) for one that is left out because it is empty.
    is_raw : bool
        Whether pixels lie in the file as they do in memory, except for the order of their bytes.
    is_planar : bool
        Whether each sample is stored as an image of its own.
    by_tifffile : bool
        Whether tifffile decodes them with the packages that are installed; else Pillow does, if it can.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    orientation: int
    stored: tuple[int, int, int]
    photometric: int
    bits: int
    segments: list[tuple[int, int]]
    is_raw: bool
    is_planar: bool
    by_tifffile: bool


def page_layout(directory: Directory, n_bytes: int, max_pixels: int) -> PageLayout:
    """Return how the pixels of a page are stored, after checking its directory.

    Parameters
    ----------
    directory : Directory
    n_bytes : int
        Size of the file.
    max_pixels : int

    Raises
    ------
    ValueError
        It is damaged, too large, or of a kind that is not read.
    """
    tags = directory.tags
    height, width, n_samples = directory.one(Tag.HEIGHT), directory.one(Tag.WIDTH), directory.one(Tag.SAMPLES, 1)
    if not height * width * n_samples:
        raise ValueError(f"it has no pixels: {height} rows of {width}, {n_samples} samples each")
    check_size(height, width, n_samples, max_pixels=max_pixels)
    if Tag.TILE_WIDTH in tags:
        tile_height, tile_width = directory.one(Tag.TILE_HEIGHT), directory.one(Tag.TILE_WIDTH)
        check_size(tile_height, tile_width, n_samples, max_pixels=max_pixels)
        # Tiles are decoded whole, also where they reach beyond the image. A thin image of tall tiles would take hours.
        padded = (-(-height // tile_height) * tile_height, -(-width // tile_width) * tile_width)
        check_size(*padded, n_samples, max_pixels=4 * max_pixels)
    compression = directory.one(Tag.COMPRESSION, 1)
    kind, bits = _numbers(directory, n_samples)
    photometric = _photometric(directory, n_samples, kind, bits)
    n_shown = 3 if photometric in (_PALETTE, _CMYK, _YCBCR) else n_samples
    stored = np.dtype(f"{kind}{4 if (kind, bits) == ('f', 24) else _n_bytes_of(bits)}")
    is_planar = n_samples > 1 and directory.one(Tag.PLANAR, 1) == 2
    row_bits = width * bits * (1 if is_planar else n_samples)
    is_plain = photometric in (_BLACK_IS_ZERO, _RGB) and bits in (8, 16, 32, 64) and directory.one(Tag.DEPTH, 1) == 1
    is_plain &= compression == _NONE and Tag.TILE_WIDTH not in tags
    needed = _strip_sizes(directory, -(-row_bits // 8), n_samples if is_planar else 1)
    segments = _segments(directory, needed if compression == _NONE else None, is_planar, n_bytes)
    if is_plain:
        for number, ((_, n_held), n_needed) in enumerate(zip(segments, needed, strict=True)):
            if n_held < n_needed:
                raise ValueError(f"its strip {number} holds {n_held:,} bytes, and its pixels need {n_needed:,}")
    # Strips with bytes behind their rows are left to tifffile.
    is_raw = is_plain and not is_planar and directory.one(Tag.PREDICTOR, 1) == directory.one(Tag.FILL_ORDER, 1) == 1
    is_raw = is_raw and [n for _, n in segments] == needed
    by_tifffile = is_raw or _tifffile_decodes(directory, compression, photometric, bits)
    return PageLayout(
        (height, width) if n_shown == 1 else (height, width, n_shown),
        stored if photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) else np.dtype(np.uint8),
        directory.orientation,
        (height, width, n_samples),
        photometric,
        bits,
        segments,
        is_raw,
        is_planar,
        by_tifffile,
    )


def _n_bytes_of(bits: int) -> int:
    return next(size for size in (1, 2, 4, 8) if bits <= 8 * size)


def _numbers(directory: Directory, n_samples: int) -> tuple[str, int]:
    """Return the kind and number of bits of all samples."""
    bits = set(directory.many(Tag.BITS, 1)[:n_samples])
    kinds = {_KINDS.get(code) for code in directory.many(Tag.SAMPLE_FORMAT, 1)[:n_samples]}
    kind, size = kinds.pop(), bits.pop()
    widths = {"u": (*range(1, 33), 64), "i": (8, 16, 32, 64), "f": (16, 24, 32, 64)}.get(kind or "", ())
    if bits or kinds or size not in widths:
        said = "/".join(map(str, directory.many(Tag.BITS, 1)))
        raise ValueError(
            f"its pixels are of {said} bits and sample format {directory.tags.get(Tag.SAMPLE_FORMAT, 1)}; whole numbers "
            "of 1 to 32 or 64 bits and floating-point numbers of 16 to 64 bits are read, all samples alike"
        )
    return str(kind), size


def _photometric(directory: Directory, n_samples: int, kind: str, bits: int) -> int:
    """Return what the samples mean, as far as they have to be converted."""
    compression = directory.one(Tag.COMPRESSION, 1)
    missing = _RGB if n_samples > 2 else _WHITE_IS_ZERO if compression in _FAX else _BLACK_IS_ZERO
    code = directory.one(Tag.PHOTOMETRIC, missing)
    if code == _WHITE_IS_ZERO and (kind != "u" or bits not in _INVERTED):
        return _BLACK_IS_ZERO
    extra = directory.many(Tag.EXTRA_SAMPLES)[0]
    is_read = {
        _WHITE_IS_ZERO: True,
        _BLACK_IS_ZERO: True,
        _RGB: True,
        _PALETTE: kind == "u" and bits <= 16 and (n_samples == 1 or extra not in _ALPHA),
        _CMYK: kind == "u" and bits in (8, 16) and (n_samples == 4 or (n_samples == 5 and extra not in _ALPHA)),
        # Without JPEG, libtiff converts them, and reads them only where they are compressed.
        _YCBCR: kind == "u" and bits == 8 and n_samples == 3 and compression != _NONE,
    }
    if not is_read.get(code):
        alpha = " with alpha" if code in (_PALETTE, _CMYK) and extra in _ALPHA else ""
        raise ValueError(
            f"its pixels are {_name(tifffile.PHOTOMETRIC, code)}{alpha}, {n_samples} samples of {bits} bits, which are "
            "not converted to grey or RGB. To read the numbers as they are stored: "
            "imgstack_ml.imread(path, imread=tifffile.imread)"
        )
    return code


def _name(codes: Any, code: int | None) -> str:
    try:
        return codes(code).name
    except ValueError:
        return f"of kind {code}"


def _tifffile_decodes(directory: Directory, compression: int, photometric: int, bits: int) -> bool:
    """Tell whether tifffile decodes a page with the packages that are installed."""
    # Of faxes, imagecodecs reads one kind, and libtiff all; the same is true of colours in old JPEG.
    if compression in _FAX or (photometric == _YCBCR and compression not in _JPEGS[1:]):
        return False
    if directory.one(Tag.PREDICTOR, 1) not in tifffile.TIFF.UNPREDICTORS:
        return False
    if _HAS_IMAGECODECS:
        return compression in tifffile.TIFF.DECOMPRESSORS
    return compression in (_NONE, _PACKBITS, *_INFLATE) and bits in (1, 8, 16, 32, 64)


def _segments(directory: Directory, needed: list[int] | None, is_planar: bool, n_bytes: int) -> list[tuple[int, int]]:
    """Return offset and size of all strips or tiles. All must lie in the file: tifffile reads missing ones as zeros.

    `needed` are the sizes of uncompressed strips.
    """
    tags, height, width = directory.tags, directory.one(Tag.HEIGHT), directory.one(Tag.WIDTH)
    if Tag.TILE_WIDTH in tags:
        across, down = -(-width // directory.one(Tag.TILE_WIDTH)), -(-height // directory.one(Tag.TILE_HEIGHT))
        names = (Tag.TILE_OFFSETS, Tag.TILE_BYTES) if Tag.TILE_OFFSETS in tags else (Tag.STRIP_OFFSETS, Tag.STRIP_BYTES)
    else:
        across, down = 1, -(-height // min(height, directory.one(Tag.ROWS_PER_STRIP, height) or height))
        names = Tag.STRIP_OFFSETS, Tag.STRIP_BYTES
    offsets, counts = (directory.many(name) for name in names)
    n_expected = across * down * (directory.one(Tag.SAMPLES) if is_planar else 1)
    if not any(counts) and all(offsets) and Tag.TILE_WIDTH not in tags:  # some programs leave them out
        if needed:
            counts = tuple(needed)
        elif n_expected == 1:
            counts = (max(0, n_bytes - offsets[0]),)
    segments = list(zip(offsets, counts, strict=False))
    # GDAL leaves out tiles of which all pixels have no data.
    may_be_left_out = Tag.GDAL_NODATA in tags or Tag.GDAL_METADATA in tags
    if not len(offsets) == len(counts) == n_expected or not all(
        (offset and count) or (may_be_left_out and offset == count == 0) for offset, count in segments
    ):
        raise ValueError(_MISSING)
    end = max(offset + count for offset, count in segments)
    if end > n_bytes:
        raise ValueError(f"its pixels end at byte {end:,}, and the file has {n_bytes:,}: it was cut")
    return segments


def _strip_sizes(directory: Directory, row_bytes: int, n_planes: int) -> list[int]:
    """Return the bytes of pixels in each strip; the last one of an image, or of a sample, may have fewer rows."""
    height = directory.one(Tag.HEIGHT)
    n_rows = min(height, directory.one(Tag.ROWS_PER_STRIP, height) or height)
    n_full, rest = divmod(height, n_rows)
    return ([n_rows * row_bytes] * n_full + [rest * row_bytes] * (rest > 0)) * n_planes


def decode_segments(page: tifffile.TiffPage, layout: PageLayout) -> np.ndarray:
    """Decode all strips or tiles of a page by tifffile.

    Parameters
    ----------
    page : tifffile.TiffPage
        It is changed, and of no use afterwards.
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
    height, width, n_samples = layout.stored
    if page.size != height * width * n_samples or page.dtype is None:
        raise ValueError(f"tifffile reads {page.shape}, {page.dtype} where the directory says {layout.stored}")
    inflate = None if _HAS_IMAGECODECS else _INFLATE.get(page.compression)
    n_needed = math.prod(page.chunks) * page.dtype.itemsize
    if inflate is not None:
        page.compression = _NONE  # page.decode is given bytes that are decompressed already
    pixels = np.empty(page.shaped, page.dtype)
    tables = {"jpegtables": page.jpegtables, "jpegheader": page.jpegheader} if page.compression in _JPEGS else {}
    offsets, counts = zip(*layout.segments, strict=True)
    for content, number in page.parent.filehandle.read_segments(
        offsets, counts, sort=True, buffersize=_BUFFER, flat=True
    ):
        if content is not None and inflate is not None:
            content = inflate(content, n_needed)
        segment, (sample, depth, top, left, _), shape = page.decode(content, number, _fullsize=False, **tables)
        place = pixels[sample, depth : depth + shape[0], top : top + shape[1], left : left + shape[2]]
        place[...] = page.nodata if segment is None else segment[: place.shape[0], : place.shape[1], : place.shape[2]]
    return np.moveaxis(pixels[:, 0, ..., 0], 0, -1) if layout.is_planar else pixels[0, 0]


def show(pixels: np.ndarray, layout: PageLayout, directory: Directory) -> np.ndarray:
    """Return stored pixels as a viewer shows them, of the shape and dtype of a layout."""
    if layout.photometric == _PALETTE:
        return _colours(pixels, directory)
    if layout.photometric == _CMYK:
        eight = np.ascontiguousarray(pixels[..., :4] >> (layout.bits - 8), np.uint8)
        return np.asarray(Image.frombuffer("CMYK", eight.shape[1::-1], eight, "raw", "CMYK", 0, 1).convert("RGB"))
    most = (1 << layout.bits) - 1
    if layout.photometric == _WHITE_IS_ZERO:
        pixels = np.subtract(most, pixels, dtype=layout.dtype)
    if layout.bits == 1:
        pixels = pixels.astype(np.uint8) * 255
    return pixels.reshape(layout.shape)


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
        order = "little" if directory.layout.order == "<" else "big"
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


def decode_by_pillow(file: BinaryIO, n_bytes: int, layout: PageLayout, directory: Directory) -> np.ndarray:
    """Decode a page by Pillow, and return it upright and as shown."""
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise ValueError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True: Pillow would fill damaged images; set it to False"
        )
    file.seek(0)
    try:
        with TiffImageFile(_Starting(file, n_bytes, directory)) as picture:  # type: ignore[arg-type]
            if layout.bits not in (1, 8, 12, 16, 32) or sorted(picture.size) != sorted(layout.shape[:2]):
                raise ValueError("it is read otherwise")
            picture.load()
            mode = {"1": "L", "P": "RGB", "CMYK": "RGB"}.get(picture.mode, picture.mode)
            pixels = np.asarray(picture if mode == picture.mode else picture.convert(mode))
    except (OSError, ValueError, SyntaxError, KeyError, Warning) as error:
        raise ValueError(f"{_needs(directory, layout)} (Pillow: {error})") from error
    upright = orient(np.empty(layout.shape, layout.dtype), layout.orientation)
    if pixels.shape != upright.shape or pixels.dtype != layout.dtype:
        raise ValueError(_needs(directory, layout))
    return pixels


def _needs(directory: Directory, layout: PageLayout) -> str:
    compression, predictor = directory.one(Tag.COMPRESSION, 1), directory.one(Tag.PREDICTOR, 1)
    name = _name(tifffile.COMPRESSION, compression)
    what = f"compression {name}, predictor {predictor} and {layout.bits} bits a sample"
    if _HAS_IMAGECODECS:
        return f"its {what} are read neither by tifffile nor by Pillow"
    return f"its {what} need the package imagecodecs: pip install imagecodecs"


def _inflate(content: bytes, n_needed: int) -> bytes:
    return _decompress(zlib.decompressobj(), content, n_needed)


def _inflate_lzma(content: bytes, n_needed: int) -> bytes:
    return _decompress(lzma.LZMADecompressor(memlimit=_LZMA_MEMORY), content, n_needed)


def _decompress(decompressor: "zlib._Decompress | lzma.LZMADecompressor", content: bytes, n_needed: int) -> bytes:
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


_INFLATE: dict[int, Callable[[bytes, int], bytes]] = {
    **dict.fromkeys((8, 32946, 50013), _inflate),
    34925: _inflate_lzma,
}
