"""Images to scores and scores to images: NumPy blocks."""

from __future__ import annotations

import numpy as np

from ..base.validation import working_dtype
from ..linalg.tiles import n_rows, row_groups, tiles

__all__ = ["project", "reconstruct"]


def project(block: np.ndarray, axes: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Scores (b, k) of a block of images (b, *image_shape). Tiles are centred one by one and summed in float64."""
    dtype = working_dtype(block.dtype)
    scores = np.zeros((len(block), len(axes)))
    shift = mean.astype(dtype).astype(np.float64)
    for row, pieces in row_groups([block]):
        part = scores[row : row + n_rows(pieces)]
        for a, b, tile in tiles(pieces, shift, dtype):
            part += tile @ axes[:, a:b].T
    scores -= axes @ (mean - shift)  # the part of the mean that rounding to float32 dropped
    return (scores / scale).astype(axes.dtype)


def reconstruct(
    image_shape: tuple[int, ...], scores: np.ndarray, axes: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Images (b, *image_shape) from scores (b, k)."""
    images = (scores * scale).astype(axes.dtype) @ axes
    images += mean.astype(axes.dtype)
    return images.reshape(len(scores), *image_shape)
