"""Masks of pixels: the check of the parameter `mask`, the pixels inside of images, and rows of them put back."""

from __future__ import annotations

import os
from itertools import pairwise
from math import prod
from typing import Any

import dask
import numpy as np

__all__ = ["FINITE", "check_mask", "is_finite_wanted", "pixels_at", "positions_inside", "put_back"]

FINITE = "finite"  # the mask of the pixels that are finite in all images
_MANY_IMAGES, _LONG_RUN = 8, 64  # pixels that follow each other are copied together where that is faster


def is_finite_wanted(mask: Any) -> bool:
    """Whether `mask` asks for the pixels that are finite in all images."""
    return isinstance(mask, str) and mask == FINITE


def check_mask(mask: Any, image_shape: tuple[int, ...]) -> np.ndarray | None:
    """Check the parameter `mask` of an estimator against the shape of its images.

    Returns
    -------
    mask : ndarray of bool of shape `image_shape`, or None
        None for None, and for ``"finite"``, which the images tell.

    Raises
    ------
    ValueError
        It is not Boolean, masked, lazy, of another shape, or False everywhere.
    """
    if mask is None or is_finite_wanted(mask):
        return None
    if isinstance(mask, str | os.PathLike):
        path = os.fspath(mask)
        raise ValueError(
            f"mask={path!r} must be a Boolean array, 'finite' or None. Of an image file: "
            f"mask=skimage.io.imread({path!r}) > 0."
        )
    if dask.is_dask_collection(mask):
        raise ValueError("mask is lazy, and must be in memory: mask=mask.compute().")
    if isinstance(mask, np.ma.MaskedArray):
        raise ValueError(
            "mask is a masked array, whose own mask means the opposite: True is left out. Pass "
            "mask=~numpy.ma.getmaskarray(mask)."
        )
    found = np.asarray(mask)
    if found.dtype != bool:
        raise ValueError(f"mask has dtype {found.dtype}, and must be Boolean, True = used: mask=mask > 0.")
    if found.shape != image_shape:
        if found.shape != image_shape[:2]:
            raise ValueError(_other_shape(found.shape, image_shape))
        found = found[..., None]  # the same for all channels
    if not found.any():
        raise ValueError("mask is False everywhere, and True marks the pixels that are used: mask=~mask.")
    return np.array(np.broadcast_to(found, image_shape))


def _other_shape(shape: tuple[int, ...], image_shape: tuple[int, ...]) -> str:
    needed = " or ".join(map(str, dict.fromkeys((image_shape[:2], image_shape))))
    same_size = [one for one in (image_shape, image_shape[:2]) if np.prod(shape) == np.prod(one)]
    line = "mask=mask.T" if shape[::-1] in same_size else f"mask=mask.reshape{same_size[0]}" if same_size else ""
    if len(shape) == 3 and shape[:2] == image_shape[:2] and shape[2] in (2, 3, 4):  # in colours, or with alpha
        line = f"mask=mask[..., :{1 if shape[2] == 2 else 3}].any(axis=-1)"
    advice = f"Pass {line}." if line else "Crop or resize it as the images were."
    return f"mask has shape {shape}, and images of shape {image_shape} need {needed}. {advice}"


def positions_inside(mask: np.ndarray | None) -> np.ndarray | None:
    """Positions of the pixels inside a mask, in flattened images; None where all are inside."""
    return None if mask is None or mask.all() else np.flatnonzero(mask)


def pixels_at(images: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Copy the pixels at some ascending positions of images (b, *image_shape), as rows (b, n_positions)."""
    rows = images.reshape(len(images), prod(images.shape[1:]))  # of an empty block, -1 would mean nothing
    out = np.empty((len(images), len(positions)), images.dtype)
    if len(images) >= _MANY_IMAGES:
        edges = np.flatnonzero(np.diff(positions) != 1) + 1
        if len(edges) * _LONG_RUN < len(positions):
            for start, stop in pairwise([0, *edges.tolist(), len(positions)]):
                first = int(positions[start])
                out[:, start:stop] = rows[:, first : first + stop - start]
            return out
    # Positions are valid: "clip" tells NumPy not to test that, for which it would need a buffer as large as `out`.
    return np.take(rows, positions, axis=1, out=out, mode="clip")


def put_back(rows: np.ndarray, mask: np.ndarray | None, fill_value: Any = 0) -> np.ndarray:
    """Rows (b, p) of all pixels, from rows of the pixels inside a mask; `fill_value` outside."""
    if mask is None:
        return rows
    out = np.full((len(rows), mask.size), fill_value, rows.dtype)
    out[:, mask.ravel()] = rows
    return out
