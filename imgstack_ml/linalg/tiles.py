"""Walk blocks of images in tiles of pixels: cast and shift a tile at a time through one reused buffer.

Casting whole blocks to float would touch four times their memory, which costs more than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["column_means", "flat_rows", "n_rows", "row_groups", "row_tiles", "tile_width", "tiles"]

TILE_BYTES = 2**22  # of float values in one tile: stays in cache, and GEMM runs at full speed
TERMS = 2048  # products summed in working precision before float64 takes over: more of them cost float32 digits


def n_rows(blocks: Sequence[np.ndarray]) -> int:
    """Images in `blocks`."""
    return sum(len(block) for block in blocks)


def flat_rows(blocks: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Blocks as matrices (b_i, n_pixels), one row an image."""
    return [block.reshape(len(block), -1) for block in blocks]


def tiles(
    blocks: Sequence[np.ndarray],
    shift: np.ndarray,
    dtype: np.dtype,
    lo: int = 0,
    hi: int | None = None,
    width: int | None = None,
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield ``(a, b, tile)`` with tile = (images - shift)[:, a:b], for a to b from `lo` to `hi`.

    Parameters
    ----------
    blocks : sequence of ndarray (b_i, *image_shape)
        Consecutive raw blocks; their rows are stacked.
    shift : ndarray of shape (n_pixels,)
        A value a pixel that `dtype` holds exactly, so that shifted integers stay exact.
    dtype : dtype
        float32 or float64.
    lo, hi : int
        Range of pixels.
    width : int, optional
        Pixels in a tile; by default as many as make it `TILE_BYTES`.

    Notes
    -----
    The tile is a view of one buffer: it is overwritten in the next round, and the caller may write into it.
    """
    flat = flat_rows(blocks)
    rows, hi = n_rows(flat), shift.size if hi is None else hi
    width = min(hi - lo, width or tile_width(rows, dtype))
    buffer = np.empty(rows * width, dtype)
    for a in range(lo, hi, width):
        b = min(a + width, hi)
        tile = buffer[: rows * (b - a)].reshape(rows, b - a)
        _shift_into(tile, [block[:, a:b] for block in flat], shift[a:b].astype(dtype))
        yield a, b, tile


def tile_width(rows: int, dtype: np.dtype) -> int:
    """Pixels in a tile of `rows` images."""
    return min(TERMS, max(64, TILE_BYTES // (np.dtype(dtype).itemsize * rows)))


def row_groups(blocks: Sequence[np.ndarray], size: int = 2 * TERMS) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Yield ``(start, pieces)``: at most `size` images at a time, so that many small images need no wide tile."""
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


def row_tiles(blocks: Sequence[np.ndarray], shift: np.ndarray, dtype: np.dtype) -> Iterator[np.ndarray]:
    """Yield (images - shift) a few hundred images at a time, all pixels of them; for images of few pixels."""
    height = min(TERMS, max(512, TILE_BYTES // (np.dtype(dtype).itemsize * shift.size)))
    buffer = np.empty((min(height, max(len(block) for block in blocks)), shift.size), dtype)
    c = shift.astype(dtype)
    for block in flat_rows(blocks):
        for i in range(0, len(block), height):
            rows = block[i : i + height]
            _shift_into(buffer[: len(rows)], [rows], c)
            yield buffer[: len(rows)]


def column_means(tile: np.ndarray) -> np.ndarray:
    """Means of the columns, float64; sums of up to 256 values run in the dtype of the tile, exactly for 16 bits."""
    sums = np.zeros(tile.shape[1])
    ones = np.ones(256, tile.dtype)
    for i in range(0, len(tile), 256):
        part = tile[i : i + 256]
        sums += ones[: len(part)] @ part
    return sums / len(tile)


def _shift_into(out: np.ndarray, parts: Sequence[np.ndarray], shift: np.ndarray) -> None:
    row = 0
    for part in parts:
        target = out[row : row + len(part)]
        if part.dtype == out.dtype:
            np.subtract(part, shift, out=target)
        else:  # in two steps, of which NumPy vectorises each: faster than a subtraction that casts on the way
            target[...] = part
            target -= shift
        row += len(part)
