"""What features must be: the calls of NumPy and scikit-image that a user writes for one channel of one image."""

from itertools import product

import dask
import dask.array as da
import numpy as np
from numpy.testing import assert_array_equal
from skimage.feature import graycomatrix, graycoprops, hog, local_binary_pattern

from imgstack_ml import ChannelStatistics, HOGFeatures, ImageHistogram, TextureFeatures
from tests.lib.grids import LAZY, chunked, pairwise
from tests.lib.images import random_pixels

SHAPES = [(7, 30), (7, 12, 10), (7, 12, 10, 3), (7, 12, 10, 1)]
DTYPES = ["bool", "uint8", "int8", "uint16", "int16", ">u2", "int32", "uint64", "float16", "float32", "float64"]
# Shape, chunks, dtype and scheduler of lazy stacks.
LAZY_GRID = pairwise(SHAPES, LAZY, ["uint8", "uint16", "float32", "float64"], ["sync", "threads"])
# Shape and dtype of stacks in memory, for features that are slow to compute: every value of either, not every pair.
SHORT_GRID = [
    *((SHAPES[2], dtype) for dtype in DTYPES),
    *product(SHAPES[:2], ["uint8", "float32"]),
    (SHAPES[3], "bool"),
]
SMALL_HOG = {"pixels_per_cell": (3, 3), "cells_per_block": (2, 2)}
ROW_HOG = {"pixels_per_cell": (1, 3), "cells_per_block": (1, 2)}


def any_images(shape, dtype, seed=0):
    """Random images over much of the range of `dtype`."""
    if dtype == "bool":
        return random_pixels(shape, "uint8", seed) > 100
    if np.dtype(dtype).kind == "f":
        return (np.random.default_rng(seed).random(shape) * 300 - 20).astype(dtype)
    top = min(np.iinfo(dtype).max, 2**40)
    return np.random.default_rng(seed).integers(max(np.iinfo(dtype).min, -top), top, shape).astype(dtype)


def channels(image):
    """Channels of an image, each on its own in memory."""
    return [image] if image.ndim < 3 else [image[..., c].copy() for c in range(image.shape[-1])]


def each(stack, features_of):
    """One row an image: what a user of NumPy and scikit-image writes."""
    return np.stack([np.concatenate([features_of(channel) for channel in channels(image)]) for image in stack])


def statistics(stack, percentiles):
    def of(channel):
        numbers = channel.astype("uint8") if channel.dtype == bool else channel
        return [
            np.mean(channel, dtype=np.float64),
            np.std(channel, dtype=np.float64),
            np.min(channel),
            np.max(channel),
            *np.percentile(numbers, percentiles),
        ]

    return each(stack, of).astype(np.float64)


def histograms(stack, bins, limits, density=False):
    def of(channel):
        return np.histogram(channel.astype("uint8") if channel.dtype == bool else channel, bins, limits, density)[0]

    return each(stack, of)


def steps(channel, levels, limits):
    step = np.floor((channel.astype(np.float64) - limits[0]) * (levels / (limits[1] - limits[0])))
    return np.clip(step, 0, levels - 1).astype(np.uint8 if levels <= 256 else np.uint16)


def textures(stack, limits, levels, properties=("contrast", "correlation")):
    def of(channel):
        plane = channel if channel.ndim == 2 else channel[None]
        grey = plane if plane.dtype.kind in "iu" else steps(plane, 2**16, limits)
        grey = plane.astype("uint8") if plane.dtype == bool else grey
        codes = local_binary_pattern(grey, 8, 1.5, "uniform")
        patterns = np.histogram(codes, 10, (0, 10), density=True)[0]
        matrix = graycomatrix(steps(plane, levels, limits), [1, 2], [0, np.pi / 2], levels, symmetric=True, normed=True)
        return np.concatenate([patterns, *(graycoprops(matrix, name).ravel() for name in properties)])

    return each(stack, of)


def gradients(stack, **options):
    axis = -1 if stack.ndim == 4 else None
    return np.stack([hog(image if image.ndim > 1 else image[None], channel_axis=axis, **options) for image in stack])


def textures_like(range, levels=16):
    return TextureFeatures(
        radius=1.5,
        distances=(1, 2),
        angles=(0, np.pi / 2),
        properties=("contrast", "correlation"),
        levels=levels,
        range=range,
    )


def ranges_of(stack):
    """Intensities from the lowest to the highest, and some between."""
    lowest, highest = float(stack.min()), float(stack.max())
    low, high = (0.0, 2.0) if stack.dtype == bool else (lowest, highest)
    return (lowest, highest), (low + (high - low) / 7, high - (high - low) / 9)


# Transformers, and what they must give for a stack.


def statistics_pairs(stack):
    yield ChannelStatistics(percentiles=(5, 50, 97.3)), statistics(stack, (5, 50, 97.3))


def histogram_pairs(stack, all_bins=(1, 7, 32)):
    whole, given = ranges_of(stack)
    for bins in all_bins:
        yield ImageHistogram(bins, given), histograms(stack, bins, given)
        yield ImageHistogram(bins, given, density=True), histograms(stack, bins, given, density=True)
        yield ImageHistogram(bins, "stack"), histograms(stack, bins, whole)


def texture_pairs(stack):
    whole, given = ranges_of(stack)
    yield textures_like(given), textures(stack, given, 16)
    yield textures_like("stack", 64), textures(stack, whole, 64)


def hog_pairs(stack):
    options = ROW_HOG if stack.ndim == 2 else SMALL_HOG
    yield HOGFeatures(**options), gradients(stack, **options)


def all_pairs(stack):
    for pairs in (statistics_pairs, histogram_pairs, texture_pairs, hog_pairs):
        yield from pairs(stack)


def assert_same(actual, expected):
    """To the last bit, in float64."""
    assert actual.dtype == np.float64
    assert_array_equal(actual, np.asarray(expected, np.float64))


def check_in_memory(pairs, shape, dtype):
    """What all of `pairs` give for a read-only NumPy stack, and their names."""
    stack = any_images(shape, dtype)
    stack.setflags(write=False)
    for features, expected in pairs(stack):
        assert_same(features.fit_transform(stack), expected)
        assert len(features.get_feature_names_out()) == len(set(features.get_feature_names_out())) == expected.shape[1]


def check_lazy(pairs, shape, chunks, dtype, scheduler):
    """What all of `pairs` give for a lazy stack, and what they declare before it is computed."""
    stack = any_images(shape, dtype)
    lazy = chunked(stack, chunks)
    for features, expected in pairs(stack):
        with dask.config.set(scheduler=scheduler):
            result = features.fit(lazy).transform(lazy)
            assert isinstance(result, da.Array)
            assert (result.shape, result.chunks[0]) == (expected.shape, lazy.chunks[0])
            assert result.dtype == result._meta.dtype == np.float64
            assert_same(result.compute(), expected)
