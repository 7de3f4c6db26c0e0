"""IntensityRescaler against scikit-image's rescale_intensity, image by image; what fit and transform read."""

import pickle
import warnings

import dask
import dask.array as da
import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from imgstack_ml import IntensityRescaler, open_stack
from imgstack_ml.errors import NonFiniteError
from imgstack_ml.preprocessing.intensity import rescale_block
from tests.lib.grids import LAZY, chunked, pairwise
from tests.lib.images import random_pixels, write_folder, write_image
from tests.lib.rescaled import assert_same, reference
from tests.lib.stacks import counted


@pytest.mark.parametrize(
    ("shape", "chunks", "dtype", "scheduler"),
    pairwise([(9, 6, 5), (9, 6, 5, 3), (9, 11)], LAZY, ["uint8", "uint16", "float32", "float64"], ["sync", "threads"]),
)
def test_lazy_like_in_memory_like_scikit_image(shape, chunks, dtype, scheduler):
    stack = random_pixels(shape, dtype)
    lazy = chunked(stack, chunks)
    for parameters in (
        {},
        {"out_range": (0, 1)},
        {"out_range": "uint10"},
        {"percentiles": (5, 90)},
        {"in_range": (1, 90)},
        *([{"channel_axis": -1}] if stack.ndim == 4 else []),
    ):
        rescaler = IntensityRescaler(**parameters).fit(lazy)
        result = rescaler.transform(lazy)
        assert isinstance(result, da.Array)
        assert result.chunks[0] == lazy.chunks[0]
        with dask.config.set(scheduler=scheduler):
            computed = result.compute()
        expected = reference(stack, **parameters)
        assert result.dtype == result._meta.dtype == computed.dtype
        assert result.shape == computed.shape
        assert_same(computed, expected)
        assert_same(rescaler.transform(stack), expected)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_stack_range_is_global_and_read_once(dtype):
    stack = random_pixels((11, 4, 5), dtype)
    lazy, reads = counted(stack, 3)
    rescaler = IntensityRescaler(in_range="stack").fit(lazy)
    assert reads == dict.fromkeys(range(11), 1)
    assert rescaler.n_passes_ == 1
    limits = (float(stack.min()), float(stack.max()))
    assert rescaler.in_range_ == limits
    assert IntensityRescaler(in_range="stack").fit(stack).in_range_ == limits
    result = rescaler.transform(lazy)
    assert reads == dict.fromkeys(range(11), 1)
    assert_same(result.compute(), reference(stack, limits))


@pytest.mark.parametrize("chunks", [(3, -1, -1, -1), (5, 2, 3, 1)])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_stack_range_of_each_channel(dtype, chunks):
    stack = random_pixels((11, 4, 5, 3), dtype) // np.array([1, 2, 3], dtype)
    rescaler = IntensityRescaler(in_range="stack", channel_axis=-1).fit(da.from_array(stack, chunks=chunks))
    np.testing.assert_array_equal(rescaler.in_range_, [stack.min(axis=(0, 1, 2)), stack.max(axis=(0, 1, 2))])
    expected = [reference(stack[..., c], tuple(map(float, rescaler.in_range_[:, c]))) for c in range(3)]
    assert_same(rescaler.transform(stack), np.stack(expected, axis=-1))


def test_16_bit_stack_range_through_one_table():
    stack = random_pixels((3, 160, 150), "int16")
    limits = IntensityRescaler(in_range="stack").fit(stack[:1]).in_range_
    assert_same(rescale_block(stack, in_range=limits), reference(stack, limits))


def test_channel_axis_may_count_from_the_front():
    stack = random_pixels((3, 4, 5, 2))
    expected = reference(stack, channel_axis=-1)
    assert_same(IntensityRescaler(channel_axis=3).fit_transform(stack), expected)


def test_fit_and_transform_read_nothing_unless_asked():
    lazy, reads = counted(random_pixels((6, 4, 5)), 2)
    result = IntensityRescaler(percentiles=(2, 98)).fit(lazy).transform(lazy)
    assert not reads
    assert len(result.dask.layers) == len(lazy.dask.layers) + 1
    result.compute()
    assert reads == dict.fromkeys(range(6), 1)


def test_image_stack(tmp_path):
    pixels = write_folder(tmp_path, 5)
    result = IntensityRescaler().fit_transform(open_stack(tmp_path))
    assert isinstance(result, da.Array)
    assert_same(result.compute(), reference(pixels))


def test_input_is_left_alone():
    for dtype in ("uint8", "uint16", "float32", "float64"):
        stack = random_pixels((3, 20, 20, 3), dtype)
        before = stack.copy()
        for parameters in ({}, {"percentiles": (2, 98)}, {"in_range": "stack"}, {"out_range": (0, 1)}):
            IntensityRescaler(**parameters).fit_transform(stack)
            np.testing.assert_array_equal(stack, before)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("parameters", [{}, {"in_range": (0, 1)}, {"percentiles": (2, 98)}, {"out_range": "uint8"}])
def test_nonfinite_pixels_are_named(value, parameters):
    stack = random_pixels((9, 3, 3), "float32")
    stack[5, 1, 2] = value
    with pytest.raises(NonFiniteError, match="image 5"):
        IntensityRescaler(**parameters).fit(stack)
    lazy = da.from_array(stack, chunks=(2, 2, -1))
    result = IntensityRescaler(**parameters).fit(lazy).transform(lazy)
    with pytest.raises(NonFiniteError, match="image 5"):
        IntensityRescaler(**parameters).fit(stack[:5]).transform(stack)
    with pytest.raises(NonFiniteError, match="image 5"):
        result[1:].compute()
    with pytest.raises(NonFiniteError, match="image 5"):
        IntensityRescaler(in_range="stack").fit(lazy)


def test_a_nonfinite_image_of_a_file_is_named(tmp_path):
    stack = random_pixels((9, 3, 3), "float32")
    stack[5, 1, 2] = np.nan
    for i, image in enumerate(stack):
        write_image(tmp_path / f"{i}.tif", image)
    with pytest.raises(NonFiniteError, match=r"image 5 \(.*5\.tif"):
        IntensityRescaler().fit_transform(open_stack(tmp_path, chunks=2)).compute()


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"in_range": "picture"}, "in_range='picture' is not known; it is one of 'image', 'stack', 'dtype'"),
        ({"in_range": 3}, "in_range=3 is not known"),
        ({"in_range": (0, np.nan)}, "pair of finite numbers"),
        ({"in_range": (0, 1, 2)}, "pair of finite numbers"),
        ({"in_range": (5, 1)}, "min <= max"),
        ({"out_range": "stack"}, "out_range='stack' is not known"),
        ({"out_range": ("a", "b")}, "pair of finite numbers"),
        ({"percentiles": (98, 2)}, "0 <= low < high <= 100"),
        ({"percentiles": (-1, 50)}, "0 <= low < high <= 100"),
        ({"percentiles": 2}, "0 <= low < high <= 100"),
        ({"percentiles": (2, 98), "in_range": "stack"}, "Set in_range='image'"),
        ({"percentiles": (2, 98), "in_range": (0, 1)}, "Set in_range='image'"),
        ({"channel_axis": 1}, "channel_axis=1 is not known"),
        ({"channel_axis": "last"}, "channel_axis='last' is not known"),
        ({"channel_axis": -1}, r"needs a stack \(n_images, height, width, n_channels\), and X has shape \(3, 4, 5\)"),
    ],
)
def test_parameters_without_meaning(parameters, message):
    with pytest.raises(ValueError, match=message):
        IntensityRescaler(**parameters).fit(np.ones((3, 4, 5)))


@pytest.mark.skipif(np.dtype(np.longdouble) == np.float64, reason="long double is double here")
def test_a_dtype_without_a_range():
    with pytest.raises(ValueError, match=r"X.astype\('float64'\)"):
        IntensityRescaler().fit(np.ones((3, 4, 5), np.longdouble))


def test_not_fitted():
    with pytest.raises(NotFittedError):
        IntensityRescaler().transform(np.ones((3, 4, 5)))


def test_images_of_another_shape():
    with pytest.raises(ValueError, match=r"fitted on images of shape \(4, 5\)"):
        IntensityRescaler().fit(np.ones((3, 4, 5))).transform(np.ones((3, 5, 4)))


def test_fitted_attributes():
    rescaler = IntensityRescaler(in_range="uint8").fit(np.ones((3, 4, 5)))
    assert (rescaler.n_features_in_, rescaler.image_shape_, rescaler.n_passes_) == (20, (4, 5), 0)
    assert rescaler.in_range_ == "uint8"


def test_clone_pickle_and_set_params():
    stack = random_pixels((4, 5, 6, 3))
    rescaler = IntensityRescaler("stack", (0, 1), -1)
    expected = rescaler.fit_transform(stack)
    copy = clone(rescaler)
    assert not hasattr(copy, "in_range_")
    assert_same(copy.fit_transform(stack), expected)
    assert_same(pickle.loads(pickle.dumps(rescaler)).transform(stack), expected)
    rescaler.set_params(in_range="image", channel_axis=None, out_range="dtype")
    assert_same(rescaler.fit_transform(stack), reference(stack))


def test_in_a_pipeline():
    stack = random_pixels((6, 5, 4), "uint16")
    pipeline = make_pipeline(
        IntensityRescaler(percentiles=(1, 99)), IntensityRescaler(in_range="stack", out_range=(0, 1))
    )
    result = pipeline.fit(da.from_array(stack, chunks=(2, -1, -1))).transform(stack)
    stretched = reference(stack, percentiles=(1, 99))
    assert_same(result, reference(stretched, (float(stretched.min()), float(stretched.max())), (0, 1)))


@pytest.mark.parametrize("parameters", [{}, {"in_range": "stack"}, {"out_range": (0, 1)}, {"percentiles": (2, 98)}])
def test_scikit_learns_checks(parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkipTestWarning)
        check_estimator(IntensityRescaler(**parameters))
