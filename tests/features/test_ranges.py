"""The parameter `range` of histograms and textures."""

import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from imgstack_ml import ChannelStatistics, ImageHistogram, TextureFeatures, open_stack
from imgstack_ml.cli.lib.features import make_features
from tests.lib.features import any_images, assert_same, histograms, textures_like
from tests.lib.images import write_image
from tests.lib.stacks import counted


@pytest.mark.parametrize(
    ("dtype", "limits"),
    [
        ("bool", (0, 2)),
        ("uint8", (0, 256)),
        ("int8", (-128, 128)),
        ("uint16", (0, 65536)),
        ("int32", (-(2**31), 2**31)),
        ("uint64", (0, 2.0**64)),
        ("float32", (-1, 1)),
        ("float64", (-1, 1)),
    ],
)
def test_the_range_of_a_dtype_and_the_range_that_is_learned(dtype, limits):
    stack = any_images((5, 9, 8), dtype)
    stack = stack / stack.dtype.type(400) if stack.dtype.kind == "f" else stack
    histogram = ImageHistogram(16, "dtype").fit(stack)
    assert histogram.range_ == textures_like("dtype").fit(stack).range_ == limits
    if dtype != "uint64":  # its images here are all in the first bin
        assert_same(histogram.transform(stack), histograms(stack, 16, limits))
    source = counted(stack, 2)
    learned = ImageHistogram(16).fit(source.data)
    assert learned.range_ == (limits if stack.itemsize == 1 else (stack.min(), stack.max()))
    assert source.n_reads == learned.n_passes_ == (stack.itemsize > 1)
    assert textures_like("auto").fit(stack).range_ == learned.range_


# Values of two classes, which differ in brightness: dtype, offset and factor.
UNITS = [("float32", 0, 255), ("float64", 0, 1e-9), ("uint16", 0, 4095), ("uint16", 30000, 100), ("int64", -50, 1000)]


@pytest.mark.parametrize(("dtype", "offset", "factor"), [*UNITS, ("uint8", 0, 255), ("int8", -100, 200)])
def test_the_default_tells_classes_apart_in_all_units(dtype, offset, factor, tmp_path):
    rng, y = np.random.default_rng(0), np.repeat([0, 1, 2], 12)
    mean, deviation = 0.3 + 0.2 * y[:, None, None], 0.02 + 0.04 * y[:, None, None]
    X = (offset + factor * np.clip(rng.normal(mean, deviation, (36, 8, 8)), 0, 1)).astype(dtype)
    for features in (ImageHistogram(density=True), TextureFeatures(("glcm",))):
        model = make_pipeline(features, StandardScaler(), LogisticRegression())
        assert cross_val_score(model, X, y, cv=3).mean() > 0.8
    np.save(tmp_path / "x.npy", X)  # the command line has the same rule
    stack = open_stack(tmp_path / "x.npy")
    by_command = dict(make_features(("hist", "texture"), stack, n_components=None, n_fitted=24).transformer_list)
    assert by_command["hist"].get_params() == ImageHistogram(density=True).get_params()
    assert by_command["texture"].get_params() == TextureFeatures().get_params()


@pytest.mark.parametrize("features", [ImageHistogram(range="dtype"), TextureFeatures(range="dtype")], ids=str)
def test_the_range_of_a_dtype_is_never_silently_constant(features, tmp_path):
    X = np.full((4, 9, 8), 0.5, "float32")
    X[2, 1, 1], X[3, 1, 1] = -3, 200
    for i, image in enumerate(X):
        write_image(tmp_path / f"{i}.tif", image)
    assert np.isfinite(features.fit_transform(X[:2])).all()
    lazy = features.fit(X).transform(open_stack(tmp_path, chunks=2))
    with pytest.raises(ValueError, match=r"image 2 \(.*2\.tif'\) has the value -3, .* means \(-1, 1\).*range='stack'"):
        lazy.compute()
    for few in ((np.arange(288).reshape(4, 9, 8) % 50).astype("int64"), X[:2] / 100 + np.arange(8, dtype="f4") / 1e6):
        for data in (few, da.from_array(few, chunks=(2, -1, -1))):
            with pytest.warns(UserWarning, match=r"all in one of its 32 parts.*range='stack'"):
                np.asarray(features.fit_transform(data))


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_constant_stacks(dtype):
    stack = np.full((4, 9, 8), 7, dtype)
    assert_same(ImageHistogram(5, "stack").fit_transform(stack), histograms(stack, 5, (7, 7)))
    assert np.isfinite(TextureFeatures(range="stack").fit_transform(stack)).all()
    assert_array_equal(ChannelStatistics(("std",)).fit_transform(stack), 0)
