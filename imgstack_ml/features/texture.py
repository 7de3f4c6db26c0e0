"""Texture: local binary patterns and grey-level co-occurrence, by scikit-image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import pi
from typing import Any

import numpy as np

from ..base.validation import Images
from ..passes.runner import Pass
from .base import FeatureTransformer, as_planes, channel_names
from .ranges import check_range, pass_for_range, range_of

__all__ = ["TextureFeatures"]

_DESCRIPTORS = ("lbp", "glcm")
_PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM")
_PATTERNS: dict[str, Callable[[int], int]] = {  # number of codes for a number of points
    "uniform": lambda points: points + 2,
    "nri_uniform": lambda points: points * (points - 1) + 3,
}
_FINE_LEVELS = 2**16  # of floats, for patterns


class TextureFeatures(FeatureTransformer):
    """Texture of each channel of each image: local binary patterns, and properties of grey-level co-occurrence.

    Both are scikit-image's: the share of each code of `skimage.feature.local_binary_pattern` among the pixels, and
    `skimage.feature.graycoprops` of the symmetric, normed `skimage.feature.graycomatrix`.

    Parameters
    ----------
    descriptors : sequence of {"lbp", "glcm"}, default=("lbp", "glcm")
        What is computed, in the order of the columns.
    n_points, radius : int and float, default=8 and 1
        Points on the circle around a pixel to which patterns compare it, and the circle's radius in pixels.
    method : {"uniform", "nri_uniform"}, default="uniform"
        Patterns: n_points + 2 of them, the same for rotated images, or n_points * (n_points - 1) + 3.
    distances : sequence of int, default=(1,)
        Distances of the pairs of pixels of the co-occurrence, in pixels.
    angles : sequence of float, default=(0, pi/4, pi/2, 3*pi/4)
        Their directions, in radians.
    properties : sequence of str, default=("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM")
        Properties of the co-occurrence, one each for every distance and angle.
    levels : int, default=32
        Steps of intensity for the co-occurrence, 2 to 256.
    range : {"dtype", "stack"} or (low, high), default="dtype"
        Intensities that are divided into `levels` steps of equal width; what lies outside is put into the first or
        the last one. ``"dtype"``: those of the images' dtype, (-1, 1) for floats; ``"stack"``: from the smallest to
        the largest of all images seen in `fit`, found in one pass; or a pair of numbers.

    Attributes
    ----------
    range_ : (float, float)
        The range in use.
    image_shape_ : tuple of int
        Shape of one image.
    n_features_in_ : int
        Values in one image.
    feature_names_in_ : ndarray of str
        Where `fit` got a table with column names.
    n_passes_ : float
        Reads of a lazy stack in `fit`: 1 for ``range="stack"``, otherwise 0.

    Notes
    -----
    Of shape (n_images, n_channels * n_descriptors), channel by channel, in float64. Patterns are made from integer
    images as they are. Floats are first cut into 65,536 levels of the range: scikit-image warns of patterns of floats,
    where the last digit decides between neighbours that are equal but for rounding. Rows of a 2-D input are images of
    one line.

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
    'channel0_energy_distance1_angle135'
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
        range: Any = "dtype",
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
        if self.method not in _PATTERNS:
            raise ValueError(f"method={self.method!r} is not known; it is one of {', '.join(map(repr, _PATTERNS))}")
        if not 2 <= self.levels <= 256:
            raise ValueError(f"levels={self.levels!r} must be between 2 and 256")
        check_range(self.range)
        return pass_for_range(self.range)

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
        kinds = {"lbp": patterns, "glcm": cooccurrence}
        return partial(textures_of, descriptors=[kinds[name] for name in self.descriptors])

    def _names(self) -> list[str]:
        names = {
            "lbp": [f"lbp{code}" for code in range(_PATTERNS[self.method](self.n_points))],
            "glcm": [
                f"{name}_distance{distance:g}_angle{np.rad2deg(angle):g}"
                for name in self.properties
                for distance in self.distances
                for angle in self.angles
            ],
        }
        return channel_names(self.image_shape_, [name for kind in self.descriptors for name in names[kind]])


def textures_of(images: np.ndarray, *, descriptors: Sequence[Callable[[np.ndarray], np.ndarray]]) -> np.ndarray:
    """Texture (b, n_channels * n_descriptors) of images (b, height, width[, n_channels])."""
    height, width = images.shape[1:3] if images.ndim > 2 else (1, images.shape[1])
    planes = as_planes(images).reshape(-1, height, width)
    rows = [np.concatenate([descriptor(plane) for descriptor in descriptors]) for plane in planes]
    return np.reshape(rows, (len(images), -1))


def patterns_of(
    plane: np.ndarray, *, n_points: int, radius: float, method: str, limits: tuple[float, float]
) -> np.ndarray:
    """Share of each local binary pattern in a plane (height, width)."""
    from skimage.feature import local_binary_pattern

    grey = plane if plane.dtype.kind in "iu" else in_steps(plane, _FINE_LEVELS, limits)
    codes = local_binary_pattern(grey, n_points, radius, method).astype(np.intp)
    return np.bincount(codes.ravel(), minlength=_PATTERNS[method](n_points)) / codes.size


def cooccurrence_of(
    plane: np.ndarray,
    *,
    distances: Sequence[int],
    angles: Sequence[float],
    properties: Sequence[str],
    levels: int,
    limits: tuple[float, float],
) -> np.ndarray:
    """Properties of the grey-level co-occurrence of a plane (height, width)."""
    from skimage.feature import graycomatrix, graycoprops

    grey = in_steps(plane, levels, limits)
    matrix = graycomatrix(grey, distances, angles, levels, symmetric=True, normed=True)
    return np.concatenate([graycoprops(matrix, name).ravel() for name in properties])


def in_steps(plane: np.ndarray, levels: int, limits: tuple[float, float]) -> np.ndarray:
    """Intensities as numbers of steps of a range: uint8, uint16 beyond 256 `levels`."""
    low, high = limits
    steps = np.subtract(plane, low, dtype=np.float64)
    steps *= levels / ((high - low) or 1.0)
    return np.clip(steps, 0, levels - 1, out=steps).astype(np.uint8 if levels <= 256 else np.uint16)


def _check_words(name: str, words: Sequence[str], known: Sequence[str]) -> None:
    if isinstance(words, str) or not words or not set(words) <= set(known):
        raise ValueError(f"{name}={words!r} is not known; it is a sequence of {', '.join(map(repr, known))}")
