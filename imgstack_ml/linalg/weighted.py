"""Weighted sums of 8-bit images, in bytes.

A row of weights w becomes integers q of 24 bits times a factor, and these become three bytes::

    q + 128 (1 + 256 + 256^2)  =  b_0 + 256 b_1 + 256^2 b_2,    so that    q = sum of 256^j (b_j - 128)

which are multiplied with the bytes of the images as `integers` says. The sums are exact; what is rounded is w, by up to
6e-8 of the largest of its row: less than float32 rounds in a sum of hundreds of products.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .integers import Tile, are_fast, kernels_in_use, offset_of, tile_length
from .tiles import n_rows

__all__ = ["are_faster", "weighted_sums_of_bytes"]

_FEW_PRODUCTS = 10**7
_MOST_ROWS = 40  # of weights; more are multiplied faster in float32

_PLACES = np.array([1.0, 256.0, 65536.0])  # of the three bytes
_MIDDLE = 0x808080
_MOST = 0x7F7F00  # with room for rounding below 0x7F7F7F, the largest that three bytes hold


def are_faster(m: int, shape: tuple[int, int], raw: np.dtype, dtype: np.dtype) -> bool:
    """Tell whether `m` weighted sums of (n, p) values of dtype `raw` take less time in bytes than in `dtype`.

    Few are not worth the time that it takes to compile the kernels. Each sum is put together from three in float64,
    whatever the number of images: of few images, that takes more time than the products save.
    """
    n, p = shape
    large = m <= _MOST_ROWS and m * n * p >= _FEW_PRODUCTS and n >= 64 + 8 * m
    return large and dtype == np.float32 and are_fast(raw)


def _digits(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Round rows (m, n) to 24 bits of the largest number of each.

    Returns
    -------
    digits : ndarray of shape (3 m, n), uint8
        The three bytes of each row, the lowest first.
    sums : ndarray of shape (m,)
        Sums of the integers q.
    factors : ndarray of shape (m,)
    """
    largest = np.abs(rows).max(axis=1, initial=0).astype(np.float64)
    factors = np.where(largest > 0, largest, 1) / _MOST
    q = np.ascontiguousarray(np.rint(rows / factors[:, None]), "<i4")
    digits = (q + _MIDDLE).view(np.uint8).reshape(*rows.shape, 4)[:, :, :3]
    return digits.transpose(0, 2, 1).reshape(3 * len(rows), -1), q.sum(axis=1, dtype=np.int64), factors


def weighted_sums_of_bytes(
    blocks: Sequence[np.ndarray], lo: int, hi: int, weights: np.ndarray, shift: np.ndarray, out: np.ndarray
) -> None:
    """Add W (X - shift), over the pixels `lo` to `hi`, to `out` (m, hi - lo).

    Parameters
    ----------
    blocks : sequence of ndarray
        Up to 65,536 images of 8 bits.
    weights : ndarray of shape (m, n)
    shift : ndarray of shape (hi - lo,)
    """
    kernels, n, m = kernels_in_use(), n_rows(blocks), len(weights)
    if m == 0:
        return
    width = tile_length(kernels, n + 8 * m, hi - lo)  # sums are floats of 8 bytes
    padded = -(-n // kernels.n_bytes) * kernels.n_bytes
    digits, sums, factors = _digits(weights)
    few = np.zeros((-(-3 * m // kernels.n_rows) * kernels.n_rows, padded), np.uint8)
    few[: 3 * m, :n] = digits
    packed, digit_sums = kernels.pack_rows(few)
    # What bytes have in excess of digits, and images in excess of what is centred: multiples of three rows.
    of_digits = 128.0 * digit_sums[: 3 * m].reshape(m, 3) @ _PLACES
    beside = np.stack([of_digits, np.full(m, -128.0 * _PLACES.sum()), -sums])
    rows = np.ones((3, width))
    tile, products = Tile(padded, width), np.empty((-(-3 * m // kernels.n_few) * kernels.n_few, width), np.int32)
    for a in range(lo, hi, width):
        b = min(a + width, hi)
        tile.fill(blocks, a, b)
        columns, pixel_sums, _ = kernels.pack_columns(tile.bytes)
        products.fill(0)
        kernels.multiply(packed, columns, products)
        rows[1], rows[2, : b - a] = pixel_sums, shift[a - lo : b - lo] + offset_of(blocks)
        found = beside.T @ rows
        found += products[: 3 * m : 3]
        for place in (1, 2):
            found += products[place : 3 * m : 3] * _PLACES[place]
        found *= factors[:, None]
        out[:, a - lo : b - lo] += found[:, : b - a]
