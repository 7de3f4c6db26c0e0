"""TextureFeatures: the patterns and the co-occurrence of scikit-image for one channel."""

from itertools import pairwise

import numpy as np
import pytest
from skimage.feature import local_binary_pattern

from imgstack_ml import TextureFeatures
from tests.lib.features import (
    LAZY_GRID,
    SHORT_GRID,
    any_images,
    assert_same,
    check_in_memory,
    check_lazy,
    texture_pairs,
    textures,
    textures_like,
)


@pytest.mark.parametrize(("shape", "dtype"), SHORT_GRID)
def test_in_memory(shape, dtype):
    check_in_memory(texture_pairs, shape, dtype)


@pytest.mark.parametrize(("shape", "chunks", "dtype", "scheduler"), LAZY_GRID)
def test_lazy(shape, chunks, dtype, scheduler):
    check_lazy(texture_pairs, shape, chunks, dtype, scheduler)


@pytest.mark.parametrize("levels", [2, 200, 256])
def test_few_and_many_levels(levels):
    stack = any_images((2, 12, 10), "uint16")
    assert_same(textures_like((0, 65536), levels).fit_transform(stack), textures(stack, (0, 65536), levels))


@pytest.mark.parametrize("method", ["uniform", "nri_uniform"])
@pytest.mark.parametrize("n_points", [4, 8, 12])
def test_patterns(method, n_points):
    stack = any_images((3, 20, 18), "uint8")
    result = TextureFeatures(("lbp",), n_points=n_points, radius=2, method=method).fit_transform(stack)
    n_codes = result.shape[1]
    codes = [local_binary_pattern(image, n_points, 2, method) for image in stack]
    assert max(code.max() for code in codes) < n_codes
    assert_same(result, [np.histogram(code, n_codes, (0, n_codes), density=True)[0] for code in codes])


def test_textures_order_by_roughness():
    """Noise of growing strength has growing contrast."""
    noise = np.random.default_rng(0).standard_normal((5, 32, 32))
    stack = np.clip(128 + noise * np.array([1, 5, 10, 20, 40])[:, None, None], 0, 255).astype(np.uint8)
    contrast = TextureFeatures(("glcm",), properties=("contrast",), angles=(0,)).fit_transform(stack)[:, 0]
    assert all(a < b for a, b in pairwise(contrast))


def test_names():
    stack = any_images((3, 16, 16, 2), "uint8")
    names = TextureFeatures(("glcm", "lbp"), properties=("energy",), angles=(0,)).fit(stack).get_feature_names_out()
    assert list(names[:2]) == ["c0_energy_distance1_angle0", "c0_lbp0"]
