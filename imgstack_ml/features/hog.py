"""Histograms of oriented gradients, equal to scikit-image's."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..base.validation import Images
from ..errors import NonFiniteError
from ..linalg.large_integers import beyond_float64, differences, refuse_inexact
from ..linalg.scaling import exponent_of, largest_value
from ..passes.runner import Pass
from .base import FeatureTransformer

__all__ = ["HOGFeatures"]

_EPS = 1e-5  # scikit-image's, so that blocks without gradients are 0
_BAND_PIXELS = 2**18
_SMALL_CELL = 16 * 16  # pixels; for larger cells scikit-image's function is as fast


class HOGFeatures(FeatureTransformer):
    """Histograms of oriented gradients: the vector of `skimage.feature.hog` for each image, to the last bit.

    There is no mask: all pixels count.

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
    channel_names_ : tuple of str
        Names of the channels, from the files where these have them; absent for grey images and rows.
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
    Integers beyond 2**53 lose the smallest one of their channel first; with `transform_sqrt` they are refused.

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
        if self.block_norm not in _NORMS:
            raise ValueError(
                f"block_norm={self.block_norm!r} is not known; it is one of {', '.join(map(repr, _NORMS))}"
            )
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
    """Return histograms of oriented gradients (b, n_features) of images (b, height, width[, n_channels]).

    scikit-image's function takes one image, and normalises block by block in Python: for small cells that takes ten
    times as long as all else. They are computed for all images at once, in the same order of operations.
    """
    from skimage.feature import hog

    negative = images.reshape(len(images), -1).min(axis=1) < 0
    if options["transform_sqrt"] and negative.any():
        reason = "has negative pixels, of which HOGFeatures(transform_sqrt=True) cannot take the square root."
        raise NonFiniteError(int(negative.argmax()), None, reason)
    images = images if images.ndim > 2 else images[:, None]
    if options["transform_sqrt"]:
        refuse_inexact(images)
    images = _in_usual_units(images)
    if prod(options["pixels_per_cell"]) <= _SMALL_CELL:
        return _gradients_of_small_cells(images, **options)
    channel_axis = -1 if images.ndim == 4 else None
    return np.stack([hog(image, channel_axis=channel_axis, **options) for image in images])


def _in_usual_units(images: np.ndarray) -> np.ndarray:
    """Return float images with a huge value, or with tiny ones only, in units in which the largest is near 1.

    scikit-image adds 1e-5 to the norms of blocks, and has its histograms in float32. Channels of integers beyond 2**53
    are returned less their smallest value, as float64: gradients are differences.
    """
    if beyond_float64(images):
        channels = images if images.ndim == 4 else images[..., None]
        shifted = channels.astype(np.float64)
        for i, c in np.ndindex(len(images), channels.shape[-1]):
            if beyond_float64(channels[i, ..., c]):
                shifted[i, ..., c] = differences(channels[i, ..., c], [int(channels[i, ..., c].min())])[0]
        return shifted.reshape(images.shape)
    unusual = [i for i, image in enumerate(images) if exponent_of([image]) != 0]
    if unusual:
        images = images.copy()
        for i in unusual:
            images[i] = np.ldexp(images[i], -np.frexp(largest_value([images[i]]))[1])
    return images


def _gradients_of_small_cells(
    images: np.ndarray,
    orientations: int,
    pixels_per_cell: tuple[int, int],
    cells_per_block: tuple[int, int],
    block_norm: str,
    transform_sqrt: bool,
) -> np.ndarray:
    dtype = np.dtype(np.float32 if images.dtype.type in (np.float16, np.float32) else np.float64)
    size, width = pixels_per_cell[0], images.shape[2]
    n_down = images.shape[1] // size
    per_band = max(1, _BAND_PIXELS // (len(images) * size * width))  # rows of cells at a time: bounded memory
    bands = []
    for first in range(0, n_down, per_band):
        stop = min(first + per_band, n_down)
        # A gradient needs the pixels above and below. At the border of the image it is 0.
        above, below = min(1, first * size), min(1, images.shape[1] - stop * size)
        band = images[:, first * size - above : stop * size + below].astype(dtype, copy=False)
        down, across = _gradients(np.sqrt(band) if transform_sqrt else band)
        inside = slice(above, band.shape[1] - below)
        bands.append(_cells(down[:, inside], across[:, inside], orientations, pixels_per_cell))
    blocks = sliding_window_view(np.concatenate(bands, axis=1), tuple(cells_per_block), (1, 2))
    blocks = np.moveaxis(blocks, 3, -1).reshape(*(blocks.shape[:3]), -1)
    return _NORMS[block_norm](blocks).astype(dtype, copy=False).reshape(len(images), -1)


def _gradients(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return differences of the neighbours above and below, and at both sides, of each pixel; 0 at borders.

    Of channels, those of the channel where the gradient is largest.
    """
    down, across = np.zeros_like(images), np.zeros_like(images)
    np.subtract(images[:, 2:], images[:, :-2], out=down[:, 1:-1])
    np.subtract(images[:, :, 2:], images[:, :, :-2], out=across[:, :, 1:-1])
    if images.ndim == 4:
        largest = np.hypot(down, across).argmax(axis=-1)[..., None]
        down, across = (np.take_along_axis(one, largest, -1)[..., 0] for one in (down, across))
    return down.astype(np.float64, copy=False), across.astype(np.float64, copy=False)


def _cells(down: np.ndarray, across: np.ndarray, orientations: int, size: tuple[int, int]) -> np.ndarray:
    """Return the histograms (b, n_down, n_across, orientations) of all cells: sums of magnitudes by direction.

    scikit-image adds pixel by pixel to a float32, which the result shows.
    """
    n_down, n_across = down.shape[1] // size[0], down.shape[2] // size[1]
    down, across = (one[:, : n_down * size[0], : n_across * size[1]] for one in (down, across))
    magnitude = np.hypot(across, down)
    angle = np.rad2deg(np.arctan2(down, across)) % 180
    edges = np.float32(180 / orientations) * np.arange(1, 1 + orientations, dtype=np.float32)
    kinds = np.searchsorted(edges, angle, side="right")
    magnitude[kinds == orientations] = 0  # an angle that is rounded up to 180 is in no bin
    np.minimum(kinds, orientations - 1, out=kinds)
    sums = np.zeros((len(down), n_down, n_across, orientations), np.float32)
    flat, first = sums.reshape(-1), np.arange(0, sums.size, orientations).reshape(sums.shape[:3])
    for i, j in np.ndindex(*size):  # the pixel at this place in all cells
        place = first + kinds[:, i :: size[0], j :: size[1]]
        flat[place] = flat[place] + magnitude[:, i :: size[0], j :: size[1]]
    return (sums / np.float32(prod(size))).astype(np.float64)


def _by_sum(blocks: np.ndarray) -> np.ndarray:
    return blocks / (np.abs(blocks).sum(axis=-1, keepdims=True) + _EPS)


def _by_length(blocks: np.ndarray) -> np.ndarray:
    return blocks / np.sqrt((blocks**2).sum(axis=-1, keepdims=True) + _EPS**2)


_NORMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "L1": _by_sum,
    "L1-sqrt": lambda blocks: np.sqrt(_by_sum(blocks)),
    "L2": _by_length,
    "L2-Hys": lambda blocks: _by_length(np.minimum(_by_length(blocks), 0.2)),
}


def _height_and_width(image_shape: tuple[int, ...]) -> tuple[int, int]:
    return (image_shape[0], image_shape[1]) if len(image_shape) > 1 else (1, image_shape[0])
