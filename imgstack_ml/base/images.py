"""Checked images: what all estimators work on."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import dask.array as da
import numpy as np

from .mask import positions_inside

__all__ = ["Images", "working_dtype"]

_SINGLE = (np.uint8, np.uint16, np.int8, np.int16, np.bool_, np.float16, np.float32)


class Images(NamedTuple):
    """Checked input.

    Attributes
    ----------
    data : ndarray or dask array of shape (n_images, *image_shape)
    files : sequence of str, or None
        Files of the images, if they are known.
    mask : ndarray of bool of shape `image_shape`, or None
        True for pixels that are used; None for all.
    missing : bool
        Whether NaN is a missing pixel, and no error.
    weights : ndarray of shape (n_images,), float64, or None
        How often each image counts, above 0; None if each counts once.
    absent : bool
        Whether images of weight 0 were left out.
    """

    data: np.ndarray | da.Array
    files: Sequence[str] | None
    mask: np.ndarray | None = None
    missing: bool = False
    weights: np.ndarray | None = None
    absent: bool = False

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image, or ``(n_features,)`` if the input has one row for each image."""
        return self.data.shape[1:]

    @property
    def n_pixels(self) -> int:
        """Values in one image that are used: height x width x channels, or those inside the mask."""
        return prod(self.image_shape) if self.mask is None else int(np.count_nonzero(self.mask))

    @property
    def positions(self) -> np.ndarray | None:
        """Positions of the pixels that are used in flattened images; None for all."""
        return positions_inside(self.mask)

    @property
    def total_weight(self) -> float:
        """Sum of the weights, or 0 without weights."""
        return 0.0 if self.weights is None else float(self.weights.sum())

    @property
    def values_read(self) -> int:
        """Values in one image as it is read, if not all of them are used; otherwise 0."""
        n_values = prod(self.image_shape)
        return n_values if self.n_pixels < n_values else 0

    @property
    def image_bytes(self) -> int:
        """Bytes of one image while it is read: as it is stored, and the pixels inside the mask."""
        return self.data.dtype.itemsize * (self.n_pixels + self.values_read)


def working_dtype(dtype: np.dtype) -> np.dtype:
    """Dtype to compute in: float32 if it holds every value of `dtype` exactly, else float64."""
    return np.dtype(np.float32 if dtype.type in _SINGLE else np.float64)
