"""Decoding of the pixels of a TIFF page by tifffile, one strip or tile after the other, in bounded memory.

By itself, tifffile decompresses a strip however large it becomes, and leaves out strips that are missing. Here a
missing strip or tile is an error, and so is one that decompresses to far more than its pixels.
"""

import importlib.util
import lzma
import math
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tifffile

__all__ = ["can_decode", "read_segments"]

_NONE, _PACKBITS = 1, 32773
_BUFFER = 16_000_000  # bytes that are read at once
# LZMA's strongest preset needs 65 MB; a damaged file may ask for 4 GB.
_LZMA_MEMORY = 100_000_000
# imagecodecs decodes into a buffer of given size, and stops at its end.
_HAS_IMAGECODECS = importlib.util.find_spec("imagecodecs") is not None


def can_decode(compression: int) -> bool:
    """Tell whether a compression can be decoded with the packages that are installed."""
    if _HAS_IMAGECODECS:
        return compression in tifffile.TIFF.DECOMPRESSORS
    return compression in (_NONE, _PACKBITS, *_INFLATE)


def read_segments(page: tifffile.TiffPage, out: np.ndarray) -> None:
    """Decode all strips or tiles of a page.

    Parameters
    ----------
    page : tifffile.TiffPage
        It is changed, and of no use afterwards.
    out : ndarray
        Contiguous, with as many pixels as the page has; a planar page needs one sample after the other.

    Raises
    ------
    ValueError
        A strip or tile is missing, or holds fewer bytes than its pixels need, or more than twice as many.
    """
    n_segments = math.prod(page.chunked)
    if not len(page.dataoffsets) == len(page.databytecounts) == n_segments:
        raise ValueError("some of its strips or tiles are missing")
    inflate = None if _HAS_IMAGECODECS else _INFLATE.get(page.compression)
    n_needed = math.prod(page.chunks) * out.itemsize
    if inflate is not None:
        page.compression = _NONE  # page.decode is given bytes that are decompressed already
    pixels = out.reshape(page.shaped)
    encoded: Iterator[Any] = page.parent.filehandle.read_segments(
        page.dataoffsets, page.databytecounts, sort=True, buffersize=_BUFFER, flat=True
    )
    for content, number in encoded:
        if content is None:
            raise ValueError("some of its strips or tiles are missing")
        content = content if inflate is None else inflate(content, n_needed)
        segment, (sample, depth, top, left, _), shape = page.decode(content, number, _fullsize=False)
        assert segment is not None  # tifffile returns None for content of None only
        place = pixels[sample, depth : depth + shape[0], top : top + shape[1], left : left + shape[2]]
        place[...] = segment[: place.shape[0], : place.shape[1], : place.shape[2]]


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
