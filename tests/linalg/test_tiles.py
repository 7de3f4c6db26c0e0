"""Tiles: every value once, shifted exactly, in small buffers that do not touch the images."""

import tracemalloc
from functools import partial

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from imgstack_ml.linalg.gram import scatter
from imgstack_ml.linalg.moments import moments
from imgstack_ml.linalg.tiles import TILE_BYTES, heaviest_image, n_rows, row_tiles, tiles
from tests.lib.blocks import DOUBLE, DTYPES, SINGLE, cut, flat, images


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("work", [SINGLE, DOUBLE], ids=str)
def test_tiles_hold_every_value_less_the_shift_exactly(dtype, work):
    X = images(7, dtype=dtype)
    shift = heaviest_image([X])
    seen = np.concatenate([tile.copy() for _, _, tile in tiles(cut(X, 2, 3), shift, work, width=13)], axis=1)
    assert seen.dtype == work
    assert_array_equal(seen, flat(X) - shift)


@pytest.mark.parametrize(("lo", "hi", "width"), [(0, 60, 60), (0, 60, 7), (3, 59, 10), (10, 11, 4), (0, 60, 1000)])
def test_tiles_cover_their_range_once_and_in_order(lo, hi, width):
    X = images(4)
    edges = [(a, b) for a, b, _ in tiles([X], np.zeros(60), DOUBLE, lo, hi, width)]
    assert [a for a, _ in edges] == [lo, *(b for _, b in edges[:-1])]
    assert edges[-1][1] == hi
    assert all(b - a <= width for a, b in edges)


def test_tiles_are_scratch_and_the_images_are_not_touched():
    X = images(6)
    X.setflags(write=False)
    for _, _, tile in tiles([X], np.zeros(60), SINGLE, width=7):
        tile[...] = -1
    assert_array_equal(X, images(6))


def test_tiles_take_strided_blocks():
    X = images(6, (5, 4, 3)).transpose(0, 3, 1, 2)[:, :, ::-1]
    seen = np.concatenate([tile.copy() for _, _, tile in tiles([X], np.zeros(60), SINGLE, width=9)], axis=1)
    assert_array_equal(seen, flat(X))


@pytest.mark.parametrize("step", [moments, partial(scatter, start=0, dtype=SINGLE)])
def test_many_small_images_need_no_large_buffer(step):
    X = np.zeros((200_000, 24), np.uint8)
    tracemalloc.start()
    try:
        step([X])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 2 * TILE_BYTES


def test_row_tiles_give_every_image_once():
    X = images(1200, (3,))
    seen = np.concatenate([tile.copy() for tile in row_tiles(cut(X, 5, 700), np.full(3, 2.0), SINGLE)])
    assert_array_equal(seen, flat(X) - 2)


def test_rows_of_all_blocks_are_counted():
    assert n_rows([np.zeros((5, 5))] * 2) == 10


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_integers_that_float64_cannot_tell_apart_are_refused(dtype):
    X = np.full((4, 3), 2**53, dtype)
    for step in (moments, partial(scatter, start=0, dtype=DOUBLE)):
        step([X])
        with pytest.raises(ValueError, match=rf"up to {2**60} in magnitude.*X - X\.min\(\)"):
            step([X, np.full((2, 3), 2**60, dtype)])


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_the_advice_for_large_integers_works_when_typed(dtype):
    """Also where the first image is not the smallest: unsigned integers below it would wrap around."""
    X = np.array([[9, 4], [3, 7]], dtype) + np.array(2**60, dtype)
    with pytest.raises(ValueError, match=r"e\.g\. X - X\.min\(\)"):
        list(tiles([X], np.zeros(2), np.dtype(np.float64)))
    ((_, _, tile),) = tiles([X - X.min()], np.zeros(2), np.dtype(np.float64))
    assert_array_equal(tile, [[6, 1], [0, 4]])
