"""Features: each equal, to the last bit, to NumPy's or scikit-image's call for one channel of one image."""

import pickle
from itertools import pairwise

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from skimage.feature import graycomatrix, graycoprops, hog, local_binary_pattern
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from imgstack_ml import ChannelStatistics, HOGFeatures, ImageHistogram, TextureFeatures, open_stack
from imgstack_ml.errors import NonFiniteError
from tests.lib.images import random_pixels, write_folder, write_image
from tests.lib.stacks import counted

SHAPES = [(7, 30), (7, 12, 10), (7, 12, 10, 3), (7, 12, 10, 1)]
DTYPES = ["bool", "uint8", "int8", "uint16", "int16", ">u2", "int32", "uint64", "float16", "float32", "float64"]
CHUNKS = [(3, -1, -1, -1), (2, 5, 4, 2), ((4, 0, 3), -1, -1, -1)]
SMALL_HOG = {"pixels_per_cell": (3, 3), "cells_per_block": (2, 2)}
ROW_HOG = {"pixels_per_cell": (1, 3), "cells_per_block": (1, 2)}


def images(shape, dtype, seed=0):
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


# what each must equal


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


def pairs(stack):
    """Transformers and what they must give for a stack."""
    lowest, highest = float(stack.min()), float(stack.max())
    low, high = (0.0, 2.0) if stack.dtype == bool else (lowest, highest)
    given = (low + (high - low) / 7, high - (high - low) / 9)
    row = stack.ndim == 2
    yield ChannelStatistics(percentiles=(5, 50, 97.3)), statistics(stack, (5, 50, 97.3))
    for bins in (1, 7, 32):
        yield ImageHistogram(bins, given), histograms(stack, bins, given)
        yield ImageHistogram(bins, given, density=True), histograms(stack, bins, given, density=True)
        yield ImageHistogram(bins, "stack"), histograms(stack, bins, (lowest, highest))
    yield textures_like(given), textures(stack, given, 16)
    yield textures_like("stack", 200), textures(stack, (lowest, highest), 200)
    options = ROW_HOG if row else SMALL_HOG
    yield HOGFeatures(**options), gradients(stack, **options)


def assert_same(actual, expected):
    """To the last bit, in float64."""
    assert actual.dtype == np.float64
    assert_array_equal(actual, np.asarray(expected, np.float64))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
def test_in_memory(shape, dtype):
    stack = images(shape, dtype)
    stack.setflags(write=False)
    for features, expected in pairs(stack):
        assert_same(features.fit_transform(stack), expected)
        assert len(features.get_feature_names_out()) == len(set(features.get_feature_names_out())) == expected.shape[1]


@pytest.mark.parametrize("scheduler", ["sync", "threads"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_lazy(shape, dtype, chunks, scheduler):
    stack = images(shape, dtype)
    lazy = da.from_array(stack, chunks=chunks[: stack.ndim])
    for features, expected in pairs(stack):
        with dask.config.set(scheduler=scheduler):
            result = features.fit(lazy).transform(lazy)
            assert isinstance(result, da.Array)
            assert (result.shape, result.chunks[0]) == (expected.shape, lazy.chunks[0])
            assert result.dtype == result._meta.dtype == np.float64
            assert_same(result.compute(), expected)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 90), st.integers(1, 130)),
    st.sampled_from([0, 1, 2, 3]),
    st.sampled_from(DTYPES),
    st.integers(1, 300),
)
def test_any_shape(shape, n_channels, dtype, bins):
    stack = images((*shape, n_channels) if n_channels else shape, dtype, seed=bins)
    assert_same(ChannelStatistics(percentiles=(10,)).fit_transform(stack), statistics(stack, (10,)))
    limits = (0.25, 100.5)
    assert_same(ImageHistogram(bins, limits).fit_transform(stack), histograms(stack, bins, limits))


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
def test_the_range_of_a_dtype(dtype, limits):
    stack = images((5, 9, 8), dtype)
    features = ImageHistogram(16).fit(stack)
    assert features.range_ == limits
    assert_same(features.transform(stack), histograms(stack, 16, limits))
    assert textures_like("dtype").fit(stack).range_ == limits


def test_values_at_the_edges_of_bins():
    values = np.arange(256, dtype=np.uint8)
    for bins in (1, 2, 3, 10, 64, 255, 256, 257):
        for limits in ((0, 256), (0, 255), (3, 200), (10.5, 11.5), (-7, 999), (300, 400)):
            for dtype in ("uint8", "int8", "uint16", "int16", "float32"):
                stack = values.astype(dtype)[None]
                assert_same(ImageHistogram(bins, limits).fit_transform(stack), histograms(stack, bins, limits))


def test_images_outside_the_range_have_density_0():
    stack = images((4, 9, 8), "uint8") // 2
    stack[2] = 255
    result = ImageHistogram(4, (0, 128), density=True).fit_transform(stack)
    assert_array_equal(result[2], 0)
    assert_same(result[:2], histograms(stack[:2], 4, (0, 128), density=True))


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
def test_constant_stacks(dtype):
    stack = np.full((4, 9, 8), 7, dtype)
    assert_same(ImageHistogram(5, "stack").fit_transform(stack), histograms(stack, 5, (7, 7)))
    assert np.isfinite(TextureFeatures(range="stack").fit_transform(stack)).all()
    assert_array_equal(ChannelStatistics(("std",)).fit_transform(stack), 0)


def test_strided_and_fortran_ordered_images():
    whole = images((8, 12, 20, 3), "float32")
    for view in (whole[::2, ::-1, ::2], np.asfortranarray(whole), whole.transpose(0, 2, 1, 3)):
        for features, expected in pairs(np.ascontiguousarray(view)):
            assert_same(features.fit_transform(view), expected)


@pytest.mark.parametrize("method", ["uniform", "nri_uniform"])
@pytest.mark.parametrize("n_points", [4, 8, 12])
def test_patterns(method, n_points):
    stack = images((3, 20, 18), "uint8")
    result = TextureFeatures(("lbp",), n_points=n_points, radius=2, method=method).fit_transform(stack)
    n_codes = result.shape[1]
    codes = [local_binary_pattern(image, n_points, 2, method) for image in stack]
    assert max(code.max() for code in codes) < n_codes
    assert_same(result, [np.histogram(code, n_codes, (0, n_codes), density=True)[0] for code in codes])


def test_names():
    stack = images((3, 16, 16, 2), "uint8")
    assert list(ChannelStatistics(("max",), (2.5,)).fit(stack).get_feature_names_out()) == [
        "channel0_max",
        "channel0_percentile2.5",
        "channel1_max",
        "channel1_percentile2.5",
    ]
    assert list(ImageHistogram(2).fit(stack[..., 0]).get_feature_names_out()) == ["channel0_bin0", "channel0_bin1"]
    names = TextureFeatures(("glcm", "lbp"), properties=("energy",), angles=(0,)).fit(stack).get_feature_names_out()
    assert list(names[:2]) == ["channel0_energy_distance1_angle0", "channel0_lbp0"]
    names = HOGFeatures(cells_per_block=(2, 1)).fit(stack).get_feature_names_out()
    assert (names[0], names[-1]) == ("block0_0_cell0_0_orientation0", "block0_1_cell1_0_orientation8")


# laziness and reads

LEARNERS = [ImageHistogram(range="stack"), TextureFeatures(range="stack")]
OTHERS = [ChannelStatistics(), ImageHistogram(), TextureFeatures(), HOGFeatures(**SMALL_HOG)]


@pytest.mark.parametrize("features", [*LEARNERS, *OTHERS], ids=str)
def test_fit_reads_as_it_says_and_transform_nothing(features, no_arrays):
    source = counted(images((20, 12, 10), "uint8"), 3)
    fitted = clone(features).fit(source.data)
    assert source.n_reads == fitted.n_passes_ == float(features.get_params().get("range") == "stack")
    before = source.n_reads
    result = fitted.transform(source.data)
    assert source.n_reads == before
    assert len(result.dask.layers) == len(source.data.dask.layers) + 1
    (optimized,) = dask.optimize(result)
    assert len(optimized.dask) == 7  # one task a block, the read included
    result.compute()
    assert source.n_reads == before + 1


@pytest.mark.parametrize("features", [*LEARNERS, *OTHERS], ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_image_is_named(features, bad, tmp_path):
    stack = images((9, 12, 10), "float32")
    good = stack.copy()
    stack[5, 1, 2] = bad
    with pytest.raises(NonFiniteError, match="image 5"):
        clone(features).fit(stack)
    for i, image in enumerate(stack):
        write_image(tmp_path / f"{i}.tif", image)
    fitted = clone(features).fit(good)
    with pytest.raises(NonFiniteError, match=r"image 5 \(.*5\.tif"):
        fitted.transform(open_stack(tmp_path, chunks=2)).compute()
    with pytest.raises(NonFiniteError, match=r"image 1 \(.*5\.tif"):
        fitted.transform(open_stack(tmp_path, chunks=2)[[4, 5]]).compute()


# scikit-learn


@parametrize_with_checks(
    [
        ChannelStatistics(percentiles=(5, 95)),
        ImageHistogram(),
        ImageHistogram(range="stack", density=True),
        TextureFeatures(),
        TextureFeatures(range="stack"),
        # Rows are images of one line, which hold no cells of 8 x 8 pixels.
        HOGFeatures(pixels_per_cell=(1, 1), cells_per_block=(1, 1)),
    ]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.parametrize("container", ["pandas", "polars"])
@pytest.mark.parametrize("features", [*LEARNERS, *OTHERS], ids=str)
def test_set_output(features, container):
    frames = pytest.importorskip(container)
    stack = images((9, 12, 10), "uint8")
    expected = clone(features).fit_transform(stack)
    for data in (stack, da.from_array(stack, chunks=(4, -1, -1))):
        framed = clone(features).set_output(transform=container)
        for frame in (framed.fit_transform(data), framed.transform(data)):
            assert isinstance(frame, frames.DataFrame)
            assert list(frame.columns) == list(framed.get_feature_names_out())
            assert_array_equal(frame.to_numpy(), expected)


def test_classifiers_take_them():
    y = np.arange(40) % 2
    stack = images((40, 12, 10), "uint8")
    stack[y == 1] //= 2
    for features in (ChannelStatistics(), ImageHistogram(8, density=True)):
        model = make_pipeline(features, StandardScaler(), LogisticRegression())
        assert cross_val_score(model, stack, y, cv=4).mean() >= 0.9


@pytest.mark.parametrize("features", [*LEARNERS, *OTHERS], ids=str)
def test_clone_pickle_and_attributes(features):
    stack = images((9, 12, 10), "uint8")
    fitted = clone(features).fit(stack)
    assert (fitted.image_shape_, fitted.n_features_in_) == ((12, 10), 120)
    assert_array_equal(pickle.loads(pickle.dumps(fitted)).transform(stack), fitted.transform(stack))
    assert type(features).__name__ in fitted._repr_html_()
    with pytest.raises(NotFittedError):
        clone(features).transform(stack)
    with pytest.raises(NotFittedError):
        clone(features).get_feature_names_out()
    with pytest.raises(ValueError, match=r"fitted on images of shape \(12, 10\)"):
        fitted.transform(stack[:, :11])
    table = pd.DataFrame(images((5, 30), "float64"), columns=[f"v{j}" for j in range(30)])
    if not isinstance(features, HOGFeatures):
        with pytest.raises(ValueError, match="input_features is not equal"):
            clone(features).fit(table).get_feature_names_out(["w"] * 30)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (ChannelStatistics(("median",)), r"statistics=\('median',\) is not known"),
        (ChannelStatistics("mean"), "statistics='mean' is not known"),
        (ChannelStatistics(percentiles=(101,)), r"percentiles=\(101,\) needs numbers between 0 and 100"),
        (ChannelStatistics(percentiles=5), "percentiles=5 needs"),
        (ChannelStatistics(()), "leave nothing to compute"),
        (ImageHistogram(0), "bins=0 must be an int of at least 1"),
        (ImageHistogram(4.0), "bins=4.0 must be"),
        (ImageHistogram(range="image"), "range='image' is not known"),
        (ImageHistogram(range=(3, 3)), r"range=\(3, 3\) is not known.*low < high"),
        (ImageHistogram(range=(0, np.inf)), "range="),
        (TextureFeatures(("wavelets",)), r"descriptors=\('wavelets',\) is not known"),
        (TextureFeatures(()), r"descriptors=\(\) is not known"),
        (TextureFeatures("lbp"), "descriptors='lbp' is not known"),
        (TextureFeatures(properties=("beauty",)), r"properties=\('beauty',\) is not known"),
        (TextureFeatures(method="var"), "method='var' is not known"),
        (TextureFeatures(levels=1), "levels=1 must be between 2 and 256"),
        (TextureFeatures(range=5), "range=5 is not known"),
        (HOGFeatures(), r"12 x 10 pixels hold no block of \(3, 3\) cells.*HOGFeatures\(pixels_per_cell=\(4, 4\)"),
    ],
)
def test_parameters_without_meaning(features, message):
    source = counted(images((9, 12, 10), "uint8"), 3)
    with pytest.raises(ValueError, match=message):
        features.fit(source.data)
    assert not source.reads


def test_pieces_do_not_change_the_result(monkeypatch):
    stack = images((9, 12, 10, 3), "float32")
    expected = [features.fit_transform(stack) for features, _ in pairs(stack)]
    monkeypatch.setattr("imgstack_ml.features.base._PIECE_BYTES", 3000)
    for (features, _), whole in zip(pairs(stack), expected, strict=True):
        assert_same(features.fit_transform(stack), whole)


def test_textures_order_by_roughness():
    """Noise of growing strength has growing contrast."""
    noise = np.random.default_rng(0).standard_normal((5, 32, 32))
    stack = np.clip(128 + noise * np.array([1, 5, 10, 20, 40])[:, None, None], 0, 255).astype(np.uint8)
    contrast = TextureFeatures(("glcm",), properties=("contrast",), angles=(0,)).fit_transform(stack)[:, 0]
    assert all(a < b for a, b in pairwise(contrast))


# a cluster


def test_on_a_cluster(client, tmp_path):
    stack = write_folder(tmp_path, 12, (12, 10, 3))
    for features, expected in pairs(stack):
        assert_same(features.fit_transform(open_stack(tmp_path, chunks=5)).compute(), expected)
