"""Alternating least squares on the pixels that are observed: NaN marks the others.

An image x is modelled as m + z V, with V the (k, p) loadings. For given loadings each image has least squares of its
own for its k scores, over the pixels that it shows; for given scores each pixel has least squares of its own for its
loadings and its mean, over the images that show it. One read does both: the scores of a batch are solved for, and go
into the normal equations of all pixels (Gabriel & Zamir 1979; for images Bailey 2012).

With w the 0-1 matrix of what is observed and P(V) the products v_i v_j of the loadings of a pixel, the normal matrices
of all images are ``w P(V)'``, and those of all pixels ``P([z, 1])' w``: matrix products, in tiles of pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .tiles import n_rows, row_groups, tiles, times_roots, weights_of

__all__ = [
    "Normals",
    "Seen",
    "add_seen",
    "least_squares_scores",
    "merge_normals",
    "merge_seen",
    "normals",
    "pixels_solved",
    "scores_of_sums",
    "seen",
    "sums_of_images",
]

# Added to diagonals: what is observed can leave a direction open, such as loadings of pixels that an image does not
# show, or all loadings along scores that are rounding. Then the least solution is wanted.
_RIDGE_OF_IMAGES = 1e-8  # loadings are orthonormal
_RIDGE_OF_PIXELS = 1e-7  # times the largest sum of squares of scores
_GROUP = 512  # images in a tile
_PIXELS = 2048  # solved at a time


class Seen(NamedTuple):
    """What is observed: images that show a pixel, their weights and their sum (p,) each, and pixels in each image."""

    counts: np.ndarray
    weights: np.ndarray
    sums: np.ndarray
    in_images: list[np.ndarray]
    largest: float


def seen(blocks: Sequence[np.ndarray], start: int, weights: np.ndarray | None = None) -> Seen:
    """Count and add up what is observed of some images, as often as the weights (n,) of all images say."""
    p = blocks[0][0].size
    counts, (sums, weight) = np.zeros(p, np.int64), np.zeros((2, p))
    in_images, largest = [], 0.0
    for row, pieces in row_groups(blocks, _GROUP):
        own = weights_of(weights, start + row, pieces)
        of_pieces = np.zeros(n_rows(pieces), np.int64)
        for a, b, tile in tiles(pieces, np.zeros(p), np.dtype(np.float64)):
            observed = ~np.isnan(tile)
            tile[~observed] = 0
            counts[a:b] += np.count_nonzero(observed, axis=0)
            sums[a:b] += tile.sum(axis=0) if own is None else own @ tile
            weight[a:b] += 0 if own is None else own @ observed
            of_pieces += np.count_nonzero(observed, axis=1)
            largest = max(largest, float(np.abs(tile).max(initial=0)))
        in_images.append(of_pieces)
    return Seen(counts, counts if weights is None else weight, sums, in_images, largest)


def merge_seen(a: Seen, b: Seen) -> Seen:
    """Join what is observed of earlier and later images."""
    counts, weights, sums = a.counts + b.counts, a.weights + b.weights, a.sums + b.sums
    return Seen(counts, weights, sums, a.in_images + b.in_images, max(a.largest, b.largest))


def add_seen(total: Seen | None, parts: Sequence[np.ndarray], weights: np.ndarray | None = None) -> Seen:
    """Join `total`, None at first, with what is observed of the same part of the images after those in `total`."""
    found = seen(parts, 0 if total is None else sum(map(len, total.in_images)), weights)
    return found if total is None else merge_seen(total, found)


class Normals(NamedTuple):
    """Normal equations of the pixels, after the images have been solved for.

    Attributes
    ----------
    matrices : ndarray of shape ((k + 1)(k + 2) / 2, p), float64
        Upper triangles, row by row, of the sums of [z, 1] [z, 1]' over the images that show a pixel. All sums have the
        weights of the images, if there are some.
    right : ndarray of shape (k + 1, p), float64
        Sums of (x - m) [z, 1].
    scores : list of ndarray of shape (b, k)
        Of consecutive images.
    squares : ndarray of shape (p,), float64
        Sums of (x - m)^2.
    residual : float
        Sum of squares of what is observed, less the model.
    """

    matrices: np.ndarray
    right: np.ndarray
    scores: list[np.ndarray]
    squares: np.ndarray
    residual: float

    @property
    def total(self) -> float:
        """Sum of squares of what is observed, less the mean."""
        return float(self.squares.sum())

    def left(self, loadings: np.ndarray) -> np.ndarray:
        """Return the sums of squares (p,) that the loadings leave of the pixels; images were solved for these."""
        k = len(loadings)
        left: np.ndarray = self.squares - 2 * np.einsum("ij,ij->j", loadings, self.right[:k])
        for (i, j), row in zip(np.transpose(np.triu_indices(k + 1)), self.matrices, strict=True):
            if j < k:
                left += (1 + (i != j)) * row * loadings[i] * loadings[j]
        np.maximum(left, 0.0, out=left)
        return left

    @property
    def counts(self) -> np.ndarray:
        """Images (p,) that show a pixel, or the sum of their weights."""
        counts: np.ndarray = self.matrices[-1]
        return counts


def normals(
    blocks: Sequence[np.ndarray],
    start: int,
    loadings: np.ndarray,
    mean: np.ndarray,
    weights: np.ndarray | None = None,
    *,
    dtype: np.dtype,
    exponent: int = 0,
) -> Normals:
    """Solve some images for their scores, and make their part of the normal equations of all pixels.

    Parameters
    ----------
    blocks : sequence of ndarray
        Images; NaN is missing.
    start : int
    loadings : ndarray of shape (k, p)
        Orthonormal.
    mean : ndarray of shape (p,)
    weights : ndarray of shape (n,), optional
        How often each image of the whole stack counts.
    dtype : dtype
        Of the products in a tile; sums over tiles are float64.
    exponent : int
        Of the units of what is computed, see `scaling`.
    """
    k, p = loadings.shape
    found, residual = Normals(np.zeros(((k + 1) * (k + 2) // 2, p)), np.zeros((k + 1, p)), [], np.zeros(p), 0.0), 0.0
    shift = mean.astype(dtype).astype(np.float64)  # what the tiles subtract
    for row, pieces in row_groups(blocks, _GROUP):
        own = weights_of(weights, start + row, pieces)
        scores, missed = _solve_images(pieces, loadings, mean - shift, shift, dtype, exponent)
        extended = np.column_stack([scores, np.ones(len(scores))])
        products, rows = _pairs(extended.T), extended.T
        if own is not None:
            products, rows, missed = products * own, rows * own, missed * own
        products, rows = products.astype(dtype), rows.astype(dtype)
        for a, b, tile in tiles(pieces, shift, dtype, exponent=exponent):
            observed = _observed(tile, mean[a:b] - shift[a:b], exponent)
            found.matrices[:, a:b] += products @ observed
            found.right[:, a:b] += rows @ tile
            times_roots(tile, own)
            found.squares[a:b] += np.einsum("ij,ij->j", tile, tile, dtype=np.float64)
        found.scores.append(scores)
        residual += max(float(missed.sum()), 0.0)
    return found._replace(residual=residual)


def merge_normals(a: Normals, b: Normals) -> Normals:
    """Join the normal equations of earlier and later images."""
    return Normals(
        a.matrices + b.matrices,
        a.right + b.right,
        a.scores + b.scores,
        a.squares + b.squares,
        a.residual + b.residual,
    )


def least_squares_scores(
    rows: np.ndarray, loadings: np.ndarray, mean: np.ndarray, dtype: np.dtype, exponent: int = 0
) -> np.ndarray:
    """Scores (b, k) of images, float64, each by least squares over what it shows."""
    shift = mean.astype(dtype).astype(np.float64)
    groups = row_groups([rows], _GROUP)
    parts = [_solve_images(pieces, loadings, mean - shift, shift, dtype, exponent)[0] for _, pieces in groups]
    return np.concatenate(parts) if parts else np.empty((0, len(loadings)))


def sums_of_images(
    rows: np.ndarray, loadings: np.ndarray, mean: np.ndarray, dtype: np.dtype, exponent: int = 0
) -> np.ndarray:
    """Add up (b, k(k + 1)/2 + k) over the observed pixels of a part of the images, for `scores_of_sums`; float64."""
    shift = mean.astype(dtype).astype(np.float64)
    groups = row_groups([rows], _GROUP)
    parts = [_image_sums(pieces, loadings, mean - shift, shift, dtype, exponent)[:2] for _, pieces in groups]
    k = len(loadings)
    found = [np.hstack([matrices, np.ldexp(right, exponent)]) for matrices, right in parts]
    return np.concatenate(found) if found else np.empty((0, k * (k + 1) // 2 + k))


def scores_of_sums(sums: np.ndarray, k: int) -> np.ndarray:
    """Scores (b, k) as of `least_squares_scores`, from the sums over all parts of the images."""
    return _solved(sums[:, :-k], sums[:, -k:])


def pixels_solved(
    found: Sequence[np.ndarray], lo: int, hi: int, loadings: np.ndarray, mean: np.ndarray, exponent: int = 0
) -> None:
    """Solve the pixels `lo` to `hi` for their loadings, written into `loadings`, and their means, added to `mean`.

    `found` are the matrices and the right sides of `Normals`.
    """
    matrices, right = found
    k = len(loadings)
    upper = np.triu_indices(k + 1)
    for a in range(lo, hi, _PIXELS):
        b = min(a + _PIXELS, hi)
        ridge = _RIDGE_OF_PIXELS * matrices[upper[0] == upper[1], a:b][:k].max(axis=0, initial=0)
        solved = _solve(matrices[:, a:b].T, right[:, a:b].T, upper, ridge[:, None])
        loadings[:, a:b] = solved[:, :k].T
        mean[a:b] += np.ldexp(solved[:, k], exponent)


def _solve_images(
    pieces: Sequence[np.ndarray],
    loadings: np.ndarray,
    rest: np.ndarray,
    shift: np.ndarray,
    dtype: np.dtype,
    exponent: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Scores (b, k) of images, and sums (b,) of squares of what is observed, less the model, up to rounding."""
    matrices, right, squares = _image_sums(pieces, loadings, rest, shift, dtype, exponent)
    scores = _solved(matrices, right)
    explained = np.einsum("ij,ij->i", scores, right) + _RIDGE_OF_IMAGES * np.einsum("ij,ij->i", scores, scores)
    return scores, squares - explained


def _image_sums(
    pieces: Sequence[np.ndarray],
    loadings: np.ndarray,
    rest: np.ndarray,
    shift: np.ndarray,
    dtype: np.dtype,
    exponent: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles of the normal matrices (b, k(k + 1)/2), right sides (b, k) and sums of squares (b,) of images."""
    n, k = n_rows(pieces), len(loadings)
    matrices, right, squares = np.zeros((n, k * (k + 1) // 2)), np.zeros((n, k)), np.zeros(n)
    for a, b, tile in tiles(pieces, shift, dtype, exponent=exponent):
        observed, own = _observed(tile, rest[a:b], exponent), loadings[:, a:b].astype(dtype)
        matrices += observed @ _pairs(own).T
        right += tile @ own.T
        squares += np.einsum("ij,ij->i", tile, tile, dtype=np.float64)
    return matrices, right, squares


def _solved(matrices: np.ndarray, right: np.ndarray) -> np.ndarray:
    return _solve(matrices, right, np.triu_indices(right.shape[1]), _RIDGE_OF_IMAGES)


def _observed(tile: np.ndarray, rest: np.ndarray, exponent: int) -> np.ndarray:
    """Subtract the rest of the mean, set what is missing to 0, and return 1 where a value is observed, else 0."""
    tile -= np.ldexp(rest, -exponent).astype(tile.dtype)
    missing = np.isnan(tile)
    tile[missing] = 0
    observed: np.ndarray = (~missing).astype(tile.dtype)
    return observed


def _pairs(rows: np.ndarray) -> np.ndarray:
    """Products of all pairs of rows (m, n): the upper triangles (m (m + 1) / 2, n), row by row."""
    return np.concatenate([rows[i] * rows[i:] for i in range(len(rows))])


def _solve(
    triangles: np.ndarray, right: np.ndarray, upper: tuple[np.ndarray, ...], ridge: np.ndarray | float
) -> np.ndarray:
    """Solve many small systems (n, m, m) x = (n, m), given by the upper triangles of their matrices."""
    n, m = right.shape
    matrices = np.empty((n, m, m))
    matrices[:, upper[0], upper[1]] = triangles
    matrices[:, upper[1], upper[0]] = triangles
    diagonal = np.einsum("nii->ni", matrices)
    diagonal += ridge + np.finfo(np.float64).tiny
    solved: np.ndarray = np.linalg.solve(matrices, right[..., None])[..., 0]
    return solved
