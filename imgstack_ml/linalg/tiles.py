"""Walk through blocks of images in tiles: a range of pixels of all images, cast and shifted in one reused buffer.

Casting whole blocks of uint8 to float32 would write four times their memory, which takes longer than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .large_integers import refuse_inexact
from .scaling import power_of_two

__all__ = [
    "column_means",
    "column_squares",
    "flat_rows",
    "heaviest_image",
    "heaviest_row",
    "n_rows",
    "products_of_rows",
    "products_within",
    "row_groups",
    "row_tiles",
    "tile_width",
    "tiles",
    "times_roots",
    "weights_of",
    "wide_tile",
]

TILE_BYTES = 2**22  # of float values in one tile: small enough for the cache, large enough for BLAS at full speed
CACHED_BYTES = 2**20  # of a tile of few rows that is walked through several times: half of a core's own cache
TERMS = 2048  # products added up in float32 before float64 takes over; more of them would cost digits


def n_rows(blocks: Sequence[np.ndarray]) -> int:
    """Count the images in `blocks`."""
    return sum(len(block) for block in blocks)


def weights_of(weights: np.ndarray | None, start: int, blocks: Sequence[np.ndarray]) -> np.ndarray | None:
    """Weights of the images in `blocks`, the first of which has the position `start`; None if there are no weights."""
    return None if weights is None else weights[start : start + n_rows(blocks)]


def heaviest_image(blocks: Sequence[np.ndarray], weights: np.ndarray | None = None) -> np.ndarray:
    """Image of the largest weight as a row (p,), float64. See `heaviest_row`."""
    return heaviest_row(blocks, weights).astype(np.float64)


def heaviest_row(blocks: Sequence[np.ndarray], weights: np.ndarray | None = None) -> np.ndarray:
    """Image of the largest weight, or the first one without weights: a row (p,) of the block. It serves as a shift.

    Float32 holds it exactly for 8 and 16 bits. Differences from it are rounded by no more than the weighted variance
    holds, also where another image has huge values and next to no weight, or this one nearly all of the weight.
    """
    i = 0 if weights is None else int(np.argmax(weights))
    for block in blocks:
        if i < len(block):
            break
        i -= len(block)
    row: np.ndarray = block[i].reshape(-1)
    return row


def flat_rows(blocks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Blocks as matrices (b_i, p), one row for each image."""
    return [block.reshape(len(block), -1) for block in blocks]


def tiles(
    blocks: Sequence[np.ndarray],
    shift: np.ndarray,
    dtype: np.dtype,
    lo: int = 0,
    hi: int | None = None,
    width: int | None = None,
    exponent: int = 0,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield ``(a, b, tile)`` with tile = (X - shift)[:, a:b] / 2^exponent, for consecutive ranges from `lo` to `hi`.

    Parameters
    ----------
    blocks : sequence of ndarray (b_i, *image_shape)
        Consecutive raw blocks, whose images are the rows of X.
    shift : ndarray of shape (p,)
        Values that `dtype` holds exactly, so that differences of integers have no rounding error.
    dtype : dtype
        Of the tile: float32 or float64.
    lo, hi : int
        Range of pixels; all pixels by default.
    width : int, optional
        Pixels in a tile; by default as many as fit into `TILE_BYTES`.
    exponent : int
        Of the units of the tile, see `scaling`.

    Notes
    -----
    All tiles share one buffer. The caller may write into a tile; the next one overwrites it.
    """
    flat = flat_rows(blocks)
    rows, hi = n_rows(flat), shift.size if hi is None else hi
    width = min(hi - lo, width or tile_width(rows, dtype))
    buffer = np.empty(rows * width, dtype)
    for a in range(lo, hi, width):
        b = min(a + width, hi)
        tile = buffer[: rows * (b - a)].reshape(rows, b - a)
        _shift_into(tile, [block[:, a:b] for block in flat], shift[a:b].astype(dtype), exponent)
        yield a, b, tile


def tile_width(rows: int, dtype: np.dtype) -> int:
    """Count the pixels in a tile of `rows` images: from 64 to `TERMS`, and else as `TILE_BYTES` allows."""
    return min(TERMS, max(64, TILE_BYTES // (np.dtype(dtype).itemsize * rows)))


def wide_tile(rows: int, dtype: np.dtype, n_bytes: int = TILE_BYTES) -> int:
    """Count the pixels in a tile of few rows: 2048 of a single image would take less time than the calls for them."""
    return max(tile_width(rows, dtype), n_bytes // (np.dtype(dtype).itemsize * rows * TERMS) * TERMS)


def products_of_rows(tile: np.ndarray, V: np.ndarray) -> np.ndarray:
    """Products (b, m) of rows (b, w) and (m, w), in whose dtype at most `TERMS` are added up; these sums in float64."""
    n_sums = tile.shape[1] // TERMS
    whole = n_sums * TERMS
    a, b = (rows[:, :whole].reshape(len(rows), n_sums, TERMS).transpose(1, 0, 2) for rows in (tile, V))
    found: np.ndarray = np.matmul(a, b.transpose(0, 2, 1)).sum(axis=0, dtype=np.float64)
    found += tile[:, whole:] @ V[:, whole:].T
    return found


def products_within(tile: np.ndarray, out: np.ndarray) -> np.ndarray:
    """Products (b, b) of the rows of a tile with each other, as `products_of_rows`; `out`, in its dtype, may be used.

    Where one sum is enough, NumPy sees the same operand twice: BLAS syrk, half the work.
    """
    return products_of_rows(tile, tile) if tile.shape[1] > TERMS else np.matmul(tile, tile.T, out=out)


def row_groups(blocks: Sequence[np.ndarray], size: int = 2 * TERMS) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Yield ``(start, pieces)`` of at most `size` consecutive images. It bounds the tiles of many small images."""
    start = row = 0
    pieces: list[np.ndarray] = []
    for block in blocks:
        for i in range(0, len(block), size):
            piece = block[i : i + size]
            if row - start + len(piece) > size:
                yield start, pieces
                start, pieces = row, []
            pieces.append(piece)
            row += len(piece)
    if pieces:
        yield start, pieces


def row_tiles(
    blocks: Sequence[np.ndarray], shift: np.ndarray, dtype: np.dtype, exponent: int = 0
) -> Iterator[np.ndarray]:
    """Yield rows of (X - shift) / 2^exponent with all their pixels, for images of few pixels.

    A tile has 512 to 2048 images of a block.

    All tiles share one buffer, as those of `tiles` do.
    """
    height = min(TERMS, max(512, TILE_BYTES // (np.dtype(dtype).itemsize * shift.size)))
    buffer = np.empty((min(height, max(len(block) for block in blocks)), shift.size), dtype)
    c = shift.astype(dtype)
    for block in flat_rows(blocks):
        for i in range(0, len(block), height):
            rows = block[i : i + height]
            _shift_into(buffer[: len(rows)], [rows], c, exponent)
            yield buffer[: len(rows)]


def column_means(tile: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Means of the columns, float64, of rows that count as often as `weights` say.

    Sums of up to 256 values are made in the dtype of the tile. Float32 holds integers up to 2^24 exactly, and 256
    differences of 16-bit integers add up to no more. Weighted sums are made in float64.
    """
    sums = np.zeros(tile.shape[1])
    own = np.ones(len(tile), tile.dtype) if weights is None else weights
    for i in range(0, len(tile), 256):
        sums += own[i : i + 256] @ tile[i : i + 256]
    return sums / (len(tile) if weights is None else weights.sum())


def times_roots(rows: np.ndarray, weights: np.ndarray | None) -> None:
    """Multiply rows by the roots of their weights, in place, if they have weights."""
    if weights is not None:
        rows *= np.sqrt(weights)[:, None].astype(rows.dtype)


def column_squares(tile: np.ndarray) -> np.ndarray:
    """Add up the squares of the columns, float64; those of up to 256 values in the dtype of the tile."""
    squares = np.zeros(tile.shape[1])
    for i in range(0, len(tile), 256):
        part = tile[i : i + 256]
        squares += np.einsum("ij,ij->j", part, part)
    return squares


def _shift_into(out: np.ndarray, parts: Sequence[np.ndarray], shift: np.ndarray, exponent: int) -> None:
    """Write the rows of all parts, less `shift`, into `out`, in units of 2^exponent."""
    factor, row = power_of_two(exponent, out.dtype), 0
    shift = shift * factor
    for part in parts:
        refuse_inexact(part)
        target = out[row : row + len(part)]
        if factor != 1:  # before the difference, which could be beyond float32
            np.multiply(part, factor, out=target, dtype=out.dtype)
            target -= shift
        elif part.dtype == out.dtype:
            np.subtract(part, shift, out=target)
        else:  # first cast, then subtract: NumPy vectorises each, but not a subtraction that casts
            target[...] = part
            target -= shift
        row += len(part)
