"""Steps and merges: checked, several in one, and raw copies of blocks."""

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from imgstack_ml.passes.steps import Pass, checked_step, combined, concatenated, no_result, raw_blocks

BLOCKS = [np.arange(4.0).reshape(2, 2), np.arange(6.0).reshape(3, 2)]


def total(blocks, start):
    return start + sum(block.sum() for block in blocks)


def n_images(blocks, start):
    return sum(map(len, blocks))


def test_several_passes_in_one():
    one = combined(
        [Pass(total, max, 10, "mean"), Pass(n_images, lambda a, b: a - b, 5, "range"), Pass(total, min, 1, "mean")]
    )
    assert one.step(BLOCKS, 100) == [121, 5, 121]
    assert one.merge([1, 7, 3], [2, 3, 4]) == [2, 4, 3]
    assert (one.partial_bytes, one.label) == (16, "mean, range")


@pytest.mark.usefixtures("two_blas_threads")
def test_a_step_is_given_what_is_shared_and_one_thread_of_blas():
    def step(blocks, start, factor, offset):
        threads = {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}
        return total(blocks, start) * factor + offset, threads

    assert checked_step(step, BLOCKS, None, 3, [2, 1]) == (49.0, {1})


def test_raw_blocks_are_kept_as_they_are_unless_they_keep_more_alive():
    whole, large = np.arange(6).reshape(2, 3), np.arange(40).reshape(4, 10)
    for block in (whole, whole[:], whole.reshape(3, 2)):
        assert raw_blocks([block], 0)[0] is block
    for block in (large[:2], large[:, ::2], whole.T):
        (kept,) = raw_blocks([block], 0)
        np.testing.assert_array_equal(kept, block)
        assert kept.base is None
        assert kept.flags.c_contiguous


def test_merges_of_lists_and_of_nothing():
    assert concatenated([1], [2, 3]) == [1, 2, 3]
    assert no_result(None, None) is None
