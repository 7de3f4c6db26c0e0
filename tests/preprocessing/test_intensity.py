"""Rescaled blocks are scikit-image's, to the last bit, however the work is cut and whatever is looked up."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.exposure import rescale_intensity

from imgstack_ml.preprocessing import intensity
from imgstack_ml.preprocessing.intensity import output_dtype, rescale_block
from tests.lib.images import random_pixels
from tests.lib.rescaled import DTYPES, OUT_RANGES, assert_same, reference

# Large enough for a table of 8-bit values, of pairs of them (odd sizes included), and for several pieces a block.
SHAPES = [(3, 1), (5, 7), (4, 5, 3), (2, 4, 3, 2), (2, 110, 95), (2, 257, 255), (2, 96, 98, 3), (1, 160, 150, 3)]
IN_RANGES = ["image", "dtype", "uint8", "uint10", "float", (0, 1), (-5.5, 77), (3, 200), (4, 4)]


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


@pytest.mark.parametrize("dtype", [*DTYPES, "int64", "uint64"])
@pytest.mark.parametrize("out_range", OUT_RANGES)
@pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
def test_declared_dtype_is_scikit_images(dtype, out_range):
    image = np.zeros((2, 2), dtype)
    expected = rescale_intensity(image, out_range=out_range).dtype
    assert output_dtype(image.dtype, out_range) == expected
    assert rescale_block(image[None], out_range=out_range).dtype == expected


def test_strided_and_fortran_ordered_blocks():
    stack = random_pixels((6, 9, 8, 3))
    for view in (stack[::2, ::-1, 1:], np.asfortranarray(stack), stack.transpose(0, 2, 1, 3)):
        assert_same(rescale_block(view), reference(view))
        assert_same(rescale_block(view, per_channel=True), reference(view, channel_axis=-1))


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


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_64_bit_integers_do_not_wrap(dtype):
    result = rescale_block(np.array([[0, 1, 4, 8]], dtype))
    top = np.iinfo(dtype).max
    assert (np.diff(result.astype(float)) > 0).all()
    assert top - 2048 < int(result[0, -1]) <= top
