"""Smallest and largest values: of each image, and of a whole stack in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

__all__ = ["add_to_range", "extremes_of", "join_ranges", "joined_channels", "merge_ranges", "range_step"]


def joined_channels(images: np.ndarray) -> np.ndarray:
    """Images or rows (n, ...) as (n, height, width x n_channels): the channels of a pixel follow each other.

    The result is a view where the block is contiguous. Flat rows (n, p) become images of height 1.
    """
    height, *row = images.shape[1:] if images.ndim > 2 else (1, images.shape[1])
    return images.reshape(len(images), height, prod(row))


def extremes_of(images: np.ndarray, n_channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Minima and maxima, (n, n_channels) each in the dtype of the images.

    Parameters
    ----------
    images : ndarray of shape (n, height, width * n_channels)
        As `joined_channels` returns them.
    n_channels : int
    """
    if n_channels == 1:
        planes = images.reshape(len(images), -1)
        return planes.min(axis=1)[:, None], planes.max(axis=1)[:, None]
    # First over the height: NumPy then compares whole rows of memory with vector instructions.
    columns = (len(images), -1, n_channels)
    lowest, highest = images.min(axis=1).reshape(columns), images.max(axis=1).reshape(columns)
    return lowest.min(axis=1), highest.max(axis=1)


def range_step(blocks: Sequence[np.ndarray], start: int, *, n_channels: int = 1) -> np.ndarray:
    """Minima and maxima of all images in some blocks, (2, n_channels), in the dtype of the blocks."""
    extremes = [extremes_of(joined_channels(block), n_channels) for block in blocks]
    lowest = np.concatenate([minima for minima, _ in extremes]).min(axis=0)
    highest = np.concatenate([maxima for _, maxima in extremes]).max(axis=0)
    return np.stack([lowest, highest])


def add_to_range(total: np.ndarray | None, blocks: Sequence[np.ndarray], *, per_channel: bool = False) -> np.ndarray:
    """Join `total`, None at first, with the minima and maxima of the same part of some images."""
    found = range_step(blocks, 0, n_channels=blocks[0].shape[-1] if per_channel else 1)
    return found if total is None else merge_ranges(total, found)


def join_ranges(
    parts: Sequence[np.ndarray], regions: Sequence[tuple[slice, ...]], *, per_channel: bool = False
) -> np.ndarray:
    """Join the ranges of parts of images, which may hold some of the channels only, (2, n_channels)."""
    found: dict[int, np.ndarray] = {}
    for part, region in zip(parts, regions, strict=True):
        first = region[-1].start if per_channel else 0
        found[first] = merge_ranges(found[first], part) if first in found else part
    return np.concatenate([found[first] for first in sorted(found)], axis=1)


def merge_ranges(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Join two results of `range_step`: (2, n_channels)."""
    return np.stack([np.minimum(a[0], b[0]), np.maximum(a[1], b[1])])
