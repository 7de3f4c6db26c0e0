"""Images to scores and scores to images: NumPy blocks."""

from __future__ import annotations

from math import ceil, log10

import numpy as np

from ..base.missing import filled
from ..base.validation import working_dtype
from ..linalg.krylov import project as project_rows
from ..linalg.scaling import exponent_of, power_of_two

__all__ = ["in_intensities", "project", "project_filled", "reconstruct"]


def project(block: np.ndarray, axes: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Scores (b, k) of a block of images (b, *image_shape). Tiles are centred one by one and summed in float64."""
    dtype, exponent = working_dtype(block.dtype), max(exponent_of([block]), exponent_of([mean[None]]))
    with np.errstate(over="ignore"):  # of the mean, in images that are refused below
        shift = mean.astype(dtype).astype(np.float64)
    scores = project_rows([block], 0, shift.size, axes, shift, dtype, exponent)
    # Rounding to float32 dropped a part of the mean.
    scores -= axes @ np.ldexp(mean - shift, -exponent)
    return in_intensities(scores / scale, exponent, axes.dtype, "scores")


def project_filled(block: np.ndarray, axes: np.ndarray, mean: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Scores of a block of images whose missing pixels get the mean."""
    return project(filled(block, mean), axes, mean, scale)


def reconstruct(
    image_shape: tuple[int, ...], scores: np.ndarray, axes: np.ndarray, mean: np.ndarray, scale: np.ndarray
) -> np.ndarray:
    """Images (b, *image_shape) from scores (b, k)."""
    scores = scores * scale
    exponent = max(exponent_of([scores]), exponent_of([mean[None]]))
    factor = power_of_two(exponent, scores.dtype)
    images = (scores * factor).astype(axes.dtype) @ axes
    images += (mean * factor).astype(axes.dtype)
    if factor != 1:
        images = in_intensities(images, exponent, axes.dtype, "images")
    return images.reshape(len(scores), *image_shape)


def in_intensities(values: np.ndarray, exponent: int, dtype: np.dtype, what: str) -> np.ndarray:
    """Values in units of 2^exponent as numbers of `dtype` in the units of the images.

    Raises
    ------
    ValueError
        If one of them is finite, and no number of `dtype`.
    """
    with np.errstate(over="ignore"):
        converted: np.ndarray = np.ldexp(values, exponent).astype(dtype, copy=False)
    if not np.isfinite(converted).all() and np.isfinite(values).all():
        largest = log10(np.abs(values).max()) + exponent * log10(2)
        raise ValueError(
            f"The {what} have values of up to 1e{ceil(largest)}, and {dtype} ends at {np.finfo(dtype).max:.1e}. Divide "
            f"the images by 1e{ceil(largest - log10(np.finfo(dtype).max)) + 1} or more before fit and transform."
        )
    return converted
