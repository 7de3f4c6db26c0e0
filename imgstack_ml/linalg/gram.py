"""Inner products of images (Gram matrix) and of pixels (scatter matrix), their eigenvectors, and orthonormal rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.linalg

from .moments import moments
from .tiles import column_means, n_rows, row_groups, row_tiles, tile_width, tiles

__all__ = [
    "Scatter",
    "centred_gram",
    "completed_rows",
    "cross_gram",
    "double_centred",
    "eigh_descending",
    "first_image",
    "merge_gram",
    "merge_products",
    "merge_scatter",
    "merge_strips",
    "merge_sums",
    "orthonormalise_rows",
    "scatter",
    "shifted_gram",
    "weighted_sums",
]


def first_image(blocks: Sequence[np.ndarray]) -> np.ndarray:
    """First image as a row (p,), float64. It serves as a shift; float32 holds it exactly for 8 and 16 bits."""
    image: np.ndarray = blocks[0][0]
    return image.ravel().astype(np.float64)


# Here and below, squares may overflow float32. The solver finds the infinity, and repeats the work in float64.
@np.errstate(over="ignore", invalid="ignore")
def centred_gram(
    blocks: Sequence[np.ndarray], lo: int, hi: int, dtype: np.dtype, known: np.ndarray | None = None
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Gram matrix AA' of the centred images, over the pixels `lo` to `hi`, and the mean of the images.

    `blocks` hold all images, so that each tile is centred before its product. To centre a Gram matrix in float32
    afterwards would lose digits if the images drift.

    Parameters
    ----------
    known : ndarray of shape (n, r), optional
        Orthonormal eigenvectors E of AA'. A becomes A - EE'A first, so that small eigenvalues do not drown in the
        rounding of the large ones.

    Returns
    -------
    gram : ndarray of shape (n, n), float64
    mean : list of one ndarray of shape (hi - lo,), float64
    """
    n, shift = n_rows(blocks), first_image(blocks)
    gram, product = np.zeros((n, n)), np.empty((n, n), dtype)
    mean = shift[lo:hi].copy()
    for a, b, tile in tiles(blocks, shift, dtype, lo, hi):
        offset = column_means(tile)
        mean[a - lo : b - lo] += offset
        tile -= offset.astype(dtype)
        if known is not None:
            tile -= known @ (known.T @ tile)
        gram += np.matmul(tile, tile.T, out=product)  # NumPy sees the same operand twice: BLAS syrk, half the work
    return gram, [mean]


def merge_gram(
    a: tuple[np.ndarray, list[np.ndarray]], b: tuple[np.ndarray, list[np.ndarray]]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Join two results of `centred_gram` from neighbouring ranges of pixels."""
    return a[0] + b[0], a[1] + b[1]


@np.errstate(over="ignore", invalid="ignore")
def shifted_gram(blocks: Sequence[np.ndarray], lo: int, hi: int, shift: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Inner products (n, n), float64, of the rows of X - shift, over the pixels `lo` to `hi`."""
    gram = np.zeros((n_rows(blocks),) * 2)
    for _, _, tile in tiles(blocks, shift, dtype, lo, hi):
        gram += tile @ tile.T
    return gram


def merge_products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Join two results of `shifted_gram` from two ranges of pixels."""
    gram: np.ndarray = a + b
    return gram


@np.errstate(over="ignore", invalid="ignore")
def cross_gram(
    blocks: Sequence[np.ndarray], start: int, panel: Sequence[np.ndarray], shift: np.ndarray, dtype: np.dtype
) -> list[np.ndarray]:
    """Inner products of each image of `panel` with each image of `blocks`, all less `shift`.

    Parameters
    ----------
    panel : sequence of ndarray (b_i, *image_shape)
        Raw blocks that stay in memory during a pass.

    Returns
    -------
    strips : list of one ndarray (n_panel, n_blocks), float64
    """
    strip = np.zeros((n_rows(panel), n_rows(blocks)))
    width = tile_width(sum(strip.shape), dtype)
    walks = (tiles(some, shift, dtype, width=width) for some in (panel, blocks))
    for (_, _, left), (_, _, right) in zip(*walks, strict=True):
        strip += left @ right.T
    return [strip]


def merge_strips(a: list[np.ndarray], b: list[np.ndarray]) -> list[np.ndarray]:
    """Join two results of `cross_gram`: strips in the order of the images."""
    return a + b


@np.errstate(invalid="ignore")
def double_centred(gram: np.ndarray) -> np.ndarray:
    """Gram matrix of the centred images from that of shifted images, in place: HGH with H = I - 11'/n."""
    row = gram.mean(axis=0)
    gram -= row
    gram -= row[:, None]
    gram += row.mean()
    return gram


class Scatter(NamedTuple):
    """Number of images, mean (p,), and scatter matrix A'A (p, p) about that mean. Arrays are float64."""

    n: int
    mean: np.ndarray
    matrix: np.ndarray


@np.errstate(over="ignore", invalid="ignore")
def scatter(
    blocks: Sequence[np.ndarray],
    start: int,
    dtype: np.dtype,
    known: np.ndarray | None = None,
    centre: np.ndarray | None = None,
) -> Scatter:
    """Scatter matrix A'A of some images about their own mean.

    Parameters
    ----------
    known : ndarray of shape (r, p), optional
        Orthonormal components W. Each row x becomes x - xW'W first, so that small eigenvalues do not drown in the
        rounding of the large ones. The mean and the matrix that are returned are those of these rows.
    centre : ndarray of shape (p,), optional
        Needed with `known`: subtracted from every image before that.
    """
    mean = moments(blocks).mean
    shift = (mean if centre is None else centre).astype(dtype).astype(np.float64)
    n, rest = n_rows(blocks), mean - shift
    matrix, product = np.zeros((shift.size, shift.size)), np.empty((shift.size, shift.size), dtype)
    for tile in row_tiles(blocks, shift, dtype):
        if known is not None:
            tile -= (tile @ known.T) @ known
        matrix += np.matmul(tile.T, tile, out=product)
    if known is not None:
        rest = mean = rest - (rest @ known.T) @ known
    matrix -= np.multiply.outer(rest, n * rest)
    return Scatter(n, mean, matrix)


def merge_scatter(a: Scatter, b: Scatter) -> Scatter:
    """Join the scatter matrices of two sets of images (Chan, Golub & LeVeque 1983, matrix form of eq. 2.1)."""
    n = a.n + b.n
    step = b.mean - a.mean
    matrix = a.matrix + b.matrix
    matrix += np.multiply.outer(step, step * (a.n * b.n / n))
    return Scatter(n, a.mean + step * (b.n / n), matrix)


def weighted_sums(
    blocks: Sequence[np.ndarray], start: int, weights: np.ndarray, shift: np.ndarray, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums and the plain sum of the rows of X - shift.

    Parameters
    ----------
    weights : ndarray of shape (k, n)
        One column for each image of the whole stack. The column of the first image in `blocks` is `start`.

    Returns
    -------
    sums : ndarray of shape (k, p), dtype
    total : ndarray of shape (p,), float64
    """
    own = weights[:, start : start + n_rows(blocks)].astype(dtype)
    sums, total = np.zeros((len(own), shift.size), dtype), np.zeros(shift.size)
    for row, pieces in row_groups(blocks):
        part = own[:, row : row + n_rows(pieces)]
        for a, b, tile in tiles(pieces, shift, dtype):
            sums[:, a:b] += part @ tile
            total[a:b] += tile.sum(axis=0, dtype=np.float64)
    return sums, total


def merge_sums(a: tuple[np.ndarray, np.ndarray], b: tuple[np.ndarray, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Join two results of `weighted_sums` from two sets of images."""
    return a[0] + b[0], a[1] + b[1]


def eigh_descending(matrix: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Largest eigenvalues (k,), clipped at 0, and their eigenvectors (n, k) in columns. The matrix is overwritten."""
    n = len(matrix)
    some = None if k == n else (n - k, n - 1)
    values, vectors = scipy.linalg.eigh(matrix, overwrite_a=True, check_finite=False, subset_by_index=some)
    return np.maximum(values[::-1], 0), vectors[:, ::-1]


def orthonormalise_rows(rows: np.ndarray) -> None:
    """Make nearly orthonormal rows (k, p) orthonormal, in place, by Cholesky QR in float64.

    A row changes only by multiples of the rows before it, and in its length.
    """
    if not len(rows):
        return
    width = tile_width(len(rows), np.dtype(np.float64))
    gram = np.zeros((len(rows), len(rows)))
    for a in range(0, rows.shape[1], width):
        tile = rows[:, a : a + width].astype(np.float64)
        gram += tile @ tile.T
    factor = scipy.linalg.cholesky(gram, lower=True)
    for a in range(0, rows.shape[1], width):
        tile = rows[:, a : a + width].astype(np.float64)
        rows[:, a : a + width] = scipy.linalg.solve_triangular(factor, tile, lower=True)


def completed_rows(rows: np.ndarray, k: int) -> np.ndarray:
    """Orthonormal rows (k, p): those given, then random ones orthogonal to them, the same in every call."""
    missing, p = k - len(rows), rows.shape[1]
    if missing <= 0:
        return rows
    complete = np.empty((k, p), rows.dtype)
    complete[: len(rows)] = rows
    fresh = complete[len(rows) :]
    np.random.default_rng(0).standard_normal(out=fresh, dtype=rows.dtype)
    for _ in range(2):  # the second round removes what rounding in the first has left of the given rows
        _project_out(fresh, rows)
        orthonormalise_rows(fresh)
    return complete


def _project_out(fresh: np.ndarray, rows: np.ndarray) -> None:
    """Subtract from `fresh` its projection on orthonormal `rows`, in place, tile by tile in float64."""
    width = tile_width(len(fresh) + len(rows), np.dtype(np.float64))
    spans = [slice(a, a + width) for a in range(0, rows.shape[1], width)]
    along = sum((fresh[:, s] @ rows[:, s].T.astype(np.float64) for s in spans), np.zeros((len(fresh), len(rows))))
    for s in spans:
        fresh[:, s] -= along @ rows[:, s].astype(np.float64)
