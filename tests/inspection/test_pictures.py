"""Images as pictures: small ones, whose pixels are means."""

import numpy as np
import pytest

from imgstack_ml.inspection.pictures import shrink
from tests.lib.images import random_pixels


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize(
    ("shape", "side", "expected"),
    [((20, 30, 3), 10, (6, 10, 3)), ((7, 5), 48, (7, 5)), ((3, 400), 50, (1, 50))],
    ids=["colour", "small already", "flat"],
)
def test_shrunken_images_are_means_of_squares(shape, side, expected, dtype):
    images = random_pixels((2, *shape), dtype)
    small = shrink(images, side)
    assert small.shape == (2, *expected)
    assert small.dtype == images.dtype
    if small.shape != images.shape:
        factor = -(-max(shape[:2]) // side)
        corner = images[:, : min(factor, shape[0]), :factor].mean(axis=(1, 2), dtype=np.float64)
        np.testing.assert_allclose(small[:, 0, 0], corner, atol=0.51 if small.dtype.kind == "u" else 1e-5)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "uint32", "int64", "uint64"])
def test_saturated_images_stay_saturated(dtype):
    """Float32 rounds the largest integers up, to values beyond their dtype."""
    top = np.iinfo(dtype).max
    np.testing.assert_array_equal(shrink(np.full((1, 8, 8), top, dtype), 4), top)


def test_means_beyond_float32_stay_finite():
    np.testing.assert_array_equal(shrink(np.full((1, 8, 8), 1e300), 4), 1e300)
