"""Pixels of TIFF pages that must be decoded: tifffile's decoders, strip by strip or tile by tile, within bounds.

tifffile inflates whatever a strip holds, however much that is, and leaves pixels as they were where strips are missing.
Here each strip or tile is asked for, must be there, and inflates to what its pixels need.
"""

import importlib.util
import lzma
import math
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tifffile

__all__ = ["decodes", "read_segments"]

_NONE, _PACKBITS = 1, 32773
_BUFFER = 16_000_000  # bytes that are read ahead
# The memory that LZMA's strongest preset needs is 65 MB; a damaged file may ask for 4 GB.
_LZMA_MEMORY = 100_000_000
# imagecodecs is told how much room there is, and goes no further.
_HAS_IMAGECODECS = importlib.util.find_spec("imagecodecs") is not None


def decodes(compression: int) -> bool:
    """Tell whether a compression is one that can be decoded here."""
    if _HAS_IMAGECODECS:
        return compression in tifffile.TIFF.DECOMPRESSORS
    return compression in (_NONE, _PACKBITS, *_INFLATE)


def read_segments(page: tifffile.TiffPage, out: np.ndarray) -> None:
    """Decode all strips or tiles of a page.

    Parameters
    ----------
    page : tifffile.TiffPage
        Not to be used afterwards.
    out : ndarray
        As many pixels as the page has, contiguous; those of a planar page one sample after the other.

    Raises
    ------
    ValueError
        A strip or tile is missing, or holds less or far more than its pixels.
    """
    n_segments = math.prod(page.chunked)
    if not len(page.dataoffsets) == len(page.databytecounts) == n_segments:
        raise ValueError("some of its strips or tiles are missing")
    inflate = None if _HAS_IMAGECODECS else _INFLATE.get(page.compression)
    n_needed = math.prod(page.chunks) * out.itemsize
    if inflate is not None:
        page.compression = _NONE  # of what its own decoder is given from here on
    pixels = out.reshape(page.shaped)
    encoded: Iterator[Any] = page.parent.filehandle.read_segments(
        page.dataoffsets, page.databytecounts, sort=True, buffersize=_BUFFER, flat=True
    )
    for content, number in encoded:
        if content is None:
            raise ValueError("some of its strips or tiles are missing")
        content = content if inflate is None else inflate(content, n_needed)
        segment, (sample, depth, top, left, _), shape = page.decode(content, number, _fullsize=False)
        assert segment is not None  # as content is not
        place = pixels[sample, depth : depth + shape[0], top : top + shape[1], left : left + shape[2]]
        place[...] = segment[: place.shape[0], : place.shape[1], : place.shape[2]]


def _inflate(content: bytes, n_needed: int) -> bytes:
    return _whole(zlib.decompressobj(), content, n_needed)


def _inflate_lzma(content: bytes, n_needed: int) -> bytes:
    return _whole(lzma.LZMADecompressor(memlimit=_LZMA_MEMORY), content, n_needed)


def _whole(decompressor: "zlib._Decompress | lzma.LZMADecompressor", content: bytes, n_needed: int) -> bytes:
    """Decompress to the end, so that the checksum there is looked at; some programs write a strip too long."""
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
