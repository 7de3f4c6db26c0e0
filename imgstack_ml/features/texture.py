"""Texture: local binary patterns and grey-level co-occurrence, by scikit-image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import pi
from typing import Any

import numpy as np

from ..base.validation import Images
from ..linalg.large_integers import LAST, beyond_float64, differences
from ..passes.runner import Pass
from .base import FeatureTransformer, as_planes, channel_names
from .ranges import as_bins_need, check_for_range, check_range, pass_for_range, range_of

__all__ = ["TextureFeatures"]

_DESCRIPTORS = ("lbp", "glcm")
_PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM")
_N_PATTERNS: dict[str, Callable[[int], int]] = {  # number of patterns for a number of points
    "uniform": lambda points: points + 2,
    "nri_uniform": lambda points: points * (points - 1) + 3,
}
_MATRIX_BYTES = 2**20  # of co-occurrence matrices at a time
_PATTERN_LEVELS = 2**16  # grey levels that floats are rounded to for patterns


class TextureFeatures(FeatureTransformer):
    """Texture of each channel of each image: local binary patterns, and properties of grey-level co-occurrence.

    Both are computed by scikit-image: the share of pixels with each code of `skimage.feature.local_binary_pattern`, and
    `skimage.feature.graycoprops` of the symmetric, normalised `skimage.feature.graycomatrix`.

    There is no mask: all pixels count.

    Parameters
    ----------
    descriptors : sequence of {"lbp", "glcm"}, default=("lbp", "glcm")
        Local binary patterns and co-occurrence, in the order of the columns.
    n_points, radius : int and float, default=8 and 1
        A pattern compares a pixel with `n_points` points on a circle around it, of `radius` pixels.
    method : {"uniform", "nri_uniform"}, default="uniform"
        Kind of patterns: ``"uniform"`` has n_points + 2, which do not change if an image is rotated; ``"nri_uniform"``
        has n_points * (n_points - 1) + 3, which do.
    distances : sequence of int, default=(1,)
        Distances between the two pixels of a pair for the co-occurrence, in pixels.
    angles : sequence of float, default=(0, pi/4, pi/2, 3*pi/4)
        Directions from one pixel of a pair to the other, in radians.
    properties : sequence of str, default=("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM")
        Properties of the co-occurrence matrix, each computed for every distance and angle.
    levels : int, default=32
        Number of grey levels for the co-occurrence, 2 to 256.
    range : {"auto", "dtype", "stack"} or (low, high), default="auto"
        Range of intensities that is divided into `levels` of equal width; values outside of it get the first or the
        last level.

        - ``"auto"``: as ``"dtype"`` for Booleans and 8-bit integers, whose images fill the range of their dtype; as
          ``"stack"`` for all others, as 12 bits in uint16, or floats from 0 to 255;
        - ``"dtype"``: the range of the images' dtype, (-1, 1) for floats, as in scikit-image. `transform` refuses
          floats beyond it, and warns if all pixels have one level;
        - ``"stack"``: minimum and maximum of all images in `fit`, which takes one pass;
        - a pair of numbers.

    Attributes
    ----------
    range_ : (float, float)
        The range in use; ends that float64 does not hold are ints.
    image_shape_ : tuple of int
        Shape of one image.
    channel_names_ : tuple of str
        Names of the channels, from the files where these have them; absent for grey images and rows.
    n_features_in_ : int
        Values in one image.
    feature_names_in_ : ndarray of str
        Column names, if `fit` got a data frame.
    n_passes_ : float
        Reads of a lazy stack in `fit`: 1 if the range is learned, otherwise 0.

    Notes
    -----
    Features have the shape (n_images, n_channels * n_descriptors), channel by channel, in float64. Patterns of integer
    images use the pixels as they are. Floats are first divided into 65,536 levels of the range, because a pattern
    depends on which of two neighbours is larger, and rounding errors must not decide that. Of integers beyond
    2**53 a number below all pixels is subtracted. Rows of a 2-D input are images one pixel high.

    References
    ----------
    Ojala, Pietikäinen & Mäenpää (2002), "Multiresolution gray-scale and rotation invariant texture classification with
    local binary patterns". Haralick, Shanmugam & Dinstein (1973), "Textural features for image classification".

    Examples
    --------
    >>> import numpy as np
    >>> from imgstack_ml import TextureFeatures
    >>> stack = np.random.default_rng(0).integers(0, 256, (4, 16, 16), dtype=np.uint8)
    >>> features = TextureFeatures(properties=("contrast", "energy")).fit(stack)
    >>> features.transform(stack).shape
    (4, 18)
    >>> features.get_feature_names_out()[-1]
    'c0_energy_distance1_angle135'
    """

    def __init__(
        self,
        descriptors: Sequence[str] = _DESCRIPTORS,
        *,
        n_points: int = 8,
        radius: float = 1,
        method: str = "uniform",
        distances: Sequence[int] = (1,),
        angles: Sequence[float] = (0, pi / 4, pi / 2, 3 * pi / 4),
        properties: Sequence[str] = _PROPERTIES,
        levels: int = 32,
        range: Any = "auto",
    ):
        self.descriptors = descriptors
        self.n_points = n_points
        self.radius = radius
        self.method = method
        self.distances = distances
        self.angles = angles
        self.properties = properties
        self.levels = levels
        self.range = range

    def _needed_pass(self, images: Images) -> Pass | None:
        _check_words("descriptors", self.descriptors, _DESCRIPTORS)
        _check_words("properties", self.properties, _PROPERTIES)
        if self.method not in _N_PATTERNS:
            raise ValueError(f"method={self.method!r} is not known; it is one of {', '.join(map(repr, _N_PATTERNS))}")
        if not 2 <= self.levels <= 256:
            raise ValueError(f"levels={self.levels!r} must be between 2 and 256")
        check_range(self.range)
        return pass_for_range(self.range, images.data.dtype)

    def _learn(self, found: Any, images: Images) -> None:
        self.range_ = range_of(self.range, found, images.data.dtype)

    def _kernel(self) -> Callable[[np.ndarray], np.ndarray]:
        patterns = partial(
            patterns_of, n_points=self.n_points, radius=self.radius, method=self.method, limits=self.range_
        )
        cooccurrence = partial(
            cooccurrence_of,
            distances=tuple(self.distances),
            angles=tuple(self.angles),
            properties=tuple(self.properties),
            levels=int(self.levels),
            limits=self.range_,
        )
        functions = {"lbp": patterns, "glcm": cooccurrence}
        return partial(textures_of, descriptors=[functions[name] for name in self.descriptors])

    def _check(self) -> Callable[[np.ndarray], None] | None:
        return check_for_range(self.range, self.range_, int(self.levels))

    def _names(self) -> list[str]:
        names = {
            "lbp": [f"lbp{code}" for code in range(_N_PATTERNS[self.method](self.n_points))],
            "glcm": [
                f"{name}_distance{distance:g}_angle{np.rad2deg(angle):g}"
                for name in self.properties
                for distance in self.distances
                for angle in self.angles
            ],
        }
        return channel_names(self, [name for kind in self.descriptors for name in names[kind]])


def textures_of(images: np.ndarray, *, descriptors: Sequence[Callable[[np.ndarray], np.ndarray]]) -> np.ndarray:
    """Return textures (b, n_channels * n_descriptors) of images (b, height, width[, n_channels])."""
    height, width = images.shape[1:3] if images.ndim > 2 else (1, images.shape[1])
    planes = as_planes(images).reshape(-1, height, width)
    return np.concatenate([descriptor(planes) for descriptor in descriptors], axis=1).reshape(len(images), -1)


def patterns_of(
    planes: np.ndarray, *, n_points: int, radius: float, method: str, limits: tuple[float, float]
) -> np.ndarray:
    """Return the share of each local binary pattern in planes (n, height, width)."""
    from skimage.feature import local_binary_pattern

    n_patterns = _N_PATTERNS[method](n_points)
    shares = np.empty((len(planes), n_patterns))
    for plane, row in zip(planes, shares, strict=True):
        grey = _small(plane) if plane.dtype.kind in "iu" else grey_levels(plane, _PATTERN_LEVELS, limits)
        codes = local_binary_pattern(grey, n_points, radius, method).astype(np.intp)
        row[:] = np.bincount(codes.ravel(), minlength=n_patterns) / codes.size
    return shares


def _small(plane: np.ndarray) -> np.ndarray:
    """Return integers as scikit-image can compare them in float64: those beyond 2**53 less a number below all of them.

    scikit-image takes what is outside of the image as 0, and interpolates between it and the pixels at the border. The
    smallest pixel is still 2^20 times the range of the image then, if it was, so that the comparisons stay the same.
    """
    if not beyond_float64(plane):
        return plane
    low, high = int(plane.min()), int(plane.max())
    far = min(2**20 * (high - low + 1), LAST // 2)
    if low <= far and high >= -far:
        return plane  # much of the range of 64 bits: what float64 rounds is small beside it
    return (differences(plane, [low])[0] + (far if low > 0 else low - high - far)).astype(np.int64)


def cooccurrence_of(
    planes: np.ndarray,
    *,
    distances: Sequence[int],
    angles: Sequence[float],
    properties: Sequence[str],
    levels: int,
    limits: tuple[float, float],
) -> np.ndarray:
    """Return properties of the grey-level co-occurrence of planes (n, height, width)."""
    from skimage.feature import graycomatrix, graycoprops

    n_matrices = len(distances) * len(angles)
    # The matrices of several planes stand side by side, as if of more angles: a call of graycoprops takes longer than
    # its sums. One matrix alone is summed in another order, which would differ in the last bit.
    step = max(1, _MATRIX_BYTES // (8 * levels**2 * n_matrices)) if n_matrices > 1 else 1
    rows = []
    for i in range(0, len(planes), step):
        some = [
            graycomatrix(grey_levels(plane, levels, limits), distances, angles, levels, symmetric=True, normed=True)
            for plane in planes[i : i + step]
        ]
        matrices = np.concatenate(some, axis=-1)
        found = np.array([graycoprops(matrices, name) for name in properties])
        by_plane = found.reshape(len(properties), len(distances), len(some), len(angles)).transpose(2, 0, 1, 3)
        rows.append(by_plane.reshape(len(some), -1))
    return np.concatenate(rows)


def grey_levels(plane: np.ndarray, n_levels: int, limits: tuple[float, float]) -> np.ndarray:
    """Return the level 0 ... n_levels - 1 of each pixel within `limits`: uint8, or uint16 beyond 256 levels."""
    plane, (low, high), _ = as_bins_need(plane, limits)
    steps = np.subtract(plane, low, dtype=np.float64)
    steps *= n_levels / ((high - low) or 1.0)
    return np.clip(steps, 0, n_levels - 1, out=steps).astype(np.uint8 if n_levels <= 256 else np.uint16)


def _check_words(name: str, words: Sequence[str], known: Sequence[str]) -> None:
    if isinstance(words, str) or not words or not set(words) <= set(known):
        raise ValueError(f"{name}={words!r} is not known; it is a sequence of {', '.join(map(repr, known))}")
