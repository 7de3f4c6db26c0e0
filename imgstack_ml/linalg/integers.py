"""Inner products of 8-bit images, exact: several times as fast as in float32, without a rounding error.

Processors multiply unsigned bytes x with signed bytes, here y - 128, and add up in 32 bits (see `byte_kernels`). With
the sum s_i of the m values of row i, the inner products of unsigned bytes follow::

    x_i . y_j  =  x_i . (y_j - 128)  +  128 s_i

In the bits of a byte y - 128 is y with its highest bit flipped. Signed images x are multiplied as x + 128, flipped in
the same way; then 128 (s_i + s_j) - 128^2 m is subtracted, s being sums of x + 128. Booleans are bytes of 0 and 1. Of
products of images with themselves only the lower triangle is multiplied; the upper one is its mirror image.

Nothing overflows. A product of bytes lies between -255 * 128 and 255 * 127, so that 32 bits hold the sum of 65,793 of
them; sums move to 64 bits after at most 65,536. There the largest sum, 255^2 m, fits for all m up to 1.4e14.

Without such an instruction the same functions use float64, which is exact here too, and slower than float32: ask
`are_fast` first. ``IMGSTACK_ML_INTEGER_PRODUCTS=0`` in the environment turns the instruction off.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from functools import cache, reduce
from typing import TYPE_CHECKING, Any

import numpy as np

from .tiles import flat_rows, n_rows

if TYPE_CHECKING:
    from .byte_kernels import Kernels

__all__ = ["are_fast", "prepare", "products_of_images", "products_of_pixels", "products_of_two"]

logger = logging.getLogger("imgstack_ml")

_MOST_TERMS = 2**16  # in a sum of 32 bits
_TILE_BYTES = 2**19  # they and their packed copy stay in the cache while they are multiplied
_FEW_TERMS = 512  # fewer would be added to the sums in memory too often
_LOCK = threading.Lock()


def are_fast(dtype: np.dtype) -> bool:
    """Tell whether this machine multiplies images of a dtype faster as bytes than as float32."""
    return dtype.itemsize == 1 and dtype.kind in "biu" and _compiled() is not None


def prepare() -> None:
    """Begin to compile in a thread of its own, if that is not done: images are read meanwhile. `are_fast` waits."""
    if not _compiled_once.cache_info().currsize:
        threading.Thread(target=_compiled, name="imgstack_ml compiles").start()


def products_of_images(blocks: Sequence[np.ndarray], lo: int, hi: int, pixels: np.ndarray | None = None) -> np.ndarray:
    """XX' (n, n), int64, over the pixels `lo` to `hi`. `blocks` are images of 8 bits or Booleans.

    The mean image and the sums of squares about it, rounded once, are written to these columns of `pixels` (2, p).
    """
    kernels, n = kernels_in_use(), n_rows(blocks)
    width = tile_length(kernels, n, hi - lo)
    tile = Tile(_padded(kernels, n), width)
    found, offset = _Sums(len(tile.bytes), len(tile.bytes)), offset_of(blocks)
    for a in range(lo, hi, width):
        b = min(a + width, hi)
        tile.fill(blocks, a, b)
        if pixels is not None:
            sums, products = _sums_of_columns(kernels, tile)[:, : b - a]
            squares = (n * (products + 128 * sums) - sums**2) / n  # of unsigned bytes: the offset does not matter
            pixels[:, a:b] = (sums - n * offset) / n, squares
        rows, row_sums = kernels.pack_rows(tile.bytes)
        found.add(kernels, rows, rows, row_sums, width)
    matrix, row_sums = found.result(n, n)
    _mirror(matrix)
    return _less_offset(matrix, row_sums, row_sums, offset, hi - lo)


def _sums_of_columns(kernels: Kernels | _InFloat64, tile: Tile) -> np.ndarray:
    """Add up the columns y of a tile, and y (y - 128): two rows of int64."""
    rows = (tile.bytes[i : i + _MOST_TERMS] for i in range(0, len(tile.bytes), _MOST_TERMS))
    return reduce(np.add, (np.stack(kernels.pack_columns(part)[1:], dtype=np.int64) for part in rows))


def products_of_two(blocks: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> np.ndarray:
    """XY' (n, n_others), int64: inner products of all images of 8 bits with all others, of the same dtype."""
    kernels, shape, p = kernels_in_use(), (n_rows(blocks), n_rows(others)), blocks[0][0].size
    width = tile_length(kernels, sum(shape), p)
    tiles = [Tile(_padded(kernels, n), width) for n in shape]
    found, sums = _Sums(len(tiles[0].bytes), len(tiles[1].bytes)), np.zeros(shape[1], np.int64)
    for a in range(0, p, width):
        for tile, images in zip(tiles, (blocks, others), strict=True):
            tile.fill(images, a, min(a + width, p))
        (x, x_sums), (y, y_sums) = (kernels.pack_rows(tile.bytes) for tile in tiles)
        found.add(kernels, x, y, x_sums, width)
        sums += y_sums[: shape[1]]
    matrix, x_sums = found.result(*shape)
    return _less_offset(matrix, x_sums, sums, offset_of(blocks), p)


def products_of_pixels(blocks: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """X'X (p, p) and the sum of the images (p,), both int64. `blocks` are images of 8 bits or Booleans."""
    kernels, n, p = kernels_in_use(), n_rows(blocks), blocks[0][0].size
    padded = _padded(kernels, p)
    height = tile_length(kernels, padded, n)
    found, values = _Sums(padded, padded), np.zeros((height, padded), np.uint8)
    for block in blocks:
        for i in range(0, len(block), height):
            rows = _unsigned(block[i : i + height]).reshape(-1, p)
            values[: len(rows), :p] = rows
            values[len(rows) :] = 0
            columns, sums, _ = kernels.pack_columns(values)
            found.add(kernels, columns, columns, sums, height)
    matrix, sums = found.result(p, p)
    _mirror(matrix)
    offset = offset_of(blocks)
    return _less_offset(matrix, sums, sums, offset, n), sums - offset * n


def tile_length(kernels: Kernels | _InFloat64, n: int, n_terms: int) -> int:
    """Choose how many of the terms of products of `n` vectors are added up at a time."""
    together = kernels.n_terms
    wanted = min(max(_TILE_BYTES // n, _FEW_TERMS), n_terms + together - 1, _MOST_TERMS)
    return max(together, wanted // together * together)


def _padded(kernels: Kernels | _InFloat64, n: int) -> int:
    return -(-n // kernels.n_rows) * kernels.n_rows


class Tile:
    """A range of pixels of all images as unsigned bytes, with zeros behind the last image and the last pixel."""

    def __init__(self, n_rows: int, width: int):
        self.bytes = np.zeros((n_rows, width), np.uint8)

    def fill(self, blocks: Sequence[np.ndarray], a: int, b: int) -> None:
        """Take the pixels `a` to `b`."""
        row = 0
        for block in flat_rows(blocks):
            self.bytes[row : row + len(block), : b - a] = _unsigned(block[:, a:b])
            row += len(block)
        self.bytes[:, b - a :] = 0


class _Sums:
    """Inner products of unsigned bytes, added up in 32 bits, and in 64 before these overflow."""

    def __init__(self, n_rows: int, n_columns: int):
        self._few, self._n_terms = np.zeros((n_rows, n_columns), np.int32), 0
        self._many, self._row_sums = np.zeros((n_rows, n_columns), np.int64), np.zeros(n_rows, np.int64)

    def add(self, kernels: Kernels | _InFloat64, a: Any, b: Any, row_sums: np.ndarray, n_terms: int) -> None:
        """Add the products of packed rows, and the sums of those of `a`."""
        if self._n_terms + n_terms > _MOST_TERMS:
            self._move()
        kernels.multiply(a, b, self._few)
        self._n_terms += n_terms
        self._row_sums += row_sums

    def _move(self) -> None:
        self._many += self._few
        self._few.fill(0)
        self._n_terms = 0

    def result(self, n_rows: int, n_columns: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the products, without the rows and columns of zeros, and the sums of the rows."""
        self._move()
        del self._few
        found, sums = self._many[:n_rows, :n_columns], self._row_sums[:n_rows]
        found += 128 * sums[:, None]
        return found, sums


def _unsigned(images: np.ndarray) -> np.ndarray:
    """Return the bytes of Booleans and unsigned images; x + 128 of signed ones."""
    values = images.view(np.uint8)
    return values ^ np.uint8(128) if images.dtype.kind == "i" else values


def offset_of(blocks: Sequence[np.ndarray]) -> int:
    return 128 if blocks[0].dtype.kind == "i" else 0


def _less_offset(matrix: np.ndarray, a: np.ndarray, b: np.ndarray, offset: int, m: int) -> np.ndarray:
    """Turn products of rows of m values x + offset, with sums `a` and `b`, into those of x."""
    if offset:
        matrix -= offset * a[:, None]
        matrix -= offset * b - offset**2 * m
    return matrix


def _mirror(matrix: np.ndarray) -> None:
    """Copy the lower triangle to the upper one."""
    for i in range(0, len(matrix), 512):
        corner = matrix[i : i + 512, i : i + 512]
        corner[:] = np.tril(corner) + np.tril(corner, -1).T
        matrix[i : i + 512, i + 512 :] = matrix[i + 512 :, i : i + 512].T


class _InFloat64:
    """The same as the compiled kernels, in float64: exact, for results below 2^53."""

    n_rows = n_terms = n_bytes = n_few = 1

    def pack_rows(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return values.astype(np.float64), values.sum(axis=1, dtype=np.int64)

    def pack_columns(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        packed, sums = self.pack_rows(values.T)
        return packed, sums, (packed * (packed - 128)).sum(axis=1).astype(np.int64)

    def multiply(self, a: np.ndarray, b: np.ndarray, out: np.ndarray) -> None:
        out += (a @ (b - 128.0).T).astype(np.int32)


def kernels_in_use() -> Kernels | _InFloat64:
    return _compiled() or _InFloat64()


def _compiled() -> Kernels | None:
    with _LOCK:  # tasks of several threads may ask at the same time
        return _compiled_once()


@cache
def _compiled_once() -> Kernels | None:
    """Compile the kernels, and keep them if they are right; None where the machine has none, or they are turned off."""
    if os.environ.get("IMGSTACK_ML_INTEGER_PRODUCTS", "1") == "0":
        return None
    try:
        from .byte_kernels import make_kernels

        kernels = make_kernels()
    except Exception as error:  # whatever LLVM or a processor has against it, float32 works
        logger.warning("inner products of bytes could not be compiled, float32 is used: %s", error)
        return None
    if kernels is not None and not _are_right(kernels):
        logger.warning("inner products of bytes are wrong on this machine, float32 is used")
        return None
    return kernels


def _are_right(kernels: Kernels) -> bool:
    """Test the kernels against NumPy: with random bytes, and with the largest products that there are."""
    n = kernels.n_terms  # a multiple of n_rows, too
    random = np.random.default_rng(0).integers(0, 256, (2, n, n), dtype=np.uint8)
    extreme = np.stack([np.full((n, n), 255, np.uint8), np.zeros((n, n), np.uint8)])
    for a, b in (random, extreme):
        x, y = a.astype(np.float64), b.astype(np.float64)
        for pack, axis in ((kernels.pack_rows, 1), (kernels.pack_columns, 0)):
            (left, sums, *products), (right, *_) = pack(a), pack(b)
            full, lower = np.zeros((n, n), np.int32), np.zeros((n, n), np.int32)
            kernels.multiply(left, right, full)
            kernels.multiply(left, left, lower)
            expected = [u @ (v - 128).T if axis else u.T @ (v - 128) for u, v in ((x, y), (x, x))]
            if not (
                np.array_equal(sums, x.sum(axis=axis))
                and all(np.array_equal(found, (x * (x - 128)).sum(axis=axis)) for found in products)
                and np.array_equal(full, expected[0])
                and np.array_equal(np.tril(lower), np.tril(expected[1]))
            ):
                return False
    return True
