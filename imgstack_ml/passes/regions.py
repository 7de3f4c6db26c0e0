"""Regions of images, over which a pass adds up what is a sum over images, pixel by pixel.

A region is a range of lines of large images, or the pixels that the chunks of a stack have in common, if these hold
parts of images. Each has one total, to which the images are added in their order. So nothing as large as an image is
made again and again for some of the images, and merged.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import Any

import numpy as np

from ..base.parts import Region, inside_regions, n_values, stored_regions

__all__ = ["Region", "assembled", "bands", "inside_regions", "n_values", "shares_of", "stored_regions"]


def bands(image_shape: tuple[int, ...], n: int) -> list[Region]:
    """Cut images into up to `n` ranges of lines."""
    height, *rest = image_shape
    edges = np.linspace(0, height, 1 + min(n, height), dtype=int).tolist()
    return [(slice(a, b), *(slice(0, size) for size in rest)) for a, b in pairwise(edges)]


def shares_of(regions: Sequence[Region], n_images: int) -> list[int]:
    """Divide a number of images among regions as their sizes are, for a bar that counts images."""
    done = [0, *accumulate(map(n_values, regions))]
    return [n_images * b // done[-1] - n_images * a // done[-1] for a, b in pairwise(done)]


def assembled(parts: Iterable[np.ndarray], regions: Sequence[Region], mask: np.ndarray | None = None) -> np.ndarray:
    """Images (..., p) from their regions, (..., p_i) each, of which one at a time is needed.

    With a mask, parts and images have the pixels inside only, and regions in which there are none may be left out.
    """
    if mask is not None:
        return _assembled_inside(parts, regions, mask)
    shape = tuple(max(region[axis].stop for region in regions) for axis in range(len(regions[0])))
    whole: np.ndarray | None = None
    for part, region in zip(parts, regions, strict=True):
        if whole is None:
            whole = np.empty((*part.shape[:-1], *shape), part.dtype)
        index: Any = (..., *region)
        whole[index] = part.reshape(whole[index].shape)
    assert whole is not None
    return whole.reshape(*whole.shape[: -len(shape)], prod(shape))  # of no images, -1 would mean nothing


def _assembled_inside(parts: Iterable[np.ndarray], regions: Sequence[Region], mask: np.ndarray) -> np.ndarray:
    numbers = (np.cumsum(mask) - 1).reshape(mask.shape)  # of the pixels inside
    whole: np.ndarray | None = None
    for part, region in zip(parts, regions, strict=True):
        if whole is None:
            whole = np.empty((*part.shape[:-1], np.count_nonzero(mask)), part.dtype)
        whole[..., numbers[region][mask[region]]] = part
    assert whole is not None
    return whole
