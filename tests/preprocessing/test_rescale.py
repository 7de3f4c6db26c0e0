"""IntensityRescaler against scikit-image's rescale_intensity, image by image."""

import pickle
import threading
import tracemalloc
import warnings

import dask
import dask.array as da
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.exposure import rescale_intensity
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import check_estimator

from imgstack_ml import open_stack
from imgstack_ml.errors import NonFiniteError
from imgstack_ml.preprocessing import intensity
from imgstack_ml.preprocessing.intensity import output_dtype, rescale_block
from imgstack_ml.preprocessing.rescale import IntensityRescaler
from tests.lib.images import random_pixels, write_folder, write_image

DTYPES = ["bool", "uint8", "int8", "uint16", "int16", ">u2", "int32", "uint32", "float16", "float32", "float64"]
# Large enough for a table of 8-bit values, of pairs of them (odd sizes included), and for several pieces a block.
SHAPES = [(3, 1), (5, 7), (4, 5, 3), (2, 4, 3, 2), (2, 110, 95), (2, 257, 255), (2, 96, 98, 3), (1, 160, 150, 3)]
IN_RANGES = ["image", "dtype", "uint8", "uint10", "float", (0, 1), (-5.5, 77), (3, 200), (4, 4)]
OUT_RANGES = ["dtype", "image", "uint8", "uint12", "int16", "float32", "bool", (0, 1), (1, 0), (-3.5, 1000)]


def reference(stack, in_range="image", out_range="dtype", channel_axis=None, percentiles=None):
    """What a user of scikit-image writes: one call an image, or one a channel."""

    def one(image):
        limits = in_range if percentiles is None else tuple(np.percentile(image, percentiles))
        return rescale_intensity(image, limits, out_range)

    if channel_axis is None:
        return np.stack([one(image) for image in stack])
    return np.stack([np.stack([one(plane) for plane in np.moveaxis(image, -1, 0)], axis=-1) for image in stack])


def assert_same(actual, expected):
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(actual, expected)  # to the last bit, floats too


def counting_stack(stack, chunks):
    """A lazy stack and the list of positions whose blocks were really made."""
    made, lock = [], threading.Lock()

    def make(start):
        with lock:
            made.append(start)
        return stack[start : start + chunks]

    starts = range(0, len(stack), chunks)
    blocks = [
        da.from_delayed(dask.delayed(make)(start), stack[start : start + chunks].shape, stack.dtype) for start in starts
    ]
    return da.concatenate(blocks), made


@st.composite
def stacks(draw):
    """Stacks of few or many different values, the first image constant or all zero at times."""
    dtype, shape = np.dtype(draw(st.sampled_from(DTYPES))), draw(st.sampled_from(SHAPES))
    if dtype.kind in "iu":
        info = np.iinfo(dtype)
        values = st.integers(info.min, info.max) | st.integers(max(info.min, -300), min(info.max, 300))
    else:
        values = st.floats(-1000, 1000, width=16) | st.floats(0, 1, width=16)
    palette = np.array(draw(st.lists(values, min_size=1, max_size=40))).astype(dtype)
    stack = np.random.default_rng(draw(st.integers(0, 99))).choice(palette, shape)
    if draw(st.booleans()):
        stack[0] = draw(st.sampled_from([palette[0], dtype.type(0)]))
    stack.setflags(write=False)
    return stack


@settings(max_examples=400, deadline=None)
@given(stacks(), st.sampled_from(IN_RANGES), st.sampled_from(OUT_RANGES), st.booleans())
@pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning")
def test_same_as_scikit_image(stack, in_range, out_range, per_channel):
    channel_axis = -1 if per_channel and stack.ndim == 4 else None
    if stack.dtype == np.float16 and out_range in ("uint12", "int16"):
        out_range = "uint8"  # float16 holds no wider range: scikit-image's cast overflows
    expected = reference(stack, in_range, out_range, channel_axis)
    actual = rescale_block(stack, in_range=in_range, out_range=out_range, per_channel=channel_axis is not None)
    assert_same(actual, expected)


@settings(max_examples=200, deadline=None)
@given(
    stacks().filter(lambda stack: stack.dtype != bool),  # numpy.percentile refuses Booleans
    st.sampled_from(["dtype", "image", "uint8", (0, 1)]),
    st.tuples(st.floats(0, 50), st.floats(50, 100, exclude_min=True)) | st.just((2, 98)) | st.just((0, 100)),
    st.booleans(),
)
@pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning")
def test_percentiles_are_numpys(stack, out_range, percentiles, per_channel):
    channel_axis = -1 if per_channel and stack.ndim == 4 else None
    expected = reference(stack, "image", out_range, channel_axis, percentiles)
    per_channel = channel_axis is not None
    assert_same(rescale_block(stack, out_range=out_range, per_channel=per_channel, percentiles=percentiles), expected)


@pytest.mark.parametrize("shape", [(7, 5, 6), (7, 5, 6, 3), (7, 12)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32", "float64"])
@pytest.mark.parametrize("sizes", [(1, 1, 1, 1), (64, 256, 1, 0)])
def test_however_the_work_is_cut(monkeypatch, shape, dtype, sizes):
    for name, size in zip(("_TILE", "_PIECE", "_TABLE_PAYS", "_VALUES_PAY"), sizes, strict=True):
        monkeypatch.setattr(intensity, name, size)
    stack = random_pixels(shape, dtype)
    for axis in (None, -1) if len(shape) == 4 else (None,):
        for in_range in ("image", (-1, 0.5)):
            expected = reference(stack, in_range, channel_axis=axis)
            assert_same(rescale_block(stack, in_range=in_range, per_channel=axis is not None), expected)


@pytest.mark.parametrize("dtype", ["uint16", "int16", ">u2"])
@pytest.mark.parametrize("out_range", ["dtype", "image", (0, 1), "uint8"])
@pytest.mark.parametrize(
    "parameters", [{}, {"percentiles": (5, 60)}, {"in_range": (-7, 150)}, {"in_range": (40000, 50000)}]
)
def test_16_bit_images_of_few_values(dtype, out_range, parameters):
    low = -200 if dtype == "int16" else 0
    ends = [(0, 256), (low, 1), (low, low + 250), (65300, 65536) if low == 0 else (-32768, -32600), (9, 10)]
    rng = np.random.default_rng(3)
    stack = np.stack([rng.integers(start, stop, (64, 65)) for start, stop in ends]).astype(dtype)
    assert_same(
        rescale_block(stack, out_range=out_range, **parameters), reference(stack, out_range=out_range, **parameters)
    )


@pytest.mark.parametrize("scheduler", ["synchronous", "threads"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32", "float64"])
@pytest.mark.parametrize(
    ("shape", "chunks"),
    [((9, 6, 5), (4, -1, -1)), ((9, 6, 5), (3, 4, 2)), ((9, 6, 5, 3), (2, 5, -1, 2)), ((9, 11), (4, 3))],
)
def test_lazy_like_in_memory_like_scikit_image(shape, chunks, dtype, scheduler):
    stack = random_pixels(shape, dtype)
    lazy = da.from_array(stack, chunks=chunks)
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


@pytest.mark.parametrize("dtype", [*DTYPES, "int64", "uint64"])
@pytest.mark.parametrize("out_range", OUT_RANGES)
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_declared_dtype_is_scikit_images(dtype, out_range):
    image = np.zeros((2, 2), dtype)
    expected = rescale_intensity(image, out_range=out_range).dtype
    assert output_dtype(image.dtype, out_range) == expected
    assert rescale_block(image[None], out_range=out_range).dtype == expected


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "float32"])
def test_stack_range_is_global_and_read_once(dtype):
    stack = random_pixels((11, 4, 5), dtype)
    lazy, made = counting_stack(stack, 3)
    rescaler = IntensityRescaler(in_range="stack").fit(lazy)
    assert sorted(made) == [0, 3, 6, 9]
    assert rescaler.n_passes_ == 1
    limits = (float(stack.min()), float(stack.max()))
    assert rescaler.in_range_ == limits
    assert IntensityRescaler(in_range="stack").fit(stack).in_range_ == limits
    result = rescaler.transform(lazy)
    assert len(made) == 4
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
    lazy, made = counting_stack(random_pixels((6, 4, 5)), 2)
    result = IntensityRescaler(percentiles=(2, 98)).fit(lazy).transform(lazy)
    assert made == []
    assert len(result.dask.layers) == len(lazy.dask.layers) + 1
    result.compute()
    assert sorted(made) == [0, 2, 4]


def test_image_stack(tmp_path):
    pixels = write_folder(tmp_path, 5)
    result = IntensityRescaler().fit_transform(open_stack(tmp_path))
    assert isinstance(result, da.Array)
    assert_same(result.compute(), reference(pixels))


def test_strided_and_fortran_ordered_blocks():
    stack = random_pixels((6, 9, 8, 3))
    for view in (stack[::2, ::-1, 1:], np.asfortranarray(stack), stack.transpose(0, 2, 1, 3)):
        assert_same(rescale_block(view), reference(view))
        assert_same(rescale_block(view, per_channel=True), reference(view, channel_axis=-1))


def test_input_is_left_alone():
    for dtype in ("uint8", "uint16", "float32", "float64"):
        stack = random_pixels((3, 20, 20, 3), dtype)
        before = stack.copy()
        for parameters in ({}, {"percentiles": (2, 98)}, {"in_range": "stack"}, {"out_range": (0, 1)}):
            IntensityRescaler(**parameters).fit_transform(stack)
            np.testing.assert_array_equal(stack, before)


def test_a_block_with_no_images():
    assert rescale_block(np.empty((0, 4, 5), np.uint8), out_range=(0, 1)).shape == (0, 4, 5)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("parameters", [{}, {"percentiles": (2, 98)}, {"in_range": (9, 90)}, {"per_channel": True}])
def test_memory_holds_no_float64_copy_of_a_block(dtype, parameters):
    block = random_pixels((64, 128, 128, 1), dtype)
    rescale_block(block[:1], **parameters)
    tracemalloc.start()
    rescale_block(block, **parameters)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - block.nbytes < 2.5e6  # a float64 copy is 8.4 MB


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


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_64_bit_integers_do_not_wrap(dtype):
    result = rescale_block(np.array([[0, 1, 4, 8]], dtype))
    top = np.iinfo(dtype).max
    assert (np.diff(result.astype(float)) > 0).all()
    assert top - 2048 < int(result[0, -1]) <= top


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
