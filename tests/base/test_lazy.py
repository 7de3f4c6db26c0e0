"""Functions of blocks, mapped over NumPy and lazy stacks."""

import pickle
from functools import partial

import dask
import dask.array as da
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from imgstack_ml.base import lazy
from imgstack_ml.base.lazy import join_rows, map_images, note_source, source_of, whole_images
from imgstack_ml.errors import NonFiniteError
from tests.lib.grids import CHUNKS, LAZY, chunked
from tests.lib.images import random_pixels
from tests.lib.stacks import counted


def plus(block, offset=0, out=None):
    out = np.empty(block.shape, np.float64) if out is None else out
    return np.add(block, offset, out=out)


def sums(block, weights):
    return (block.reshape(len(block), weights.size) * weights.ravel()).sum(axis=1, dtype=float)[:, None]


def upscaled(block):
    return block.repeat(2, axis=1)[..., None]


def refuses_9(block):
    bad = np.flatnonzero(block[:, 0] == 9)
    if len(bad):
        raise NonFiniteError(int(bad[0])) from KeyError("nine")
    return block


@pytest.mark.parametrize("chunks", CHUNKS)
@pytest.mark.parametrize("shape", [(11, 12), (11, 9, 8), (11, 9, 8, 3)])
def test_results_are_those_of_the_function(shape, chunks, monkeypatch):
    monkeypatch.setattr(lazy, "_IN_MEMORY_BYTES", 3 * int(np.prod(shape[1:])))  # three images at a time
    X = random_pixels(shape)
    data = chunked(X, chunks)
    weights = np.arange(np.prod(shape[1:])).reshape(shape[1:])
    for func, fills, image_shape, arrays in (
        (plus, False, shape[1:], {"offset": weights}),
        (partial(plus, offset=2), True, shape[1:], {}),
        (sums, False, (1,), {"weights": weights}),
        (upscaled, False, (2 * shape[1], *shape[2:], 1), {}),
    ):
        expected = func(X, **arrays)
        result = map_images(func, data, image_shape=image_shape, dtype=expected.dtype, fills=fills, **arrays)
        assert isinstance(result, type(data))
        assert (result.shape, result.dtype) == (expected.shape, expected.dtype)
        assert_array_equal(result, expected)
        if isinstance(data, da.Array):
            assert result.chunks == (data.chunks[0], *((size,) for size in image_shape))
            assert (result._meta.ndim, result._meta.dtype) == (expected.ndim, expected.dtype)


@pytest.mark.parametrize("chunks", CHUNKS)
def test_errors_name_position_and_file(chunks, monkeypatch):
    monkeypatch.setattr(lazy, "_IN_MEMORY_BYTES", 20)
    data = chunked(np.arange(12.0).repeat(5).reshape(12, 5), chunks)
    call = partial(map_images, refuses_9, data, image_shape=(5,), dtype=np.dtype(float))
    with pytest.raises(NonFiniteError, match=r"^image 9 contains") as caught:
        np.asarray(call())
    assert isinstance(caught.value.__cause__, KeyError)
    if chunks != "numpy":
        files = [f"{i}.png" for i in range(12)]
        with pytest.raises(NonFiniteError, match=r"^image 9 \('9\.png'\)"):
            call(files=files).compute()
        with pytest.raises(NonFiniteError, match=r"^image 9 \('9\.png'\)"):
            call(files=files)[9:].compute()


def test_one_task_a_block_and_each_array_once_in_the_graph():
    source = counted(random_pixels((40, 9, 8)), 1)
    weights = np.ones((9, 8, 500))
    first = map_images(sums, source.data, image_shape=(1,), dtype=np.dtype(float), weights=weights[..., 0])
    (optimized,) = dask.optimize(first)
    assert len(optimized.dask) == 40 + 1
    assert not source.reads
    result = map_images(plus, source.data, image_shape=(9, 8, 500), dtype=np.dtype(float), offset=weights)
    assert len(pickle.dumps(result.dask.layers[result.name])) < weights.nbytes / 100


def test_names_follow_function_input_and_arrays():
    data = da.ones((6, 4), chunks=2)

    def name(func=plus, data=data, **arrays):
        return map_images(func, data, image_shape=(4,), dtype=np.dtype(float), **arrays).name

    names = [name(), name(upscaled), name(data=data + 1), name(offset=np.ones(4)), name(offset=np.zeros(4))]
    assert len(set(names)) == 5
    assert name(offset=np.ones(4)) == names[3]
    assert names[0].startswith("plus-")


@pytest.mark.parametrize("chunks", LAZY)
def test_blocks_of_whole_images(chunks):
    data = chunked(random_pixels((11, 9, 8)), chunks)
    whole = whole_images(data)
    assert whole.chunks == (data.chunks[0], (9,), (8,))
    assert (whole is data) == (chunks != "pixels")


@pytest.mark.parametrize("chunks", CHUNKS)
def test_rows_side_by_side(chunks):
    X = random_pixels((11, 6), "uint8")
    parts = [chunked(X, chunks), X.astype("float32") / 3, chunked(X.astype("uint16"), chunks) + 1]
    result = join_rows(parts)
    assert isinstance(result, np.ndarray if chunks == "numpy" else da.Array)
    assert result.dtype == np.asarray(result).dtype == np.float32
    assert_array_equal(result, np.hstack([np.asarray(part) for part in parts]))
    if chunks != "numpy":
        assert result.chunks == (parts[0].chunks[0], (18,))


def test_the_source_of_shifts_and_reshaping():
    data = da.ones((6, 2, 3), chunks=2)
    rows = note_source(data.reshape(6, 6), data)
    centred = note_source(rows - np.arange(6), rows, np.arange(6.0))
    twice = note_source(centred - 1, centred, np.ones(6))
    source = source_of(twice)
    assert source.data is data
    assert_array_equal(source.shift, np.arange(6) + 1)
    assert source_of(data).data is data
    assert source_of(data).shift == 0
    twice[0] = 7  # Dask changes the array in place
    assert source_of(twice).data is twice
    plain = np.ones((2, 3))
    assert note_source(plain, plain) is plain
