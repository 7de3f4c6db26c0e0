"""Images to scores, scores to images, images to likelihoods: NumPy blocks."""

from __future__ import annotations

import numpy as np

from ..base.validation import working_dtype
from ..linalg.tiles import n_rows, row_groups, tiles

__all__ = ["log_likelihood", "project", "reconstruct"]


def project(block: np.ndarray, axes: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Scores (b, k) of a block of images (b, *image_shape), shifted tile by tile; sums between tiles in float64."""
    dtype = working_dtype(block.dtype)
    scores = np.zeros((len(block), len(axes)))
    shift = mean.astype(dtype).astype(np.float64)
    for row, pieces in row_groups([block]):
        part = scores[row : row + n_rows(pieces)]
        for a, b, tile in tiles(pieces, shift, dtype):
            part += tile @ axes[:, a:b].T
    scores -= axes @ (mean - shift)  # what rounding the mean to float32 left over
    return (scores / scale).astype(axes.dtype)


def reconstruct(
    image_shape: tuple[int, ...], scores: np.ndarray, axes: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Images (b, *image_shape) from scores (b, k)."""
    images = (scores * scale).astype(axes.dtype) @ axes
    images += mean.astype(axes.dtype)
    return images.reshape(len(scores), *image_shape)


def log_likelihood(
    noise: float, constant: float, block: np.ndarray, axes: np.ndarray, mean: np.ndarray, variance: np.ndarray
) -> np.ndarray:
    """Log-likelihood (b,) of a block of images: Tipping & Bishop (1999), eq. 5, in the basis of the components."""
    scores = np.zeros((len(block), len(axes)))
    squares = np.zeros(len(block))
    for row, pieces in row_groups([block]):
        rows = slice(row, row + n_rows(pieces))
        for a, b, tile in tiles(pieces, mean, np.dtype(np.float64)):
            scores[rows] += tile @ axes[:, a:b].T
            squares[rows] += np.einsum("ij,ij->i", tile, tile)
    inside = scores**2
    residual = np.maximum(squares - inside.sum(axis=1), 0)
    return -0.5 * (constant + (inside / variance).sum(axis=1) + residual / noise)
