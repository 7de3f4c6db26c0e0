"""What rescaling must give: scikit-image's `rescale_intensity`, called for each image."""

import numpy as np
from skimage.exposure import rescale_intensity

DTYPES = ["bool", "uint8", "int8", "uint16", "int16", ">u2", "int32", "uint32", "float16", "float32", "float64"]
OUT_RANGES = ["dtype", "image", "uint8", "uint12", "int16", "float32", "bool", (0, 1), (1, 0), (-3.5, 1000)]


def _wide(image):
    """Signed integers in 64 bits: between small ones, such as -128 and 0, NumPy's percentiles overflow."""
    return image.astype(np.int64) if image.dtype.kind == "i" else image


def reference(stack, in_range="image", out_range="dtype", channel_axis=None, percentiles=None):
    """What a user of scikit-image writes: one call an image, or one a channel."""

    def one(image):
        limits = in_range if percentiles is None else tuple(np.percentile(_wide(image), percentiles))
        return rescale_intensity(image, limits, out_range)

    if channel_axis is None:
        return np.stack([one(image) for image in stack])
    return np.stack([np.stack([one(plane) for plane in np.moveaxis(image, -1, 0)], axis=-1) for image in stack])


def assert_same(actual, expected):
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)  # to the last bit, floats too
