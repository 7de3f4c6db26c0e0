"""64-bit integers beyond 2**53, as time stamps are: the results of their exact differences, or refused by name."""

from fractions import Fraction

import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.pipeline import make_pipeline

from imgstack_ml import (
    ChannelStatistics,
    HOGFeatures,
    ImageFeatureUnion,
    ImageFlattener,
    ImageHistogram,
    ImagePCA,
    IntensityDisplay,
    IntensityRescaler,
    StackCenterer,
    TextureFeatures,
    generate_report,
    load_model,
    save_model,
)
from imgstack_ml.inspection.statistics import odd_ranges, read_statistics
from imgstack_ml.report.duplicates import near_duplicates

SHIFTS = [("int64", -(2**62)), ("uint64", 2**63), (">i8", 2**53)]
SHIFTED = [  # what depends on differences only
    IntensityRescaler(out_range=(0, 1)),
    IntensityRescaler("stack", "uint8"),
    IntensityRescaler("stack", (0, 1), channel_axis=-1),
    IntensityRescaler(percentiles=(3, 90), out_range=(1, 0)),
    ImageHistogram(16),
    ImageHistogram(16, "stack", density=True),
    TextureFeatures(("glcm",), levels=16),
    HOGFeatures(pixels_per_cell=(3, 3), cells_per_block=(2, 2)),
    ChannelStatistics(("std",)),
]


def small(n=8, shape=(9, 8, 2)):
    X = np.random.default_rng(0).integers(0, 128, (n, *shape))
    X[3] = X[3, 0, 0]  # constant
    X[5] = X[5] // 8
    return X


def shifted(X, dtype, by):
    return (X.astype(object) + by).astype(dtype)


@pytest.mark.parametrize(("dtype", "by"), SHIFTS)
def test_results_are_those_of_the_differences(dtype, by):
    small_images = small()
    X = shifted(small_images, dtype, by)
    lazy = da.from_array(X, chunks=(3, -1, -1, -1))
    for transformer in SHIFTED:
        expected, found = (np.asarray(transformer.fit_transform(Y)) for Y in (small_images, X))
        assert_array_equal(transformer.transform(lazy).compute(scheduler="sync"), found)
        if isinstance(transformer, IntensityRescaler):  # it clips constant images
            moving, atol = np.array([0, 1, 2, 4, 5, 6, 7]), int(found.dtype.kind == "u")
            assert_allclose(found[moving], expected[moving], rtol=1e-14, atol=atol, err_msg=str(transformer))
        else:
            assert_allclose(found, expected, rtol=1e-14, err_msg=str(transformer))


@pytest.mark.parametrize("by", [2**62, -(2**62)])
def test_patterns_see_the_outside_of_images_as_before(by):
    """What is outside is 0 for scikit-image: below all pixels, or above them."""
    X, near = shifted(small(), "int64", by), shifted(small(), "int64", np.sign(by) * 2**28)
    for radius in (1, 2):
        patterns = TextureFeatures(("lbp",), radius=radius)
        assert_array_equal(patterns.fit_transform(X), patterns.fit_transform(near))


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_the_whole_range_of_the_dtype(dtype):
    """As integers of Python compute it."""
    info, rng = np.iinfo(dtype), np.random.default_rng(0)
    X = rng.integers(info.min, info.max, (3, 5, 4), dtype=dtype, endpoint=True)
    X[0, 0, :2] = X[1, ::2] = info.min
    X[0, 1, :2] = X[1, 1::2] = info.max
    X[2] = np.where(X[2] % 5, info.max - X[2] % 99, info.min)  # close to each other, but for a few
    rescaled = IntensityRescaler(out_range=(0, 1)).fit_transform(X)
    cut = IntensityRescaler((int(info.max) - 99, int(info.max)), "image").fit_transform(X)
    counts = ImageHistogram(16).fit_transform(X)
    features = ChannelStatistics(percentiles=(13, 50)).fit_transform(X)
    for i, image in enumerate(X):
        values, (low, high) = image.ravel().tolist(), (int(image.min()), int(image.max()))
        assert_allclose(rescaled[i].ravel(), [float(Fraction(v - low, high - low)) for v in values], rtol=1e-14)
        steps = [min(max(v - info.max + 99, 0), 99) for v in values]
        assert_allclose(cut[i].ravel(), [float(low + Fraction(step * (high - low), 99)) for step in steps], rtol=1e-14)
        bins = [min(15, (v - info.min) * 16 // (info.max - info.min)) for v in values]
        assert_array_equal(counts[i], np.bincount(bins, minlength=16))
        mean = Fraction(sum(values), 20)
        std = float(sum((v - mean) ** 2 for v in values) / 20) ** 0.5
        ordered = sorted(values)
        percentiles = [
            a + Fraction(0.01 * q * 19 % 1) * (b - a) for q, a, b in ((13, *ordered[2:4]), (50, *ordered[9:11]))
        ]
        assert_allclose(features[i], list(map(float, (mean, std, low, high, *percentiles))), rtol=1e-13)


def test_ranges_that_are_learned_are_saved_exactly(tmp_path):
    X = shifted(small(), "int64", 2**62)
    for transformer in (IntensityRescaler("stack"), SHIFTED[2], ImageHistogram(), TextureFeatures()):
        save_model(transformer.fit(X), tmp_path / "model", overwrite=True)
        found = load_model(tmp_path / "model")
        learned = found.in_range_ if isinstance(found, IntensityRescaler) else found.range_
        assert np.min(np.array(learned, object)) == X.min()
        assert np.max(np.array(learned, object)) == X.max()
        assert_array_equal(found.transform(X), transformer.transform(X))
        assert np.isfinite(found.transform(np.zeros_like(X))).all()


def test_displays_and_reports():
    images = np.random.default_rng(1).integers(0, 1000, (20, 50, 49))
    images[7] //= 10
    images[9], images[11] = images[3], images[4]
    images[11, 5, 5] += 1
    X = shifted(images, "int64", -(2**62))
    statistics = read_statistics(X)
    assert_array_equal(odd_ranges(statistics), np.arange(20) == 7)
    assert_array_equal(IntensityDisplay.from_stack(X).marked, [7])
    assert near_duplicates(statistics) == [[3, 9], [4, 11]]
    model = make_pipeline(IntensityRescaler("stack", (0, 1)), ImagePCA(2)).fit(X)
    alerts = generate_report(model, X).alerts
    assert_array_equal(alerts["range"].images, [7])
    assert_array_equal(alerts["duplicates"].images, [9, 11])


def test_what_would_be_rounded_is_refused():
    X = shifted(small(), "int64", 2**62)
    rows = ImageFlattener().fit_transform(X)
    assert_array_equal(rows, X.reshape(8, -1))
    assert ImageFeatureUnion([("a", ImageFlattener()), ("b", ImageFlattener())]).fit_transform(X).dtype == X.dtype
    for images in (X, da.from_array(X, chunks=(3, -1, -1, -1))):
        for refuses in (
            ImageFeatureUnion([("rows", ImageFlattener()), ("range", ChannelStatistics())]),
            HOGFeatures(pixels_per_cell=(3, 3), cells_per_block=(2, 2), transform_sqrt=True),
            StackCenterer(),
            ImagePCA(2),
        ):
            with pytest.raises(ValueError, match=r"integers of up to 4611.*Subtract the smallest"):
                np.asarray(refuses.fit_transform(images))
        tall = images[:, :1, :2, :1]  # more images than values: other steps of the solvers
        for solver in ("gram", "covariance_eigh", "tsqr", "randomized"):
            with pytest.raises(ValueError, match=r"integers of up to 4611.*Subtract the smallest"):
                ImagePCA(1, svd_solver=solver).fit(tall)


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32"])
def test_percentiles_of_signed_integers_do_not_overflow(dtype):
    X = np.array([[np.iinfo(dtype).min, np.iinfo(dtype).max, np.iinfo(dtype).max]], dtype)
    expected = np.percentile(X.astype(np.float64), [25, 75], axis=1).T
    assert_array_equal(ChannelStatistics((), percentiles=(25, 75)).fit_transform(X), expected)
    assert_array_equal(IntensityRescaler(percentiles=(25, 75), out_range=(0, 1)).fit_transform(X), [[0, 1, 1]])
