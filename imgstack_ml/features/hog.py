"""Histograms of oriented gradients, by scikit-image."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from ..base.validation import Images
from ..errors import NonFiniteError
from ..linalg.scaling import exponent_of, largest_value
from ..passes.runner import Pass
from .base import FeatureTransformer

__all__ = ["HOGFeatures"]


class HOGFeatures(FeatureTransformer):
    """Histograms of oriented gradients: the vector of `skimage.feature.hog` for each image.

    Parameters
    ----------
    orientations : int, default=9
        Bins of direction.
    pixels_per_cell : (int, int), default=(8, 8)
        Height and width of a cell, in pixels.
    cells_per_block : (int, int), default=(3, 3)
        Cells, down and across, of a block: histograms are normalised block by block.
    block_norm : {"L1", "L1-sqrt", "L2", "L2-Hys"}, default="L2-Hys"
        Normalisation of a block.
    transform_sqrt : bool, default=False
        Take the square root of the intensities first. An image with a negative one is an error.

    Attributes
    ----------
    image_shape_ : tuple of int
        Shape of one image.
    n_features_in_ : int
        Values in one image.
    feature_names_in_ : ndarray of str
        Column names, if `fit` got a data frame.
    n_passes_ : float
        Reads in `fit`: 0.

    Notes
    -----
    Features have the shape (n_images, n_features), in float64; scikit-image computes them in float32 for float16 and
    float32 images. In an image with channels, each pixel contributes the gradient of the channel where it is largest.
    Rows of a 2-D input are images one pixel high, which need cells of that height:
    ``HOGFeatures(pixels_per_cell=(1, 8), cells_per_block=(1, 3))``.

    scikit-image adds 1e-5 to the norm of a block, which flattens float images whose gradients are not far above that.
    Images with all values below 2^-32, or with one above 2^32, are divided by a power of two first.

    References
    ----------
    Dalal & Triggs (2005), "Histograms of oriented gradients for human detection".

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml import HOGFeatures
    >>> stack = np.random.default_rng(0).integers(0, 256, (4, 32, 32), dtype=np.uint8)
    >>> HOGFeatures(cells_per_block=(2, 2)).fit_transform(stack).shape
    (4, 324)
    """

    def __init__(
        self,
        orientations: int = 9,
        *,
        pixels_per_cell: tuple[int, int] = (8, 8),
        cells_per_block: tuple[int, int] = (3, 3),
        block_norm: str = "L2-Hys",
        transform_sqrt: bool = False,
    ):
        self.orientations = orientations
        self.pixels_per_cell = pixels_per_cell
        self.cells_per_block = cells_per_block
        self.block_norm = block_norm
        self.transform_sqrt = transform_sqrt

    def _needed_pass(self, images: Images) -> Pass | None:
        if min(self._n_blocks(images.image_shape)) < 1:
            height, width = _height_and_width(images.image_shape)
            raise ValueError(
                f"images of {height} x {width} pixels are too small for a block of {tuple(self.cells_per_block)} cells "
                f"of {tuple(self.pixels_per_cell)} pixels. Make cells or blocks smaller, e.g. "
                f"HOGFeatures(pixels_per_cell={(min(height, 4), min(width, 4))}, cells_per_block=(1, 1))"
            )
        return None

    def _kernel(self) -> Callable[[np.ndarray], np.ndarray]:
        return partial(gradients_of, options=self.get_params(deep=False))

    def _n_blocks(self, image_shape: tuple[int, ...]) -> list[int]:
        """Return the number of blocks down and across; each begins one cell after the one before."""
        sizes = zip(_height_and_width(image_shape), self.pixels_per_cell, self.cells_per_block, strict=True)
        return [size // cell - block + 1 for size, cell, block in sizes]

    def _names(self) -> list[str]:
        down, across = self._n_blocks(self.image_shape_)
        places = product(range(down), range(across), *map(range, self.cells_per_block), range(self.orientations))
        return [f"block{r}_{c}_cell{i}_{j}_orientation{k}" for r, c, i, j, k in places]


def gradients_of(images: np.ndarray, *, options: dict[str, Any]) -> np.ndarray:
    """Return histograms of oriented gradients (b, n_features) of images (b, height, width[, n_channels])."""
    from skimage.feature import hog

    negative = images.reshape(len(images), -1).min(axis=1) < 0
    if options["transform_sqrt"] and negative.any():
        reason = "has negative pixels, of which HOGFeatures(transform_sqrt=True) cannot take the square root."
        raise NonFiniteError(int(negative.argmax()), None, reason)
    channel_axis = -1 if images.ndim == 4 else None
    images = images if images.ndim > 2 else images[:, None]
    return np.stack([hog(_in_usual_units(image), channel_axis=channel_axis, **options) for image in images])


def _in_usual_units(image: np.ndarray) -> np.ndarray:
    """Return a float image all of whose values are tiny, or with a huge one, in units in which the largest is near 1.

    scikit-image adds 1e-5 to the norms of blocks, and has its histograms in float32.
    """
    if exponent_of([image]) == 0:
        return image
    scaled: np.ndarray = np.ldexp(image, -np.frexp(largest_value([image]))[1])
    return scaled


def _height_and_width(image_shape: tuple[int, ...]) -> tuple[int, int]:
    return (image_shape[0], image_shape[1]) if len(image_shape) > 1 else (1, image_shape[0])
