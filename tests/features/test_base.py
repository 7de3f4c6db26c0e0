"""What all features have in common: layouts of memory, pieces, reads, errors, and scikit-learn's rules."""

import pickle

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from imgstack_ml import ChannelStatistics, HOGFeatures, ImageHistogram, TextureFeatures, open_stack
from imgstack_ml.errors import NonFiniteError
from imgstack_ml.features.base import features_of_block
from tests.lib.features import DTYPES, SMALL_HOG, all_pairs, any_images, assert_same, histograms, statistics
from tests.lib.images import write_image
from tests.lib.stacks import counted


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 90), st.integers(1, 130)),
    st.sampled_from([0, 1, 2, 3]),
    st.sampled_from(DTYPES),
    st.integers(1, 300),
)
def test_any_shape(shape, n_channels, dtype, bins):
    stack = any_images((*shape, n_channels) if n_channels else shape, dtype, seed=bins)
    assert_same(ChannelStatistics(percentiles=(10,)).fit_transform(stack), statistics(stack, (10,)))
    limits = (0.25, 100.5)
    assert_same(ImageHistogram(bins, limits).fit_transform(stack), histograms(stack, bins, limits))


def test_strided_and_fortran_ordered_images():
    whole = any_images((4, 12, 14, 3), "float32")
    for view in (whole[::2, ::-1, ::2], np.asfortranarray(whole), whole.transpose(0, 2, 1, 3)):
        for features, expected in all_pairs(np.ascontiguousarray(view)):
            assert_same(features.fit_transform(view), expected)


def test_pieces_do_not_change_the_result(monkeypatch):
    monkeypatch.setattr("imgstack_ml.features.base._PIECE_BYTES", 3000)
    stack = any_images((9, 12, 10, 3), "float32")  # two images a piece
    for features, expected in all_pairs(stack):
        assert_same(features.fit_transform(stack), expected)


LEARNERS = [ImageHistogram(range="stack"), TextureFeatures(range="stack")]
OTHERS = [ChannelStatistics(), ImageHistogram(), TextureFeatures(), HOGFeatures(**SMALL_HOG)]


@pytest.mark.parametrize("features", [*LEARNERS, *OTHERS], ids=str)
def test_fit_reads_as_it_says_and_transform_nothing(features, no_arrays):
    source = counted(any_images((20, 12, 10), "uint8"), 3)
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
    stack = any_images((9, 12, 10), "float32")
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


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_an_image_with_a_feature_beyond_float64_is_named():
    stack = any_images((9, 12, 10), "float64")
    stack[5, ::2], stack[5, 1::2] = 1e308, -1e308  # NumPy's percentile is their difference times a share
    with pytest.raises(NonFiniteError, match=r"image 5 has values of up to 1e\+308.*X / 1e\+308"):
        ChannelStatistics(percentiles=(50,)).fit_transform(stack)


def test_a_kernel_of_other_features_than_named_is_refused():
    images = np.ones((5, 2, 2))
    for wrong in (lambda images: images.mean(axis=(1, 2))[:, None], lambda images: np.ones((1, 3))):
        with pytest.raises(ValueError, match=r"features of shape .*, and \(5, 3\) is needed"):
            features_of_block(images, kernel=wrong, n_features=3)


@pytest.mark.parametrize("container", ["pandas", "polars"])
@pytest.mark.parametrize("features", [*LEARNERS, *OTHERS], ids=str)
def test_set_output(features, container):
    frames = pytest.importorskip(container)
    stack = any_images((9, 12, 10), "uint8")
    expected = clone(features).fit_transform(stack)
    for data in (stack, da.from_array(stack, chunks=(4, -1, -1))):
        framed = clone(features).set_output(transform=container)
        for frame in (framed.fit_transform(data), framed.transform(data)):
            assert isinstance(frame, frames.DataFrame)
            assert list(frame.columns) == list(framed.get_feature_names_out())
            assert_array_equal(frame.to_numpy(), expected)


@pytest.mark.parametrize("features", [*LEARNERS, *OTHERS], ids=str)
def test_clone_pickle_and_attributes(features):
    stack = any_images((9, 12, 10), "uint8")
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
    table = pd.DataFrame(any_images((5, 30), "float64"), columns=[f"v{j}" for j in range(30)])
    if not isinstance(features, HOGFeatures):
        with pytest.raises(ValueError, match="input_features is not equal"):
            clone(features).fit(table).get_feature_names_out(["w"] * 30)


@parametrize_with_checks(
    [
        ChannelStatistics(percentiles=(5, 95)),
        ImageHistogram(),
        ImageHistogram(range="stack", density=True),
        TextureFeatures(),
        TextureFeatures(("lbp",), range="stack"),
        # Rows are images of one line, which hold no cells of 8 x 8 pixels.
        HOGFeatures(pixels_per_cell=(1, 1), cells_per_block=(1, 1)),
    ]
)
def test_scikit_learns_checks(estimator, check):
    check(estimator)


def test_classifiers_take_them():
    y = np.arange(40) % 2
    stack = any_images((40, 12, 10), "uint8")
    stack[y == 1] //= 2
    for features in (ChannelStatistics(), ImageHistogram(8, density=True)):
        model = make_pipeline(features, StandardScaler(), LogisticRegression())
        assert cross_val_score(model, stack, y, cv=4).mean() >= 0.9


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
        (
            HOGFeatures(),
            r"12 x 10 pixels are too small for a block of \(3, 3\) cells.*HOGFeatures\(pixels_per_cell=\(4, 4\)",
        ),
    ],
)
def test_parameters_without_meaning(features, message):
    source = counted(any_images((9, 12, 10), "uint8"), 3)
    with pytest.raises(ValueError, match=message):
        features.fit(source.data)
    assert not source.reads
