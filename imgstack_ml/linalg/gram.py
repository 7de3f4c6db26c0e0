"""Inner products of images (Gram) and of pixels (covariance), and what follows from their eigenvectors."""

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
    """Return the first image as float64 (n_pixels,): a shift that float32 holds exactly for 8 and 16 bits."""
    return blocks[0][0].ravel().astype(np.float64)


@np.errstate(over="ignore", invalid="ignore")  # squares that float32 cannot hold: the solver sees them and goes on
def centred_gram(
    blocks: Sequence[np.ndarray], lo: int, hi: int, dtype: np.dtype, known: np.ndarray | None = None
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Gram matrix of the centred images over the pixels `lo` to `hi`, and their mean.

    All images are at hand, so each tile is centred before its product: centring a float32 Gram matrix afterwards
    loses digits on drifting data. Products in `dtype`, sums between tiles in float64.

    Parameters
    ----------
    known : ndarray of shape (n, r), optional
        Orthonormal eigenvectors to take out of the images first, so that what is left keeps its own digits.

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
        gram += np.matmul(tile, tile.T, out=product)  # same operand twice: NumPy takes BLAS syrk, half the work
    return gram, [mean]


def merge_gram(
    a: tuple[np.ndarray, list[np.ndarray]], b: tuple[np.ndarray, list[np.ndarray]]
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Join `centred_gram` of two neighbouring ranges of pixels."""
    return a[0] + b[0], a[1] + b[1]


@np.errstate(over="ignore", invalid="ignore")
def shifted_gram(blocks: Sequence[np.ndarray], lo: int, hi: int, shift: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Inner products (n, n) of images less `shift`, over the pixels `lo` to `hi`; not centred."""
    gram = np.zeros((n_rows(blocks),) * 2)
    for _, _, tile in tiles(blocks, shift, dtype, lo, hi):
        gram += tile @ tile.T
    return gram


def merge_products(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Join `shifted_gram` of two ranges of pixels."""
    return a + b


@np.errstate(over="ignore", invalid="ignore")
def cross_gram(
    blocks: Sequence[np.ndarray], start: int, panel: Sequence[np.ndarray], shift: np.ndarray, dtype: np.dtype
) -> list[np.ndarray]:
    """Inner products of every image of `panel` with every image of `blocks`, all less `shift`: one (m, b) strip."""
    strip = np.zeros((n_rows(panel), n_rows(blocks)))
    width = tile_width(sum(strip.shape), dtype)
    walks = (tiles(some, shift, dtype, width=width) for some in (panel, blocks))
    for (_, _, left), (_, _, right) in zip(*walks, strict=True):
        strip += left @ right.T
    return [strip]


def merge_strips(a: list[np.ndarray], b: list[np.ndarray]) -> list[np.ndarray]:
    """Collect strips in the order of the images."""
    return a + b


@np.errstate(invalid="ignore")
def double_centred(gram: np.ndarray) -> np.ndarray:
    """Centre the Gram matrix of shifted images: H G H, H = I - 11'/n."""
    row = gram.mean(axis=0)
    gram -= row
    gram -= row[:, None]
    gram += row.mean()
    return gram


class Scatter(NamedTuple):
    """Count, mean (p,), and centred scatter matrix (p, p) of some images; float64."""

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
    """Scatter matrix of some images about their own mean; products in `dtype`, the rest in float64.

    Parameters
    ----------
    known : ndarray of shape (r, p), optional
        Orthonormal components to take out of images less `centre` first, so that what is left keeps its own
        digits. The mean that is returned is then that of what is left.
    centre : ndarray of shape (p,), optional
        Goes with `known`.
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
    """Join the scatter of two sets of images (Chan, Golub & LeVeque 1983, the matrix form of eq. 2.1)."""
    n = a.n + b.n
    step = b.mean - a.mean
    matrix = a.matrix + b.matrix
    matrix += np.multiply.outer(step, step * (a.n * b.n / n))
    return Scatter(n, a.mean + step * (b.n / n), matrix)


def weighted_sums(
    blocks: Sequence[np.ndarray], start: int, weights: np.ndarray, shift: np.ndarray, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray]:
    """Weighted sums of images, and their plain sum, all less `shift`.

    Parameters
    ----------
    weights : ndarray of shape (k, n_images)
        One column an image of the whole stack; `start` says where these blocks begin.

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
    """Join `weighted_sums` of two sets of images over the same pixels."""
    return a[0] + b[0], a[1] + b[1]


def eigh_descending(matrix: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the `k` largest eigenvalues, clipped at 0, and eigenvectors in columns; destroys the matrix."""
    n = len(matrix)
    some = None if k == n else (n - k, n - 1)
    values, vectors = scipy.linalg.eigh(matrix, overwrite_a=True, check_finite=False, subset_by_index=some)
    return np.maximum(values[::-1], 0), vectors[:, ::-1]


def orthonormalise_rows(rows: np.ndarray) -> None:
    """Make nearly orthonormal rows (k, p) orthonormal, in place, earlier rows first (Cholesky QR in float64)."""
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
    """Append orthonormal rows until there are `k`; the same ones every time."""
    missing, p = k - len(rows), rows.shape[1]
    if missing <= 0:
        return rows
    complete = np.empty((k, p), rows.dtype)
    complete[: len(rows)] = rows
    fresh = complete[len(rows) :]
    np.random.default_rng(0).standard_normal(out=fresh, dtype=rows.dtype)
    for _ in range(2):  # once is not enough: what rounding leaves of the old directions goes in a second round
        _project_out(fresh, rows)
        orthonormalise_rows(fresh)
    return complete


def _project_out(fresh: np.ndarray, rows: np.ndarray) -> None:
    """Take what lies along orthonormal `rows` out of `fresh`, in place, a tile at a time in float64."""
    width = tile_width(len(fresh) + len(rows), np.dtype(np.float64))
    spans = [slice(a, a + width) for a in range(0, rows.shape[1], width)]
    along = sum((fresh[:, s] @ rows[:, s].T.astype(np.float64) for s in spans), np.zeros((len(fresh), len(rows))))
    for s in spans:
        fresh[:, s] -= along @ rows[:, s].astype(np.float64)
