"""Smallest and largest values: of images, of channels, and of a stack in a pass."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

__all__ = ["as_rows", "extremes_of", "range_step", "wider"]


def as_rows(images: np.ndarray) -> np.ndarray:
    """(n_images, height, width x n_channels), a view of a contiguous block: channels vary fastest in a row."""
    height, *row = images.shape[1:] if images.ndim > 2 else (1, images.shape[1])
    return images.reshape(len(images), height, prod(row))


def extremes_of(images: np.ndarray, n_channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Minima and maxima (n_images, n_channels) of rows as `as_rows` gives."""
    if n_channels == 1:
        planes = images.reshape(len(images), -1)
        return planes.min(axis=1)[:, None], planes.max(axis=1)[:, None]
    # First down the columns, where neighbours in memory stay apart and NumPy's vector loops apply.
    columns = (len(images), -1, n_channels)
    lowest, highest = images.min(axis=1).reshape(columns), images.max(axis=1).reshape(columns)
    return lowest.min(axis=1), highest.max(axis=1)


def range_step(blocks: Sequence[np.ndarray], start: int, *, n_channels: int = 1) -> np.ndarray:
    """Minima and maxima of some blocks, (2, n_channels), in their dtype: the step of a pass."""
    extremes = [extremes_of(as_rows(block), n_channels) for block in blocks]
    lowest = np.concatenate([minima for minima, _ in extremes]).min(axis=0)
    highest = np.concatenate([maxima for _, maxima in extremes]).max(axis=0)
    return np.stack([lowest, highest])


def wider(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Merge two results of `range_step`."""
    return np.stack([np.minimum(a[0], b[0]), np.maximum(a[1], b[1])])
